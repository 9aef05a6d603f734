"""Enrolment: samples of callers' voices become voiceprints in the store, one by one or a long list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from voiceprint.audio import AudioBuffer, AudioQuality, Encoding, as_pcm, assess
from voiceprint.audio.advice import more_speech_s
from voiceprint.encoder.workers import cores
from voiceprint.errors import AudioQualityError, InvalidArgumentError, VoiceprintError
from voiceprint.grouped import Grouped
from voiceprint.models import Voiceprint
from voiceprint.new_prints import NewPrints, OnMismatch
from voiceprint.validation import check_caller_id, check_metadata

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.embedding import Embedder
    from voiceprint.simulated import Versions
    from voiceprint.storage import Storage

# Enrolments of a long list that are stored in one change: a crash loses at most these, and a store that
# writes all it holds with every change is not slowed down by a long list.
ENROLMENT_BATCH = 64

# Samples of a long list that are embedded in one go: so many, or so many seconds of them.
EMBEDDED_TOGETHER = 8
EMBEDDED_TOGETHER_S = 120.0

Embedding = NDArray[np.float32]

Sample = tuple[str, AudioBuffer, dict[str, Any] | None]
"""Caller id, audio and metadata."""


class EnrollmentCheck(BaseModel):
    """Whether audio can be enrolled, and what to do next.

    ready: whether `enroll_caller` takes it.
    more_audio_s: seconds of audio that are missing until it may, 0 where there are enough.
    more_speech_s: seconds of speech (audio without its pauses) that are missing until more would not make a
        better sample; 0 or more, also where it is ready.
    quality: what was measured. advice: sentences that say what to do, the gravest first; also where it is
        ready and could be better.
    """

    model_config = ConfigDict(frozen=True)

    ready: bool
    more_audio_s: float
    more_speech_s: float
    quality: AudioQuality
    advice: tuple[str, ...] = ()


class CheckedSample(NamedTuple):
    """A sample that can be enrolled: its audio as numbers, and what its second print is to be made of."""

    caller_id: str
    audio: NDArray[Any]
    metadata: dict[str, Any] | None
    versions: Versions


class Enrolment:
    """Checks samples, embeds them, and stores their voiceprints.

    sample_rate, encoding, channel: of the audio of every sample, see `as_pcm`.
    """

    def __init__(
        self,
        storage: Storage,
        embedder: Embedder,
        config: VoiceFingerprintConfig,
        *,
        sample_rate: int,
        encoding: Encoding,
        channel: int | None,
    ) -> None:
        self._storage = storage
        self._embedder = embedder
        self._config = config
        self._rate = sample_rate
        self._encoding: Encoding = encoding
        self._channel = channel

    def check(self, audio_buffer: AudioBuffer) -> EnrollmentCheck:
        """Whether the audio is long and good enough to enrol, and what to do where it is not."""
        return self._check(as_pcm(audio_buffer, self._rate, encoding=self._encoding, channel=self._channel))

    def enroll(
        self, sample: Sample, on_mismatch: OnMismatch, may_store: Callable[[], bool] = lambda: True
    ) -> Voiceprint | None:
        """Store the voiceprint of one sample, and return it; None where `may_store`, which is asked right
        before, says no."""
        new_prints = self._new_prints(on_mismatch)
        checked = self._checked(sample)
        embedding = self._embedder.embed(checked.audio, self._rate)
        (simulated,) = self._simulated([checked], [embedding])
        voiceprint = self._voiceprint(checked, embedding, simulated)
        if not may_store():
            return None
        (result,) = new_prints.store([voiceprint])
        if isinstance(result, VoiceprintError):
            raise result
        return result

    def enroll_many(
        self, samples: Iterable[Sample], on_mismatch: OnMismatch
    ) -> list[Voiceprint | VoiceprintError]:
        """Store the voiceprints of all samples; for each, in order, the print or why there is none."""
        new_prints = self._new_prints(on_mismatch)
        results: list[Voiceprint | VoiceprintError] = []
        waiting: dict[int, Voiceprint] = {}  # by place in `results`

        def store() -> None:
            for place, result in zip(waiting, new_prints.store([*waiting.values()]), strict=True):
                results[place] = result
            waiting.clear()

        def take(result: Voiceprint | VoiceprintError) -> None:
            if isinstance(result, Voiceprint):
                waiting[len(results)] = result
            results.append(result)
            if len(waiting) == ENROLMENT_BATCH:
                store()

        work: Grouped[Sample, Voiceprint | VoiceprintError] = Grouped(
            self._voiceprints,
            take,
            cost=lambda sample: _seconds(sample, self._rate),
            most=EMBEDDED_TOGETHER,
            largest=EMBEDDED_TOGETHER_S,
            threads=self._config.encoder_threads or cores(),
        )
        try:
            work.run(samples)
        finally:  # also when `samples` itself fails midway: what was given before is not lost
            if waiting:
                store()
        return results

    def _checked(self, sample: Any) -> CheckedSample:
        """The sample with its audio as numbers; whatever can be refused is, before the costly part."""
        self._embedder.check_enabled()
        try:
            caller_id, audio_buffer, metadata = sample
        except (TypeError, ValueError):  # not three things
            raise InvalidArgumentError(
                "A sample is a tuple of caller_id, audio and metadata (or None)."
            ) from None
        caller_id, metadata = check_caller_id(caller_id), check_metadata(metadata)
        audio = as_pcm(audio_buffer, self._rate, encoding=self._encoding, channel=self._channel)
        check = self._check(audio)
        if check.more_audio_s:
            raise AudioQualityError(check.advice[0], check.quality)
        self._embedder.check_quality(check.quality)
        return CheckedSample(caller_id, audio, metadata, self._embedder.versions(check.quality))

    def _check(self, audio: NDArray[Any]) -> EnrollmentCheck:
        quality = assess(audio, sample_rate=self._rate)
        needed = self._config.enrollment_duration
        missing = max(needed - quality.duration_s, 0.0)
        short = (
            f"Enrolment needs {needed:g} s of audio, and this is {quality.duration_s:.2f} s: record "
            f"{max(missing, 0.1):.1f} s more, or set VOICE_ENROLLMENT_DURATION."
        )
        return EnrollmentCheck(
            ready=not missing and quality.score >= self._config.min_audio_quality,
            more_audio_s=missing,
            more_speech_s=more_speech_s(quality),
            quality=quality,
            advice=(short, *quality.advice) if missing else quality.advice,
        )

    def _voiceprint(
        self, sample: CheckedSample, embedding: Embedding, simulated: Embedding | None
    ) -> Voiceprint:
        return Voiceprint(
            sample.caller_id, embedding, sample.metadata, encoder=self._embedder.space, simulated=simulated
        )

    def _simulated(self, samples: list[CheckedSample], embeddings: list[Embedding]) -> list[Embedding | None]:
        """The second print of each sample that gets one."""
        return self._embedder.embed_simulated(
            [sample.audio for sample in samples],
            self._rate,
            embeddings,
            [sample.versions for sample in samples],
        )

    def _voiceprints(self, samples: list[Sample]) -> list[Voiceprint | VoiceprintError]:
        """The voiceprint of each sample, or why there is none."""
        results: list[Voiceprint | VoiceprintError | None] = []
        good: dict[int, CheckedSample] = {}  # by place in `results`
        for sample in samples:
            try:
                good[len(results)] = self._checked(sample)
            except VoiceprintError as error:
                results.append(error)
            else:
                results.append(None)
        embeddings = self._embedder.embed_together([sample.audio for sample in good.values()], self._rate)
        embedded: dict[int, Embedding] = {}
        for place, embedding in zip(good, embeddings, strict=True):
            if isinstance(embedding, VoiceprintError):
                results[place] = embedding
            else:
                embedded[place] = embedding
        simulated = self._simulated([good[place] for place in embedded], [*embedded.values()])
        for place, for_lines in zip(embedded, simulated, strict=True):
            results[place] = self._voiceprint(good[place], embedded[place], for_lines)
        return cast("list[Voiceprint | VoiceprintError]", results)

    def _new_prints(self, on_mismatch: OnMismatch) -> NewPrints:
        return NewPrints(self._storage, self._config.max_voiceprints_per_caller, on_mismatch)


def _seconds(sample: Any, sample_rate: Any) -> float:
    """About how much audio is in a sample that nobody has checked yet."""
    try:
        size = len(sample[1]) if isinstance(sample[1], bytes | bytearray) else sample[1].nbytes
        return float(size / (4.0 * sample_rate))
    except (TypeError, AttributeError, LookupError, ArithmeticError):
        return 0.0
