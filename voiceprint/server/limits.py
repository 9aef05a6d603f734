"""ASGI middleware of every request: its id, its paths as they were sent, and the limits of its body."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceprint.server.metrics import Metrics
from voiceprint.server.problems import problem_response
from voiceprint.server.settings import ServerSettings

_BYTES_PER_EXTRA_SECOND: Final = 100_000
"""Slowest upload, after `receive_s`: a telephone line's audio as 16-bit PCM is 16,000 bytes a second, so an
upload at six times real time passes, and one that sends a byte now and then ends."""

_DRAINED_S: Final = 2.0
"""Seconds in which the rest of a refused body is read and dropped. Doubled, a client that does not stop holds
its connection for twice as long."""

_MAX_JSON_BYTES: Final = 4 * 2**20
"""Largest JSON body: 1 MB of metadata, whose letters JSON may escape, and an embedding. The event loop parses
it, in up to 0.2 s. Doubled, all other requests wait twice as long for such a body."""

_CORRELATION_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


class RequestIds:
    """Gives each request an id, that of its header X-Request-Id if it has one, and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; websockets get an id too."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = sent if _CORRELATION_ID.fullmatch(sent) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["type"] == "websocket":
            # uvicorn logs the query of a websocket, which may hold a key: the routes read it from the state.
            query = scope["query_string"].decode("latin-1")
            scope["state"] |= {"raw_query": query, "query": dict(parse_qsl(query))}
            scope["query_string"] = b""
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode("ascii")),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            # By the pattern of the route: a path holds ids of callers.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.latency.labels(method, route).observe(time.perf_counter() - begun)


_METHODS: Final = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


class RawPaths:
    """Leaves the path of /v1 percent-encoded, so that an id with a slash is one part of it.

    Routes decode their parameters, see `access.caller_id_in_path`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        raw = scope.get("raw_path") or b""
        if scope["type"] in ("http", "websocket") and raw.startswith(b"/v1/"):
            scope["path"] = raw.partition(b"?")[0].decode("latin-1")
        await self._app(scope, receive, send)


class BodyLimits:
    """Refuses bodies that are too large (413) or arrive too slowly (408)."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._limit, self._receive_s = app, settings.max_body_bytes, settings.receive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_json = b"json" in headers.get(b"content-type", b"").lower()  # also application/NAME+json
        limit = min(self._limit, _MAX_JSON_BYTES) if is_json else self._limit
        claimed = headers.get(b"content-length", b"")
        if claimed.isdigit() and int(claimed) > limit:
            await self._refuse(scope, receive, send, *_too_large(limit))
            return
        begun, received, is_complete, is_answered = time.monotonic(), 0, False, False

        async def receiving() -> Message:
            nonlocal received, is_complete
            if is_complete:
                return await receive()  # the end of the connection, for which an answer in progress waits
            left = begun + self._receive_s + received / _BYTES_PER_EXTRA_SECOND - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except asyncio.TimeoutError:
                raise _BodyError(
                    408,
                    f"The body of the request did not arrive within {self._receive_s:g} s: send it faster.",
                ) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                is_complete = not message.get("more_body", False)
                if received > limit:
                    raise _BodyError(*_too_large(limit))
            return message

        async def sending(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except _BodyError as error:
            if is_answered:
                raise
            await self._refuse(scope, receive, send, error.status, str(error))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
        error = "RequestTooLargeError" if status == 413 else "RequestTimeoutError"
        response = problem_response(
            Request(scope, receive), status, error, detail, headers={"Connection": "close"}
        )
        await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        # A connection that is closed with bytes unread is reset, and the client may lose the answer.
        with contextlib.suppress(asyncio.TimeoutError):  # of a client that does not stop
            await asyncio.wait_for(_drain(receive), _DRAINED_S)
        await send({"type": "http.response.body", "body": b""})


def _too_large(limit: int) -> tuple[int, str]:
    return 413, f"The body is larger than {limit / 2**20:g} MiB: send less audio, or a compressed file."


async def _drain(receive: Receive) -> None:
    """Read the rest of a body, and drop it."""
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


class _BodyError(BaseException):
    """A fault of a body. Not an `Exception`: whatever reads the body must not take it for one of its own."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
