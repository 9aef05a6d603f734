"""`OpusAgentVoiceRecognizer`: enroll and identify callers by voice."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint._audited import audited, note
from voiceprint._threads import in_thread, store_in_thread
from voiceprint.audio import AudioBuffer, Encoding, Recording
from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.consent import check_groups
from voiceprint.embedder import EmbeddingLike, OwnEmbedding
from voiceprint.encoder import Encoder, configured_encoder, secondary_encoder
from voiceprint.enrollment.bulk import ManifestOptions, RowResult, RowStatus, enroll_manifest
from voiceprint.enrollment.check import EnrollmentCheck, OnSeveralVoices
from voiceprint.enrollment.enroller import EnrollmentOptions, Keep, Sample
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import AudioQualityError, VoiceprintError
from voiceprint.identification.archive import (
    ArchiveIdentification,
    ArchiveOptions,
    ArchiveRow,
    ArchiveStatus,
    check_source,
)
from voiceprint.identification.query import Query, check_threshold
from voiceprint.identification.screening import spoof_detector
from voiceprint.identification.snapshots import (
    IndexSettings,
    add_snapshot_place,
    check_index,
    check_snapshot_path,
)
from voiceprint.identification.voices import identify_voices
from voiceprint.models import (
    Consent,
    Identification,
    SeparatedVoice,
    Verdict,
    Verification,
    Voiceprint,
)
from voiceprint.privacy.encryption.opening import configured_store
from voiceprint.storage import Storage
from voiceprint.storage.base import Progress
from voiceprint.upkeep import Upkeep

if TYPE_CHECKING:
    from voiceprint.streaming import CallStream

__all__ = ["OpusAgentVoiceRecognizer"]

logger = logging.getLogger(__name__)


class OpusAgentVoiceRecognizer(Upkeep):
    """Enrolls callers by voice and identifies them. Cheap to build, and thread-safe.

    storage_backend: a `Storage`; None opens the one of the configuration.
    config: settings; None reads them from the environment. A change of an attribute applies from the next
        call on.
    encoder: an `Encoder`; None is the one of the configuration, loaded once per process, at its first use or
        by `warm_up`.
    secondary: an `Encoder` of another space to run beside it, see `voiceprint.dual_run`; None is the
        `encoder_secondary` of the configuration.

    Methods take a `Recording`, or a buffer: an array of int16, int32, uint8 or float in [-1, 1], mono or with
    channels, or bytes. The arguments of a buffer:
        sample_rate: 8000 to 48000 Hz; None is 8000 for G.711, and 16000 otherwise.
        encoding: of bytes; "pcm" is 16-bit little-endian. "mulaw" and "alaw" are G.711 codes, as
            bytes or uint8 arrays; for the other names see `voiceprint.audio.io.encodings.Encoding`.
        channels: interleaved in bytes, such as 2 of stereo.
        channel: index of the channel to use, such as the caller's. None averages them; where they hold
            different voices, the quality's feedback and a warning in the log say so.
    In place of audio, most methods take an `embedding` that the application computed:
        embedding: array or list of numbers, of the encoder's dimension, finite and not all zero; it is scaled
            to length 1. Or a `Voiceprint`, which names its encoder.
        encoder: name of the encoder that computed it; `InvalidArgumentError` where that is not this
            recognizer's. For a model that runs elsewhere, see `ExternalEncoder`.
    Methods raise `InvalidAudioError` for a buffer that is not audio, and `AudioQualityError` for audio
    that is too short or too poor; the store's errors pass through.
    """

    def __init__(
        self,
        storage_backend: Storage | None = None,
        *,
        config: VoiceFingerprintConfig | None = None,
        encoder: Encoder | None = None,
        secondary: Encoder | None = None,
    ) -> None:
        self.config = VoiceFingerprintConfig() if config is None else config
        self.encoder = configured_encoder(self.config) if encoder is None else encoder
        self.secondary = secondary_encoder(self.config) if secondary is None else secondary
        self.storage = configured_store(self.config) if storage_backend is None else storage_backend
        spoof_detector(self.config)  # one that cannot be loaded is an error now, and not in the first call
        check_index(self.storage, IndexSettings.of(self.config))
        check_snapshot_path(self.storage, self.config.index_path)
        add_snapshot_place(self.storage, self.config.index_path)

    def with_encoder(self, encoder: Encoder | str) -> OpusAgentVoiceRecognizer:
        """A recognizer with another encoder over the same store, such as the one that the callers move to.

        encoder: an `Encoder`, or a name as in `VOICE_ENCODER`. The settings are a copy; for another embedding
        space without `similarity_threshold`, `calibration_path`, `calibrated_similarity` and
        `encoder_secondary`, which belong to this one. Of the digests, the one that is set for this name
        counts. To close either recognizer closes the store of both.
        """
        config = self.config.for_encoder(encoder) if isinstance(encoder, str) else self.config.model_copy()
        if isinstance(encoder, str):
            encoder = configured_encoder(config)
        if encoder.name != self.encoder.name:
            config = config.for_other_encoder()
        secondary = self.secondary if encoder.name == self.encoder.name else None
        return OpusAgentVoiceRecognizer(self.storage, config=config, encoder=encoder, secondary=secondary)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.storage!r}, encoder={self.encoder.name!r})"

    # Audio

    def get_embedding(
        self,
        audio_buffer: AudioBuffer | Recording,
        *,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
    ) -> NDArray[np.float32]:
        """The embedding of the voice: float32[d] of length 1; d is the encoder's dimension, 256 by default.

        Raises `AudioQualityError` for audio without speech, and `DisabledError`.
        """
        embedder = self._built.embedder
        embedder.check_enabled()
        recording = embedder.recording(audio_buffer, AudioFormat(sample_rate, encoding, channel, channels))
        embedding = embedder.embed(recording)
        recording.warn_if_mixed()
        return embedding

    # Enrollment

    def enroll_caller(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer | Recording | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        on_mismatch: OnMismatch = "store",
        on_several_voices: OnSeveralVoices = "refuse",
        consent: Consent | None = None,
        groups: Iterable[str] = (),
        source: str | None = None,
    ) -> Voiceprint:
        """Store a voiceprint of a new or enrolled caller, and return it.

        metadata: JSON object, merged into the caller's metadata; new keys take precedence. The audio needs
        `enrollment_duration` seconds and `min_audio_quality`. Beyond `max_voiceprints_per_caller`, the new
        voiceprint replaces the caller's oldest of this encoder.

        A recording is enrolled once: a repetition returns the existing voiceprint, merges the metadata, moves
        `last_seen`, and logs at level info. (Two processes at the same moment may both store it.)

        on_mismatch: "store" logs a warning where the voice does not sound like the caller's other
        voiceprints, and may be another person's; "refuse" raises `VoiceMismatchError` instead.

        on_several_voices: "refuse" raises `SeveralVoicesError` for a recording of several voices;
        "largest" enrolls the voice with the most speech, "store" the whole recording as one voice.

        consent: of the caller, stored with the voiceprint; see `VOICE_REQUIRE_CONSENT`. groups: to add the
        caller to. source: name of the file or id of the call, for `Voiceprint.provenance`.

        embedding: stored as given, without checks of duration, quality or number of voices, and with an
        augmented embedding only where a `Voiceprint` has one.

        Raises `DisabledError`, `CallerOptedOutError`, `ConsentRequiredError`, `InvalidArgumentError` for a
        caller id or metadata that cannot be stored.
        """
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        options = EnrollmentOptions(
            audio_format, on_mismatch, on_several_voices, False, consent, check_groups(groups), source
        )
        enrollment = self._built.enrollment(caller_id, audio_buffer, metadata, embedding, encoder, options)
        stored = enrollment(lambda: True)
        assert stored is not None  # noqa: S101  `may_store` is always true
        return stored

    def enroll_many(
        self,
        samples: Iterable[Sample],
        *,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        on_mismatch: OnMismatch = "store",
        on_several_voices: OnSeveralVoices = "refuse",
        keep: Keep = "newest",
        enrolled_only: bool = False,
    ) -> list[Voiceprint | VoiceprintError]:
        """Enroll (caller_id, audio, metadata) samples; return the voiceprint or error of each, in order.

        A sample may have its own sample rate as a fourth item.

        An error of one sample does not stop the rest. Voiceprints are stored some dozens at a time; an error
        of the store is the error of each of those. `encoder_threads` threads work a few samples ahead, so
        `samples` may be a generator that loads one file after the other. Copies of a recording, `on_mismatch`
        and `on_several_voices` are as in `enroll_caller`, also among the samples.

        keep: "best" enrolls, of more than `max_voiceprints_per_caller` consecutive samples of a caller, those
        that agree best with each other, and then by quality
        (`voiceprint.enrollment.agreement.best_agreeing`); the others get a `RecordingNotUsedError`, and
        their metadata is not stored. "newest" enrolls all; the last remain.

        enrolled_only: for recordings that were kept, such as with `with_encoder`: a caller who is not
        enrolled gets a `CallerNotFoundError`, and `last_seen` stays, as nobody has called.
        """
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        options = EnrollmentOptions(audio_format, on_mismatch, on_several_voices, enrolled_only)
        return self._built.enroller.enroll_many(samples, options, keep)

    def enroll_embeddings(
        self,
        caller_ids: Iterable[str],
        embeddings: ArrayLike,
        metadata: Iterable[dict[str, Any] | None] | None = None,
        *,
        encoder: str | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:
        """Enroll many embeddings that the application computed; return the voiceprint id of each, int64[n].

        caller_ids: n ids, one a row; a caller may have several rows. embeddings: [n, dimension] of numbers,
        scaled to length 1; also an array on the disk (`np.load(path, mmap_mode="r")`). metadata: a JSON
        object or None for each row. encoder: name of the encoder that computed them, to be checked.
        progress: called with the number of rows that are stored.

        All rows are checked before the first is stored: `InvalidArgumentError` names the bad row, counted
        from 0. Rows are stored in the order of caller ids, 5,000 in one change of the store; an error of the
        store or a crash leaves those that are stored. The same call resumes: an embedding with which its
        caller is enrolled already is not stored again, and its id is that of the existing voiceprint. Limits
        and warnings are as in `enroll_caller`. Rows of callers who have opted out or lack a required consent
        are left out: a `CallerOptedOutError` or `ConsentRequiredError` names them at the end. Raises
        `DisabledError`.
        """
        parts = self._built
        parts.embedder.check_space(encoder)
        return parts.enroller.enroll_rows(caller_ids, embeddings, metadata, progress)

    def enroll_manifest(
        self,
        path: str | os.PathLike[str],
        *,
        on_row: Callable[[RowResult], None] | None = None,
        stop: Callable[[], bool] | None = None,
        progress_path: str | os.PathLike[str] | None = None,
        again: bool = False,
        processes: int | None = None,
        scheduler: str | None = None,
        s3_folder: str | os.PathLike[str] | None = None,
        within: str | os.PathLike[str] | None = None,
        on_mismatch: OnMismatch = "store",
        on_several_voices: OnSeveralVoices = "refuse",
    ) -> Counter[RowStatus]:
        """Enroll the rows of a manifest, see `read_manifest`; return the number of rows of each status.

        Enrolled rows are noted in the file at `progress_path` (None: FILE.progress, beside the manifest), so
        that a run after an interruption, or with corrected rows, enrolls each row once. Memory does not grow
        with the number of rows. Of a caller with more rows than `max_voiceprints_per_caller`, the last
        remain.

        on_row: called with the `RowResult` of each row, in order, once it is stored. stop: asked before each
        row; True leaves the rows that are not begun. again: enroll also the rows that were enrolled before.
        processes: worker processes that read and embed; 0 works in threads of this process. None is one a
        thread of the encoder (`encoder_threads`), and 0 for fewer than 100 rows, or an encoder that is not
        that of the settings. scheduler: address of a dask scheduler, such as tcp://HOST:PORT, whose workers
        read and embed instead; see docs/bulk.md. s3_folder: with copies of buckets, in which s3://BUCKET/KEY
        is the file BUCKET/KEY. within: folder outside which no recording is read, see `read_manifest`. The
        other arguments are those of `enroll_caller`.

        Raises `InvalidArgumentError` for a file that is no manifest, before anything is stored; and the error
        of the store, once `on_row` was called for every row.
        """
        options = ManifestOptions(
            EnrollmentOptions(on_mismatch=on_mismatch, on_several_voices=on_several_voices),
            None if progress_path is None else Path(progress_path),
            again,
            processes,
            None if s3_folder is None else Path(s3_folder),
            None if within is None else Path(within),
            scheduler,
        )
        parts = self._built
        parts.embedder.check_enabled()
        return enroll_manifest(
            Path(path), parts.enroller, options, on_row or (lambda _: None), stop or (lambda: False)
        )

    def check_enrollment(
        self,
        audio_buffer: AudioBuffer | Recording,
        *,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
    ) -> EnrollmentCheck:
        """Check whether `enroll_caller` accepts this audio: length, quality and number of voices. Nothing is
        stored."""
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        return self._built.enroller.check(audio_buffer, audio_format)

    # Identification

    @audited("match")
    def match_caller(
        self,
        audio_buffer: AudioBuffer | Recording | None = None,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
    ) -> tuple[str, float, dict[str, Any]] | None:
        """Identify the caller: (caller_id, similarity, metadata), or None for a stranger.

        similarity: cosine, at least `similarity_threshold`; with `target_fpir` set, or in another space than
        Resemblyzer's with neither set, a target decides instead. With `calibrated_similarity` set, the
        probability. Of several accepted callers, the answer is the most likely. A match moves the caller's
        `last_seen`; with `adapt` set, a confident match of audio adds a voiceprint. The audio needs the
        encoder's least speech, 1 s, and `min_audio_quality`. Returns None when fingerprinting is disabled,
        and for audio that is silent, too short or too poor if `on_poor_audio` is "none".

        candidates, ignore, groups, not_groups: as in `identify`. watch: groups whose hits, which `identify`
        returns, become events and a warning in the log. The answer for several voices is for all of them
        together, with a warning in the log and in the quality of a `Recording`.
        """
        if not self.config.fingerprinting_enabled:
            return None
        parts, query = self._built, Query.checked(5, None, candidates, ignore, groups, not_groups, watch)
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        try:
            probe, recording = parts.probe(audio_buffer, audio_format, embedding, encoder)
        except AudioQualityError as error:  # None instead, for applications without a `try`
            if self.config.on_poor_audio == "raise":
                raise
            note(verdict=Verdict.INCONCLUSIVE)
            logger.info("No match for poor audio: %s", error)
            return None
        matches = parts.screener.identified(parts.identifier.identify(probe, query), recording)
        parts.identifier.log_hits(matches)
        if parts.dual_run is not None and recording is not None:
            parts.dual_run.identified(recording, query, matches)
        best = next((match for match in matches if match.accepted), None)
        if best is None:
            return None
        parts.identifier.touch(best.caller_id)
        if recording is not None:
            parts.add_voiceprint(best.caller_id, probe, recording, recording.quality)
        return best.caller_id, best.similarity, best.metadata

    @overload
    def identify(
        self,
        audio_buffer: AudioBuffer | Recording | None = None,
        k: int = 5,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
        separate: Literal[False] = False,
    ) -> Identification: ...

    @overload
    def identify(
        self,
        audio_buffer: AudioBuffer | Recording,
        k: int = 5,
        *,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
        separate: Literal[True],
    ) -> list[SeparatedVoice]: ...

    @audited("identify")
    def identify(
        self,
        audio_buffer: AudioBuffer | Recording | None = None,
        k: int = 5,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
        separate: bool = False,
    ) -> Identification | list[SeparatedVoice]:
        """The k most likely callers, the best first (see `Match.llr`), and the decision, as `Identification`.

        A list of fewer matches where fewer callers are enrolled. Expired callers are left out.

        threshold: least similarity of an accepted match, 0 to 1; None is the configured rule, the target FPIR
        if set. candidates: ids of the callers to compare with, such as those of a phone number; ids that are
        not enrolled are skipped. ignore: ids of callers to exclude, such as agents. Empty when fingerprinting
        is disabled.

        groups: compare with callers of any of these groups alone, as if nobody else were enrolled.
        not_groups: exclude callers of these. watch: groups, such as "fraud", to search besides, whatever the
        other arguments: `watch_hits` has each of their callers who is accepted by the group's own target,
        see `VOICE_WATCH_TARGETS`.

        separate: identify each voice of the recording by itself, such as both parties of a call on one line.
        Every `SeparatedVoice` has its own k matches, or the id of the caller to `ignore`. Separation needs
        about 3 s of speech of each voice, in turns of 3 s and more.
        """
        if not self.config.fingerprinting_enabled:
            return Identification(verdict=Verdict.INCONCLUSIVE)
        parts, query = self._built, Query.checked(k, threshold, candidates, ignore, groups, not_groups, watch)
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        if separate:
            source = parts.embedder.source(audio_buffer, embedding, encoder, audio_arguments=True)
            assert not isinstance(source, OwnEmbedding)  # noqa: S101  refused beside audio arguments
            call = parts.embedder.recording(source, audio_format)
            return identify_voices(parts.embedder, parts.identifier, call, query)
        probe, recording = parts.probe(audio_buffer, audio_format, embedding, encoder)
        matches = parts.screener.identified(parts.identifier.identify(probe, query), recording)
        if parts.dual_run is not None and recording is not None:
            parts.dual_run.identified(recording, query, matches)
        return matches

    def identify_archive(
        self,
        source: str | os.PathLike[str],
        *,
        on_row: Callable[[ArchiveRow], None],
        stop: Callable[[], bool] | None = None,
        progress_path: str | os.PathLike[str] | None = None,
        again: bool = False,
        processes: int | None = None,
        scheduler: str | None = None,
        encoding: Encoding | None = None,
        sample_rate: int | None = None,
        channel: int | None = None,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
    ) -> Counter[ArchiveStatus]:
        """Identify every recording below a folder or a URL; return the number of rows of each status.

        source: folder, or URL of fsspec, such as s3://BUCKET/calls. on_row: called with the `ArchiveRow` of
        each recording, in the order of paths; one that cannot be read or is too poor has its error there.
        progress_path: file that notes answers, so that the same call goes on after an interruption; remove it
        once the rows are safe. again: forget what it notes. stop, processes, scheduler: as in
        `enroll_manifest`. The other arguments are those of `identify`, for each recording. Neither a
        secondary encoder nor the memory of recent recordings is used.

        Raises `InvalidArgumentError` for a source without recordings, `DisabledError`, and the error of the
        store, which ends the run.
        """
        query = Query.checked(1, threshold, candidates, ignore, groups, not_groups)
        notes = None if progress_path is None else Path(progress_path)
        options = ArchiveOptions(
            query, notes, again, processes, scheduler, encoding, sample_rate, channel
        )  # fmt: skip
        parts = self._built
        parts.embedder.check_enabled()
        archive = ArchiveIdentification(
            parts.enroller, parts.embedder, parts.identifier, parts.screener, self.config
        )
        return archive.run(check_source(source), options, on_row, stop or (lambda: False))

    @audited("verify", caller=True)
    def verify_caller(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer | Recording | None = None,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        threshold: float | None = None,
        watch: Iterable[str] = (),
    ) -> Verification:
        """Verify that the voice is that of the claimed caller.

        threshold: least accepted similarity, 0 to 1; None is the configured rule: `target_fmr`, else
        `target_fpir` as the false-match rate, else `similarity_threshold`, or 0.01 as the rate in another
        space than Resemblyzer's.
        For a caller who has opted out, is expired, or has no voiceprint of any encoder, the verdict says so,
        and the audio is not looked at. Raises `CallerNotFoundError` for an id that the store does not have,
        and `DisabledError`. An accepted verification moves the caller's `last_seen`; with `adapt` set, a
        confident one of audio adds a voiceprint. watch: as in `identify`.
        """
        parts = self._built
        parts.embedder.check_enabled()
        threshold = None if threshold is None else check_threshold(threshold)
        watched = check_groups(watch)
        refusal = parts.identifier.refusal(caller_id)
        if refusal is not None:
            return refusal
        prints = parts.identifier.voiceprints(caller_id)
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        probe, recording = parts.probe(audio_buffer, audio_format, embedding, encoder)
        verification = parts.identifier.verify(probe, prints, threshold, watched)
        verification = parts.screener.verified(verification, recording)
        if parts.dual_run is not None and recording is not None:
            parts.dual_run.verified(recording, verification)
        if verification.accepted:
            parts.identifier.touch(caller_id)
            if recording is not None:
                parts.add_voiceprint(caller_id, probe, recording, recording.quality)
        return verification

    def stream(
        self,
        *,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        k: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
        separate: bool = False,
    ) -> CallStream:
        """A session that identifies the caller of one call while it lasts.

        The arguments are those of `identify`; see `CallStream`. When fingerprinting is disabled, it ignores
        the audio, and its answer is nobody.
        """
        from voiceprint.streaming import CallContext, CallStream  # imports the network's modules

        parts = self._built
        context = CallContext(
            embedder=parts.embedder,
            encoder=self.encoder,
            identifier=parts.identifier,
            screener=parts.screener,
            dual_run=parts.dual_run,
            add_voiceprint=parts.add_voiceprint,
            enroller=parts.enroller,
            config=self.config,
            query=Query.checked(k, threshold, candidates, ignore, groups, not_groups, watch),
            audio_format=AudioFormat(sample_rate, encoding, channel, channels),
            separate=separate,
        )
        return CallStream(context)

    # For event loops: each runs in a worker thread, because embedding takes tens of milliseconds

    async def aenroll_caller(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer | Recording | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        on_mismatch: OnMismatch = "store",
        on_several_voices: OnSeveralVoices = "refuse",
        consent: Consent | None = None,
        groups: Iterable[str] = (),
        source: str | None = None,
    ) -> Voiceprint:
        """`enroll_caller` without blocking the event loop.

        A cancellation before the write stores nothing; one during the write waits for its end. After
        `CancelledError`, the store does not change any more; `get_caller` returns its state.
        """
        audio_format = AudioFormat(sample_rate, encoding, channel, channels)
        options = EnrollmentOptions(
            audio_format, on_mismatch, on_several_voices, False, consent, check_groups(groups), source
        )
        enrollment = self._built.enrollment(caller_id, audio_buffer, metadata, embedding, encoder, options)
        stored = await store_in_thread(enrollment)
        assert stored is not None  # noqa: S101  not cancelled
        return stored

    amatch_caller = in_thread(match_caller)
    aidentify = in_thread(identify)
    averify_caller = in_thread(verify_caller)
    acheck_enrollment = in_thread(check_enrollment)
