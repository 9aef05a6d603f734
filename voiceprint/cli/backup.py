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
    counter,
    open_recognizer,
    plural,
    print_json,
    print_lines,
)
from voiceprint.cli.file_ciphers import EncryptOption, PassphraseFileOption, reading_cipher, writing_cipher
from voiceprint.storage.backup import back_up
from voiceprint.storage.backup import restore as restore_backup

IncludeDeletedOption = Annotated[
    bool,
    typer.Option("--include-deleted", help="Also callers who were deleted after these copies were made."),
]
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(
    file: BackupFile,
    encrypt: EncryptOption = None,
    passphrase_file: PassphraseFileOption = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a consistent copy of all callers to a file, and verify it, while others write to the store.

    The index, which is derived, is left out. The file holds biometric data, and only its owner can read it.
    """
    with open_recognizer(store, create=create) as recognizer:
        storage = recognizer.storage
        cipher = writing_cipher(recognizer, encrypt, passphrase_file)
        with counter("Backing up", storage.count_callers()) as progress:
            report = back_up(storage, file, cipher=cipher, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        print_lines(
            f"Backed up {plural(report.callers, 'caller')} with "
            f"{plural(report.voiceprints, 'voiceprint')} to {file}{', encrypted' if cipher else ''}. "
            f"Verified (SHA-256 {report.sha256[:16]})."
        )
        if storage.sealing is not None and storage.sealing.keeps_keys_apart:
            print_lines(
                "This file opens without the key store: callers who are deleted later stay readable in it "
                "(docs/security.md)."
            )


def restore(
    file: BackupFile,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Allow a store with callers: those of the same id are replaced, others stay."
        ),
    ] = False,
    include_deleted: IncludeDeletedOption = False,
    passphrase_file: PassphraseFileOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the callers of a backup into the store, with their ids and times, and verify them.

    Callers who were deleted after the backup are left out. The same command resumes an interrupted restore.
    """
    with open_recognizer(store, create=True) as recognizer, counter("Restoring") as progress:
        report = restore_backup(
            recognizer.storage,
            file,
            cipher=reading_cipher(recognizer, passphrase_file),
            overwrite=overwrite,
            include_deleted=include_deleted,
            progress=progress,
        )
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    all_new = report.changed == report.callers
    written = "all written" if all_new else f"{report.changed} written, the others were there already"
    print_lines(
        f"Restored {plural(report.callers, 'caller')} with {plural(report.voiceprints, 'voiceprint')}; "
        f"{written}. Verified."
    )
    print_left_out(report.left_out)
    if report.kept:
        verb = "is" if report.kept == 1 else "are"
        print_lines(f"{plural(report.kept, 'caller')} of the store {verb} not in the backup, and stayed.")


def print_left_out(count: int) -> None:
    """Print the number of callers that were left out as deleted."""
    if count:
        verb = "was" if count == 1 else "were"
        print_lines(
            f"{plural(count, 'caller')} {verb} deleted after these copies were made: left out "
            "(--include-deleted)."
        )
