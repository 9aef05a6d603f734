"""Enrollment of a manifest: every row once, also after an interruption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from voiceprint.enrollment.batches import BatchRunner
from voiceprint.enrollment.enroller import Enroller, EnrollmentOptions
from voiceprint.enrollment.manifest import ManifestRow, read_manifest
from voiceprint.enrollment.progress import EnrollmentProgress, default_progress_path
from voiceprint.enrollment.results import NewVoiceprint, OrderedResults
from voiceprint.enrollment.writer import Stored
from voiceprint.errors import StorageError, VoiceprintError
from voiceprint.models import Voiceprint
from voiceprint.validation import just_after, now

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
_CHECKED_TOGETHER: Final = 32  # rows of a dry run: a batch takes some 10 ms


class RowResult(NamedTuple):
    """The result of one row; voiceprint_id: of the voiceprint of the row, None where there is none."""

    row: ManifestRow
    status: RowStatus
    voiceprint_id: int | None = None
    error: VoiceprintError | None = None


OnRow = Callable[[RowResult], None]


class ManifestOptions(NamedTuple):
    """How to enroll a manifest.

    progress_path: of the file that notes enrolled rows; None is FILE.progress beside the manifest.
    again: enroll also the rows that an earlier run enrolled.
    """

    enrollment: EnrollmentOptions = EnrollmentOptions()
    progress_path: Path | None = None
    again: bool = False


def check_manifest(path: str | Path, on_row: OnRow, threads: int) -> Counter[RowStatus]:
    """Check every row of a manifest and open its recording; enroll nothing, and load no encoder.

    on_row: called with each row in order, as "checked", or "failed" with its error.
    """
    counts: Counter[RowStatus] = Counter()

    def take(result: RowResult) -> None:
        counts[result.status] += 1
        on_row(result)

    runner: BatchRunner[ManifestRow, RowResult] = BatchRunner(
        lambda rows: [_checked(row) for row in rows],
        take,
        cost=lambda _: 0.0,
        most=_CHECKED_TOGETHER,
        largest=float("inf"),
        threads=threads,
    )
    runner.run(read_manifest(path))
    return counts


def _checked(row: ManifestRow) -> RowResult:
    try:
        row.check()
    except VoiceprintError as error:  # the result of this row
        return RowResult(row, "failed", error=error)
    return RowResult(row, "checked")


class ManifestEnrollment:
    """One run over a manifest.

    on_row: called with the result of each row, in order. stop: asked before each row is begun; where it
    returns True, the rows that are not begun are left.
    """

    def __init__(
        self,
        enroller: Enroller,
        progress: EnrollmentProgress,
        options: EnrollmentOptions,
        on_row: OnRow,
        stop: Callable[[], bool],
    ) -> None:
        self._enroller, self._progress, self._options = enroller, progress, options
        self._on_row, self._stop = on_row, stop
        self._writer = enroller.writer(options)
        self._rows: dict[int, ManifestRow] = {}  # those in progress, by place
        self._read = self._taken = 0
        self._times: dict[int, str] = {}  # of the voiceprints that were stored last, by place
        self._time = ""
        self._failure: StorageError | None = None
        self.counts: Counter[RowStatus] = Counter()

    def run(self, rows: Iterator[ManifestRow]) -> None:
        """Enroll the rows. Raises the `StorageError` of a store that failed, after `on_row` for each row."""
        results: OrderedResults[RowResult] = OrderedResults(
            self._store, self._take, secondary=self._enroller.secondary
        )
        runner: BatchRunner[RowResult | ManifestRow, NewVoiceprint | VoiceprintError | RowResult]
        runner = BatchRunner(
            self._embed,
            results.add,
            cost=lambda _: 0.0,
            most=_EMBEDDED_TOGETHER,
            largest=float("inf"),
            threads=self._enroller.threads,
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
        embedded = iter(self._enroller.embed_rows(rows, self._options))
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
    options.enrollment.check()
    for _ in read_manifest(path):  # a whole pass first: a fault in the last line stops a run before it begins
        pass
    progress_path = options.progress_path or default_progress_path(path)
    with EnrollmentProgress(progress_path, enroller.storage, enroller.space) as progress:
        if options.again:
            progress.forget()
        run = ManifestEnrollment(enroller, progress, options.enrollment, on_row, stop)
        run.run(read_manifest(path))
    return run.counts
