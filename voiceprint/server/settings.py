"""`ServerSettings`: the settings of the service, from the `VOICE_SERVER_*` environment variables."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from voiceprint.encoder.workers import cores
from voiceprint.errors import ConfigurationError
from voiceprint.validation import shown

PREFIX: Final = "VOICE_SERVER_"


class ServerSettings(BaseSettings):
    """The settings of the service. Each is read from `VOICE_SERVER_` and its name in capitals.

    host ("127.0.0.1"), port (8000): the address to listen on. Any other host than loopback needs an API key
        and TLS.
    tls_certificate, tls_key (None): PEM files of the server's certificate chain and its private key.
    behind_proxy (False): when True, a proxy in front of the service ends TLS, and its X-Forwarded-* headers
        are used. Then nothing but the proxy may reach the port.
    state ("voiceprint-server.db"): path of an SQLite file, or URL of a PostgreSQL database, for API keys,
        jobs, calls and webhooks. All workers and nodes of a deployment share it. No biometric data is in it.
    workers (1): processes that answer requests, each with its own copy of the index.
    threads (0): threads of a worker that embed and search; 0 is one a core.
    queue (64): requests of a worker that may wait for a thread; further ones are answered with 429.
    timeout_s (30): longest time for a request, from its last byte to the answer, in seconds.
    receive_s (30): longest time to receive a request, in seconds; an upload may take one second more for each
        100 kB.
    max_body_mb (64): largest body of a request in MiB.
    max_audio_s (600): longest audio of a request in seconds, up to 3,600.
    rate_limit (6000): requests a minute and key, for keys without a limit of their own; 0 for none. Each
        worker counts for itself.
    jobs_folder (None): folder of the manifests and recordings of jobs, with a folder for each gallery by its
        name. Jobs read no file outside it. Without it, there are no jobs.
    console (True): when False, there is no console at /console/.
    shutdown_s (30): time in which requests and calls may end after SIGTERM, in seconds.

    Raises `ConfigurationError` with the variable, the value and the remedy.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    state: str = Field(default="voiceprint-server.db", min_length=1)
    workers: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=0, ge=0, le=64)
    queue: int = Field(default=64, ge=0)
    timeout_s: float = Field(default=30.0, gt=0)
    receive_s: float = Field(default=30.0, gt=0)
    max_body_mb: float = Field(default=64.0, gt=0)
    max_audio_s: float = Field(default=600.0, gt=0, le=3600)
    rate_limit: int = Field(default=6000, ge=0)
    jobs_folder: Path | None = None
    console: bool = True
    shutdown_s: float = Field(default=30.0, ge=0)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + "_".join(map(str, first["loc"])).upper()
            raise ConfigurationError(f"{name} is {shown(first['input'])}: {first['msg']}.") from None
        except SettingsError as error:
            raise ConfigurationError(str(error)) from error
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigurationError(
                f"{PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY belong together: set both, or neither."
            )

    @property
    def thread_count(self) -> int:
        """Threads of a worker that embed and search."""
        return self.threads or cores()

    @property
    def max_body_bytes(self) -> int:
        """Largest body of a request in bytes."""
        return int(self.max_body_mb * 1024 * 1024)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is reached from this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return self.host == "localhost"

    def check_exposure(self, has_keys: bool) -> None:
        """Raise `ConfigurationError` for another address than loopback without keys or without TLS."""
        if self.is_loopback:
            return
        if not has_keys:
            raise ConfigurationError(
                f"{PREFIX}HOST is {self.host!r}, which other machines reach, and there is no API key: create "
                "one with `voiceprint keys create`, or listen on 127.0.0.1."
            )
        if self.tls_certificate is None and not self.behind_proxy:
            raise ConfigurationError(
                f"{PREFIX}HOST is {self.host!r}, which other machines reach, without TLS: set "
                f"{PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY, or {PREFIX}BEHIND_PROXY=true where a proxy "
                "ends TLS, or listen on 127.0.0.1."
            )
