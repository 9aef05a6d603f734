"""Sending and repetition of calls, for both clients."""

from __future__ import annotations

import random
import re
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, TypeVar

import httpx
import orjson
from pydantic import ValidationError

from voiceprint.client.calls import Call, part
from voiceprint.client.faults import error_of, retry_after_s
from voiceprint.errors import (
    CallerNotFoundError,
    InvalidArgumentError,
    ServiceError,
    ServiceUnavailableError,
    VoiceprintError,
)
from voiceprint.validation import is_integer, is_number, shown

T = TypeVar("T")

_CONNECT_S: Final = 5.0
"""Longest wait for a connection, so that an address that does not answer leaves time for another try."""

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0
"""Waits before repetitions double from the first to the longest, each shortened by a random part, so that
clients that failed together do not return together. Longer waits would keep the caller on the line."""

KEEP_ALIVE_S: Final = 4.0
"""Idle time of a connection before it is closed: shorter than the 5 s of the service, which would otherwise
close a connection in the moment of its use."""

_REPEATED: Final = frozenset({429, 502, 503, 504})
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


_correlation_id: ContextVar[str | None] = ContextVar("voiceprint_client_correlation_id", default=None)
_IS_CORRELATION_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII).fullmatch


@contextmanager
def correlated(correlation_id: str) -> Iterator[None]:
    """Give the requests of this thread or task an id of another system, such as of a telephone call.

    correlation_id: 1 to 128 printable ASCII characters without spaces. The events in the audit log of the
    service have it.
    """
    if not isinstance(correlation_id, str) or not _IS_CORRELATION_ID(correlation_id):
        raise InvalidArgumentError(
            f"correlation_id is {shown(correlation_id)}: give 1 to 128 printable ASCII characters, without "
            "spaces."
        )
    token = _correlation_id.set(correlation_id)
    try:
        yield
    finally:
        _correlation_id.reset(token)


class Target(NamedTuple):
    """A gallery of a service, and how to ask it.

    base: URL of the service without a slash at its end. timeout_s: longest time for a call with its
    repetitions. retries: most repetitions. embeddings: whether to ask for the embeddings of voiceprints.
    """

    base: str
    gallery: str
    timeout_s: float
    retries: int
    embeddings: bool

    @classmethod
    def checked(cls, url: Any, gallery: Any, timeout_s: Any, retries: Any, *, embeddings: bool) -> Target:
        """The target of a user's arguments. Raises `InvalidArgumentError`."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise InvalidArgumentError(f"url is {shown(url)}, which is no URL: {error}.") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query:
            raise InvalidArgumentError(
                f"url is {shown(url)}: give the address of the service, such as 'https://voice.example'. The "
                "key is an argument of its own."
            )
        if not is_number(timeout_s) or not 0 < timeout_s < float("inf"):
            raise InvalidArgumentError(f"timeout_s is {shown(timeout_s)}: give seconds, above 0.")
        if not is_integer(retries) or retries < 0:
            raise InvalidArgumentError(f"retries is {shown(retries)}: a whole number from 0 is allowed.")
        target = cls(str(parsed).rstrip("/"), "", float(timeout_s), int(retries), embeddings)
        return target.with_gallery(gallery)

    def with_gallery(self, gallery: Any) -> Target:
        """The same for another gallery. Raises `InvalidArgumentError`."""
        if not isinstance(gallery, str) or not gallery:
            raise InvalidArgumentError(f"gallery is {shown(gallery)}: give the name of a gallery.")
        return self._replace(gallery=gallery)


def headers_of(key: object) -> dict[str, str]:
    """The headers of all requests. Raises `InvalidArgumentError` for text that is no key."""
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidArgumentError(  # without the value, which may be half of a key
            "The key is no API key: give the last line that `voiceprint keys create` prints."
        )
    return {"Authorization": f"Bearer {key}", "Accept": "application/json"}


class Sending:
    """A call while it is sent: the request of each try, and what follows from its outcome."""

    def __init__(self, call: Call[T], target: Target) -> None:
        self._call, self._target = call, target
        self._end = time.monotonic() + target.timeout_s
        self._tries = 0
        # One for all tries: the service answers a repetition with the answer of the first.
        self._headers = {"Idempotency-Key": secrets.token_hex(16)} if call.changes else {}
        correlation_id = _correlation_id.get()
        if correlation_id is not None:
            self._headers["X-Request-Id"] = correlation_id

    def check_open(self, http: httpx.Client | httpx.AsyncClient) -> None:
        """Raise `ServiceUnavailableError` for a client that was closed."""
        if http.is_closed:
            raise ServiceUnavailableError("This client is closed: make another.")

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request of the next try."""
        call, target = self._call, self._target
        self._tries += 1
        path = call.path
        if not path.startswith("/"):
            path = f"/v1/galleries/{part(target.gallery)}/{path}"
        query = dict(call.query)
        if call.has_voiceprints and target.embeddings:
            query["embeddings"] = "true"
        body = call.body()
        left = max(self._end - time.monotonic(), 0.001)
        return http.build_request(
            call.method,
            target.base + path,
            params=query or None,
            timeout=httpx.Timeout(left, connect=min(left, _CONNECT_S)),
            **{**body, "headers": {**self._headers, **body.get("headers", {})}},
        )

    def after_error(self, error: httpx.TransportError) -> float:
        """The seconds to wait before the next try. Raises `ServiceUnavailableError` where none follows."""
        if _is_of_certificate(error):  # which no repetition changes
            raise ServiceUnavailableError(
                f"The certificate of {self._target.base} is not trusted ({error}). If it is self-signed or "
                "of an authority of your own, give the client its file: "
                "verify=ssl.create_default_context(cafile=FILE)."
            ) from error
        wait_s = self._wait_s(None)
        if wait_s is not None and not isinstance(
            error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
        ):
            return wait_s
        place, seconds = self._target.base, self._target.timeout_s
        if isinstance(error, httpx.PoolTimeout):
            fault = f"All connections to {place} are in use: give the client more `connections`"
        elif isinstance(error, httpx.TimeoutException):
            fault = f"{place} gave no answer within {seconds:g} s"
        else:
            fault = f"{place} cannot be reached, or ended the connection ({error or type(error).__name__})"
        if self._call.changes and not isinstance(error, _NOT_SENT):
            fault += "; the outcome of the change is unknown"
        raise ServiceUnavailableError(f"{fault}. Tries: {self._tries}.") from error

    def after_answer(self, response: httpx.Response) -> float | None:
        """The seconds to wait before the next try, or None where the answer counts; see `read`."""
        wait_s = retry_after_s(response)
        status = response.status_code
        if status in self._call.statuses:
            return None
        # 409 with a time to wait: the first try of the same change is still under way.
        return self._wait_s(wait_s) if status in _REPEATED or (status == 409 and wait_s) else None

    def read(self, response: httpx.Response) -> Any:
        """The result of the answer. Raises the error of its problem document."""
        if response.status_code not in self._call.statuses:
            error = error_of(response)
            if self._call.none_if_missing and isinstance(error, CallerNotFoundError):
                return None
            raise error
        try:
            return self._call.read(orjson.loads(response.content) if response.content else None)
        except (KeyError, TypeError, ValueError, ValidationError, VoiceprintError) as error:
            # Without the cause, whose message may hold values of the answer.
            raise ServiceError(
                f"The answer of {self._target.base} to {self._call.method} is not understood "
                f"({type(error).__name__}): is it a voiceprint service, of the version of this client?",
                status=response.status_code,
                request_id=response.headers.get("x-request-id"),
            ) from None

    def _wait_s(self, wanted_s: float | None) -> float | None:
        """The wait before the next try; None where there is neither a repetition nor time left for it."""
        if self._tries > self._target.retries:
            return None
        longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (self._tries - 1))
        # A jitter also on top of the service's wish, which it gives to all clients alike.
        wait_s = (wanted_s or 0.0) + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return wait_s if time.monotonic() + wait_s < self._end else None


def _is_of_certificate(error: BaseException | None) -> bool:
    """Whether the check of the server's certificate caused the error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
