"""`OpusAgentVoiceRecognizer`: enrol callers by voice, and say who is calling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import (
    MIXED,
    SAMPLE_RATE,
    AudioBuffer,
    AudioQuality,
    Encoding,
    as_pcm,
    assess,
    to_mono,
    warn_if_mixed,
)
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.encoder import Encoder, default_encoder
from voiceprint.encoder.workers import cores
from voiceprint.errors import (
    AudioQualityError,
    CallerNotFoundError,
    DisabledError,
    EncoderError,
    InvalidArgumentError,
    StorageUnavailableError,
    VoiceprintError,
)
from voiceprint.gallery import Gallery, rank
from voiceprint.grouped import Grouped
from voiceprint.models import Caller, Finding, Match, Verification, Voiceprint
from voiceprint.snapshots import IndexSettings
from voiceprint.storage import Storage, configured_storage
from voiceprint.storage.base import Progress
from voiceprint.validation import check_caller_id, check_metadata, shown, unit_vector

if TYPE_CHECKING:
    from voiceprint.index import IndexStatus
    from voiceprint.streaming import CallStream

__all__ = ["OpusAgentVoiceRecognizer"]

logger = logging.getLogger(__name__)

# Net speech that a probe needs, in seconds: below it the embedding says little about the speaker.
MIN_PROBE_SPEECH_S = 1.0

# Enrolments that `enroll_many` stores in one change: a crash loses at most these, and a store that
# writes all it holds with every change is not slowed down by a long list.
ENROLMENT_BATCH = 64

# Samples that `enroll_many` embeds in one go: so many, or so many seconds of them.
EMBEDDED_TOGETHER = 8
EMBEDDED_TOGETHER_S = 120.0

Sample = tuple[str, AudioBuffer, dict[str, Any] | None]
CheckedSample = tuple[str, NDArray[Any], dict[str, Any] | None]


class OpusAgentVoiceRecognizer:
    """Enrols callers by voice and identifies them. Cheap to make, and safe to use from many threads.

    storage_backend: a `Storage`; None opens the one that the configuration chooses.
    config: settings; None reads them from the environment. They are read at every call, so a change
        of an attribute counts from the next call on.
    encoder: an `Encoder`; None takes the one that the configuration chooses, loaded once per process, at
        its first use or by `warm_up`.

    Audio buffers are arrays of int16, int32, uint8 or float in [-1, 1], mono or with channels, or
    bytes of one channel, at `sample_rate` 8000 to 48000 Hz. Every method that takes one also takes
        encoding: of bytes; "pcm" is 16-bit little-endian. "mulaw" and "alaw" are G.711 codes, as
            bytes or uint8 arrays; for the other names see `voiceprint.audio.encodings.Encoding`.
        channel: index of the channel to use, such as the caller's. None mixes them by mean; where
            they hold different voices, the quality's feedback and a warning in the log say so.
    It raises `InvalidAudioError` for a buffer that is not audio, and `AudioQualityError` for audio
    that is too short or too poor; the store's errors pass through.
    """

    def __init__(
        self,
        storage_backend: Storage | None = None,
        *,
        config: VoiceFingerprintConfig | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        # Told here and not at the first call. A store of one's own need not be a subclass.
        backend = storage_backend
        if backend is not None and (isinstance(backend, type) or not hasattr(backend, "save")):
            raise InvalidArgumentError(f"storage_backend is {shown(storage_backend)}: give a Storage.")
        if config is not None and not isinstance(config, VoiceFingerprintConfig):
            raise InvalidArgumentError(f"config is {shown(config)}: give a VoiceFingerprintConfig.")
        if encoder is not None and not isinstance(encoder, Encoder):
            raise InvalidArgumentError(f"encoder is {shown(encoder)}: give an Encoder.")
        self.config = VoiceFingerprintConfig() if config is None else config
        own = default_encoder(self.config.encoder, self.config.encoder_threads)
        self.encoder = own if encoder is None else encoder
        self.storage = configured_storage(self.config) if storage_backend is None else storage_backend
        self._gallery: Gallery | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.storage!r}, encoder={self.encoder.name!r})"

    # Audio

    def get_embedding(
        self,
        audio_buffer: AudioBuffer,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> NDArray[np.float32]:
        """The embedding of the voice: float32[256] of length 1.

        Any amount of speech will do; without speech, `AudioQualityError`. Raises `DisabledError`.
        """
        self._check_enabled()
        audio = as_pcm(audio_buffer, sample_rate, encoding=encoding, channel=channel)
        embedding = self._embed(audio, sample_rate)
        warn_if_mixed(audio, sample_rate)
        return embedding

    def warm_up(self, *, progress: Progress | None = None) -> None:
        """Load the encoder and the index now, so that the first caller does not wait for them.

        progress: told how many voiceprints are in, when the index has to be built from the store.
        """
        self.encoder.warm_up()
        self._current_gallery().synchronised(self.storage, progress)

    def close(self) -> None:
        """Write the index's snapshot if much has changed, and close the store. May be called twice.

        Other recognisers over the same store, with handles of their own, go on.
        """
        if self._gallery is not None:
            gallery, self._gallery = self._gallery, None
            gallery.close(self.storage)
        self.storage.close()

    def __enter__(self) -> OpusAgentVoiceRecognizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed(self, audio_buffer: NDArray[Any], sample_rate: int) -> NDArray[np.float32]:
        audio = to_mono(audio_buffer, sample_rate, self.encoder.sample_rate)
        try:
            return self._checked(self.encoder.embed(audio))
        except EncoderError:
            quality = assess(audio_buffer, sample_rate=sample_rate)
            if quality.net_speech_s > 0:
                raise
            # The encoder's word for it is not the caller's: the audio is at fault, and may be retried.
            raise AudioQualityError(
                f"The audio ({quality.duration_s:.1f} s) holds no speech: nothing can be told of a voice.",
                quality,
            ) from None

    def _checked(self, answer: Any) -> NDArray[np.float32]:
        """What the encoder gave, if it is an embedding."""
        try:
            embedding = unit_vector(answer)
        except InvalidArgumentError as error:
            raise EncoderError(f"The encoder {self.encoder.name!r} failed: {error}") from error
        if embedding.size != self.encoder.dimension:
            raise EncoderError(
                f"The encoder {self.encoder.name!r} gave {embedding.size} values: it has the dimension "
                f"{self.encoder.dimension}."
            )
        return embedding

    def _check_enrollable(self, audio_buffer: NDArray[Any], sample_rate: int) -> None:
        """Refuse audio that is too short or not good enough to enrol."""
        quality = assess(audio_buffer, sample_rate=sample_rate)
        needed = self.config.enrollment_duration
        if quality.duration_s < needed:
            raise AudioQualityError(
                f"Enrolment needs {needed:g} s of audio, and this is {quality.duration_s:.2f} s: record "
                f"{needed - quality.duration_s:.1f} s more, or set VOICE_ENROLLMENT_DURATION.",
                quality,
            )
        self._check_quality(quality)

    def _probe(self, audio_buffer: NDArray[Any], sample_rate: int) -> NDArray[np.float32]:
        """The embedding, of audio that is good enough to be matched."""
        quality = assess(audio_buffer, sample_rate=sample_rate)
        if quality.net_speech_s < MIN_PROBE_SPEECH_S:
            raise AudioQualityError(
                f"Matching needs {MIN_PROBE_SPEECH_S:g} s of speech, and this audio holds "
                f"{quality.net_speech_s:.1f} s: wait for the caller to say more.",
                quality,
            )
        self._check_quality(quality)
        return self._embed(audio_buffer, sample_rate)

    def _check_quality(self, quality: AudioQuality) -> None:
        if "channels_differ" in quality.feedback:
            logger.warning(MIXED)
        minimum = self.config.min_audio_quality
        if quality.score < minimum:
            raise AudioQualityError(
                f"The audio quality is {quality.score:.2f}, and {minimum:g} is needed "
                f"({', '.join(quality.feedback) or 'poor in all respects'}): record again, "
                "or set VOICE_MIN_AUDIO_QUALITY.",
                quality,
            )

    def _check_enabled(self) -> None:
        if not self.config.fingerprinting_enabled:
            raise DisabledError(
                "Voice fingerprinting is off: set VOICE_FINGERPRINTING_ENABLED=true to use it."
            )

    # Enrolment

    def enroll_caller(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer,
        metadata: dict[str, Any] | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> Voiceprint:
        """Store a voiceprint of a new or known caller, and return it.

        metadata: JSON object, merged into what is known of the caller, new keys winning. The audio
        needs `enrollment_duration` seconds and `min_audio_quality`. With more than
        `max_voiceprints_per_caller` the caller's oldest print is replaced. Raises `DisabledError`,
        `InvalidArgumentError` for a caller id or metadata that cannot be stored.
        """
        sample = self._checked_sample((caller_id, audio_buffer, metadata), sample_rate, encoding, channel)
        voiceprint = self._voiceprint(sample, self._embed(sample[1], sample_rate))
        return self.storage.save(voiceprint, max_voiceprints=self.config.max_voiceprints_per_caller)

    def _checked_sample(
        self, sample: Any, sample_rate: int, encoding: Encoding, channel: int | None
    ) -> CheckedSample:
        """The sample with its audio as numbers; whatever can be refused is, before the costly part."""
        self._check_enabled()
        try:
            caller_id, audio_buffer, metadata = sample
        except (TypeError, ValueError):  # not three things
            raise InvalidArgumentError(
                "A sample is a tuple of caller_id, audio and metadata (or None)."
            ) from None
        caller_id, metadata = check_caller_id(caller_id), check_metadata(metadata)
        audio = as_pcm(audio_buffer, sample_rate, encoding=encoding, channel=channel)
        self._check_enrollable(audio, sample_rate)
        return caller_id, audio, metadata

    def _voiceprint(self, sample: CheckedSample, embedding: NDArray[np.float32]) -> Voiceprint:
        caller_id, _, metadata = sample
        return Voiceprint(caller_id, embedding, metadata, encoder=self.encoder.name)

    def enroll_many(
        self,
        samples: Iterable[Sample],
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> list[Voiceprint | VoiceprintError]:
        """Enrol (caller_id, audio, metadata) samples; gives for each, in order, the print or the error.

        No bad sample stops the rest. Prints are stored some dozens at a time; where the store fails,
        each of those gets its error. Works with `encoder_threads` threads, and reads only some samples ahead
        of them: `samples` may be a generator that loads one file after the other.
        """
        results: list[Voiceprint | VoiceprintError] = []
        waiting: dict[int, Voiceprint] = {}  # by place in `results`

        def store() -> None:
            for place, result in zip(waiting, self._store([*waiting.values()]), strict=True):
                results[place] = result
            waiting.clear()

        def take(result: Voiceprint | VoiceprintError) -> None:
            if isinstance(result, Voiceprint):
                waiting[len(results)] = result
            results.append(result)
            if len(waiting) == ENROLMENT_BATCH:
                store()

        work: Grouped[Sample, Voiceprint | VoiceprintError] = Grouped(
            lambda group: self._voiceprints(group, sample_rate, encoding, channel),
            take,
            cost=lambda sample: _seconds(sample, sample_rate),
            most=EMBEDDED_TOGETHER,
            largest=EMBEDDED_TOGETHER_S,
            threads=self.config.encoder_threads or cores(),
        )
        try:
            work.run(samples)
        finally:  # also when `samples` itself fails midway: what was given before is not lost
            if waiting:
                store()
        return results

    def _voiceprints(
        self, samples: list[Sample], sample_rate: int, encoding: Encoding, channel: int | None
    ) -> list[Voiceprint | VoiceprintError]:
        """The voiceprint of each sample, or why there is none."""
        results: list[Voiceprint | VoiceprintError | None] = []
        good: dict[int, CheckedSample] = {}  # by place in `results`
        for sample in samples:
            try:
                good[len(results)] = self._checked_sample(sample, sample_rate, encoding, channel)
            except VoiceprintError as error:
                results.append(error)
            else:
                results.append(None)
        embeddings = self._embed_together([sample[1] for sample in good.values()], sample_rate)
        for place, embedding in zip(good, embeddings, strict=True):
            if isinstance(embedding, VoiceprintError):
                results[place] = embedding
            else:
                results[place] = self._voiceprint(good[place], embedding)
        return cast("list[Voiceprint | VoiceprintError]", results)

    def _embed_together(
        self, buffers: list[NDArray[Any]], sample_rate: int
    ) -> list[NDArray[np.float32] | VoiceprintError]:
        if len(buffers) > 1:
            audios = [to_mono(buffer, sample_rate, self.encoder.sample_rate) for buffer in buffers]
            try:
                answers = self.encoder.embed_batch(audios)
                return [self._checked(answer) for _, answer in zip(buffers, answers, strict=True)]
            except (EncoderError, ValueError):  # ValueError: not so many answers
                logger.debug("A group of %d could not be embedded: now one by one.", len(buffers))
        # One, or one of them has no embedding, which is its own result and not that of the others.
        results: list[NDArray[np.float32] | VoiceprintError] = []
        for buffer in buffers:
            try:
                results.append(self._embed(buffer, sample_rate))
            except VoiceprintError as error:
                results.append(error)
        return results

    def _store(self, voiceprints: list[Voiceprint]) -> list[Voiceprint | VoiceprintError]:
        """Store them in one change; where that fails, give the error in the place of each that it hit."""
        limit = self.config.max_voiceprints_per_caller
        try:
            return [*self.storage.save_many(voiceprints, max_voiceprints=limit)]
        except InvalidArgumentError as error:
            # One of them, such as a caller whose metadata became too large, and all were refused.
            if len(voiceprints) == 1:
                return [error]
            return [result for voiceprint in voiceprints for result in self._store([voiceprint])]
        except VoiceprintError as error:
            return [error] * len(voiceprints)

    # Identification

    def match_caller(
        self,
        audio_buffer: AudioBuffer,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> tuple[str, float, dict[str, Any]] | None:
        """Who is calling: (caller_id, similarity, metadata), or None for nobody who is enrolled.

        similarity: cosine, at least `similarity_threshold`. An accepted match moves the caller's
        `last_seen`. The audio needs 1 s of speech and `min_audio_quality`. None, without a look at
        the audio, when fingerprinting is disabled.
        """
        matches = self.identify(
            audio_buffer, k=1, sample_rate=sample_rate, encoding=encoding, channel=channel
        )
        if not matches or not matches[0].accepted:
            return None
        best = matches[0]
        self._touch(best.caller_id)
        return best.caller_id, best.similarity, best.metadata

    def identify(
        self,
        audio_buffer: AudioBuffer,
        k: int = 5,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
    ) -> list[Match]:
        """The k callers who sound most alike, the best first; fewer where fewer are enrolled.

        threshold: cosine from which a match counts as accepted, 0 to 1; None takes the configured
        one. candidates: search among these caller ids only, such as those behind a phone number; ids
        that are not enrolled are passed over. Empty when fingerprinting is disabled.
        """
        if not self.config.fingerprinting_enabled:
            return []
        k, limit = self._count(k), self._threshold(threshold)
        audio = as_pcm(audio_buffer, sample_rate, encoding=encoding, channel=channel)
        callers = None if candidates is None else self._candidates(candidates)
        return self._nearest(self._probe(audio, sample_rate), k, limit, callers)

    def _nearest(
        self, probe: NDArray[np.float32], k: int, limit: float, callers: list[Caller] | None
    ) -> list[Match]:
        """The k nearest of these callers; of all if None."""
        if callers is None:
            ranked = self._current_gallery().best(self.storage, probe, k)
        else:
            ranked = rank(probe, [print_ for caller in callers for print_ in self._prints(caller)])[:k]
        return [
            Match(
                caller_id=scored.voiceprint.caller_id,
                similarity=scored.similarity,
                metadata=scored.voiceprint.metadata,
                voiceprint_id=cast(int, scored.voiceprint.id),  # every stored print has one
                accepted=scored.similarity >= limit,
            )
            for scored in ranked
        ]

    def verify_caller(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> Verification:
        """Whether the voice is that of the caller it is said to be.

        Raises `CallerNotFoundError` for a caller who is not enrolled, and `DisabledError`. An accepted
        verification moves the caller's `last_seen`.
        """
        self._check_enabled()
        caller = self.storage.get(caller_id)
        prints = self._prints(caller) if caller is not None else []
        if not prints:
            what = "enrolled" if caller is None else f"enrolled with the encoder {self.encoder.name!r}"
            raise CallerNotFoundError(f"The caller {caller_id!r} is not {what}: enrol the caller first.")
        audio = as_pcm(audio_buffer, sample_rate, encoding=encoding, channel=channel)
        best = rank(self._probe(audio, sample_rate), prints)[0]
        threshold = self.config.similarity_threshold
        accepted = best.similarity >= threshold
        if accepted:
            self._touch(caller_id)
        return Verification(
            caller_id=caller_id, accepted=accepted, similarity=best.similarity, threshold=threshold
        )

    def stream(
        self,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        k: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
    ) -> CallStream:
        """A session that is fed the audio of one call as it comes, and has an answer at any time.

        The arguments are those of `identify`; see `CallStream`. When fingerprinting is disabled, it
        ignores what it is fed, and its answer is nobody.
        """
        from voiceprint.streaming import CallStream  # here, as it needs the network's modules

        count, ids = self._count(k), None if candidates is None else self._ids(candidates)
        self._threshold(threshold)

        def search(total: NDArray[Any], wanted: int) -> list[Match]:
            callers = None if ids is None else self._candidates(ids)
            return self._nearest(self._checked(total), wanted, self._threshold(threshold), callers)

        return CallStream(
            sample_rate=sample_rate,
            encoding=encoding,
            channel=channel,
            k=count,
            encoder=self.encoder,
            config=self.config,
            limit=lambda: self._threshold(threshold),
            search=search,
            touch=self._touch,
        )

    def _current_gallery(self) -> Gallery:
        # Asked for at each use, as after a fork it is another; kept, so that it lasts while this does.
        config = self.config
        settings = IndexSettings(config.index_path, config.index_recall, config.index_threads)
        self._gallery = Gallery.shared(self.storage, self.encoder.name, self.encoder.dimension, settings)
        return self._gallery

    def _count(self, k: int) -> int:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InvalidArgumentError(f"k is {shown(k)}: a whole number from 1 is allowed.")
        return int(k)

    def _threshold(self, threshold: float | None) -> float:
        if threshold is None:
            return self.config.similarity_threshold
        if (
            isinstance(threshold, bool)
            or not isinstance(threshold, int | float | np.number)
            or not 0 <= threshold <= 1
        ):
            raise InvalidArgumentError(
                f"The threshold is {shown(threshold)}: a number from 0 to 1 is allowed."
            )
        return float(threshold)

    def _candidates(self, candidates: Iterable[str]) -> list[Caller]:
        found = (self.storage.get(caller_id) for caller_id in self._ids(candidates))
        return [caller for caller in found if caller is not None]

    def _ids(self, candidates: Iterable[str]) -> list[str]:
        if isinstance(candidates, str) or not isinstance(candidates, Iterable):
            raise InvalidArgumentError(
                f"candidates is one {type(candidates).__name__}: give a list of caller ids."
            )
        return [*dict.fromkeys(check_caller_id(caller_id) for caller_id in candidates)]

    def _prints(self, caller: Caller) -> list[Voiceprint]:
        # Embeddings of different encoders are never compared.
        return [print_ for print_ in caller.voiceprints if print_.encoder == self.encoder.name]

    def _touch(self, caller_id: str) -> None:
        try:
            self.storage.touch(caller_id)
        except StorageUnavailableError as error:
            # The call has its answer; a store that can be read but not written must not take it away.
            logger.warning("last_seen of a matched caller could not be stored: %s", error)

    # Callers

    def get_caller(self, caller_id: str) -> Caller | None:
        """The caller with metadata and voiceprints, or None."""
        return self.storage.get(caller_id)

    def callers(self) -> Iterator[Caller]:
        """All callers, in the order of their ids, read from the store a page at a time."""
        return self.storage.iter_callers()

    def delete_caller(self, caller_id: str) -> int:
        """Remove a caller with all voiceprints and metadata; gives how many voiceprints there were."""
        return self.storage.delete(caller_id)

    def check(self, *, fix: bool = False) -> list[Finding]:
        """What is wrong with the store, and where index and store differ; empty when all is well.

        fix: repair what can be derived from the records; no record is ever changed.
        """
        findings = self.storage.check(fix=fix)
        if any(finding.code == "corrupt" for finding in findings):
            return findings  # there is nothing that an index could be compared with
        gallery = self._current_gallery()
        differences = gallery.check(self.storage)
        if differences and fix:
            gallery.rebuild(self.storage)
            differences = gallery.check(self.storage)
        return findings + differences

    # The index, which looks after itself: for those who want to see or hurry it

    def index_status(self, *, progress: Progress | None = None) -> IndexStatus:
        """How the voiceprints are searched at this moment."""
        return self._current_gallery().synchronised(self.storage, progress).status()

    def rebuild_index(self, *, progress: Progress | None = None) -> IndexStatus:
        """Build the index anew from the store, train it, and write its snapshot."""
        return self._current_gallery().rebuild(self.storage, progress).status()

    def tune_index(self, recall: float | None = None) -> IndexStatus:
        """Measure anew how much of the index a search has to look at, and write its snapshot.

        recall: share of searches that are to find the most similar voiceprint of all, above 0, up to 1;
        None keeps `index_recall`. It lasts until the index is next built or read.
        """
        gallery = self._current_gallery()
        index = gallery.synchronised(self.storage)
        try:
            index.tune(recall)
        except ValueError as error:
            raise InvalidArgumentError(str(error)) from None
        index.wait()
        gallery.write_snapshot(self.storage)
        return index.status()

    def snapshot_path(self) -> Path | None:
        """Where the index's snapshot lies; None where none is kept."""
        return self._current_gallery().snapshot_path(self.storage)

    # From an event loop: each runs in a worker thread, because embedding takes tens of milliseconds

    async def aenroll_caller(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer,
        metadata: dict[str, Any] | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> Voiceprint:
        """`enroll_caller` without blocking the event loop."""
        return await asyncio.to_thread(
            self.enroll_caller,
            caller_id,
            audio_buffer,
            metadata,
            sample_rate=sample_rate,
            encoding=encoding,
            channel=channel,
        )

    async def amatch_caller(
        self,
        audio_buffer: AudioBuffer,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
    ) -> tuple[str, float, dict[str, Any]] | None:
        """`match_caller` without blocking the event loop."""
        return await asyncio.to_thread(
            self.match_caller, audio_buffer, sample_rate=sample_rate, encoding=encoding, channel=channel
        )

    async def aidentify(
        self,
        audio_buffer: AudioBuffer,
        k: int = 5,
        *,
        sample_rate: int = SAMPLE_RATE,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
    ) -> list[Match]:
        """`identify` without blocking the event loop."""
        return await asyncio.to_thread(
            self.identify,
            audio_buffer,
            k,
            sample_rate=sample_rate,
            encoding=encoding,
            channel=channel,
            threshold=threshold,
            candidates=candidates,
        )


def _seconds(sample: Any, sample_rate: Any) -> float:
    """About how much audio is in a sample that nobody has checked yet."""
    try:
        size = len(sample[1]) if isinstance(sample[1], bytes | bytearray) else sample[1].nbytes
        return float(size / (4.0 * sample_rate))
    except (TypeError, AttributeError, LookupError, ArithmeticError):
        return 0.0
