"""`voiceprint backup` and `voiceprint restore`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    counted,
    counting,
    opened,
    print_json,
    say,
)
from voiceprint.storage.backup import back_up
from voiceprint.storage.backup import restore as restore_backup

IncludeDeletedOption = Annotated[
    bool,
    typer.Option("--include-deleted", help="Also callers who were deleted after these copies were made."),
]
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(
    file: BackupFile, store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False
) -> None:
    """Write all callers, as of one moment, to a file, and verify it. Others may go on writing to the store.

    The index is left out, as it is derived. The file holds biometric data, and is made readable for its owner
    alone.
    """
    with opened(store, create=create) as recognizer:
        storage = recognizer.storage
        with counting("Backing up", storage.count_callers()) as progress:
            report = back_up(storage, file, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        say(
            f"Backed up {counted(report.callers, 'caller')} with "
            f"{counted(report.voiceprints, 'voiceprint')} to {file}. Verified (SHA-256 {report.sha256[:16]})."
        )


def restore(
    file: BackupFile,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="The store may hold callers: those of the same id are replaced, others stay."
        ),
    ] = False,
    include_deleted: IncludeDeletedOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the callers of a backup into the store, with their ids and times, and verify them.

    Callers who were deleted after the backup was made are left out. A restore that was broken off is resumed
    by the same command.
    """
    with opened(store, create=True) as recognizer, counting("Restoring") as progress:
        report = restore_backup(
            recognizer.storage, file, overwrite=overwrite, include_deleted=include_deleted, progress=progress
        )
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    say(
        f"Restored {counted(report.callers, 'caller')} with {counted(report.voiceprints, 'voiceprint')}; "
        f"{_written(report.changed, report.callers)}. Verified."
    )
    say_left_out(report.left_out)
    if report.kept:
        who = counted(report.kept, "caller")
        say(f"{who} of the store {_are(report.kept)} not in the backup, and stayed.")


def say_left_out(count: int) -> None:
    """Say how many were left out because they were deleted."""
    if count:
        say(
            f"{counted(count, 'caller')} {_were(count)} deleted after these copies were made: left out "
            "(--include-deleted)."
        )


def _written(changed: int, callers: int) -> str:
    return "all written" if changed == callers else f"{changed} written, the others were there already"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
