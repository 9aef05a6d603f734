"""`LiveCall`: one call, from its first audio until some minutes after its end.

The event loop puts audio into the call's buffer, and threads that all calls share feed it to the stream, a
block at a time. Where these fall behind, audio waits in the buffers and answers come late; none is lost.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, Literal

from voiceprint.answers import StreamResult
from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.errors import InvalidAudioError, VoiceprintError
from voiceprint.server.live.conversation import CallOptions
from voiceprint.server.schemas import MatchAnswer
from voiceprint.streaming import CallStream
from voiceprint.validation import now

logger = logging.getLogger(__name__)

BLOCK_S: Final = 0.48
"""Seconds of audio for which a thread is asked for: a block of `CallStream`, which gives no answer for less.
Halved, half of the threads' turns are in vain; doubled, answers come 0.5 s later."""
PIECE_S: Final = 4.8
"""Most seconds of audio that a thread takes in one turn, so that a call with a backlog does not keep the
others waiting; the stream wants `result` at least every 12 s of speech."""
LATE_S: Final = 1.0
"""Seconds after which an answer counts as late: an agent who has asked a question does not notice less."""

State = Literal["announced", "live", "ended", "failed"]
EndedBy = Literal[
    "platform", "connection", "silence", "duration", "request", "protocol", "busy", "shutdown", "error"
]

_SAMPLE_BYTES: Final = {"mulaw": 1, "alaw": 1, "pcm_u8": 1, "pcm_s24le": 3, "pcm_s32le": 4, "pcm_f32le": 4}


class LiveCall:
    """One call. `feed` and `end` belong to the event loop; the rest may be called from any thread.

    stream: of the recognizer, opened for this call. executor: threads that all calls share. on_answer: called
    in one of these threads after each new answer, and once at the end, when `state` is another. context: the
    context variables of the threads, such as the actor of the audit log.
    """

    def __init__(
        self,
        call_id: str,
        gallery: str,
        source: str,
        audio_format: AudioFormat,
        options: CallOptions,
        stream: CallStream,
        executor: Executor,
        on_answer: Callable[[LiveCall], None],
        context: contextvars.Context | None = None,
    ) -> None:
        self.call_id, self.gallery, self.source = call_id, gallery, source
        self.actor = ""
        """The actor that opened the connection, as in the audit log; set by `LiveCalls`."""
        self.audio_format, self.options = audio_format, options
        self.created, self.created_at = time.time(), now()
        self.ended_at: str | None = None
        self.ended_monotonic = 0.0
        self.stored = asyncio.Event()
        """Set when the record of the ended call is in the database; of the event loop."""
        self.recorded: tuple[Any, ...] | None = None
        """State, caller, verdict and decision of the last record; of `LiveCalls`."""
        self.ended_by: EndedBy | None = None
        self.state: State = "live"
        self.error: str | None = None
        self.answers = self.late = 0
        self.lateness_s = self.most_lateness_s = 0.0
        self.answer = StreamResult()
        self.stream = stream
        sample = _SAMPLE_BYTES.get(audio_format.encoding, 2) * audio_format.channels
        self._bytes_per_s = sample * (audio_format.sample_rate or 8_000)
        self._block, self._piece = int(BLOCK_S * self._bytes_per_s), int(PIECE_S * self._bytes_per_s)
        self._executor, self._on_answer = executor, on_answer
        self._context = contextvars.copy_context() if context is None else context
        self._started = time.monotonic()
        self._received = 0
        self._buffer = bytearray()
        self._taken = 0  # bytes that threads have taken
        self._marks: deque[tuple[int, float]] = deque()  # end of each whole block, and when it came
        self._is_working = self._is_ending = False
        self._lock = threading.Lock()  # of the buffer and its flags; never held while working
        self._done: Future[None] = Future()

    def __repr__(self) -> str:
        return f"LiveCall({self.call_id!r}, {self.gallery!r}, {self.state}, {self.audio_s:.1f} s)"

    @property
    def audio_s(self) -> float:
        """Seconds of audio received."""
        return self._received / self._bytes_per_s

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that wait for a thread."""
        return len(self._buffer) / self._bytes_per_s

    @property
    def ahead_s(self) -> float:
        """Seconds by which the audio runs ahead of the clock; negative for a call with pauses."""
        return self.audio_s - (time.monotonic() - self._started)

    def feed(self, data: bytes) -> None:
        """Add audio, in the format of the call. Audio after the end is left out."""
        with self._lock:
            if self._is_ending:
                return
            self._buffer += data
            self._received += len(data)
            if self._received - (self._marks[-1][0] if self._marks else self._taken) >= self._block:
                self._marks.append((self._received, time.monotonic()))
            is_due = not self._is_working and len(self._buffer) >= self._block
            self._is_working |= is_due
        if is_due:
            self._submit()

    def end(self, ended_by: EndedBy) -> None:
        """End the call: the audio so far is worked off, and the final answer follows. May be repeated."""
        with self._lock:
            if self._is_ending:
                return
            self._is_ending, self.ended_by = True, ended_by
            self._marks.append((self._received, time.monotonic()))
            is_due = not self._is_working
            self._is_working = True
        if is_due:
            self._submit()

    async def finished(self) -> None:
        """Wait until the final answer is there."""
        await asyncio.wrap_future(self._done)

    @property
    def is_finished(self) -> bool:
        """Whether the session has its final answer."""
        return self._done.done()

    def close(self) -> None:
        """Drop the audio: there is nothing left to enroll."""
        self.stream.close()

    def _submit(self) -> None:
        try:
            self._executor.submit(self._turn)
        except RuntimeError:  # the threads are gone: the service has ended
            self._conclude("failed")

    def _turn(self) -> None:
        """Feed one piece, in a thread; then hand over to the other calls."""
        if self._context.run(self._work):  # outside the context, which a second thread cannot enter meanwhile
            self._submit()

    def _work(self) -> bool:
        """Feed one piece; returns whether there is more to do."""
        with self._lock:
            piece = bytes(self._buffer[: self._piece])
            del self._buffer[: self._piece]
            self._taken += len(piece)
            is_last = self._is_ending and not self._buffer
            ready = self._marks[0][1] if self._marks else time.monotonic()
            while self._marks and self._marks[0][0] <= self._taken:
                self._marks.popleft()
        try:
            self._answer_to(piece, ready, is_last)
        except Exception as error:  # noqa: BLE001 - a fault of one call must not stop the others
            # By its class alone: the message of an unknown error may hold audio.
            logger.error("%s in the call %s", type(error).__name__, self.call_id)  # noqa: TRY400
            self.error = type(error).__name__
            self._conclude("failed")
            return False
        if is_last:
            self._conclude("failed" if self.error else "ended")
            return False
        with self._lock:
            self._is_working = self._is_ending or len(self._buffer) >= self._block
            return self._is_working

    def _answer_to(self, piece: bytes, ready: float, is_last: bool) -> None:
        try:
            if piece:
                self.stream.feed(piece)
            answer = self.stream.finish() if is_last else self.stream.result()
            if is_last:
                self.stream.compact()
        except InvalidAudioError as error:  # the piece is left out
            logger.warning("Audio of the call %s: %s", self.call_id, error)
            self.error = type(error).__name__
            return
        except (
            VoiceprintError
        ) as error:  # of the store: the audio is part of the call, the next piece answers
            logger.warning("%s in the call %s: %s", type(error).__name__, self.call_id, error)
            self.error = type(error).__name__
            return
        self.error = None
        self.lateness_s = time.monotonic() - ready
        self.most_lateness_s = max(self.most_lateness_s, self.lateness_s)
        self.answers += 1
        self.late += self.lateness_s > LATE_S
        self.answer = answer
        if not is_last:
            self._on_answer(self)

    def _conclude(self, state: State) -> None:
        if self._done.done():
            return
        self.state, self.ended_at, self.ended_monotonic = state, now(), time.monotonic()
        if self.ended_by is None:
            self.ended_by = "error"
        try:
            self._on_answer(self)
        finally:
            self._done.set_result(None)


def answer_of(call: LiveCall, *, metadata: bool) -> dict[str, Any]:
    """The answer of a call as JSON, see `LiveAnswer`. metadata: with that of the callers."""
    answer = call.answer
    best = answer.matches[0] if answer.accepted and answer.matches else None
    return {
        "verdict": str(answer.verdict),
        "caller_id": None if best is None else best.caller_id,
        "similarity": None if best is None else best.similarity,
        "decided": answer.decided,
        "final": answer.final,
        "audio_s": round(answer.audio_s, 3),
        "net_speech_s": round(answer.net_speech_s, 3),
        "feedback": list(answer.feedback),
        "matches": [
            MatchAnswer.of(match, metadata=metadata).model_dump(mode="json") for match in answer.matches
        ],
        "reasons": list(answer.reasons),
        "watch_hits": [hit.model_dump(mode="json") for hit in answer.watch_hits],
        "spoof_score": answer.spoof_score,
        "event_id": answer.event_id,
        "late_s": round(call.lateness_s, 3),
    }
