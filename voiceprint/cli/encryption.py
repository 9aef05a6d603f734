"""`voiceprint encryption init | encrypt | rotate | status`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    counter,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
)
from voiceprint.errors import ConfigurationError
from voiceprint.privacy.encryption.conversion import (
    EncryptionReport,
    EncryptionStatus,
    encrypt_store,
    encryption_status,
)
from voiceprint.privacy.encryption.conversion import rotate as rotate_keys
from voiceprint.privacy.encryption.envelope import FORGOTTEN
from voiceprint.privacy.encryption.keys import FileKeys, KeyRing, new_key_file
from voiceprint.storage.sealing import plain_store_allowed

app = typer.Typer(help="Encrypt a store at rest, and change its master key.", no_args_is_help=True)


@app.command("init")
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The key file, which must not exist yet.")],
    as_json: JsonOption = False,
) -> None:
    """Write a new master key to a new file, which only its owner can read.

    Set VOICE_ENCRYPTION_KEY_FILE to it: new stores are then encrypted, and `encryption encrypt` encrypts the
    present one. Without the key, nobody can read the store: keep a copy apart from the backups.
    """
    key_id = new_key_file(file)
    if as_json:
        print_json({"file": str(file), "key": key_id})
    else:
        print_lines(f"Wrote the key {key_id} to {file}. Keep a copy of it, apart from the backups.")


@app.command("encrypt")
def encrypt(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Encrypt all records of a plain store in place, and search its files for plain data.

    Others may use the store meanwhile; from then on no process without the key can. The same command resumes
    an interrupted one. Older backups and exports stay plain. Exit code 1 when plain data is left in a file.
    """
    with plain_store_allowed(), open_recognizer(store) as recognizer:
        storage = recognizer.storage
        with counter("Encrypting", storage.count_callers()) as progress:
            report = encrypt_store(storage, progress=progress)
        remains = storage.server_remains()
        location = storage.location
    if as_json:
        print_json({**dataclasses.asdict(report), "server": [each.model_dump() for each in remains]})
    else:
        print_lines(
            f"{location} is encrypted: {plural(report.callers, 'caller')}, {report.changed} of them now. "
            "Every record was read again."
        )
        _print_search(report)
        for each in remains:
            print_lines(f"{each.place}: {each.detail}")
    if report.found:
        raise typer.Exit(1)


def _print_search(report: EncryptionReport) -> None:
    if not report.files:
        return
    searched = f"The data of {plural(report.searched_for, 'caller')} was searched for in"
    if report.found:
        print_error(f"Plain data is left in {', '.join(report.found)}.")
        if not report.flushed:
            print_error("Other connections delayed the erasure: close them, and run the command again.")
    else:
        print_lines(f"{searched} {plural(len(report.files), 'file')}: none holds plain data.")


@app.command("rotate")
def rotate(
    new_key: Annotated[
        bool,
        typer.Option(
            "--new-key/--no-new-key",
            help="Put a new key before the others in the key file, once none is left under an older one.",
        ),
    ] = True,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wrap the data keys of all callers with the current master key, while others read and write.

    With VOICE_ENCRYPTION_KEYS, data keys that are in the records are moved to the key store.

    With a key file, a new key is put into it first, and processes of this machine read the file again by
    themselves. With several machines, a variable or a command, give every process both keys before, the new
    one first, and use --no-new-key. The same command resumes an interrupted rotation. Keep the old key for as
    long as there are backups under it.
    """
    with plain_store_allowed(), open_recognizer(store) as recognizer:
        storage = recognizer.storage
        before = encryption_status(storage)
        keys = KeyRing.from_config(recognizer.config)
        if new_key and keys is not None and before.state.startswith("encrypt") and not _is_under_way(before):
            if not isinstance(keys.source, FileKeys):
                raise ConfigurationError(
                    "A new key can be put into a key file alone: give the new key first and the old one "
                    "second, and use --no-new-key."
                )
            keys.source.add()
        with counter("Rotating", before.callers) as progress:
            report = rotate_keys(storage, progress=progress)
        after = encryption_status(storage)
    if as_json:
        print_json({**dataclasses.asdict(report), "key": after.current})
    else:
        print_lines(
            f"{plural(report.callers, 'caller')} under the key {after.current}, {report.changed} new there. "
            "Keep the older key for as long as there are backups under it."
        )


def _is_under_way(status: EncryptionStatus) -> bool:
    """Return True where callers are not yet all under the current key."""
    return {*status.keys, status.mark} - {FORGOTTEN} != {status.current}


@app.command("status")
def status(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show whether the store is encrypted, and how many callers are under each master key."""
    with plain_store_allowed(), open_recognizer(store) as recognizer:
        now = encryption_status(recognizer.storage)
        location = recognizer.storage.location
    if as_json:
        print_json({"store": location, **dataclasses.asdict(now)})
        return
    print_lines(f"{location} is {now.state}.")
    if now.state == "damaged":
        print_lines("Somebody has changed it without the key: restore a backup, and do not encrypt it again.")
    elif now.plain and now.state != "plain":
        print_lines(
            f"{plural(now.plain, 'caller')} not encrypted yet: `voiceprint encryption encrypt` goes on."
        )
    for key, count in now.keys.items():
        if key == FORGOTTEN:
            print_lines(
                f"{plural(count, 'caller')} whose data key was forgotten: `voiceprint check --fix` removes "
                "the records."
            )
            continue
        current = " (the current key)" if key == now.current else ""
        print_lines(f"{plural(count, 'caller')} under the key {key}{current}.")
    if now.current is not None and now.current not in now.keys:
        print_lines(f"The configured key is {now.current}.")
