"""`voiceprint export`, `import` and `copy`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from voiceprint._files import RefusedFileError, check_apart, open_descriptor, replacement
from voiceprint.cli.backup import IncludeDeletedOption, print_left_out
from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    check_exists,
    counter,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
)
from voiceprint.cli.file_ciphers import EncryptOption, PassphraseFileOption, reading_cipher, writing_cipher
from voiceprint.cli.gallery_options import ConfigOption, open_galleries
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError
from voiceprint.privacy.audit.auditor import attach
from voiceprint.privacy.encryption.opening import configured_store, open_store
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import Storage
from voiceprint.storage.sealing import FileCipher
from voiceprint.storage.transfer import (
    SEALED_KIND,
    copy_callers,
    export_callers,
    exported_lines,
    import_callers,
    is_export,
)

GALLERY_URL = "gallery:"
_STANDARD = Path("-")
_STANDARD_OUTPUT = (_STANDARD, Path("/dev/stdout"), Path("/dev/fd/1"))


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines; - for standard output.")],
    encrypt: EncryptOption = None,
    passphrase_file: PassphraseFileOption = None,
    store: StoreOption = None,
    create: CreateOption = False,
) -> None:
    """Write all callers with their voiceprints to a file, a line each.

    The file holds biometric data, and only its owner can read it. It replaces an earlier export, but no other
    file; a pipe or a device is written to.
    """
    with open_recognizer(store, create=create) as recognizer:
        storage = recognizer.storage
        cipher = writing_cipher(recognizer, encrypt, passphrase_file)
        with (
            _open_export(file, recognizer) as stream,
            nullcontext(stream) if cipher is None else cipher.writing(stream, SEALED_KIND) as content,
            counter("Exporting", storage.count_callers()) as progress,
        ):
            count = export_callers(storage, content, progress=progress)
    if file not in _STANDARD_OUTPUT:  # the reader of a pipe may write to standard output itself
        line = f"Exported {plural(count, 'caller')} to {file}{', encrypted' if cipher else ''}."
        (print_lines if file.is_file() else print_error)(line)


@contextmanager
def _open_export(file: Path, recognizer: OpusAgentVoiceRecognizer) -> Iterator[BinaryIO]:
    """The file to write to; it replaces the old file at the end."""
    if file in _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        return
    stores = [*recognizer.storage.files(), recognizer.snapshot_path()]
    try:
        with replacement(
            file,
            ours=is_export,
            kind="an export",
            apart_from=[path for path in stores if path is not None],
            pipes=True,
        ) as stream:
            yield stream
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    except OSError as error:  # of the file: those of the store arrive as StorageError
        raise InvalidArgumentError(f"{str(file)!r} cannot be written: {error.strerror}.") from error


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines; - for standard input.")],
    include_deleted: IncludeDeletedOption = False,
    passphrase_file: PassphraseFileOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import the callers of an exported file, plain or encrypted, with their ids and times.

    Each replaces the caller of the same id. Callers who were deleted since are left out.
    """
    with (
        open_recognizer(store, create=True) as recognizer,
        _open_import(file, recognizer.storage, reading_cipher(recognizer, passphrase_file)) as lines,
        counter("Importing") as progress,
    ):
        report = import_callers(recognizer.storage, lines, include_deleted=include_deleted, progress=progress)
    if as_json:
        print_json(vars(report))
    else:
        print_lines(
            f"Imported {plural(report.callers, 'caller')} with {plural(report.voiceprints, 'voiceprint')}; "
            f"{report.callers - report.changed} were there already."
        )
        print_left_out(report.left_out)


@contextmanager
def _open_import(file: Path, storage: Storage, cipher: FileCipher) -> Iterator[Iterator[bytes]]:
    if file == _STANDARD:
        yield exported_lines(sys.stdin.buffer, "standard input", cipher)
        return
    try:
        check_apart(file, storage.files())
        with open(file, "rb", opener=open_descriptor) as stream:
            yield exported_lines(stream, str(file), cipher)
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    except OSError as error:  # of the file: those of the store arrive as StorageError
        raise InvalidArgumentError(f"{str(file)!r} cannot be read: {error.strerror}.") from error


def copy(
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="Store to copy from, or gallery:NAME.")
    ],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="Store to copy to, or gallery:NAME.")],
    include_deleted: IncludeDeletedOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy all callers from one store to another, with their ids and times, and verify the copy.

    The same command resumes an interrupted copy.
    """
    with (
        _opened(source, config) as from_,
        _opened(target, config) as to,
        counter("Copying", _counted(from_)) as progress,
    ):
        report = copy_callers(from_, to, include_deleted=include_deleted, progress=progress)
    if as_json:
        print_json(vars(report))
    else:
        print_lines(
            f"Copied {plural(report.callers, 'caller')} with {plural(report.voiceprints, 'voiceprint')}; "
            f"{report.callers - report.changed} were there already. Verified (SHA-256 {report.digest[:16]})."
        )
        print_left_out(report.left_out)


def _opened(url: str, file: Path | None) -> Storage:
    """The store of a URL, with the settings of the environment, or of a gallery, with its own."""
    if url.startswith(GALLERY_URL):
        name = url.removeprefix(GALLERY_URL)
        config = open_galleries(file, [name]).config(name)
        storage = configured_store(config)
    else:
        config = VoiceFingerprintConfig()
        storage = open_store(url, config)
    attach(storage, config)
    return storage


def _counted(source: Storage) -> int:
    check_exists(source, "give the store to copy from")
    return source.count_callers()
