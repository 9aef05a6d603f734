"""Enrollment of a manifest: every row once, also after an interruption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from voiceprint._progress_file import default_progress_path
from voiceprint._scheduler import check_scheduler, workers
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.embedder import Embedder
from voiceprint.encoder import Encoder, TorchEncoder, configured_encoder
from voiceprint.enrollment.batches import BatchRunner
from voiceprint.enrollment.enroller import Enroller, EnrollmentOptions
from voiceprint.enrollment.manifest import ManifestRow, read_manifest
from voiceprint.enrollment.progress import EnrollmentProgress
from voiceprint.enrollment.provenance import source_of
from voiceprint.enrollment.results import NewVoiceprint, OrderedResults
from voiceprint.enrollment.writer import Stored
from voiceprint.errors import InvalidArgumentError, StorageError, VoiceprintError
from voiceprint.models import Voiceprint
from voiceprint.storage import MemoryStorage
from voiceprint.validation import is_integer, just_after, now, shown

RowStatus = Literal["enrolled", "already_enrolled", "done_before", "failed", "left", "checked"]
"""The result of a row of a manifest:

    enrolled          its voiceprint was stored
    already_enrolled  the caller had a voiceprint of this recording
    done_before       an earlier run, or an equal row above, enrolled it
    failed            it was not enrolled, see `RowResult.error`
    left              the run ended before it
    checked           a dry run found no fault
"""

_EMBEDDED_TOGETHER: Final = 8  # rows
_BATCHES_AHEAD: Final = 4
"""Batches begun for each thread: so many may wait for a long recording before them. They hold rows and
voiceprints, some 20 KB each. Halved, a thread idles sooner beside a long recording."""

_ROWS_FOR_PROCESSES: Final = 100
"""Rows from which worker processes are used: they start in about a second, the time of ten rows. Doubled, a
manifest of 150 rows takes a tenth longer."""

_MAX_PROCESSES: Final = 256
_SOMEBODY: Final = "caller"  # in place of the id of a caller, on another machine
_CHECKED_TOGETHER: Final = 32  # rows of a dry run: a batch takes some 10 ms


class RowResult(NamedTuple):
    """The result of one row; voiceprint_id: of the voiceprint of the row, None where there is none."""

    row: ManifestRow
    status: RowStatus
    voiceprint_id: int | None = None
    error: VoiceprintError | None = None


OnRow = Callable[[RowResult], None]


class ManifestOptions(NamedTuple):
    """The options of the enrollment of a manifest.

    progress_path: of the file that notes enrolled rows; None is FILE.progress beside the manifest.
    again: enroll also the rows that an earlier run enrolled.
    processes: worker processes that read and embed; 0 works in threads of this process. None is one a thread
    of the encoder, and 0 for fewer than 100 rows. scheduler: address of a dask scheduler whose workers read
    and embed instead. s3_folder, within: as of `read_manifest`.
    """

    enrollment: EnrollmentOptions = EnrollmentOptions()
    progress_path: Path | None = None
    again: bool = False
    processes: int | None = None
    s3_folder: Path | None = None
    within: Path | None = None
    scheduler: str | None = None

    def check(self) -> None:
        """Raise `InvalidArgumentError` for an option that is not allowed."""
        self.enrollment.check()
        check_workers(self.processes, self.scheduler)


def check_workers(processes: object, scheduler: object) -> None:
    """Raise `InvalidArgumentError` for a number of processes or a scheduler that is not allowed."""
    if processes is not None and not (is_integer(processes) and 0 <= processes <= _MAX_PROCESSES):
        raise InvalidArgumentError(f"processes is {shown(processes)}: give 0 to {_MAX_PROCESSES}, or None.")
    if scheduler is not None:
        check_scheduler(scheduler)
        if processes is not None:
            raise InvalidArgumentError("There are both processes and a scheduler: give one of them.")


_Embedded = list[NewVoiceprint | VoiceprintError]
_EmbedRows = Callable[[list[ManifestRow]], _Embedded]


def row_embedder(settings: dict[str, Any], options: EnrollmentOptions, by_parent: bool = False) -> _EmbedRows:
    """The function that opens and embeds rows in a worker process.

    settings: of the configuration. by_parent: the network runs in the parent, on its GPU.
    """
    config, encoder = worker_encoder(settings, by_parent)
    enroller = Enroller(MemoryStorage(), Embedder(encoder, config), encoder, config)
    return lambda rows: enroller.embed_rows(rows, options)


def worker_encoder(settings: dict[str, Any], by_parent: bool) -> tuple[VoiceFingerprintConfig, Encoder]:
    """The configuration and the encoder of a worker process; arguments as of `row_embedder`."""
    config = VoiceFingerprintConfig(**settings)
    return config, TorchEncoder.of_parent() if by_parent else configured_encoder(config)


def parent_answer(enroller: Enroller, scheduler: str | None) -> Callable[[Any], Any] | None:
    """The function that embeds for worker processes on this process's GPU; None where each has the network.

    Workers of a scheduler do not ask: they compute on their own processors.
    """
    here = scheduler is None
    return enroller.encoder.answer if here and isinstance(enroller.encoder, TorchEncoder) else None


@contextmanager
def _row_embedder(
    enroller: Enroller, options: ManifestOptions, rows: int
) -> Iterator[tuple[_EmbedRows, int]]:
    """The function that opens and embeds rows, and the number of threads to call it from."""
    count = worker_count(enroller, options.processes, options.scheduler, rows)
    if not count:
        yield (lambda batch: enroller.embed_rows(batch, options.enrollment)), enroller.threads
        return
    answer = parent_answer(enroller, options.scheduler)
    arguments = enroller.process_settings(), options.enrollment, answer is not None
    used = workers(row_embedder, arguments, processes=count, scheduler=options.scheduler, answer=answer)
    with used as (call, threads):
        yield (call if options.scheduler is None else partial(_embed_elsewhere, call)), threads


def worker_count(enroller: Enroller, processes: int | None, scheduler: str | None, items: int) -> int:
    """The number of worker processes for a list; 0 works in threads. With a scheduler, any above 0.

    Raises `InvalidArgumentError` where workers were asked for that cannot embed as this process.
    """
    able = enroller.process_settings() is not None
    if (processes or scheduler) and not able:
        raise InvalidArgumentError(
            "Worker processes have the encoder of the settings, without a secondary one: give processes=0 "
            "(--processes 0) and no scheduler."
        )
    if scheduler is not None:
        return 1
    if processes is not None:
        return processes
    return enroller.threads if able and items >= _ROWS_FOR_PROCESSES and enroller.threads > 1 else 0


def _embed_elsewhere(embed: _EmbedRows, rows: list[ManifestRow]) -> _Embedded:
    """Embed rows on other machines, to which ids and metadata of callers are not sent."""
    results = embed([*map(_sent, rows)])
    return [
        result if isinstance(result, VoiceprintError) else _of_row(row, result)
        for row, result in zip(rows, results, strict=True)
    ]


def _of_row(row: ManifestRow, new: NewVoiceprint) -> NewVoiceprint:
    """The voiceprint that was embedded elsewhere, of the caller and the file of the row."""
    update: dict[str, Any] = {"caller_id": row.caller_id, "metadata": row.metadata or {}}
    provenance = new.voiceprint.provenance
    if provenance is not None:
        update["provenance"] = provenance.model_copy(update={"source": source_of(str(row.file))})
    return new._replace(voiceprint=new.voiceprint.model_copy(update=update))


def _sent(row: ManifestRow) -> ManifestRow:
    """The row as it is sent to another machine: the recording by its whole path, and no caller."""
    return row._replace(folder=row.folder.absolute(), caller_id=_SOMEBODY, metadata=None)


def check_manifest(
    path: str | Path,
    on_row: OnRow,
    threads: int,
    *,
    s3_folder: str | Path | None = None,
    scheduler: str | None = None,
) -> Counter[RowStatus]:
    """Check every row of a manifest and open its recording; enroll nothing, and load no encoder.

    s3_folder: as of `read_manifest`. scheduler: address of a dask scheduler whose workers open recordings.
    on_row: called with each row in order, as "checked", or "failed" with its error.
    """
    counts: Counter[RowStatus] = Counter()

    def take(result: RowResult) -> None:
        counts[result.status] += 1
        on_row(result)

    with _row_checker(scheduler, threads) as (check, threads):
        runner: BatchRunner[ManifestRow, RowResult] = BatchRunner(
            lambda rows: [
                RowResult(row, "checked" if error is None else "failed", error=error)
                for row, error in zip(rows, check(rows), strict=True)
            ],
            take,
            cost=lambda _: 0.0,
            most=_CHECKED_TOGETHER,
            largest=float("inf"),
            threads=threads,
        )
        runner.run(read_manifest(path, s3_folder=s3_folder))
    return counts


_CheckRows = Callable[[list[ManifestRow]], list[VoiceprintError | None]]


@contextmanager
def _row_checker(scheduler: str | None, threads: int) -> Iterator[tuple[_CheckRows, int]]:
    """The function that checks rows, and the number of threads to call it from."""
    if scheduler is None:
        yield row_checker(), threads
        return
    with workers(row_checker, (), processes=0, scheduler=scheduler) as (call, count):
        # A row that cannot be used has its error here: it is not sent.
        yield (lambda rows: _checked_elsewhere(call, rows)), count


def _checked_elsewhere(check: _CheckRows, rows: list[ManifestRow]) -> list[VoiceprintError | None]:
    usable = [row for row in rows if row.error is None]
    errors = iter(check([*map(_sent, usable)]) if usable else [])
    return [next(errors) if row.error is None else row.error for row in rows]


def row_checker() -> _CheckRows:
    """The function that checks rows, also in a worker: the error of each, or None."""
    return lambda rows: [*map(_fault, rows)]


def _fault(row: ManifestRow) -> VoiceprintError | None:
    try:
        row.check()
    except VoiceprintError as error:  # the result of this row
        return error
    return None


class ManifestEnrollment:
    """Enrolls the rows of a manifest.

    embed_rows: opens and embeds rows; called in `threads` threads.
    on_row: called with the result of each row, in order. stop: asked before each row is begun; where it
    returns True, the rows that are not begun are left.
    """

    def __init__(
        self,
        enroller: Enroller,
        progress: EnrollmentProgress,
        options: EnrollmentOptions,
        embed_rows: _EmbedRows,
        threads: int,
        on_row: OnRow,
        stop: Callable[[], bool],
    ) -> None:
        self._progress, self._embed_rows, self._threads = progress, embed_rows, threads
        self._on_row, self._stop = on_row, stop
        self._record_failures = enroller.record_failures
        self._writer, self._secondary = enroller.writer(options), enroller.secondary
        self._rows: dict[int, ManifestRow] = {}  # those in progress, by place
        self._read = self._taken = 0
        self._times: dict[int, str] = {}  # of the voiceprints that were stored last, by place
        self._time = ""
        self._failure: StorageError | None = None
        self.counts: Counter[RowStatus] = Counter()

    def run(self, rows: Iterator[ManifestRow]) -> None:
        """Enroll the rows. Raises the `StorageError` of a store that failed, after `on_row` for each row."""
        results: OrderedResults[RowResult] = OrderedResults(
            self._store, self._take, secondary=self._secondary
        )
        runner: BatchRunner[RowResult | ManifestRow, NewVoiceprint | VoiceprintError | RowResult]
        runner = BatchRunner(
            self._embed,
            results.add,
            cost=lambda _: 0.0,
            most=_EMBEDDED_TOGETHER,
            largest=float("inf"),
            threads=self._threads,
            ahead=_BATCHES_AHEAD * self._threads,
        )
        try:
            runner.run(self._begun(rows))
        finally:  # also where the manifest itself fails midway
            results.flush()
        if self._failure is not None:
            raise self._failure

    def _begun(self, rows: Iterator[ManifestRow]) -> Iterator[RowResult | ManifestRow]:
        """The rows to enroll, and the results of the others."""
        for row in rows:
            self._rows[self._read] = row
            self._read += 1
            if self._failure is not None or self._stop():
                yield RowResult(row, "left")
            elif row.error is not None:
                yield RowResult(row, "failed", error=row.error)
            elif (done := self._progress.get(row)) is not None:
                yield RowResult(row, "done_before", done)
            else:
                yield row

    def _embed(
        self, batch: list[RowResult | ManifestRow]
    ) -> list[NewVoiceprint | VoiceprintError | RowResult]:
        rows = [row for row in batch if isinstance(row, ManifestRow)]
        results = self._embed_rows(rows) if rows else []
        self._record_failures([row.caller_id for row in rows], results)
        embedded = iter(results)
        return [next(embedded) if isinstance(row, ManifestRow) else row for row in batch]

    def _store(self, voiceprints: dict[int, Voiceprint]) -> Sequence[Stored]:
        """Store voiceprints with times that no other has, by which a crash in between can be resolved."""
        self._times = {place: self._next_time() for place in voiceprints}
        self._progress.begin([(self._rows[place], time) for place, time in self._times.items()])
        stored = self._writer.store(
            [
                voiceprint.model_copy(update={"created_at": self._times[place]})
                for place, voiceprint in voiceprints.items()
            ]
        )
        self._progress.end(
            [
                (self._rows[place], result.id)
                for place, result in zip(voiceprints, stored, strict=True)
                if isinstance(result, Voiceprint) and result.id is not None
            ]
        )
        return stored

    def _next_time(self) -> str:
        self._time = max(now(), just_after(self._time) if self._time else "")
        return self._time

    def _take(self, result: Stored | RowResult) -> None:
        place, self._taken = self._taken, self._taken + 1
        row, time = self._rows.pop(place), self._times.get(place)
        if isinstance(result, StorageError) and self._failure is None:
            self._failure = result  # the next rows would fail as this one
        if isinstance(result, VoiceprintError):
            result = RowResult(row, "failed", error=result)
        elif isinstance(result, Voiceprint):
            new = result.created_at == time
            result = RowResult(row, "enrolled" if new else "already_enrolled", result.id)
        self.counts[result.status] += 1
        self._on_row(result)


def enroll_manifest(
    path: str | Path,
    enroller: Enroller,
    options: ManifestOptions,
    on_row: OnRow,
    stop: Callable[[], bool],
) -> Counter[RowStatus]:
    """Enroll the rows of a manifest that are not enrolled yet; return how many rows have each status.

    Raises `InvalidArgumentError` for a file that is no manifest, before anything is stored; and errors of the
    store or of the progress, which end the run.
    """
    options.check()
    # A whole pass first: a fault in the last line stops a run before it begins.
    count = sum(1 for _ in read_manifest(path, s3_folder=options.s3_folder, within=options.within))
    progress_path = options.progress_path or default_progress_path(path)
    with (
        EnrollmentProgress(progress_path, enroller.storage, enroller.space) as progress,
        _row_embedder(enroller, options, count) as (embed_rows, threads),
    ):
        if options.again:
            progress.forget()
        run = ManifestEnrollment(enroller, progress, options.enrollment, embed_rows, threads, on_row, stop)
        run.run(read_manifest(path, s3_folder=options.s3_folder, within=options.within))
    return run.counts
