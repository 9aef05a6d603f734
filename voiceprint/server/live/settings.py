"""`LiveSettings`: the settings of live calls, from `VOICE_SERVER_*` environment variables too."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from voiceprint.errors import ConfigurationError
from voiceprint.server.settings import PREFIX


class LiveSettings(BaseSettings):
    """The settings of live calls. Each is read from `VOICE_SERVER_` and its name in capitals.

    Maps are JSON, with the name of a gallery as key.

    max_calls (200): calls of a worker at the same time; further ones are refused. Each takes some 10 MB, and
        half a percent of a core.
    call_max_s (3600): longest call in seconds; then it ends with its answer.
    call_silence_s (30): seconds without any message after which a connection ends.
    call_keep_s (120): seconds after its end in which a call can be enrolled; until then, its audio is in
        memory.
    call_record_s (86400): seconds after its end in which a call is in the list of calls.
    public_url (None): URL by which platforms reach the service, such as "https://voice.example.com", for
        their signatures; None takes the header Host.
    twilio_tokens ({}): auth token of the Twilio account whose streams a gallery accepts.
    audiohook_secrets ({}): client secret, in base64, of the AudioHook integration. A gallery with a secret
        accepts signed connections alone, which need an API key besides.
    audiosocket_port (None): TCP port for Asterisk's AudioSocket; None for none. audiosocket_host
        ("127.0.0.1"): the address to listen on. audiosocket_peers (["127.0.0.0/8", "::1/128"]): networks that
        may connect, as the protocol has no keys. audiosocket_gallery (None): gallery of calls that were not
        announced; None refuses them.
    webhook_urls ({}): URL to which the answers of a gallery go. webhook_secrets ({}): the secret that signs
        them, "whsec_" and base64 of 24 to 64 bytes.

    Raises `ConfigurationError` with the variable and the remedy, and never with a secret.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    max_calls: int = Field(default=200, ge=1)
    call_max_s: float = Field(default=3600.0, gt=0)
    call_silence_s: float = Field(default=30.0, gt=0)
    call_keep_s: float = Field(default=120.0, ge=0)
    call_record_s: float = Field(default=86_400.0, ge=0)
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/?#]+/?$")
    twilio_tokens: dict[str, SecretStr] = {}
    audiohook_secrets: dict[str, SecretStr] = {}
    audiosocket_port: int | None = Field(default=None, ge=0, le=65535)
    audiosocket_host: str = "127.0.0.1"
    audiosocket_peers: list[str] = ["127.0.0.0/8", "::1/128"]
    audiosocket_gallery: str | None = None
    webhook_urls: dict[str, str] = {}
    webhook_secrets: dict[str, SecretStr] = {}

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = f"{PREFIX}{first['loc'][0]}".upper() if first["loc"] else PREFIX
            raise ConfigurationError(f"{name} is not valid: {first['msg']}.") from None
        except SettingsError as error:
            raise ConfigurationError(str(error)) from None
        lacking = sorted(self.webhook_urls.keys() - self.webhook_secrets.keys())
        if lacking:
            raise ConfigurationError(
                f"{PREFIX}WEBHOOK_URLS has {', '.join(lacking)}, and {PREFIX}WEBHOOK_SECRETS has not: every "
                "delivery is signed, so give each gallery a secret."
            )

    @field_validator("audiosocket_peers")
    @classmethod
    def _networks(cls, peers: list[str]) -> list[str]:
        for peer in peers:
            ipaddress.ip_network(peer)  # its error names the value
        return peers

    @field_validator("webhook_urls")
    @classmethod
    def _urls(cls, urls: dict[str, str]) -> dict[str, str]:
        for gallery, url in urls.items():
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"the URL of {gallery} starts with neither https:// nor http://")
        return urls

    @field_validator("audiohook_secrets")
    @classmethod
    def _secrets(cls, secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for gallery, secret in secrets.items():
            _decoded(secret.get_secret_value(), 1, f"the secret of {gallery}")
        return secrets

    @field_validator("webhook_secrets")
    @classmethod
    def _signing(cls, secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for gallery, secret in secrets.items():
            text = secret.get_secret_value()
            if not text.startswith("whsec_"):
                raise ValueError(f"the secret of {gallery} does not start with whsec_")
            _decoded(text[6:], 24, f"the secret of {gallery}")
        return secrets

    def twilio_token(self, gallery: str) -> str | None:
        """The auth token of a gallery, or None."""
        token = self.twilio_tokens.get(gallery)
        return None if token is None else token.get_secret_value()

    def audiohook_secret(self, gallery: str) -> bytes | None:
        """The client secret of a gallery, or None."""
        secret = self.audiohook_secrets.get(gallery)
        return None if secret is None else base64.b64decode(secret.get_secret_value())

    def webhook_secret(self, gallery: str) -> bytes:
        """The bytes of the secret that signs the answers of a gallery with a webhook."""
        return base64.b64decode(self.webhook_secrets[gallery].get_secret_value()[6:])

    def may_connect(self, address: str) -> bool:
        """Whether an AudioSocket peer may connect."""
        peer = ipaddress.ip_address(address)
        mapped = getattr(peer, "ipv4_mapped", None) or peer
        return any(mapped in ipaddress.ip_network(network) for network in self.audiosocket_peers)


def _decoded(text: str, least: int, name: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"{name} is not base64") from None
    if not least <= len(value) <= 64:
        raise ValueError(f"{name} has {len(value)} bytes: {least} to 64 are allowed")
    return value
