"""`run`: the service as processes, by uvicorn."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import multiprocess

from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError
from voiceprint.galleries import Galleries
from voiceprint.privacy.encryption.opening import configured_store
from voiceprint.server.app import CONFIG_VARIABLE, GALLERIES_VARIABLE
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.metrics import FOLDER_VARIABLE
from voiceprint.server.protocol import uvicorn_options
from voiceprint.server.service import DEFAULT_GALLERY
from voiceprint.server.settings import PREFIX, ServerSettings

_TRIED_EVERY_S: Final = 0.1
"""Seconds between two tries to connect, while the service starts. Doubled, its first line comes later."""


def run(
    given: dict[str, Any], config: str | None, galleries: list[str] | None, say: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    given: settings in place of those of the environment. config: file of the galleries; None for the
    configured store. galleries: names to serve; None for all. say: takes lines for the person who started it.
    """
    settings = ServerSettings(**given)
    LiveSettings()
    for name in _unknown_variables():
        say(f"Warning: {name} is no setting, and has no effect: see docs/server.md and docs/live-calls.md.")
    # All here, once, and not as tracebacks of the workers.
    if config is None:
        with configured_store(VoiceFingerprintConfig()) as store:
            served = f"Gallery {DEFAULT_GALLERY}: {store.location}"
    else:
        with Galleries.open(config, only=galleries) as opened:
            served = f"Galleries of {config}: {', '.join(opened)}"
    database = ServerDatabase(settings.state)
    database.check()
    has_keys = ApiKeys(database).has_keys()
    database.close()
    settings.check_exposure(has_keys)
    _check_certificate(settings)
    port = free_port(settings.host, settings.port)
    if not has_keys:
        say("There is no API key yet, which every request needs: `voiceprint keys create --role admin`.")
    # For the workers, which are new processes.
    for name, value in given.items():
        os.environ[f"{PREFIX}{name.upper()}"] = str(value)
    if config is not None:
        os.environ[CONFIG_VARIABLE] = config
    if galleries is not None:
        os.environ[GALLERIES_VARIABLE] = ",".join(galleries)
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{scheme}://{host}:{port}"
    console = f", with the console at {url}/console/" if settings.console else ""

    def say_it_serves() -> None:
        say(f"Serving on {url}{console}. Ctrl-C ends it, once all requests are answered.")

    say(f"{served}. Keys: {database.location}.")
    with _metrics_folder(settings.workers), _when_listening(settings.host, port, say_it_serves):
        _serve(settings, port)


def _unknown_variables() -> list[str]:
    fields = [*ServerSettings.model_fields, *LiveSettings.model_fields]
    known = {GALLERIES_VARIABLE, *(f"{PREFIX}{name.upper()}" for name in fields)}
    return sorted(
        name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises `ConfigurationError` if the service cannot listen on it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} of {host} cannot be used: {error.strerror}. Give another one by --port or "
                f"{PREFIX}PORT."
            ) from error
        return int(probe.getsockname()[1])


def _check_certificate(settings: ServerSettings) -> None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # SSLError is one, too
        raise ConfigurationError(
            f"{PREFIX}TLS_CERTIFICATE {os.fspath(settings.tls_certificate)!r} and {PREFIX}TLS_KEY "
            f"{os.fspath(settings.tls_key)!r} cannot be used ({error.strerror or error}): give the PEM files "
            "of the certificate chain and of its key."
        ) from error


@contextmanager
def _metrics_folder(workers: int) -> Iterator[None]:
    """The folder in which several workers write their metrics, unless the environment names one."""
    if workers == 1 or FOLDER_VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="voiceprint-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]


@contextmanager
def _when_listening(host: str, port: int, work: Callable[[], None]) -> Iterator[None]:
    """Within it, `work` is called once connections to this address are accepted."""
    # Of all addresses of this machine, the one that reaches this process too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    ended = threading.Event()

    def wait() -> None:
        while not ended.wait(_TRIED_EVERY_S):
            try:
                socket.create_connection((host, port), _TRIED_EVERY_S).close()
            except OSError:  # no worker has loaded its galleries yet
                continue
            work()
            return

    thread = threading.Thread(target=wait, name="voiceprint-listening", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Worker(multiprocess.Process):
    """A worker process, whose death ends the supervisor's wait for its sign of life at once.

    The supervisor of uvicorn holds the worker's end of their pipe too. So it waits for a worker that is
    killed while it is asked until `timeout_worker_healthcheck`, and replaces no dead worker meanwhile.
    """

    def start(self) -> None:
        """Start the process, which has its own copy of its end."""
        super().start()
        self.child_conn.close()


def _serve(settings: ServerSettings, port: int) -> None:
    multiprocess.Process = _Worker  # type: ignore[misc]  # uvicorn takes no other class
    uvicorn.run(
        "voiceprint.server.app:application",
        factory=True,
        host=settings.host,
        port=port,
        workers=settings.workers,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        **uvicorn_options(settings),
    )
