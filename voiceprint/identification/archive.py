"""Identification of an archive: every recording of a folder or bucket, each once, also after an interruption.

Workers open and embed the recordings. This process alone searches and decides.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from voiceprint._audited import recording
from voiceprint._scheduler import workers
from voiceprint.answers import Verdict
from voiceprint.audio import AudioQuality, Recording
from voiceprint.audio.io.encodings import Encoding
from voiceprint.audio.io.folders import SUFFIXES, files_below, is_recording
from voiceprint.audio.io.reader import AudioReader, open_stream
from voiceprint.embedder import Embedder, Probe
from voiceprint.enrollment.batches import BatchRunner
from voiceprint.enrollment.bulk import check_workers, parent_answer, worker_count, worker_encoder
from voiceprint.errors import (
    AudioQualityError,
    ConfigurationError,
    InvalidArgumentError,
    InvalidAudioError,
    VoiceprintError,
)
from voiceprint.identification.archive_progress import ArchiveProgress, Noted
from voiceprint.identification.query import Query
from voiceprint.identification.screening import Screener, spoof_detector
from voiceprint.validation import shown

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.enrollment.enroller import Enroller
    from voiceprint.identification.pipeline import Identifier

ArchiveStatus = Literal["identified", "done_before", "failed", "left"]
"""The result of a recording of an archive:

    identified    it was searched for, see `ArchiveRow.verdict`
    done_before   an interrupted run did so
    failed        it cannot be read, or its audio is too poor, see `ArchiveRow.error`
    left          the run ended before it
"""

_EMBEDDED_TOGETHER: Final = 4
"""Recordings of a task. Calls are minutes long: doubled, more of them are done again where a worker ends."""

_BATCHES_AHEAD: Final = 4  # begun for each thread, as of a manifest
_NOTED_TOGETHER: Final = 64
"""Answers in one transaction: a crash loses these. Halved, twice as many flushes to the disk."""


class ArchiveRow(NamedTuple):
    """The answer on a recording.

    path: below the folder or URL of the archive, which it begins with. verdict: None without an answer.
    caller_id: of the accepted caller, None without one; metadata: of that caller. similarity, fpir: of the
    best match, see `Match`. reasons: see `Identification`. error: why there is no answer.
    """

    path: str
    status: ArchiveStatus
    verdict: Verdict | None = None
    caller_id: str | None = None
    similarity: float | None = None
    fpir: float | None = None
    reasons: tuple[str, ...] = ()
    error: VoiceprintError | None = None
    metadata: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"ArchiveRow(path={self.path!r}, status={self.status!r}, verdict={self.verdict!r})"


class ArchiveOptions(NamedTuple):
    """The options of the identification of an archive.

    progress_path: of the file that notes answers; None notes none. again: forget those of an earlier run.
    processes, scheduler: as of `ManifestOptions`. encoding, sample_rate, channel: of all recordings, as of
    `Recording.open`.
    """

    query: Query = Query()
    progress_path: Path | None = None
    again: bool = False
    processes: int | None = None
    scheduler: str | None = None
    encoding: Encoding | None = None
    sample_rate: int | None = None
    channel: int | None = None


class Found(NamedTuple):
    """A recording of an archive. path: as in its row. stamp: changes with its content."""

    path: str
    stamp: str


class Probed(NamedTuple):
    """The embeddings and quality of a recording, and the score of the spoofing detector."""

    probe: Probe
    quality: AudioQuality
    spoof_score: float | None


_Probes = list[Probed | VoiceprintError]
_ProbeAll = Callable[[list[str]], _Probes]


def find_recordings(source: str) -> list[Found]:
    """The recordings below a folder, or below a URL of fsspec, such as s3://BUCKET/calls, by path.

    In a folder, a recording is recognized by its suffix or first bytes; below a URL, by its suffix. Hidden
    files and folders are left out. Raises
    `InvalidArgumentError` for a place that cannot be listed, or has no recording, and `ConfigurationError`
    for a URL without fsspec or the driver of its protocol.
    """
    found = _in_bucket(source) if is_url(source) else _in_folder(source)
    if not found:
        raise InvalidArgumentError(f"There is no recording below {source}.")
    return sorted(found)


def is_url(place: str) -> bool:
    """Whether the place is a URL of fsspec, and not a path."""
    return "://" in place


def _in_folder(source: str) -> list[Found]:
    found = []
    try:
        for file in files_below(Path(source)):
            if is_recording(file):
                status = file.stat()
                found.append(Found(str(file), f"{status.st_size}:{status.st_mtime_ns}"))
    except OSError as error:
        raise InvalidArgumentError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return found


def _in_bucket(source: str) -> list[Found]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ConfigurationError(
            'A URL needs fsspec, which the extra dask brings: pip install "opusagent-voiceprint[dask]".'
        ) from error
    try:
        system, root = url_to_fs(source)
        listed = system.find(root, detail=True)
    except (ImportError, ValueError) as error:  # a driver that is not installed, an unknown protocol
        raise ConfigurationError(f"{source} cannot be opened: {error}.") from error
    except Exception as error:  # each driver has errors of its own
        raise InvalidArgumentError(f"{source} cannot be listed ({type(error).__name__}: {error}).") from error
    return [
        Found(system.unstrip_protocol(name), ":".join(str(about.get(key)) for key in _STAMPS))
        for name, about in listed.items()
        if PurePosixPath(name).suffix.lower() in SUFFIXES and not _is_hidden(name.removeprefix(root))
    ]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


_STAMPS: Final = ("size", "ETag", "etag", "LastModified", "updated", "mtime")
"""Names, in several drivers, of the fields of a listing that change with the content of a file."""


def prober(settings: dict[str, Any], options: ArchiveOptions, by_parent: bool = False) -> _ProbeAll:
    """The function that opens and embeds recordings in a worker; settings, by_parent: of `row_embedder`."""
    config, encoder = worker_encoder(settings, by_parent)
    embedder = Embedder(encoder, config)
    return lambda places: probe_all(places, embedder, config, options)


def probe_all(
    places: Sequence[str], embedder: Embedder, config: VoiceFingerprintConfig, options: ArchiveOptions
) -> _Probes:
    """The probe of each recording, or why there is none; one recording is in memory at a time."""
    results: _Probes = []
    detector = spoof_detector(config)
    for place in places:
        try:
            found = embedder.recording(_opened(place, options))
            score = None if detector is None else detector.score(found)
            probe = embedder.probe(found)
            results.append(Probed(probe, found.quality, score))
        except VoiceprintError as error:  # the answer on this recording
            results.append(error)
    return results


def _opened(place: str, options: ArchiveOptions) -> Recording:
    if not is_url(place):
        return Recording.open(
            place, encoding=options.encoding, sample_rate=options.sample_rate, channel=options.channel
        )

    def open_reader() -> AudioReader:
        import fsspec

        file = fsspec.open(place, "rb").open()
        try:
            return open_stream(file, place, encoding=options.encoding, sample_rate=options.sample_rate)
        except BaseException:
            file.close()
            raise

    try:
        return Recording.read(open_reader, options.channel)
    except VoiceprintError:
        raise
    except Exception as error:  # each driver has errors of its own
        raise InvalidAudioError(f"cannot read {place!r}: {type(error).__name__}: {error}") from error


class ArchiveIdentification:
    """Identifies the recordings of archives."""

    def __init__(
        self,
        enroller: Enroller,
        embedder: Embedder,
        identifier: Identifier,
        screener: Screener,
        config: VoiceFingerprintConfig,
    ) -> None:
        self._enroller, self._embedder, self._identifier = enroller, embedder, identifier
        self._screener, self._config = screener, config
        self._storage = enroller.storage

    def run(
        self,
        source: str,
        options: ArchiveOptions,
        on_row: Callable[[ArchiveRow], None],
        stop: Callable[[], bool],
    ) -> Counter[ArchiveStatus]:
        """Identify all recordings below `source`; return the number of rows of each status.

        on_row: called with the row of each recording, in the order of paths. stop: asked before each
        recording is begun; where it returns True, the recordings that are not begun are left.
        """
        check_workers(options.processes, options.scheduler)
        counts: Counter[ArchiveStatus] = Counter()
        to_note: list[tuple[str, str, Noted]] = []
        found = find_recordings(source)
        in_progress = iter(found)
        with self._progress(options) as progress, self._prober(options, len(found)) as (probe, threads):

            def begun() -> Iterator[str | ArchiveRow]:
                for one in found:
                    noted = None if progress is None else progress.get(*one)
                    if noted is not None:
                        yield self._noted(one.path, noted)
                    elif stop():
                        yield ArchiveRow(one.path, "left")
                    else:
                        yield one.path

            def probe_batch(batch: list[str | ArchiveRow]) -> list[ArchiveRow | Probed | VoiceprintError]:
                places = [_sent(item) for item in batch if isinstance(item, str)]
                probes = iter(probe(places) if places else [])
                return [next(probes) if isinstance(item, str) else item for item in batch]

            def take(result: ArchiveRow | Probed | VoiceprintError) -> None:
                one = next(in_progress)
                row = result if isinstance(result, ArchiveRow) else self._answer(one.path, result, options)
                if row.status == "identified" and progress is not None:
                    to_note.append((*one, _to_note(row)))
                    if len(to_note) >= _NOTED_TOGETHER:
                        progress.add(to_note)
                        to_note.clear()
                counts[row.status] += 1
                on_row(row)

            runner: BatchRunner[str | ArchiveRow, ArchiveRow | Probed | VoiceprintError] = BatchRunner(
                probe_batch,
                take,
                cost=lambda _: 0.0,
                most=_EMBEDDED_TOGETHER,
                largest=float("inf"),
                threads=threads,
                ahead=_BATCHES_AHEAD * threads,
            )
            try:
                runner.run(begun())
            finally:
                if progress is not None and to_note:
                    progress.add(to_note)
        return counts

    @contextmanager
    def _prober(self, options: ArchiveOptions, count: int) -> Iterator[tuple[_ProbeAll, int]]:
        """The function that opens and embeds recordings, and the number of threads to call it from."""
        enroller = self._enroller
        processes = worker_count(enroller, options.processes, options.scheduler, count)
        # The ids of callers stay here.
        sent = options._replace(query=Query(), progress_path=None)
        if not processes:
            yield (lambda places: probe_all(places, self._embedder, self._config, sent)), enroller.threads
            return
        answer = parent_answer(enroller, options.scheduler)
        arguments = enroller.process_settings(), sent, answer is not None
        with workers(
            prober, arguments, processes=processes, scheduler=options.scheduler, answer=answer
        ) as used:
            yield used

    def _progress(self, options: ArchiveOptions) -> Any:
        if options.progress_path is None:
            return nullcontext()
        return ArchiveProgress(
            options.progress_path,
            self._key(options),
            again=options.again,
            apart_from=self._storage.files(),
        )

    def _key(self, options: ArchiveOptions) -> str:
        """A digest of the store, the encoder and the options, on which the answers depend."""
        query = options.query
        parts = (
            self._storage.identity() or self._storage.location,
            self._enroller.space,
            query.threshold,
            query.candidates,
            query.ignored,
            query.scope,
            options.encoding,
            options.sample_rate,
            options.channel,
        )
        return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()

    def _answer(self, path: str, found: Probed | VoiceprintError, options: ArchiveOptions) -> ArchiveRow:
        if isinstance(found, InvalidAudioError):  # as for a file, there is no operation to record
            return ArchiveRow(path, "failed", error=found)
        try:
            with recording(self._storage.auditor, "identify"):
                if isinstance(found, AudioQualityError):
                    self._embedder.note_audio(found.quality)
                if isinstance(found, VoiceprintError):
                    raise found
                self._embedder.note_audio(found.quality)
                answer = self._identifier.identify(found.probe, options.query)
                answer = self._screener.archived(answer, found.spoof_score)
        except VoiceprintError as error:
            if error is not found:  # of the store: it is not this recording's
                raise
            return ArchiveRow(path, "failed", error=error)
        best = answer[0] if answer else None
        accepted = answer.accepted
        return ArchiveRow(
            path,
            "identified",
            answer.verdict,
            None if accepted is None else accepted.caller_id,
            None if best is None else best.similarity,
            None if best is None else best.fpir,
            answer.reasons,
            metadata=None if accepted is None else accepted.metadata,
        )

    def _noted(self, path: str, noted: Noted) -> ArchiveRow:
        """The row of an interrupted run. A caller who is not to be named any more is not."""
        verdict, caller_id, similarity, fpir, reasons = noted
        row = ArchiveRow(
            path, "done_before", Verdict(verdict), caller_id, similarity, fpir, tuple(reasons.split())
        )
        if caller_id is None:
            return row
        gone = self._identifier.gone(caller_id)
        if gone is not None:
            return ArchiveRow(path, "done_before", gone)
        caller = self._storage.get(caller_id)
        return row._replace(metadata=None if caller is None else caller.metadata)


def _to_note(row: ArchiveRow) -> Noted:
    return str(row.verdict), row.caller_id, row.similarity, row.fpir, " ".join(row.reasons)


def _sent(place: str) -> str:
    """The place as a worker, in another folder, finds it."""
    return place if is_url(place) else str(Path(place).absolute())


def check_source(source: object) -> str:
    """The folder or URL of an archive, as text. Raises `InvalidArgumentError`."""
    if not isinstance(source, str | os.PathLike):
        raise InvalidArgumentError(f"The archive is {shown(source)}: give the path of a folder, or a URL.")
    return os.fspath(source)
