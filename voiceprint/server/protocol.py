"""HTTP connections that must send a request in time.

uvicorn limits the idle time between two requests, and `BodyLimits` that of a body; neither ends a connection
that sends its headers byte by byte, goes on sending after an early answer, or does not read its answer.
"""

from __future__ import annotations

import asyncio
import functools
import re
import weakref
from typing import Any, Final, Protocol

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from voiceprint.server.settings import ServerSettings

LAST_ANSWERS_S: Final = 5
"""Seconds for the last answers of calls that end at the end of `VOICE_SERVER_SHUTDOWN_S`."""

_CALLS: Final = re.compile("/v1/galleries/[^/]+/calls/")


class TimedProtocol(H11Protocol):
    """uvicorn's protocol on h11, with the limit `VOICE_SERVER_RECEIVE_S`."""

    _timer: asyncio.TimerHandle | None = None  # of a request
    _writing: asyncio.TimerHandle | None = None  # of an answer that waits for the peer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first request."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._start()  # unless it runs: each byte would begin it anew
        else:
            self._stop()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection to the protocol of websockets."""
        self._stop()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        self._written()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection after its answer."""
        super().shutdown()
        _end_lasting(self.loop)

    def pause_writing(self) -> None:
        """Start the time for a peer who does not read the answer."""
        super().pause_writing()
        self._writing = self._writing or self.loop.call_later(_receive_s(), self._cut)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._written()

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_receive_s(), self._cut)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _cut(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.abort()


class Lasting(Protocol):
    """Work that goes on for some time after SIGTERM. loop: its event loop, once it has started."""

    loop: asyncio.AbstractEventLoop | None

    def end_within(self, seconds: float) -> None:
        """Begin nothing new, and end the rest after some seconds. May be repeated."""


LASTING: Final = weakref.WeakSet[Lasting]()
"""The live calls of the services of this process."""


class LastingCalls(WebSocketsSansIOProtocol):
    """uvicorn's protocol of websockets, under which live calls go on after SIGTERM.

    uvicorn would close them at once. Calls have `VOICE_SERVER_SHUTDOWN_S`; those that are left then get the
    answers to their audio so far.
    """

    def shutdown(self) -> None:
        """End the connection, unless it is that of a call."""
        if not (self.handshake_complete and _CALLS.match(self.scope["path"])):
            super().shutdown()
        _end_lasting(self.loop)


def _end_lasting(loop: asyncio.AbstractEventLoop) -> None:
    """Begin no new calls, and give the others `VOICE_SERVER_SHUTDOWN_S`; called at SIGTERM."""
    for lasting in LASTING:
        if lasting.loop is loop:
            lasting.end_within(ServerSettings().shutdown_s)


@functools.cache
def _receive_s() -> float:
    # Of the environment: uvicorn makes the protocol by itself, in each worker process.
    return ServerSettings().receive_s


def uvicorn_options(settings: ServerSettings) -> dict[str, Any]:
    """The options of `uvicorn.Config` that `voiceprint serve` takes: limits, and no log of paths."""
    return {
        "http": TimedProtocol,
        "ws": LastingCalls,
        "ws_max_size": 1024 * 1024,  # of a message; a frame of 20 ms has some hundred bytes
        "ws_per_message_deflate": False,  # audio does not get smaller, and each frame costs time
        "proxy_headers": settings.behind_proxy,
        "forwarded_allow_ips": "*" if settings.behind_proxy else None,
        "server_header": False,
        "access_log": False,  # paths hold ids of callers; /metrics counts, the audit log says who did what
        "log_level": "warning",  # the messages below it hold the URLs of websockets, and so perhaps a key
        # A worker that is starting on a busy machine, or builds its index, is not one that hangs.
        "timeout_worker_healthcheck": 120,
        "timeout_graceful_shutdown": int(settings.shutdown_s) + LAST_ANSWERS_S,
        "h11_max_incomplete_event_size": 64 * 1024,  # of the headers
    }
