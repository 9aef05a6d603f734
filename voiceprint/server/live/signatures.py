"""The signatures by which platforms prove that a connection is theirs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from typing import Final

_COMPONENT: Final = re.compile(r'"([^"]{1,128})"')
_PARAMETER: Final = re.compile(r';([a-z*][a-z0-9_*.-]*)=("(?:[^"\\]|\\.)*"|-?\d{1,15})')
_INPUT: Final = re.compile(r'\s*([a-z*][a-z0-9_*.-]*)=\((("[^"]*"\s*)*)\)((?:;[^=]+=(?:"[^"]*"|-?\d+))*)\s*')
_REQUIRED: Final = frozenset(
    {
        "@request-target",
        "@authority",
        "audiohook-organization-id",
        "audiohook-session-id",
        "audiohook-correlation-id",
        "x-api-key",
    }
)
MAX_AGE_S: Final = 10
"""Seconds after which a signature of an AudioHook connection is old, as Genesys recommends. The time between
the signing and the arrival; doubled, a stolen request can be repeated for longer."""
_CLOCK_SKEW_S: Final = 3
_MIN_NONCE: Final = 22  # characters: 128 bits in base64


def is_signed_by_twilio(signature: str | None, urls: Iterable[str], token: str) -> bool:
    """Whether `X-Twilio-Signature` is that of one of the URLs.

    urls: the URL as in TwiML, with wss://. A slash is added to a copy of each, as Twilio signs some so.
    token: the auth token of the Twilio account.

    Source: https://www.twilio.com/docs/usage/security
    """
    given = (signature or "").encode("utf-8", "replace")
    is_equal = False
    for url in urls:
        for variant in (url, f"{url}/"):
            digest = hmac.new(token.encode(), variant.encode(), hashlib.sha1).digest()
            is_equal |= hmac.compare_digest(base64.b64encode(digest), given)
    return is_equal


def is_signed_by_audiohook(
    headers: Mapping[str, str], request_target: str, secret: bytes, *, now_s: float | None = None
) -> bool:
    """Whether the request to open a websocket bears a valid signature of AudioHook.

    headers: of the request, with lower-case names. request_target: its path and query. secret: the client
    secret of the integration. now_s: seconds since 1970; None is the clock's.

    The signature must cover `_REQUIRED`, name the key of `X-API-KEY`, have a nonce, and be `MAX_AGE_S` old at
    most. Source: https://developer.genesys.cloud/devapps/audiohook/security
    """
    found = _INPUT.fullmatch(headers.get("signature-input", ""))
    if found is None or len(found[0]) > 4096:
        return False
    label, inner, parameters = found[1], found[2], found[4]
    components = _COMPONENT.findall(inner)
    values = dict(_PARAMETER.findall(parameters))
    plain = {name: value.strip('"') for name, value in values.items()}
    if not _REQUIRED.issubset(components) or len(set(components)) != len(components):
        return False
    if plain.get("alg", "hmac-sha256") != "hmac-sha256" or plain.get("keyid") != headers.get("x-api-key"):
        return False
    if len(plain.get("nonce", "")) < _MIN_NONCE or not _is_current(plain, now_s):
        return False
    lines = []
    for name in components:
        if name.startswith("@"):
            value = {"@request-target": request_target, "@authority": headers.get("host")}.get(name)
        else:
            value = headers.get(name)
        if value is None:
            return False
        lines.append(f'"{name}": {value.strip()}')
    names = " ".join(f'"{name}"' for name in components)
    lines.append(f'"@signature-params": ({names}){parameters}')
    expected = hmac.new(secret, "\n".join(lines).encode(), hashlib.sha256).digest()
    return hmac.compare_digest(expected, _signature(headers.get("signature", ""), label))


def _is_current(parameters: Mapping[str, str], now_s: float | None) -> bool:
    now = time.time() if now_s is None else now_s
    created, expires = parameters.get("created", ""), parameters.get("expires")
    if not created.isdigit() or (expires is not None and not expires.isdigit()):
        return False
    if expires is not None and int(expires) < now:
        return False
    return int(created) - _CLOCK_SKEW_S <= now <= int(created) + MAX_AGE_S


def _signature(header: str, label: str) -> bytes:
    """The bytes of the signature of this label; empty where there is none."""
    start = f"{label}=:"
    if not header.startswith(start) or not header.endswith(":"):
        return b""
    try:
        return base64.b64decode(header[len(start) : -1], validate=True)
    except (binascii.Error, ValueError):  # not base64: as good as no signature
        return b""
