"""`voiceprint enroll-csv`: enroll the recordings of a manifest."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from voiceprint._files import RefusedFileError, replacement
from voiceprint._progress_file import default_progress_path
from voiceprint.cli.common import (
    JsonOption,
    ProcessesOption,
    SchedulerOption,
    StoreOption,
    counter,
    open_recognizer,
    plural,
    print_error,
    print_lines,
    stopping,
    table,
)
from voiceprint.cli.enrollment import LISTED, MismatchOption, SeveralVoicesOption
from voiceprint.cli.terminal import json_text, spreadsheet_cell
from voiceprint.encoder.workers import cores
from voiceprint.enrollment.bulk import RowResult, RowStatus, check_manifest, check_workers
from voiceprint.enrollment.manifest import read_manifest
from voiceprint.errors import InvalidArgumentError, StorageError

_REPORT_COLUMNS: Final = ("line", "caller_id", "path", "status", "voiceprint_id", "error", "message")

_Show = Callable[[RowResult], None]


def enroll_csv(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A CSV file in UTF-8 with a header; JSON Lines, FILE.jsonl; or a Voice ID job, FILE.json.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all rows and open all recordings; enroll nothing.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="OUT.csv", help="Write a CSV file with the result of every row."),
    ] = None,
    progress: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="File that notes enrolled rows. Default: FILE.progress."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Enroll also the rows that are noted as enrolled.")
    ] = False,
    processes: ProcessesOption = None,
    scheduler: SchedulerOption = None,
    s3_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder with copies of buckets: the path s3://BUCKET/KEY is the file DIR/BUCKET/KEY.",
        ),
    ] = None,
    on_mismatch: MismatchOption = "store",
    on_several_voices: SeveralVoicesOption = "refuse",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll the recordings that a manifest lists, one a row.

    Columns: caller_id and path; optional are channel (from 0), encoding and rate (of files without a header),
    start and end (seconds), and metadata.KEY. Paths are relative to the manifest. In JSON Lines, a row is an
    object with these keys. FILE.json is the input file of an enrollment or fraudster registration job of
    Amazon Connect Voice ID.

    Enrolled rows are noted in FILE.progress. After an interruption, or with corrected rows, the same command
    goes on: each row is enrolled once. Ctrl-C stops after the rows in progress.

    Of a caller with more rows than voiceprints (VOICE_MAX_VOICEPRINTS_PER_CALLER, 3), the last rows remain.

    Exit code 1 when a row could not be enrolled, 2 when the file is no manifest, 130 after Ctrl-C.
    """
    check_workers(processes, scheduler)
    total = sum(1 for _ in read_manifest(manifest, s3_folder=s3_folder))
    failed: list[RowResult] = []
    stopped = False
    failure: StorageError | None = None
    counts: Counter[RowStatus] = Counter()
    with ExitStack() as stack:
        shows: list[_Show] = [stack.enter_context(_progress_bar(total, dry_run=dry_run))]
        recognizer = None if dry_run else stack.enter_context(open_recognizer(store, create=True))
        if report is not None:
            own = [manifest, progress or default_progress_path(manifest)]
            if recognizer is not None:
                own += recognizer.storage.files()
            shows.append(stack.enter_context(_report(report, own)))
        if as_json:
            shows.append(stack.enter_context(_json_list()))

        begun = False

        def show(result: RowResult) -> None:
            nonlocal begun
            begun = True
            if result.status == "failed" and len(failed) < LISTED:
                failed.append(result)
            for each in shows:
                each(result)

        if recognizer is None:
            counts = check_manifest(manifest, show, cores(), s3_folder=s3_folder, scheduler=scheduler)
        else:
            asked = stack.enter_context(stopping("the rows in progress"))
            try:
                counts = recognizer.enroll_manifest(
                    manifest,
                    on_row=show,
                    stop=asked,
                    progress_path=progress,
                    again=again,
                    processes=processes,
                    scheduler=scheduler,
                    s3_folder=s3_folder,
                    on_mismatch=on_mismatch,
                    on_several_voices=on_several_voices,
                )
            except StorageError as error:
                if not begun:  # the report of an earlier run stays
                    raise
                failure = error  # after the report is written
            stopped = asked()
    if failure is not None:
        raise failure
    if not as_json:
        _summarize(counts, failed, dry_run=dry_run)
    if stopped:
        print_error(
            f"Interrupted. What is enrolled stays; {plural(counts['left'], 'row')} "
            f"{'is' if counts['left'] == 1 else 'are'} left. "
            "To go on, run the same command again."
        )
        raise typer.Exit(130)
    if counts["failed"]:
        raise typer.Exit(1)


def _summarize(counts: Counter[RowStatus], failed: list[RowResult], *, dry_run: bool) -> None:
    if dry_run:
        print_lines(
            f"{plural(counts.total(), 'row')} checked, {counts['failed']} with errors; nothing is enrolled."
        )
    else:
        print_lines(f"Enrolled {plural(counts['enrolled'], 'row')}.")
    if counts["already_enrolled"]:
        print_lines(f"Already enrolled with the same recording: {plural(counts['already_enrolled'], 'row')}.")
    if counts["done_before"]:
        print_lines(f"Enrolled by an earlier run (--again): {plural(counts['done_before'], 'row')}.")
    if not failed:
        return
    more = counts["failed"] - len(failed)
    errors = "has errors" if counts["failed"] == 1 else "have errors"
    print_lines("", f"{plural(counts['failed'], 'row')} {errors if dry_run else 'could not be enrolled'}:")
    rows = [(r.row.line, r.row.caller_id, r.row.path, type(r.error).__name__, r.error) for r in failed]
    table("Line", "Caller", "File", "Error", "Why", rows=rows, right=("Line",))
    if more:
        print_lines(f"... and {more} more: --report OUT.csv lists all.")


@contextmanager
def _progress_bar(total: int, *, dry_run: bool) -> Iterator[_Show]:
    done = 0
    with counter("Checking" if dry_run else "Enrolling", total) as advance:

        def show(_: RowResult) -> None:
            nonlocal done
            done += 1
            advance(done)

        yield show


@contextmanager
def _report(path: Path, own: list[Path]) -> Iterator[_Show]:
    """Writes a CSV file at `path`, which is not one of the files in `own`, and replaces only a report."""
    header = ",".join(_REPORT_COLUMNS).encode()
    try:
        with replacement(
            path,
            ours=lambda head: head.startswith(header),
            kind="a report",
            apart_from=own,
            pipes=True,
        ) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="")
            writer = csv.writer(text)
            writer.writerow(_REPORT_COLUMNS)

            def show(result: RowResult) -> None:
                writer.writerow(spreadsheet_cell(value) for value in _report_row(result).values())

            yield show
            text.flush()
            text.detach()
    except RefusedFileError as error:
        raise InvalidArgumentError(f"--report: {error}") from error


@contextmanager
def _json_list() -> Iterator[_Show]:
    """Prints a JSON list, an element at a time: a million rows are never in memory."""
    separator = "["
    encoding = sys.stdout.encoding or "utf-8"

    def show(result: RowResult) -> None:
        nonlocal separator
        typer.echo(f"{separator}\n{json_text(_report_row(result), encoding)}", nl=False)
        separator = ","

    try:
        yield show
    except BaseException:
        if separator == ",":  # a list that was begun is ended
            typer.echo("\n]")
        raise
    typer.echo("[]" if separator == "[" else "\n]")


def _report_row(result: RowResult) -> dict[str, Any]:
    row, error = result.row, result.error
    return {
        "line": row.line,
        "caller_id": row.caller_id,
        "path": row.path,
        "status": result.status,
        "voiceprint_id": result.voiceprint_id,
        "error": None if error is None else type(error).__name__,
        "message": None if error is None else str(error),
    }
