"""Enrollment: recordings of callers become voiceprints in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint._audited import Operation, note, record_results, recording
from voiceprint.audio import SAMPLE_RATE, AudioBuffer, Recording
from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.audio.quality.advice import several_voices
from voiceprint.encoder import TorchEncoder, configured_encoder
from voiceprint.encoder.workers import cores
from voiceprint.enrollment.agreement import best_agreeing
from voiceprint.enrollment.augmentation import (
    AugmentationPlan,
    PlannedAugmentation,
    augmentation_plan,
    augmented_embeddings,
)
from voiceprint.enrollment.batches import BatchRunner
from voiceprint.enrollment.check import EnrollmentCheck, OnSeveralVoices, check_quality
from voiceprint.enrollment.own_embeddings import EmbeddingRows, enroll_rows
from voiceprint.enrollment.provenance import provenance_of
from voiceprint.enrollment.results import NewVoiceprint, OrderedResults, SecondaryEnroller
from voiceprint.enrollment.writer import OnMismatch, VoiceprintWriter
from voiceprint.errors import (
    AudioQualityError,
    InvalidArgumentError,
    RecordingNotUsedError,
    SeveralVoicesError,
    VoiceprintError,
)
from voiceprint.models import Consent, Provenance, Voiceprint
from voiceprint.validation import check_caller_id, check_metadata, shown

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.embedder import Embedder, OwnEmbedding
    from voiceprint.encoder import Encoder
    from voiceprint.enrollment.manifest import ManifestRow
    from voiceprint.storage import Storage
    from voiceprint.storage.base import Progress

# The size of a batch of a long list: samples, or seconds of audio.
_EMBEDDED_TOGETHER: Final = 8
_EMBEDDED_TOGETHER_S: Final = 120.0

Embedding = NDArray[np.float32]

Sample = (
    tuple[str, AudioBuffer | Recording, dict[str, Any] | None]
    | tuple[str, AudioBuffer | Recording, dict[str, Any] | None, int]
)
"""Caller id, audio, metadata, and optionally the sample rate of this audio."""

Keep = Literal["newest", "best"]
"""Samples to store of a caller with more than the limit: the last ones, or those that agree best."""


class EnrollmentOptions(NamedTuple):
    """The options of an enrollment: the format of the audio, how to treat mismatches and several voices.

    enrolled_only: see `VoiceprintWriter`. consent, groups: of the callers. source: of the recording, for its
    `Provenance`; None is the name of its file.
    """

    audio_format: AudioFormat = PCM
    on_mismatch: OnMismatch = "store"
    on_several_voices: OnSeveralVoices = "refuse"
    enrolled_only: bool = False
    consent: Consent | None = None
    groups: tuple[str, ...] = ()
    source: str | None = None

    def check(self) -> None:
        """Raise `InvalidArgumentError` for an unknown option."""
        check_choice("on_mismatch", self.on_mismatch, OnMismatch)
        check_choice("on_several_voices", self.on_several_voices, OnSeveralVoices)
        if self.consent is not None and not isinstance(self.consent, Consent):
            raise InvalidArgumentError(f"The consent is {shown(self.consent)}: give a Consent.")
        Provenance(source=self.source)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise `InvalidArgumentError` where an argument is none of the values of a Literal."""
    if value not in get_args(choices):
        raise InvalidArgumentError(f"{name} is {shown(value)}: {' or '.join(get_args(choices))} is allowed.")


class _CheckedSample(NamedTuple):
    """A sample that can be enrolled, and the augmentations of it to compute."""

    caller_id: str
    recording: Recording
    metadata: dict[str, Any] | None
    plan: AugmentationPlan
    file: str | None


class Enroller:
    """Checks samples, embeds them, and stores their voiceprints."""

    def __init__(
        self,
        storage: Storage,
        embedder: Embedder,
        encoder: Encoder,
        config: VoiceFingerprintConfig,
        secondary: SecondaryEnroller | None = None,
    ) -> None:
        self._storage = storage
        self._embedder = embedder
        self._encoder = encoder
        self._config = config
        self._secondary = secondary

    def check(self, audio_buffer: AudioBuffer | Recording, audio_format: AudioFormat) -> EnrollmentCheck:
        """Check whether the audio is long and good enough to enroll."""
        recording = self._embedder.recording(audio_buffer, audio_format)
        if recording.quality.net_speech_s >= self._embedder.min_speech_s:
            self._embedder.note_voices(recording, None)
        return check_quality(recording.quality, self._config)

    def enroll(
        self, sample: Sample, options: EnrollmentOptions, may_store: Callable[[], bool] = lambda: True
    ) -> Voiceprint | None:
        """Store the voiceprint of one sample, and return it.

        may_store: called right before; where it returns False, nothing is stored, and None is returned.
        """
        options.check()
        with self._recording(sample[0]):
            checked = self._check_sample(sample, options)
            embedding = self._embedder.embed(checked.recording)
            checked, embedding = self._of_one_voice(checked, embedding, options)
            (augmented,) = self._augment([checked], [embedding])
            new = self._new_voiceprint(checked, embedding, augmented, options)
            return self._store_one(new, options, may_store)

    def _recording(self, caller_id: object) -> AbstractContextManager[Operation]:
        caller = caller_id if isinstance(caller_id, str) else None
        return recording(self._storage.auditor, "enroll", caller=caller, encoder=self._encoder.name)

    def enroll_own(
        self,
        caller_id: str,
        embedding: OwnEmbedding,
        metadata: dict[str, Any] | None,
        options: EnrollmentOptions,
        may_store: Callable[[], bool] = lambda: True,
    ) -> Voiceprint | None:
        """As `enroll`, of an embedding that the application computed."""
        options.check()
        with self._recording(caller_id):
            voiceprint = Voiceprint(
                caller_id,
                embedding.plain,
                metadata,
                encoder=self._encoder.name,
                augmented=embedding.augmented,
                consent=options.consent,
                groups=options.groups,
                provenance=None if options.source is None else Provenance(source=options.source),
            )
            return self._store_one(NewVoiceprint(voiceprint, 1.0), options, may_store)

    def _store_one(
        self, new: NewVoiceprint, options: EnrollmentOptions, may_store: Callable[[], bool]
    ) -> Voiceprint | None:
        if not may_store():
            note(detail="cancelled")
            return None
        (result,) = self.writer(options).store([new.voiceprint])
        if isinstance(result, VoiceprintError):
            raise result
        if self._secondary is not None and new.secondary is not None:
            self._secondary.store([new.secondary])
        return result

    def enroll_rows(
        self,
        caller_ids: Iterable[str],
        embeddings: ArrayLike,
        metadata: Iterable[dict[str, Any] | None] | None,
        progress: Progress | None,
    ) -> NDArray[np.int64]:
        """As `voiceprint.enrollment.own_embeddings.enroll_rows`, after a check of all rows."""
        self._embedder.check_enabled()
        rows = EmbeddingRows(caller_ids, embeddings, metadata, self._encoder.dimension)
        return enroll_rows(rows, self._encoder.name, self.writer(EnrollmentOptions()), progress)

    def enroll_many(
        self, samples: Iterable[Sample], options: EnrollmentOptions, keep: Keep
    ) -> list[Voiceprint | VoiceprintError]:
        """Store the voiceprints of all samples; return the voiceprint or error of each, in order."""
        options.check()
        check_choice("keep", keep, Keep)
        if not isinstance(samples, Iterable):
            raise InvalidArgumentError(f"samples is {shown(samples)}: give (caller_id, audio, metadata).")
        found: list[Voiceprint | VoiceprintError] = []
        writer = self.writer(options)
        results = OrderedResults(
            lambda voiceprints: writer.store([*voiceprints.values()]),
            found.append,
            self._best if keep == "best" else None,
            self._secondary,
        )
        rate = options.audio_format.sample_rate or SAMPLE_RATE
        runner: BatchRunner[Sample, NewVoiceprint | VoiceprintError] = BatchRunner(
            lambda batch: self._embed_recorded(batch, options),
            results.add,
            cost=lambda sample: _seconds(sample, rate),
            most=_EMBEDDED_TOGETHER,
            largest=_EMBEDDED_TOGETHER_S,
            threads=self.threads,
        )
        try:
            runner.run(samples)
        finally:  # also when `samples` itself fails midway: the samples before it are not lost
            results.flush()
        return found

    @property
    def storage(self) -> Storage:
        """The store of the voiceprints."""
        return self._storage

    @property
    def space(self) -> str:
        """Name of the embedding space."""
        return self._encoder.name

    @property
    def encoder(self) -> Encoder:
        """The encoder of the voiceprints."""
        return self._encoder

    @property
    def secondary(self) -> SecondaryEnroller | None:
        """The enrollment with the secondary encoder."""
        return self._secondary

    def process_settings(self) -> dict[str, Any] | None:
        """The settings with which a worker embeds as this process, in one thread, see `row_embedder`.

        All of them, so that the environment of another machine does not count, and without secrets. None
        where a worker cannot: with a secondary encoder, or one that is not that of the settings. A GPU stays
        with this process, which answers the workers.
        """
        config = self._config
        # With "cuda", the encoder of the settings is a TorchEncoder.
        of_settings = isinstance(self._encoder, TorchEncoder) or (
            config.encoder_device != "cuda" and self._encoder is configured_encoder(config)
        )
        if self._secondary is not None or not of_settings:
            return None
        secrets = {name for name, field in type(config).model_fields.items() if not field.repr}
        return config.model_dump(exclude=secrets) | {"encoder_threads": 1, "encoder_device": "cpu"}

    @property
    def threads(self) -> int:
        """The threads of a long list."""
        return self._config.encoder_threads or cores()

    def writer(self, options: EnrollmentOptions) -> VoiceprintWriter:
        """The writer of new voiceprints to the store."""
        limit = self._config.max_voiceprints_per_caller
        return VoiceprintWriter(
            self._storage,
            limit,
            options.on_mismatch,
            enrolled_only=options.enrolled_only,
            require_consent=self._config.require_consent,
            retention=self._config.retention_period,
        )

    def embed_rows(
        self, rows: Sequence[ManifestRow], options: EnrollmentOptions
    ) -> list[NewVoiceprint | VoiceprintError]:
        """The voiceprint of each row of a manifest, which is not stored yet, or why there is none.

        Recordings are opened one after the other: at most 120 s of audio, or one recording, is in memory.
        """
        results: dict[int, NewVoiceprint | VoiceprintError] = {}
        opened: dict[int, Sample] = {}
        seconds = 0.0
        for place, row in enumerate(rows):
            try:
                recording = row.open()
                duration_s = recording.duration_s  # raises for a recording without samples
            except VoiceprintError as error:  # the result of this row
                results[place] = error
                continue
            opened[place] = row.caller_id, recording, row.metadata
            seconds += duration_s
            if seconds >= _EMBEDDED_TOGETHER_S:
                results |= zip(opened, self._embed_samples([*opened.values()], options), strict=True)
                opened, seconds = {}, 0.0
        results |= zip(opened, self._embed_samples([*opened.values()], options), strict=True)
        return [results[place] for place in range(len(rows))]

    def _best(self, prints: list[NewVoiceprint]) -> list[Voiceprint | VoiceprintError]:
        """The voiceprints of one caller that agree best, and an error in place of each of the others."""
        limit = self._config.max_voiceprints_per_caller
        embeddings = np.stack([new.voiceprint.embedding for new in prints])
        best = set(best_agreeing(embeddings, [new.score for new in prints], limit, self._encoder.name))
        return [
            new.voiceprint
            if place in best
            else RecordingNotUsedError(
                f"Other recordings of {new.voiceprint.caller_id!r} agree better with each other, and {limit} "
                "voiceprints a caller are kept (VOICE_MAX_VOICEPRINTS_PER_CALLER)."
            )
            for place, new in enumerate(prints)
        ]

    def _check_sample(self, sample: Any, options: EnrollmentOptions) -> _CheckedSample:
        """The sample as a recording, after all checks, which cost less than the embedding."""
        self._embedder.check_enabled()
        audio_format = options.audio_format
        try:
            caller_id, audio_buffer, metadata, *rates = sample
            (sample_rate,) = rates or [audio_format.sample_rate]
        except (TypeError, ValueError):  # not three items, or four
            raise InvalidArgumentError(
                "A sample is a tuple of caller_id, audio and metadata (or None), and perhaps sample_rate."
            ) from None
        caller_id, metadata = check_caller_id(caller_id), check_metadata(metadata)
        recording = self._embedder.recording(audio_buffer, audio_format._replace(sample_rate=sample_rate))
        return self._check_recording(caller_id, recording, metadata, recording.name)

    def _check_recording(
        self, caller_id: str, recording: Recording, metadata: dict[str, Any] | None, file: str | None
    ) -> _CheckedSample:
        """Raises `AudioQualityError` for a recording that is too short or too poor."""
        self._embedder.note_audio(recording.quality)
        check = check_quality(recording.quality, self._config)
        if check.more_audio_s:
            raise AudioQualityError(check.advice[0], check.quality)
        self._embedder.check_quality(recording)
        plan = AugmentationPlan()
        if self._config.enroll_simulated_lines:
            plan = augmentation_plan(self._encoder, recording.quality)
        return _CheckedSample(caller_id, recording, metadata, plan, file)

    def _of_one_voice(
        self, sample: _CheckedSample, embedding: Embedding, options: EnrollmentOptions
    ) -> tuple[_CheckedSample, Embedding]:
        """The sample and its embedding, or those of its largest voice if that is to be enrolled.

        Raises `SeveralVoicesError` where several voices are to be refused, and as for any recording.
        """
        quality = sample.recording.quality
        if "several_voices" not in quality.feedback or options.on_several_voices == "store":
            return sample, embedding
        if options.on_several_voices == "refuse":
            raise SeveralVoicesError(
                f"{several_voices(quality)} Or enroll the one that speaks most: on_several_voices='largest' "
                "(--on-several-voices largest).",
                quality,
            )
        largest = max(self._embedder.voices(sample.recording), key=lambda voice: voice.net_speech_s)
        alone = self._check_recording(sample.caller_id, largest.recording, sample.metadata, sample.file)
        return alone, self._embedder.embed(largest.recording, one_voice=True)

    def _embed_recorded(
        self, samples: list[Sample], options: EnrollmentOptions
    ) -> list[NewVoiceprint | VoiceprintError]:
        results = self._embed_samples(samples, options)
        names = [sample[0] if isinstance(sample, tuple) and sample else None for sample in samples]
        self.record_failures(names, results)
        return results

    def record_failures(
        self, caller_ids: Sequence[object], results: Sequence[NewVoiceprint | VoiceprintError]
    ) -> None:
        """Record the samples that cannot be embedded; the writer records the others."""
        failed = [
            pair for pair in zip(caller_ids, results, strict=True) if isinstance(pair[1], VoiceprintError)
        ]
        record_results(self._storage.auditor, "enroll", failed, encoder=self._encoder.name)

    def _embed_samples(
        self, samples: list[Sample], options: EnrollmentOptions
    ) -> list[NewVoiceprint | VoiceprintError]:
        """The voiceprint of each sample, or why there is none."""
        results: list[NewVoiceprint | VoiceprintError | None] = [None] * len(samples)
        good: dict[int, _CheckedSample] = {}  # by place in `results`
        for place, sample in enumerate(samples):
            try:
                good[place] = self._check_sample(sample, options)
            except VoiceprintError as error:  # the result of this sample
                results[place] = error
        answers = self._embedder.embed_together([sample.recording for sample in good.values()])
        embeddings: dict[int, Embedding] = {}
        for place, answer in zip([*good], answers, strict=True):
            if isinstance(answer, VoiceprintError):
                results[place] = answer
                continue
            try:
                good[place], embeddings[place] = self._of_one_voice(good[place], answer, options)
            except VoiceprintError as error:  # the result of this sample
                results[place] = error
        augmented = self._augment([good[place] for place in embeddings], [*embeddings.values()])
        for place, other in zip(embeddings, augmented, strict=True):
            results[place] = self._new_voiceprint(good[place], embeddings[place], other, options)
        return cast("list[NewVoiceprint | VoiceprintError]", results)

    def _augment(self, samples: list[_CheckedSample], embeddings: list[Embedding]) -> list[Embedding | None]:
        planned = [
            PlannedAugmentation(sample.recording, embedding, sample.plan)
            for sample, embedding in zip(samples, embeddings, strict=True)
        ]
        return augmented_embeddings(self._encoder, planned)

    def _new_voiceprint(
        self,
        sample: _CheckedSample,
        embedding: Embedding,
        augmented: Embedding | None,
        options: EnrollmentOptions,
    ) -> NewVoiceprint:
        quality = sample.recording.quality
        fingerprints = self._embedder.sketch(sample.recording)
        provenance = provenance_of(quality, options.source, file=sample.file, fingerprints=fingerprints)
        voiceprint = Voiceprint(
            sample.caller_id,
            embedding,
            sample.metadata,
            encoder=self._encoder.name,
            augmented=augmented,
            consent=options.consent,
            groups=options.groups,
            provenance=provenance,
        )
        other = None
        if self._secondary is not None:
            other = self._secondary.voiceprint(sample.caller_id, sample.recording, provenance)
        return NewVoiceprint(voiceprint, quality.score, other)


def _seconds(sample: Any, sample_rate: Any) -> float:
    """An estimate of the seconds of audio in a sample that was not checked yet."""
    try:
        if isinstance(sample[1], Recording):
            return sample[1].duration_s
        size = len(sample[1]) if isinstance(sample[1], bytes | bytearray) else sample[1].nbytes
        return float(size / (4.0 * (sample[3] if len(sample) > 3 else sample_rate)))
    except (TypeError, AttributeError, LookupError, ArithmeticError):  # `_check_sample` raises the error
        return 0.0
