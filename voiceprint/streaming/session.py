"""`CallStream`: who is calling, while the call lasts."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint._threads import in_thread
from voiceprint.audio import AudioBuffer, AudioQuality, Recording, Turn
from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.embedder import MIN_PROBE_SPEECH_S, Embedder, Probe
from voiceprint.enrollment.adaptation import Adaptation
from voiceprint.errors import AudioQualityError, InvalidArgumentError
from voiceprint.identification.acceptance import AcceptanceRule
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.voices import identify_voices
from voiceprint.models import Match, SeparatedVoice, StreamResult
from voiceprint.streaming.decision import Decision
from voiceprint.streaming.framer import Framer
from voiceprint.streaming.online_embedder import OnlineEmbedder

if TYPE_CHECKING:
    from typing_extensions import Self

    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.encoder import Encoder

_ASSESSED_EVERY_S: Final = 8.0
_PENDING: Final = 16  # answers that nobody has asked for yet: with one each 0.8 s of speech at most, 12 s


class CallContext(NamedTuple):
    """What a stream asks of its recognizer: the parts, and the question."""

    embedder: Embedder
    encoder: Encoder
    identifier: Identifier
    adaptation: Adaptation
    config: VoiceFingerprintConfig
    query: Query
    audio_format: AudioFormat
    separate: bool


class _Interim(NamedTuple):
    """The sum of embeddings at a moment of the call."""

    total: NDArray[np.float64]
    net_speech_s: float
    good: bool


class CallStream:
    """The audio of one call as it comes, and the running answer to who is calling. See `recognizer.stream`.

    `feed` chunks of any size, cut anywhere; ask for `result` when you like, and `finish` at the end, or leave
    a `with` block. Each of them works in the thread that calls it; `afeed`, `aresult` and `afinish` do in a
    worker thread. A session is for one call: several threads may use it, but chunks are taken in the order in
    which they get in.

    Of an answer that is `decided`, caller and similarity stay as they are until `finish`, which gives those
    of the whole call if they name the same caller, and keeps the decision if not. The `last_seen` of
    an accepted caller moves with the decision, or at the end; with `adapt` set, a confident answer at the end
    adds a voiceprint. Answers depend on the audio alone, and not on how it was cut, nor on how often they are
    asked for, if that is at least every 12 s of speech. With `separate` the only answer is at the end, and
    that is of the two minutes (of the first two, the next two...) with the most speech: see
    `StreamResult.voices`. The audio is looked at in blocks of 0.48 s, so a running answer is so much behind
    at most.
    """

    def __init__(self, context: CallContext) -> None:
        self._context = context
        self._config = context.config
        self._touched: str | None = None
        self._framer = Framer(*context.audio_format)
        self._online = OnlineEmbedder(
            context.encoder, self._framer.rate, context.embedder.prompts, keep=context.separate
        )
        self._decision = Decision()
        self._pending: deque[_Interim] = deque(maxlen=_PENDING)
        self._good, self._assessed_s = False, 0.0
        self._feedback: tuple[str, ...] = ()
        # Nobody waits for an answer that will not come.
        self._enabled = context.config.fingerprinting_enabled
        self._answer = StreamResult(decided=not self._enabled)
        self._framed_s, self._has_news = 0.0, False
        self._ended = self._closed = False
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "finished" if self._answer.final else "open"
        return f"{type(self).__name__}({self._audio_s:.1f} s, {state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, chunk: AudioBuffer) -> None:
        """Hear the next chunk: bytes, cut anywhere, or an array [samples] or [samples, channels].

        Most chunks are only taken in; one in some dozens of 20 ms has the encoder work for 10 ms, and that at
        two minutes of a quiet call for up to a second. An `InvalidAudioError` says what is wrong with a
        chunk, which then counts as never fed; with any other error it is taken.
        """
        with self._lock:
            self._check_open()
            if self._ended:
                raise InvalidArgumentError("The stream is finished: open another one for the next call.")
            if not self._enabled:
                return
            self._framer.take(chunk)
            for native, audio in self._framer.blocks():
                self._add(native, audio)

    def result(self) -> StreamResult:
        """The running answer; quick where nothing new was heard. The store's errors pass through."""
        with self._lock:
            self._check_open()
            while self._pending and not self._answer.decided:
                self._consider(self._pending[0])
                self._pending.popleft()
            if self._has_news:
                update: dict[str, Any] = {"audio_s": self._framed_s, "feedback": self._feedback}
                if not self._answer.decided:
                    update["net_speech_s"] = self._online.net_speech_s
                self._answer = self._answer.model_copy(update=update)
                self._has_news = False
            return self._answer

    def finish(self) -> StreamResult:
        """The answer for all of the call, which ends it; again, the same. The store's errors pass through.

        Of audio that `identify` refuses, too short or too poor, nobody is named, and `feedback` says why.
        """
        with self._lock:
            self._check_open()
            if not self._answer.final:
                self._answer = self._final() if self._enabled else StreamResult(decided=True, final=True)
            return self._answer

    def close(self) -> None:
        """Forget the call; nothing can be asked of the session any more. May be repeated."""
        with self._lock:
            self._closed = True
            self._pending.clear()
            self.__dict__.pop("_online", None)

    afeed = in_thread(feed)  # await it before the next
    aresult = in_thread(result)
    afinish = in_thread(finish)
    aclose = in_thread(close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def _audio_s(self) -> float:
        return self._framer.samples / self._framer.rate

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidArgumentError("The stream is closed: open another one for the next call.")

    def _add(self, native: NDArray[np.float32], audio: NDArray[np.float32]) -> None:
        total = self._online.add(native, audio)
        self._framed_s += len(native) / self._framer.rate
        self._has_news = True
        if total is None or self._answer.decided or self._context.separate:
            return  # voices are told apart at the end
        # What was good enough mostly stays so.
        due = self._assessed_s * (3.0 if self._good else 1.5)
        if self._framed_s >= min(due, self._assessed_s + _ASSESSED_EVERY_S):
            quality = self._online.quality()
            if quality is not None:
                self._take_quality(quality)
                self._assessed_s = self._framed_s
        net = self._online.net_speech_s
        self._pending.append(_Interim(total, net, self._good and net >= MIN_PROBE_SPEECH_S))

    def _take_quality(self, quality: AudioQuality) -> None:
        found = {
            "channels_differ": self._framer.channels_differ,
            "channels_cancel": self._framer.channels_cancel,
        }
        self._feedback = (*(code for code, is_so in found.items() if is_so), *quality.feedback)
        self._good = quality.score >= self._config.min_audio_quality

    def _consider(self, interim: _Interim) -> None:
        context = self._context
        # Two at least: the lead over the second says how certain the first is.
        query = context.query._replace(k=max(2, context.query.k))
        matches = context.identifier.identify(self._probe(interim.total, None), query)
        self._answer = self._answered(matches, good=interim.good)
        rule = AcceptanceRule.of_identification(self._config, query.threshold)
        if interim.good and self._decision.update(matches, rule, interim.net_speech_s):
            update = {"decided": True, "net_speech_s": interim.net_speech_s}
            self._answer = self._answer.model_copy(update=update)
            self._online.stop_interim()
            self._move_last_seen()

    def _probe(self, total: NDArray[Any], cleaned: NDArray[np.float32] | None) -> Probe:
        """The probe of an embedding, of any length, and of the cleaned audio if the call is noisy."""
        embedder = self._context.embedder
        return Probe(embedder.checked(total), None if cleaned is None else embedder.embed_cleaned(cleaned))

    def _answered(self, matches: list[Match], *, good: bool) -> StreamResult:
        if not matches:
            return StreamResult()
        best = matches[0]
        return StreamResult(
            caller_id=best.caller_id,
            similarity=best.similarity,
            metadata=best.metadata,
            accepted=good and best.accepted,
            matches=tuple(matches[: self._context.query.k]),
        )

    def _final(self) -> StreamResult:
        if not self._ended:
            self._ended = True
            for native, audio in self._framer.blocks(last=True):
                self._online.add(native, audio)
        self._pending.clear()
        self._has_news = False
        measured: dict[str, Any] = {"decided": True, "final": True, "audio_s": self._audio_s}
        if not self._framer.samples:
            return StreamResult(**measured, feedback=("no_speech",))
        quality = self._online.end()
        self._take_quality(quality)
        good = self._good and quality.net_speech_s >= MIN_PROBE_SPEECH_S
        answer, probe = StreamResult(), None
        kept = self._online.kept
        if good and kept is not None and self._context.separate:
            answer = self._answer_of_voices(kept)
            self._take_quality(kept.quality)
        elif good:
            probe = self._probe(self._online.embedding(), self._online.cleaned())
            answer = self._answered(self._context.identifier.identify(probe, self._context.query), good=True)
            if kept is not None:
                self._context.embedder.note_voices(kept, self._online.partials)
                quality = kept.quality
                self._take_quality(quality)
        if self._answer.decided and _named(answer) != _named(self._answer):
            # A decision was acted upon: what came later, such as another voice, does not withdraw it.
            answer, probe = self._answer, None
        measured |= {"net_speech_s": quality.net_speech_s, "feedback": self._feedback}
        self._answer = answer.model_copy(update=measured)
        self._move_last_seen()
        if probe is not None and answer.accepted and answer.caller_id is not None:
            reported = quality.model_copy(update={"feedback": self._feedback})
            self._context.adaptation.add(answer.caller_id, probe, reported)
        return self._answer

    def _answer_of_voices(self, recording: Recording) -> StreamResult:
        context = self._context
        try:
            voices = identify_voices(context.embedder, context.identifier, recording, context.query)
        except AudioQualityError:  # no two minutes hold enough speech: the feedback says so
            return StreamResult()
        return _of_voices(voices, self._online.kept_at_s)

    def _move_last_seen(self) -> None:
        """Once: with the decision, or at the end."""
        caller = self._answer.caller_id
        if self._answer.accepted and caller is not None and caller != self._touched:
            self._context.identifier.touch(caller)
            self._touched = caller


def _of_voices(found: list[SeparatedVoice], at_s: float) -> StreamResult:
    """The answer of the voice that is accepted, of several that says most; else of the one that says most.

    at_s: where in the call the recording begins whose voices were found.
    """
    voices = [voice.model_copy(update={"turns": _later(voice.turns, at_s)}) for voice in found]
    candidates = [voice for voice in voices if voice.matches]
    if not candidates:
        return StreamResult(voices=tuple(voices))
    voice = max(candidates, key=lambda one: (one.accepted is not None, one.net_speech_s))
    best = voice.accepted or voice.matches[0]
    return StreamResult(
        caller_id=best.caller_id,
        similarity=best.similarity,
        metadata=best.metadata,
        accepted=best.accepted,
        matches=voice.matches,
        voices=tuple(voices),
    )


def _later(turns: tuple[Turn, ...], by_s: float) -> tuple[Turn, ...]:
    return tuple(Turn(start_s=turn.start_s + by_s, stop_s=turn.stop_s + by_s) for turn in turns)


def _named(answer: StreamResult) -> str | None:
    """The caller whom an answer accepts."""
    return answer.caller_id if answer.accepted else None
