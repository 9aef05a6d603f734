"""`voiceprint export`, `import`, `copy` and `prune`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from voiceprint.cli.common import JsonOption, StoreOption, counted, counting, opened, print_json, say, table
from voiceprint.errors import InvalidArgumentError
from voiceprint.storage import open_storage
from voiceprint.storage.pruning import parse_period, prune_callers
from voiceprint.storage.transfer import copy_callers, export_callers, import_callers

_STANDARD = Path("-")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines; - for standard output.")],
    store: StoreOption = None,
) -> None:
    """Write all callers with their voiceprints to a file, a line each.

    The file holds biometric data, and is made readable for its owner alone.
    """
    with opened(store) as recognizer, _written(file) as stream:
        storage = recognizer.storage
        with counting("Exporting", storage.count_callers()) as progress:
            count = export_callers(storage, stream, progress=progress)
    if file != _STANDARD:
        say(f"Exported {counted(count, 'caller')} to {file}.")


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    """The file to write to, which takes its name only when it is whole."""
    if file == _STANDARD:
        yield sys.stdout.buffer
        return
    part = file.with_name(f"{file.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            yield stream
        part.replace(file)
    except OSError as error:  # of the file: those of the store arrive as StorageError
        raise InvalidArgumentError(f"{str(file)!r} cannot be written: {error.strerror}.") from error


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines; - for standard input.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the callers of an exported file in, with their ids and times.

    Each takes the place of the caller of the same id.
    """
    with opened(store) as recognizer, _read(file) as lines, counting("Importing") as progress:
        report = import_callers(recognizer.storage, lines, progress=progress)
    if as_json:
        print_json(vars(report))
    else:
        say(
            f"Imported {counted(report.callers, 'caller')} with {counted(report.voiceprints, 'voiceprint')}; "
            f"{report.callers - report.changed} were there already."
        )


@contextmanager
def _read(file: Path) -> Iterator[BinaryIO]:
    if file == _STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with file.open("rb") as stream:
            yield stream
    except OSError as error:  # of the file: those of the store arrive as StorageError
        raise InvalidArgumentError(f"{str(file)!r} cannot be read: {error.strerror}.") from error


def copy(
    source: Annotated[str, typer.Option("--from", metavar="URL", help="Store to copy from.")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="Store to copy to.")],
    as_json: JsonOption = False,
) -> None:
    """Copy all callers from one store to another, with their ids and times, and verify the copy.

    A copy that was broken off is resumed by the same command.
    """
    with (
        open_storage(source) as from_,
        open_storage(target) as to,
        counting("Copying", from_.count_callers()) as progress,
    ):
        report = copy_callers(from_, to, progress=progress)
    if as_json:
        print_json(vars(report))
    else:
        say(
            f"Copied {counted(report.callers, 'caller')} with {counted(report.voiceprints, 'voiceprint')}; "
            f"{report.callers - report.changed} were there already. Verified (SHA-256 {report.digest[:16]})."
        )


def prune(
    not_seen_for: Annotated[
        str,
        typer.Option(
            "--not-seen-for", metavar="PERIOD", help="Days, weeks, months, years: 90d, 12w, 18m, 3y."
        ),
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete them instead of listing.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the callers who have not been seen for long; with --delete, delete them.

    A deletion cannot be undone.
    """
    period = parse_period(not_seen_for)
    with opened(store) as recognizer:
        storage = recognizer.storage
        with counting("Looking", storage.count_callers()) as progress:
            report = prune_callers(storage, period, dry_run=not delete, progress=progress)
    if as_json:
        print_json({"deleted": delete} | vars(report))
        return
    who = f"{counted(len(report.caller_ids), 'caller')} with {counted(report.voiceprints, 'voiceprint')}"
    if not delete:
        if report.caller_ids:
            table("Caller", rows=[(caller_id,) for caller_id in report.caller_ids])
        who = f"{who} would be deleted"
        say(f"{who}: not seen since {report.not_seen_since[:10]}. Nothing was changed (--delete).")
    else:
        say(f"Deleted {who}, not seen since {report.not_seen_since[:10]}.")
