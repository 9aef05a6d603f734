"""Enrollment: samples of callers' voices become voiceprints in the store, one by one or a long list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from voiceprint.audio import SAMPLE_RATE, AudioBuffer, AudioQuality, Encoding, Recording
from voiceprint.audio.quality.advice import more_speech_s, several_voices
from voiceprint.embedder import MIN_PROBE_SPEECH_S
from voiceprint.encoder.workers import cores
from voiceprint.enrollment.agreement import best_agreeing
from voiceprint.enrollment.batches import BatchRunner
from voiceprint.enrollment.writer import OnMismatch, VoiceprintWriter
from voiceprint.errors import (
    AudioQualityError,
    InvalidArgumentError,
    RecordingNotUsedError,
    SeveralVoicesError,
    VoiceprintError,
)
from voiceprint.models import Voiceprint
from voiceprint.validation import check_caller_id, check_metadata, shown

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.embedder import Embedder
    from voiceprint.enrollment.augmentation import AugmentationPlan
    from voiceprint.storage import Storage

# Enrollments of a long list that are stored in one change: a crash loses at most these, and a store that
# writes all it holds with every change is not slowed down by a long list.
ENROLMENT_BATCH = 64

# Samples of a long list that are embedded in one go: so many, or so many seconds of them.
EMBEDDED_TOGETHER = 8
EMBEDDED_TOGETHER_S = 120.0

Embedding = NDArray[np.float32]

Sample = (
    tuple[str, AudioBuffer | Recording, dict[str, Any] | None]
    | tuple[str, AudioBuffer | Recording, dict[str, Any] | None, int]
)
"""Caller id, audio and metadata; and the sample rate of this audio, where samples differ in it."""

Keep = Literal["newest", "best"]
"""Which of more samples of a caller than are kept: those stored last, or those that agree best."""


OnSeveralVoices = Literal["refuse", "store", "largest"]
"""A recording of several voices is an error, or enrolled as a whole, or the voice that speaks most."""


class EnrollmentCheck(BaseModel):
    """Whether audio can be enrolled, and what to do next.

    ready: whether `enroll_caller` takes it.
    more_audio_s: seconds of audio that are missing until it may, 0 where there are enough.
    more_speech_s: seconds of speech (audio without its pauses) that are missing until more would not make a
        better sample; 0 or more, also where it is ready.
    quality: what was measured, with the turns of each voice where several speak; it is not ready then.
    advice: sentences that say what to do, the gravest first; also where it is ready and could be better.
    """

    model_config = ConfigDict(frozen=True)

    ready: bool
    more_audio_s: float
    more_speech_s: float
    quality: AudioQuality
    advice: tuple[str, ...] = ()


class CheckedSample(NamedTuple):
    """A sample that can be enrolled, and what its second print is to be made of."""

    caller_id: str
    recording: Recording
    metadata: dict[str, Any] | None
    score: float  # of its quality
    plan: AugmentationPlan


class NewPrint(NamedTuple):
    """A voiceprint that is not stored yet, and the quality score of its audio."""

    voiceprint: Voiceprint
    score: float


class Enroller:
    """Checks samples, embeds them, and stores their voiceprints.

    sample_rate, encoding, channel, channels: of the audio of every sample, see `Recording.from_buffer`; a
        sample may say another rate.
    """

    def __init__(
        self,
        storage: Storage,
        embedder: Embedder,
        config: VoiceFingerprintConfig,
        *,
        sample_rate: int | None,
        encoding: Encoding,
        channel: int | None,
        channels: int,
        on_several_voices: OnSeveralVoices = "refuse",
    ) -> None:
        if on_several_voices not in get_args(OnSeveralVoices):
            raise InvalidArgumentError(
                f"on_several_voices is {shown(on_several_voices)}: "
                f"{' or '.join(get_args(OnSeveralVoices))} is allowed."
            )
        self._on_several_voices = on_several_voices
        self._storage = storage
        self._embedder = embedder
        self._config = config
        self._rate = sample_rate
        self._encoding: Encoding = encoding
        self._channel = channel
        self._channels = channels

    def check(self, audio_buffer: AudioBuffer | Recording) -> EnrollmentCheck:
        """Whether the audio is long and good enough to enroll, and what to do where it is not."""
        recording = self._recording(audio_buffer, self._rate)
        if recording.quality.net_speech_s >= MIN_PROBE_SPEECH_S:
            self._embedder.note_voices(recording, None)
        return self._check(recording)

    def _recording(self, audio_buffer: AudioBuffer | Recording, sample_rate: int | None) -> Recording:
        return self._embedder.recording(
            audio_buffer, sample_rate, self._encoding, self._channel, self._channels
        )

    def enroll(
        self, sample: Sample, on_mismatch: OnMismatch, may_store: Callable[[], bool] = lambda: True
    ) -> Voiceprint | None:
        """Store the voiceprint of one sample, and return it; None where `may_store`, which is asked right
        before, says no."""
        new_prints = self._new_prints(on_mismatch)
        checked = self._checked(sample)
        checked, embedding = self._of_one_voice(checked, self._embedder.embed(checked.recording))
        (augmented,) = self._augmented([checked], [embedding])
        voiceprint = self._voiceprint(checked, embedding, augmented)
        if not may_store():
            return None
        (result,) = new_prints.store([voiceprint])
        if isinstance(result, VoiceprintError):
            raise result
        return result

    def enroll_many(
        self, samples: Iterable[Sample], on_mismatch: OnMismatch, keep: Keep
    ) -> list[Voiceprint | VoiceprintError]:
        """Store the voiceprints of all samples; for each, in order, the print or why there is none."""
        if keep not in get_args(Keep):
            raise InvalidArgumentError(f"keep is {shown(keep)}: {' or '.join(get_args(Keep))} is allowed.")
        new_prints = self._new_prints(on_mismatch)
        results: list[Voiceprint | VoiceprintError] = []
        waiting: dict[int, Voiceprint] = {}  # by place in `results`
        of_caller: dict[int, NewPrint] = {}  # of one caller, whose best are to be chosen; likewise

        def store() -> None:
            for place, result in zip(waiting, new_prints.store([*waiting.values()]), strict=True):
                results[place] = result
            waiting.clear()

        def choose() -> None:
            for place, result in zip(of_caller, self._best([*of_caller.values()]), strict=True):
                results[place] = result
                if isinstance(result, Voiceprint):
                    waiting[place] = result
            of_caller.clear()

        def take(result: NewPrint | VoiceprintError) -> None:
            if isinstance(result, VoiceprintError):
                results.append(result)
                return
            place, voiceprint = len(results), result.voiceprint
            results.append(voiceprint)
            if keep == "newest":
                waiting[place] = voiceprint
            else:
                if any(other.voiceprint.caller_id != voiceprint.caller_id for other in of_caller.values()):
                    choose()
                of_caller[place] = result
            if len(waiting) >= ENROLMENT_BATCH:
                store()

        work: BatchRunner[Sample, NewPrint | VoiceprintError] = BatchRunner(
            self._new,
            take,
            cost=lambda sample: _seconds(sample, self._rate or SAMPLE_RATE),
            most=EMBEDDED_TOGETHER,
            largest=EMBEDDED_TOGETHER_S,
            threads=self._config.encoder_threads or cores(),
        )
        try:
            work.run(samples)
        finally:  # also when `samples` itself fails midway: what was given before is not lost
            if of_caller:
                choose()
            if waiting:
                store()
        return results

    def _best(self, prints: list[NewPrint]) -> list[Voiceprint | VoiceprintError]:
        """The prints of one caller, and an error in the place of each that better ones leave no room for."""
        limit = self._config.max_voiceprints_per_caller
        embeddings = np.stack([new.voiceprint.embedding for new in prints])
        best = set(best_agreeing(embeddings, [new.score for new in prints], limit))
        return [
            new.voiceprint
            if place in best
            else RecordingNotUsedError(
                f"Other recordings of {new.voiceprint.caller_id!r} agree better with each other, and {limit} "
                "voiceprints a caller are kept (VOICE_MAX_VOICEPRINTS_PER_CALLER)."
            )
            for place, new in enumerate(prints)
        ]

    def _checked(self, sample: Any) -> CheckedSample:
        """The sample as a recording; whatever can be refused is, before the costly part."""
        self._embedder.check_enabled()
        try:
            caller_id, audio_buffer, metadata, *rates = sample
            (sample_rate,) = rates or [self._rate]
        except (TypeError, ValueError):  # not three things, or four
            raise InvalidArgumentError(
                "A sample is a tuple of caller_id, audio and metadata (or None), and perhaps sample_rate."
            ) from None
        caller_id, metadata = check_caller_id(caller_id), check_metadata(metadata)
        recording = self._recording(audio_buffer, sample_rate)
        self._check_sample(recording)
        plan = self._embedder.augmentation_plan(recording.quality)
        return CheckedSample(caller_id, recording, metadata, recording.quality.score, plan)

    def _check_sample(self, recording: Recording) -> None:
        """Raises `AudioQualityError` for what is too short or too poor."""
        check = self._check(recording)
        if check.more_audio_s:
            raise AudioQualityError(check.advice[0], check.quality)
        self._embedder.check_quality(recording)

    def _of_one_voice(self, sample: CheckedSample, embedding: Embedding) -> tuple[CheckedSample, Embedding]:
        """The sample and its embedding, or those of its largest voice if that is to be enrolled.

        Raises `SeveralVoicesError` where several voices are to be refused, and as for any recording.
        """
        quality = sample.recording.quality
        if "several_voices" not in quality.feedback or self._on_several_voices == "store":
            return sample, embedding
        if self._on_several_voices == "refuse":
            raise SeveralVoicesError(
                f"{several_voices(quality)} Or enroll the one that speaks most: on_several_voices='largest' "
                "(--on-several-voices largest).",
                quality,
            )
        largest = max(self._embedder.voices(sample.recording), key=lambda voice: voice.net_speech_s).recording
        self._check_sample(largest)
        plan = self._embedder.augmentation_plan(largest.quality)
        alone = sample._replace(recording=largest, score=largest.quality.score, plan=plan)
        return alone, self._embedder.embed(largest, one_voice=True)

    def _check(self, recording: Recording) -> EnrollmentCheck:
        quality = recording.quality
        needed = self._config.enrollment_duration
        missing = max(needed - quality.duration_s, 0.0)
        short = (
            f"Enrollment needs {needed:g} s of audio, and this is {quality.duration_s:.2f} s: record "
            f"{max(missing, 0.1):.1f} s more, or set VOICE_ENROLLMENT_DURATION."
        )
        return EnrollmentCheck(
            ready=not missing
            and quality.score >= self._config.min_audio_quality
            and ("several_voices" not in quality.feedback or self._on_several_voices == "store"),
            more_audio_s=missing,
            more_speech_s=more_speech_s(quality),
            quality=quality,
            advice=(short, *quality.advice) if missing else quality.advice,
        )

    def _voiceprint(
        self, sample: CheckedSample, embedding: Embedding, augmented: Embedding | None
    ) -> Voiceprint:
        return Voiceprint(
            sample.caller_id, embedding, sample.metadata, encoder=self._embedder.space, augmented=augmented
        )

    def _augmented(self, samples: list[CheckedSample], embeddings: list[Embedding]) -> list[Embedding | None]:
        """The second print of each sample that gets one."""
        return self._embedder.embed_augmented(
            [sample.recording for sample in samples], embeddings, [sample.plan for sample in samples]
        )

    def _new(self, samples: list[Sample]) -> list[NewPrint | VoiceprintError]:
        """The voiceprint of each sample, or why there is none."""
        results: list[NewPrint | VoiceprintError | None] = [None] * len(samples)
        good: dict[int, CheckedSample] = {}  # by place in `results`
        for place, sample in enumerate(samples):
            try:
                good[place] = self._checked(sample)
            except VoiceprintError as error:
                results[place] = error
        embeddings = self._embedder.embed_together([sample.recording for sample in good.values()])
        embedded: dict[int, Embedding] = {}
        for place, embedding in zip([*good], embeddings, strict=True):
            if isinstance(embedding, VoiceprintError):
                results[place] = embedding
                continue
            try:
                good[place], embedded[place] = self._of_one_voice(good[place], embedding)
            except VoiceprintError as error:
                results[place] = error
        augmented = self._augmented([good[place] for place in embedded], [*embedded.values()])
        for place, for_lines in zip(embedded, augmented, strict=True):
            voiceprint = self._voiceprint(good[place], embedded[place], for_lines)
            results[place] = NewPrint(voiceprint, good[place].score)
        return cast("list[NewPrint | VoiceprintError]", results)

    def _new_prints(self, on_mismatch: OnMismatch) -> VoiceprintWriter:
        return VoiceprintWriter(self._storage, self._config.max_voiceprints_per_caller, on_mismatch)


def _seconds(sample: Any, sample_rate: Any) -> float:
    """About how much audio is in a sample that nobody has checked yet."""
    try:
        if isinstance(sample[1], Recording):
            return sample[1].duration_s
        size = len(sample[1]) if isinstance(sample[1], bytes | bytearray) else sample[1].nbytes
        return float(size / (4.0 * (sample[3] if len(sample) > 3 else sample_rate)))
    except (TypeError, AttributeError, LookupError, ArithmeticError):
        return 0.0
