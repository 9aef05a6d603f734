"""`CallStream`: who is calling, while the call lasts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint._audited import Operation, finished, note_answer, recording
from voiceprint._threads import in_thread, store_in_thread
from voiceprint.audio import AudioBuffer, AudioQuality, Recording, Turn
from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.audio.recording import as_int16
from voiceprint.consent import check_groups
from voiceprint.dual_run import DualRun
from voiceprint.embedder import Embedder, Probe
from voiceprint.enrollment.check import OnSeveralVoices
from voiceprint.enrollment.enroller import Enroller, EnrollmentOptions
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import AudioQualityError, InvalidArgumentError
from voiceprint.identification.acceptance import AcceptanceRule
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.screening import SAME_RECORDING, Screener
from voiceprint.identification.voices import identify_voices
from voiceprint.models import Consent, Identification, SeparatedVoice, StreamResult, Verdict, Voiceprint
from voiceprint.streaming.decision import Decision
from voiceprint.streaming.framer import Framer
from voiceprint.streaming.online_embedder import OnlineEmbedder

if TYPE_CHECKING:
    from typing_extensions import Self

    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.encoder import Encoder

_QUALITY_EVERY_S: Final = 8.0
_PENDING: Final = 16  # interim embeddings until `result` is called: of 12 s at one each 0.8 s of speech


class CallContext(NamedTuple):
    """The parts of a recognizer that a stream uses, and its query."""

    embedder: Embedder
    encoder: Encoder
    identifier: Identifier
    screener: Screener
    dual_run: DualRun | None
    add_voiceprint: Callable[[str, Probe, Recording | None, AudioQuality], None]
    enroller: Enroller
    config: VoiceFingerprintConfig
    query: Query
    audio_format: AudioFormat
    separate: bool


class _Interim(NamedTuple):
    """The sum of embeddings so far; good: whether speech and quality suffice to accept a caller."""

    total: NDArray[np.float64]
    net_speech_s: float
    good: bool


class CallStream:
    """The identification of one call while it lasts. See `recognizer.stream`.

    `feed` chunks of any size, cut anywhere; call `result` at any time, and `finish` at the end, or leave a
    `with` block; `enroll` enrolls the caller. These work in the calling thread; `afeed`, `aresult`, `aenroll`
    and `afinish` in a worker thread. A
    session is for one call. Threads may share it; chunks count in the order of their calls.

    Caller and similarity of a `decided` answer do not change until `finish`, which returns those of the whole
    call if they name the same caller, and otherwise the decision. The `last_seen` of an accepted caller moves
    with the decision, or at the end; with `adapt` set, a confident answer at the end adds a voiceprint.
    Answers depend on the audio alone, not on its chunks or the number of calls of `result`, if these come at
    least every 12 s of speech. Running answers lag by up to 0.48 s, the length of a block. With `separate`
    the only answer is the final one; of a call over two minutes, the two minutes with the most speech are
    separated: see `StreamResult.voices`.
    """

    def __init__(self, context: CallContext) -> None:
        self._context = context
        self._config = context.config
        self._touched: str | None = None
        self._enrolled = False
        self._framer = Framer(*context.audio_format)
        self._online = OnlineEmbedder(
            context.encoder, self._framer.rate, context.embedder.prompts, keep_best=context.separate
        )
        self._kept: NDArray[np.int16] | None = None  # after `compact`, the audio to enroll
        self._decision = Decision()
        self._pending: deque[_Interim] = deque(maxlen=_PENDING)
        self._good, self._quality_at_s = False, 0.0
        self._feedback: tuple[str, ...] = ()
        self._enabled = context.config.fingerprinting_enabled
        self._answer = StreamResult(decided=not self._enabled)  # disabled, no other answer will come
        self._framed_s, self._has_new_audio = 0.0, False
        self._ended = self._closed = False
        self._lock = threading.RLock()
        self._enrolling = threading.Lock()  # a recording is for one thread

    def __repr__(self) -> str:
        state = "closed" if self._closed else "finished" if self._answer.final else "open"
        return f"{type(self).__name__}({self._audio_s:.1f} s, {state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, chunk: AudioBuffer) -> None:
        """Add the next chunk: bytes, cut anywhere, or an array [samples] or [samples, channels].

        Most chunks are only buffered; one in some dozens of 20 ms runs the encoder for 10 ms, and the one at
        two minutes of a quiet call for up to a second. Raises `InvalidAudioError` for a chunk that is not
        audio, and leaves it out; after any other error the chunk is part of the call.
        """
        with self._lock:
            self._check_open()
            if self._ended:
                raise InvalidArgumentError("The stream is finished: open another one for the next call.")
            if not self._enabled:
                return
            self._framer.add(chunk)
            for native, audio in self._framer.blocks():
                self._add_block(native, audio)

    def result(self) -> StreamResult:
        """The running answer; at once where no audio was added. The store's errors pass through."""
        with self._lock:
            self._check_open()
            while self._pending and not self._answer.decided:
                self._identify(self._pending[0])
                self._pending.popleft()
            if self._has_new_audio:
                update: dict[str, Any] = {"audio_s": self._framed_s, "feedback": self._feedback}
                if not self._answer.decided:
                    update["net_speech_s"] = self._online.net_speech_s
                self._answer = self._answer.model_copy(update=update)
                self._has_new_audio = False
            return self._answer

    def finish(self) -> StreamResult:
        """End the call, and return the answer for all of it. The store's errors pass through.

        May be repeated. For audio that is too short or too poor for `identify`, the answer names nobody, and
        `feedback` says why.
        """
        with self._lock:
            self._check_open()
            if not self._answer.final and not self._enabled:
                self._answer = StreamResult(decided=True, final=True)
            elif not self._answer.final:
                recorder = self._context.identifier.gallery.storage.auditor
                with recording(recorder, "stream", detail="end of the call") as operation:
                    answer = self._finish()
                    note_answer(operation, answer)
                self._answer = finished(operation, answer)
            return self._answer

    def enroll(
        self,
        caller_id: str,
        metadata: dict[str, Any] | None = None,
        *,
        on_mismatch: OnMismatch = "store",
        on_several_voices: OnSeveralVoices = "refuse",
        consent: Consent | None = None,
        groups: Iterable[str] = (),
        source: str | None = None,
    ) -> Voiceprint:
        """Enroll the audio so far, and return the stored voiceprint. The stream goes on.

        As `enroll_caller` with that audio: the same checks, errors and options, and with an augmented
        embedding. Of a call over two minutes, the two minutes with the most speech are enrolled. Works before
        and after `finish`, until `close`. Each call of it enrolls again: with the same audio, the existing
        voiceprint is returned. Later answers of this stream compare with the new voiceprint too.
        """
        options = EnrollmentOptions(
            PCM, on_mismatch, on_several_voices, False, consent, check_groups(groups), source
        )
        stored = self._enroll(caller_id, metadata, options, lambda: True)
        assert stored is not None  # noqa: S101  `may_store` is always true
        return stored

    async def aenroll(
        self,
        caller_id: str,
        metadata: dict[str, Any] | None = None,
        *,
        on_mismatch: OnMismatch = "store",
        on_several_voices: OnSeveralVoices = "refuse",
        consent: Consent | None = None,
        groups: Iterable[str] = (),
        source: str | None = None,
    ) -> Voiceprint:
        """`enroll` without blocking the event loop; a cancellation is as of `aenroll_caller`."""
        options = EnrollmentOptions(
            PCM, on_mismatch, on_several_voices, False, consent, check_groups(groups), source
        )
        stored = await store_in_thread(partial(self._enroll, caller_id, metadata, options))
        assert stored is not None  # noqa: S101  not cancelled
        return stored

    def _enroll(
        self,
        caller_id: str,
        metadata: dict[str, Any] | None,
        options: EnrollmentOptions,
        may_store: Callable[[], bool],
    ) -> Voiceprint | None:
        self._context.embedder.check_enabled()
        with self._enrolling:
            with self._lock:
                self._check_open()
                if self._kept is None:
                    recording = self._online.best_recording(self._framer.rest())
                else:
                    recording = Recording(self._kept, self._framer.rate)
                    recording = recording.leave_out(self._context.embedder.prompts)
            # Without the lock, so that `feed` goes on.
            stored = self._context.enroller.enroll((caller_id, recording, metadata), options, may_store)
            self._enrolled |= stored is not None
            return stored

    def compact(self) -> None:
        """Drop all but the audio that `enroll` takes, in 16 bits, after `finish`. May be repeated.

        For many ended calls that may be enrolled from: 2 MB of a telephone call in place of 10. Raises
        `InvalidArgumentError` before `finish`.
        """
        with self._enrolling, self._lock:
            self._check_open()
            if not self._answer.final:
                raise InvalidArgumentError("The stream is not finished: call finish() before compact().")
            if self._kept is None and self._enabled:
                self._kept = as_int16(self._online.best_recording(self._framer.rest()).native[:])
                self.__dict__.pop("_online", None)

    def close(self) -> None:
        """Drop the audio and end the session. May be repeated."""
        with self._lock:
            self._closed = True
            self._pending.clear()
            self.__dict__.pop("_online", None)
            self._kept = None

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

    def _add_block(self, native: NDArray[np.float32], audio: NDArray[np.float32]) -> None:
        total = self._online.add(native, audio)
        self._framed_s += len(native) / self._framer.rate
        self._has_new_audio = True
        if total is None or self._answer.decided or self._context.separate:
            return  # voices are separated at the end
        # Good quality mostly stays good.
        due = self._quality_at_s * (3.0 if self._good else 1.5)
        if self._framed_s >= min(due, self._quality_at_s + _QUALITY_EVERY_S):
            quality = self._online.quality()
            if quality is not None:
                self._use_quality(quality)
                self._quality_at_s = self._framed_s
        net = self._online.net_speech_s
        self._pending.append(_Interim(total, net, self._good and net >= self._context.embedder.min_speech_s))

    def _use_quality(self, quality: AudioQuality) -> None:
        channels = {
            "channels_differ": self._framer.channels_differ,
            "channels_cancel": self._framer.channels_cancel,
        }
        self._feedback = (*(code for code, holds in channels.items() if holds), *quality.feedback)
        self._good = quality.score >= self._config.min_audio_quality

    def _identify(self, interim: _Interim) -> None:
        context = self._context
        # At least two: the margin over the second decides.
        query = context.query._replace(k=max(2, context.query.k))
        probe = self._probe(interim.total, None)
        recorder = context.identifier.gallery.storage.auditor
        operation = Operation(recorder, "stream", {})
        with operation.entered():
            matches = context.identifier.identify(probe, query)
        self._answer = self._result_of(matches, good=interim.good)
        rule = AcceptanceRule.of_identification(self._config, context.embedder.space, query.threshold)
        if interim.good and self._decision.update(matches, rule, interim.net_speech_s):
            update = {"decided": True, "net_speech_s": interim.net_speech_s}
            self._answer = self._answer.model_copy(update=update)
            if context.screener.is_active:
                recording = self._online.best_recording(self._framer.rest())
                probe = probe._replace(sketch=context.embedder.sketch(recording))
                reasons = context.identifier.identify(probe, query).reasons
                self._answer = self._screened(self._answer, reasons, recording)
            if recorder is not None and recorder.is_active:
                operation.note(speech_s=interim.net_speech_s, detail="decided early")
                note_answer(operation, self._answer)
                operation.event_id = recorder.record("stream", operation.facts)
                self._answer = finished(operation, self._answer)
            self._online.stop_interim()
            self._move_last_seen()

    def _probe(self, total: NDArray[Any], cleaned: NDArray[np.float32] | None) -> Probe:
        """The probe of an embedding of any length, and of the cleaned audio of a noisy call."""
        embedder = self._context.embedder
        return Probe(embedder.checked(total), None if cleaned is None else embedder.embed_cleaned(cleaned))

    def _screened(self, answer: StreamResult, reasons: tuple[str, ...], recording: Recording) -> StreamResult:
        """The answer with the screening of the recording. reasons: by the stored voiceprints."""
        if self._enrolled:  # which may be of this call
            reasons = tuple(reason for reason in reasons if reason != SAME_RECORDING)
        screening = self._context.screener.screen(recording, reasons, self._audio_s)
        reasons = (*dict.fromkeys((*self._answer.reasons, *screening.reasons)),)
        return answer.model_copy(update={"reasons": reasons, "spoof_score": screening.spoof_score})

    def _result_of(self, matches: Identification, *, good: bool) -> StreamResult:
        hits = matches.watch_hits if good else ()
        if not matches:
            return StreamResult(verdict=matches.verdict, watch_hits=hits)
        best = matches[0]
        return StreamResult(
            caller_id=best.caller_id,
            similarity=best.similarity,
            metadata=best.metadata,
            accepted=good and best.accepted,
            matches=tuple(matches[: self._context.query.k]),
            verdict=matches.verdict if good else Verdict.INCONCLUSIVE,
            watch_hits=hits,
        )

    def _finish(self) -> StreamResult:
        if not self._ended:
            self._ended = True
            for native, audio in self._framer.blocks(last=True):
                self._online.add(native, audio)
        self._pending.clear()
        self._has_new_audio = False
        measured: dict[str, Any] = {"decided": True, "final": True, "audio_s": self._audio_s}
        if not self._framer.samples:
            return StreamResult(**measured, feedback=("no_speech",))
        quality = self._online.end()
        self._use_quality(quality)
        self._context.embedder.note_audio(quality)
        good = self._good and quality.net_speech_s >= self._context.embedder.min_speech_s
        answer, probe = StreamResult(), None
        recording = self._online.recording
        if good and recording is not None and self._context.separate:
            answer = self._separated(recording)
            self._use_quality(recording.quality)
        elif good:
            probe, best = self._probe(self._online.embedding(), self._online.cleaned()), None
            if self._context.screener.is_active:
                best = recording or self._online.best_recording(self._framer.rest())
                probe = probe._replace(sketch=self._context.embedder.sketch(best))
            matches = self._context.identifier.identify(probe, self._context.query)
            answer = self._result_of(matches, good=True)
            if best is not None:
                answer = self._screened(answer, matches.reasons, best)
            if recording is not None:
                if self._context.dual_run is not None:
                    self._context.dual_run.identified(recording, self._context.query, matches)
                self._context.embedder.note_voices(recording, self._online.partials)
                quality = recording.quality
                self._use_quality(quality)
        if self._answer.decided and _accepted_caller(answer) != _accepted_caller(self._answer):
            # The application has acted on the decision: later audio does not change it.
            of_all_audio = {name: getattr(answer, name) for name in ("reasons", "spoof_score", "watch_hits")}
            answer, probe = self._answer.model_copy(update=of_all_audio), None
            caller = _accepted_caller(self._answer)
            gone = None if caller is None else self._context.identifier.gone(caller)
            if gone is not None:  # deleted, opted out or expired since: nobody is named by erased data
                answer = StreamResult(verdict=gone, **of_all_audio)
        measured |= {"net_speech_s": quality.net_speech_s, "feedback": self._feedback}
        self._answer = answer.model_copy(update=measured)
        self._move_last_seen()
        if probe is not None and answer.accepted and answer.caller_id is not None:
            reported = quality.model_copy(update={"feedback": self._feedback})
            self._context.add_voiceprint(answer.caller_id, probe, recording, reported)
        return self._answer

    def _separated(self, recording: Recording) -> StreamResult:
        context = self._context
        try:
            voices = identify_voices(context.embedder, context.identifier, recording, context.query)
        except AudioQualityError:  # too little speech: the feedback says so
            return StreamResult()
        return _separated_result(voices, self._online.recording_start_s)

    def _move_last_seen(self) -> None:
        """Move `last_seen` of an accepted caller, once a call."""
        caller = self._answer.caller_id
        if self._answer.accepted and caller is not None and caller != self._touched:
            self._context.identifier.touch(caller)
            self._touched = caller


def _separated_result(found: list[SeparatedVoice], start_s: float) -> StreamResult:
    """The answer for the accepted voice with the most speech, or where none is, the voice with the most.

    start_s: of the recording in the call.
    """
    voices = [voice.model_copy(update={"turns": _shifted(voice.turns, start_s)}) for voice in found]
    candidates = [voice for voice in voices if voice.matches]
    hits = tuple(hit for voice in voices for hit in voice.watch_hits)
    if not candidates:
        return StreamResult(voices=tuple(voices), watch_hits=hits)
    voice = max(candidates, key=lambda voice: (voice.accepted is not None, voice.net_speech_s))
    best = voice.accepted or voice.matches[0]
    return StreamResult(
        caller_id=best.caller_id,
        similarity=best.similarity,
        metadata=best.metadata,
        accepted=best.accepted,
        matches=voice.matches,
        voices=tuple(voices),
        verdict=Identification(voice.matches).verdict,
        watch_hits=hits,
    )


def _shifted(turns: tuple[Turn, ...], by_s: float) -> tuple[Turn, ...]:
    return tuple(Turn(start_s=turn.start_s + by_s, stop_s=turn.stop_s + by_s) for turn in turns)


def _accepted_caller(answer: StreamResult) -> str | None:
    """The caller that an answer accepts."""
    return answer.caller_id if answer.accepted else None
