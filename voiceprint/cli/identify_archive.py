"""`voiceprint identify-archive`: identify all recordings of a folder or bucket, into a table."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from voiceprint._files import RefusedFileError, replacement
from voiceprint._progress_file import default_progress_path
from voiceprint.audio import Encoding
from voiceprint.cli.audio import ChannelOption, EncodingOption, RateOption
from voiceprint.cli.common import (
    CreateOption,
    GroupsOption,
    NotGroupsOption,
    ProcessesOption,
    SchedulerOption,
    StoreOption,
    ThresholdOption,
    build_index,
    counter,
    open_recognizer,
    plural,
    print_error,
    print_lines,
    stopping,
)
from voiceprint.cli.terminal import spreadsheet_cell
from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.identification.archive import ArchiveRow, ArchiveStatus

_COLUMNS: Final = ("path", "verdict", "caller_id", "similarity", "fpir", "reasons", "error")
_WRITTEN_TOGETHER: Final = 1000  # rows of a group in a Parquet file; doubled, twice as many are in memory

_Write = Callable[[dict[str, Any]], None]


class _Interrupted(Exception):  # noqa: N818  the run was stopped: no error of the output
    """Ends the writing of an output that is not whole."""


def identify_archive(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="Folder, searched at any depth; or a URL, such as s3://BUCKET/calls."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The table: FILE.csv, or FILE.parquet (extra parquet)."),
    ],
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Add a column with the metadata of the caller, as JSON.")
    ] = False,
    progress: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="File that notes answers until the end. Default: OUTPUT.progress."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Begin anew, and forget the answers of an interrupted run.")
    ] = False,
    processes: ProcessesOption = None,
    scheduler: SchedulerOption = None,
    threshold: ThresholdOption = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="CALLER_ID", help="Never name this caller; may be repeated."),
    ] = None,
    groups: GroupsOption = None,
    not_groups: NotGroupsOption = None,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    store: StoreOption = None,
    create: CreateOption = False,
) -> None:
    """Identify the caller of every recording of a folder or bucket, into a table with a row each.

    Columns: path, verdict, caller_id (of an accepted caller), similarity and fpir (of the best match),
    reasons, and error: a recording that cannot be read, or is too poor, is a row with its error. Rows are in
    the order of paths. The table replaces FILE once it is whole.

    Answers are noted in OUTPUT.progress until then. After an interruption the same command goes on; it tries
    recordings with an error again. Ctrl-C stops after the recordings in progress.

    Exit code 1 when a recording has an error, 2 when the command cannot do its work, 130 after Ctrl-C.
    """
    open_table = _table_of(output)
    notes = progress or default_progress_path(output)
    columns = (*_COLUMNS, "metadata") if metadata else _COLUMNS
    with ExitStack() as stack:
        recognizer = stack.enter_context(open_recognizer(store, create=create))
        build_index(recognizer)
        advance = stack.enter_context(counter("Identifying"))
        asked = stack.enter_context(stopping("the recordings in progress"))
        done = 0
        try:
            with open_table(output, columns, [notes, *recognizer.storage.files()]) as write:

                def show(row: ArchiveRow) -> None:
                    nonlocal done
                    done += 1
                    advance(done)
                    if row.status != "left":
                        write({name: value for name, value in _values(row).items() if name in columns})

                counts = recognizer.identify_archive(
                    source,
                    on_row=show,
                    stop=asked,
                    progress_path=notes,
                    again=again,
                    processes=processes,
                    scheduler=scheduler,
                    encoding=cast(Encoding | None, encoding),
                    sample_rate=rate,
                    channel=channel,
                    threshold=threshold,
                    ignore=ignore or (),
                    groups=groups or None,
                    not_groups=not_groups or [],
                )
                _check_whole(counts)
        except _Interrupted:
            print_error(
                f"Interrupted, and {output} is not written: {plural(counts['left'], 'recording')} left. "
                "To go on, run the same command again."
            )
            raise typer.Exit(130) from None
        except RefusedFileError as error:
            raise InvalidArgumentError(f"--output: {error}") from error
        notes.unlink(missing_ok=True)  # the answers are in the table
    print_lines(f"{plural(counts.total(), 'recording')}, {counts['failed']} with errors: {output}")
    if counts["failed"]:
        raise typer.Exit(1)


def _check_whole(counts: Counter[ArchiveStatus]) -> None:
    if counts["left"]:
        raise _Interrupted


def _values(row: ArchiveRow) -> dict[str, Any]:
    error = row.error
    return {
        "path": row.path,
        "verdict": None if row.verdict is None else str(row.verdict),
        "caller_id": row.caller_id,
        "similarity": row.similarity,
        "fpir": row.fpir,
        "reasons": " ".join(row.reasons) or None,
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "metadata": None if row.metadata is None else json.dumps(row.metadata, ensure_ascii=False),
    }


def _table_of(output: Path) -> Callable[..., Any]:
    """The function that opens a table of the kind that the suffix of `output` names."""
    suffix = output.suffix.lower()
    if suffix == ".csv":
        return _csv_table
    if suffix != ".parquet":
        raise InvalidArgumentError(f"--output is {output}: give a FILE.csv or FILE.parquet.")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            'A Parquet file needs pyarrow: pip install "opusagent-voiceprint[parquet]".'
        ) from error
    return _parquet_table


@contextmanager
def _csv_table(path: Path, columns: tuple[str, ...], own: list[Path]) -> Iterator[_Write]:
    """Replaces the CSV file at `path`, which is none of the files `own`, when the block ends."""
    header = ",".join(_COLUMNS).encode()
    with replacement(
        path, ours=lambda head: head.startswith(header), kind="a table of identify-archive", apart_from=own
    ) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text)
        writer.writerow(columns)
        yield lambda values: writer.writerow([spreadsheet_cell(value) for value in values.values()])
        text.flush()
        text.detach()


@contextmanager
def _parquet_table(path: Path, columns: tuple[str, ...], own: list[Path]) -> Iterator[_Write]:
    """As `_csv_table`, of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [(name, pa.float64() if name in ("similarity", "fpir") else pa.string()) for name in columns]
    )
    rows: list[dict[str, Any]] = []
    with (
        replacement(
            path, ours=lambda head: head.startswith(b"PAR1"), kind="a Parquet file", apart_from=own
        ) as stream,
        parquet.ParquetWriter(stream, schema) as writer,
    ):

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        def write(values: dict[str, Any]) -> None:
            rows.append({name: _as_unicode(value) for name, value in values.items()})
            if len(rows) >= _WRITTEN_TOGETHER:
                flush()

        yield write
        flush()


def _as_unicode(value: Any) -> Any:
    """Parquet has no text for the name of a file that is not UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
