"""`Connection`: one call on one socket, whatever its format and its kind of socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from voiceprint.errors import InvalidArgumentError, VoiceprintError
from voiceprint.server.live.conversation import Audio, Conversation, Ended, Message, Reply, Started
from voiceprint.server.live.session import EndedBy, LiveCall, answer_of
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.problems import ProblemError

logger = logging.getLogger(__name__)

FIRST_S: Final = 10.0
"""Seconds in which a connection must begin a call, as calls alone count for `max_calls`; platforms send the
messages before the audio at once, and end a probe at once."""
AHEAD_S: Final = 30.0
"""Seconds of waiting audio from which a peer who sends faster than real time is no longer read. Of a peer in
real time, all is taken. Doubled, a recording that is played at once takes twice the memory."""
STORED_S: Final = 2.0  # for the record of a call before its connection closes, should the database be slow
SEND_S: Final = 5.0  # for a message to a peer, who may not read
_EVERY_S: Final = 1.0  # between running answers that have not changed
_CODES: Final[dict[EndedBy, int]] = {  # RFC 6455, section 7.4.1
    "protocol": 1008,
    "silence": 1008,
    "duration": 1000,
    "request": 1000,
    "shutdown": 1001,
    "busy": 1013,
    "error": 1011,
}


class Transport(Protocol):
    """A socket that carries messages."""

    async def receive(self) -> Message | None:
        """The next message; None at the end of the connection."""

    async def send(self, message: Message) -> None:
        """Send a message. A connection that has ended is no error."""

    async def close(self, code: int, reason: str) -> None:
        """End the connection. code, reason: of the close frame of a websocket. May be repeated."""


Open = Callable[[Started, "Connection"], Awaitable[LiveCall]]


class Connection:
    """One call on one socket. Belongs to the event loop.

    open_call: makes the call once the conversation has `Started`. left: called when the call has left the
    socket. redacted: takes a gallery and fields with an answer, in a thread, see `LiveCalls.redacted`.
    sees_metadata: whether answers show the metadata of callers. key_id: of the API key that opened it.
    """

    def __init__(
        self,
        transport: Transport,
        conversation: Conversation,
        settings: LiveSettings,
        open_call: Open,
        left: Callable[[LiveCall], None],
        redacted: Callable[[str, dict[str, Any]], dict[str, Any]],
        *,
        sees_metadata: bool = False,
        key_id: str | None = None,
    ) -> None:
        self.call: LiveCall | None = None
        self.key_id = key_id
        self._redacted = redacted
        self._transport, self._conversation, self._settings = transport, conversation, settings
        self._open_call, self._left, self._sees_metadata = open_call, left, sees_metadata
        loop = asyncio.get_running_loop()
        self._loop, self._begun = loop, loop.time()
        self._heard = self._begun
        self._stopped: asyncio.Future[tuple[EndedBy, str]] = loop.create_future()
        self._longest: asyncio.TimerHandle | None = None  # from the begin of the call
        self._shown: tuple[Any, ...] | None = None
        self._shown_at = 0.0
        self._sends: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()  # messages go out in the order of their answers

    def stop(self, ended_by: EndedBy, reason: str) -> None:
        """End the call and the connection. reason: for the peer. May be repeated."""
        if not self._stopped.done():
            self._stopped.set_result((ended_by, reason))

    def answered(self) -> None:
        """Send the running answer of the call, if it has changed, or a second has passed."""
        call = self.call
        if call is None or call.state != "live":
            return  # the final answer is among the last messages
        shown = _facts(call)
        if shown == self._shown and self._loop.time() < self._shown_at + _EVERY_S:
            return
        if self._sends or not self._conversation.takes_answers:
            return  # one at a time: the latest follows at the end of that
        self._shown, self._shown_at = shown, self._loop.time()
        task = self._loop.create_task(self._send_running(call))
        self._sends.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if self.call is not None and _facts(self.call) != self._shown and not task.cancelled():
            self.answered()

    async def _send_running(self, call: LiveCall) -> None:
        answer = await self._answer(call)
        if answer is not None and call.state == "live":
            await self._send(self._conversation.running(answer))

    async def run(self) -> None:
        """Hold the conversation until either side ends it."""
        listening = self._loop.create_task(self._listen())
        watching = self._watch()
        ended_by: EndedBy = "shutdown"
        reason = ""
        try:
            await asyncio.wait({listening, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.done():
                ended_by, reason = self._stopped.result()
            else:
                ended_by, reason = listening.result()
        finally:
            # Also when this task is cancelled: the call ends with its connection in any case.
            watching.cancel()
            listening.cancel()
            if self._longest is not None:
                self._longest.cancel()  # else the call would stay in memory until then
            if self.call is not None:
                self.call.end(ended_by)
                self._left(self.call)
        try:
            await self._say_goodbye(ended_by, reason)
        finally:
            await self._transport.close(_CODES.get(ended_by, 1000), reason)

    async def _say_goodbye(self, ended_by: EndedBy, reason: str) -> None:
        if self.call is not None:
            await self.call.finished()
        if ended_by == "connection":
            return
        messages: list[Message] = []
        if reason and ended_by != "platform":
            messages += self._conversation.refused(reason)
        final = None if self.call is None else await self._answer(self.call)
        await self._send(messages + self._conversation.ended(final))
        if self.call is not None:
            # Who looks for the answer when the connection has closed finds it at any worker.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.call.stored.wait(), STORED_S)

    async def _answer(self, call: LiveCall) -> dict[str, Any] | None:
        """The answer without callers who are gone by now, as a decision stays; None if that is not known."""
        fields = {"answer": answer_of(call, metadata=self._sees_metadata)}
        state = call.state
        try:
            fields = await asyncio.to_thread(self._redacted, call.gallery, fields)
        except (
            VoiceprintError
        ) as error:  # of the store: rather no answer than one that names a deleted caller
            logger.warning("%s: an answer of the call %s is not sent.", type(error).__name__, call.call_id)
            return None
        return {"call_id": call.call_id, "state": state, **fields["answer"]}

    async def _listen(self) -> tuple[EndedBy, str]:
        """Take messages until the platform ends the call; returns the cause of the end."""
        try:
            while (message := await self._transport.receive()) is not None:
                self._heard = self._loop.time()
                for event in self._conversation.receive(message):
                    if isinstance(event, Audio):
                        await self._take(event.data)
                    elif isinstance(event, Reply):
                        await self._send([event.message])
                    elif isinstance(event, Started):
                        self.call = await self._open_call(event, self)
                        self._longest = self._loop.call_later(
                            self._settings.call_max_s, self.stop, "duration", "The longest call is reached."
                        )
                    elif isinstance(event, Ended):
                        return "platform", ""
        except InvalidArgumentError as error:
            logger.warning("A %s connection is ended: %s", self._conversation.source, error)
            return "protocol", str(error)
        except ProblemError as error:
            logger.warning("A %s connection is refused: %s", self._conversation.source, error)
            return ("busy" if error.status == 503 else "protocol"), str(error)
        except VoiceprintError as error:  # its message may name places of the server
            logger.error("A %s connection failed: %s", self._conversation.source, error)  # noqa: TRY400
            return "error", f"{type(error).__name__}: the server's log has the error."
        return "connection", ""

    async def _take(self, data: bytes) -> None:
        if self.call is None:
            raise InvalidArgumentError("Audio came before the call has started.")
        self.call.feed(data)
        while self.call.waiting_s > AHEAD_S and self.call.ahead_s > AHEAD_S:
            await asyncio.sleep(0.05)  # unread, the socket slows the peer down

    async def _send(self, messages: list[Message]) -> None:
        async with self._sending:
            for message in messages:
                try:
                    await asyncio.wait_for(self._transport.send(message), SEND_S)
                except asyncio.TimeoutError:
                    self.stop("connection", "")  # a peer who does not read
                    return

    def _watch(self) -> asyncio.Task[None]:
        """End the connection of a peer who is silent for too long."""

        async def watch() -> None:
            while True:
                if self.call is None:
                    left = self._begun + FIRST_S - self._loop.time()
                    reason = f"No call began within {FIRST_S:g} s."
                else:
                    limit = self._settings.call_silence_s
                    left = self._heard + limit - self._loop.time()
                    reason = f"No message came for {limit:g} s."
                if left <= 0:
                    self.stop("silence", reason)
                    return
                await asyncio.sleep(min(left, self._settings.call_silence_s))

        return self._loop.create_task(watch())


def _facts(call: LiveCall) -> tuple[Any, ...]:
    """The part of a running answer whose change is sent at once."""
    answer = call.answer
    return answer.caller_id, answer.verdict, answer.decided, answer.feedback
