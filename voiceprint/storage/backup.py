"""Backups: all callers of a store as of one moment, in one file that says whether it is whole.

The file is JSON Lines:

    {"voiceprint_backup": 3, "created_at": "...Z", "store": "...", "revision": 7, "token": "..."}
    {"caller_id": "alice", ..., "voiceprints": [{"id": 1, ..., "embedding": "BASE64"}]}      (a caller a line)
    {"deletions": [["KEY", "DIGEST", "...Z"], ...]}
    {"end": true, "callers": 1, "voiceprints": 1, "sha256": "..."}

store: the identity of the store. A caller has the layout of codec.py, with embeddings as little-endian
float32 in Base64, a quarter of their size as numbers. sha256: of all bytes before the last line. Backups
leave out the index, which is derived. Every store can be restored from the backup of every other. Format 3 is
the first with consents, opt-outs, groups and provenances; format 1 calls "augmented" "simulated". An
encrypted backup is a file that begins with b"VPBACKUP" (`voiceprint.privacy.encryption.files`), with these
lines in it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint._audited import audited_store
from voiceprint._files import RefusedFileError, check_apart, open_regular, replacement
from voiceprint.errors import EncryptionKeyError, InvalidArgumentError, StorageCorruptError, StorageError
from voiceprint.models import Caller
from voiceprint.storage.base import ConsistentView, Deletion, Progress, Storage
from voiceprint.storage.codec import caller_entry, decode_caller, vector_fields
from voiceprint.storage.deletions import DeletionList
from voiceprint.storage.sealing import FileCipher, SealedFileError
from voiceprint.storage.transfer import LONGEST_LINE, CallerCopy
from voiceprint.validation import now

__all__ = ["BackupReport", "RestoreReport", "back_up", "read_backup", "restore"]

FORMAT = 3
_READABLE = (1, 2, 3)
_MAGIC = b'{"voiceprint_backup":'
SEALED_KIND = b"VPBACKUP"
_DELETIONS_PER_LINE = 10_000  # some 1 MB


@dataclass(frozen=True)
class BackupReport:
    """Content of a backup. created_at: when it was begun; store, revision: the store's identity and revision;
    sha256: of the content."""

    created_at: str
    store: str
    revision: int
    callers: int
    voiceprints: int
    deletions: int
    sha256: str


@dataclass(frozen=True)
class RestoreReport:
    """callers, voiceprints: in the store now as in the backup; changed: callers that were written, as the
    others were equal already; left_out: callers of the backup who were deleted after it was made; kept:
    callers of the store who are not in the backup."""

    callers: int
    voiceprints: int
    changed: int
    left_out: int
    kept: int


@audited_store("backup")
def back_up(
    storage: Storage, path: Path, *, cipher: FileCipher | None = None, progress: Progress | None = None
) -> BackupReport:
    """Write a backup of the store to `path`, as of one moment, and read it again to verify it.

    cipher: encrypts the file, such as `storage.sealing.files()`; None writes it plain.

    A complete new backup replaces an older one at `path`. A pipe or device is written to, and not verified.
    Only its owner can read the file.

    Raises `InvalidArgumentError` where `path` is another kind of file or cannot be written, and the errors of
    the store.
    """

    if str(path) == "-":
        raise InvalidArgumentError("A backup is verified after it is written: give a file, not -.")

    def write(view: ConsistentView) -> BackupReport:
        with replacement(
            path, ours=is_backup, kind="a backup", apart_from=storage.files(), pipes=True
        ) as stream:
            with nullcontext(stream) if cipher is None else cipher.writing(stream, SEALED_KIND) as content:
                report = _write(view, content, progress)
            if stream.readable():  # a pipe or a device is not
                stream.flush()
                if _verified_again(stream, path, cipher) != report:
                    raise StorageError(
                        f"{path} reads otherwise than it was written: the disk may be failing."
                    )
                stream.seek(0, 2)
            return report

    try:
        return storage.read_consistently(write)
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    except OSError as error:  # of the file: those of the store arrive as StorageError
        raise InvalidArgumentError(f"{path} cannot be written: {error.strerror}.") from error


def is_backup(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a backup."""
    return head.startswith((_MAGIC, SEALED_KIND))


def read_backup(path: Path, *, cipher: FileCipher | None = None) -> BackupReport:
    """Read a backup to the end and return its figures. cipher: of an encrypted one.

    Raises `EncryptionKeyError` for another key or passphrase, `InvalidArgumentError` for a file that cannot
    be read or is no backup, `StorageCorruptError` for a
    backup that is damaged or cut off.
    """
    with _opened(path, cipher) as stream:
        return _verified(stream, path)


@audited_store("restore")
def restore(
    storage: Storage,
    path: Path,
    *,
    cipher: FileCipher | None = None,
    overwrite: bool = False,
    include_deleted: bool = False,
    progress: Progress | None = None,
) -> RestoreReport:
    """Store the callers of a backup with their ids and times, and verify them.

    The file is read to the end before anything is changed. A thousand callers are one change; restoring again
    resumes an interrupted restore.

    overwrite: the store may hold callers already: the backup replaces those of the same id, with all
        voiceprints, and the others stay. Without it, such a store is refused.
    include_deleted: restore callers whom this store has deleted since the backup, too.
    cipher: of an encrypted backup.

    Raises the errors of `read_backup` and of the store, and `InvalidArgumentError` where the store holds
    callers already or an id of a voiceprint is another caller's there.
    """
    try:
        check_apart(path, storage.files())
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    with _opened(path, cipher) as stream:  # once, so that the restored file is the verified one
        report = _verified(stream, path)
        stored = storage.count_callers()
        if stored and not overwrite and not _holds_only(storage, stream, path):
            raise InvalidArgumentError(
                f"{storage.location} holds {stored} callers already. Restore into an empty store, or "
                "overwrite: the callers of the backup then take the place of those of the same id."
            )
        copy = CallerCopy(storage, include_deleted=include_deleted)
        noted = _deletions(stream, path)
        if noted:
            # First, so that an interrupted restore has them. But not those of callers who are enrolled.
            enrolled = _enrolled(noted, itertools.chain(storage.iter_callers(), _callers(stream, path)))
            storage.note_deletions([deletion for deletion in noted if deletion not in enrolled])
        copy.add(_callers(stream, path), progress)
    copy.verify(f"the backup {path}")
    copied = copy.report()
    if report.callers != copied.callers + copied.left_out:
        raise StorageError(f"{path} was changed while it was read: restore again.")
    others = max(0, storage.count_callers() - copied.callers)
    return RestoreReport(copied.callers, copied.voiceprints, copied.changed, copied.left_out, others)


def _holds_only(storage: Storage, stream: BinaryIO, path: Path) -> bool:
    """Whether the store holds only callers of the backup, equal to it: an interrupted restore."""
    wanted = _callers(stream, path)
    for caller in storage.iter_callers():
        candidate = next((one for one in wanted if one.caller_id >= caller.caller_id), None)
        if candidate is None or _encode(candidate) != _encode(caller):
            return False
    return True


class _Figures:
    """Counts and digest of the lines of a backup so far."""

    def __init__(self) -> None:
        self.callers = self.voiceprints = self.deletions = 0
        self._digest = hashlib.sha256()

    def add_line(self, line: bytes) -> bytes:
        self._digest.update(line)
        return line

    def add_caller(self, caller: Caller) -> None:
        self.callers += 1
        self.voiceprints += len(caller.voiceprints)

    def last_line(self) -> dict[str, Any]:
        return {
            "end": True,
            "callers": self.callers,
            "voiceprints": self.voiceprints,
            "sha256": self._digest.hexdigest(),
        }

    def report(self, head: dict[str, Any]) -> BackupReport:
        return BackupReport(
            head["created_at"],
            head["store"],
            head["revision"],
            self.callers,
            self.voiceprints,
            self.deletions,
            self._digest.hexdigest(),
        )


def _write(view: ConsistentView, stream: BinaryIO, progress: Progress | None) -> BackupReport:
    figures = _Figures()
    revision, token = view.position
    head = {
        "voiceprint_backup": FORMAT,
        "created_at": now(),
        "store": view.identity,
        "revision": revision,
        "token": token,
    }
    stream.write(figures.add_line(_json_line(head)))
    for caller in view.callers:
        stream.write(figures.add_line(_encode(caller)))
        figures.add_caller(caller)
        if progress is not None:
            progress(figures.callers)
    for at in range(0, len(view.deletions), _DELETIONS_PER_LINE):
        page = view.deletions[at : at + _DELETIONS_PER_LINE]
        stream.write(figures.add_line(_json_line({"deletions": [[*entry] for entry in page]})))
        figures.deletions += len(page)
    stream.write(_json_line(figures.last_line()))
    return figures.report(head)


def _json_line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _encode(caller: Caller) -> bytes:
    entry = caller_entry(caller, lambda print_: vector_fields(print_, _as_base64))
    return orjson.dumps(entry, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _as_base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _from_base64(text: Any) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")


def _opened(path: Path, cipher: FileCipher | None) -> BinaryIO:
    try:
        stream = open_regular(path)
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    except OSError as error:  # missing, or not ours to read
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return _decrypted(stream, path, cipher)
    except SealedFileError as error:
        stream.close()
        raise _damaged(path, str(error)) from error
    except BaseException:
        stream.close()
        raise


def _decrypted(stream: BinaryIO, path: Path, cipher: FileCipher | None) -> BinaryIO:
    is_sealed = stream.read(len(SEALED_KIND)) == SEALED_KIND
    stream.seek(0)
    if not is_sealed:
        return stream
    if cipher is None:
        raise EncryptionKeyError(f"{path} is encrypted: give its key or passphrase.")
    return cipher.reading(stream, SEALED_KIND)


def _verified_again(stream: BinaryIO, path: Path, cipher: FileCipher | None) -> BackupReport:
    """Read what was just written to the stream, which stays open."""
    if cipher is None:
        return _verified(stream, path)
    # By a descriptor of its own: closing the decrypted stream closes the one below.
    with os.fdopen(os.dup(stream.fileno()), "rb") as copy:
        copy.seek(0)
        try:
            return _verified(cipher.reading(copy, SEALED_KIND), path)
        except SealedFileError as error:
            raise _damaged(path, str(error)) from error


def _verified(stream: BinaryIO, path: Path) -> BackupReport:
    """Read and decode all of the backup, and return its figures."""
    figures = _Figures()
    head: dict[str, Any] = {}
    last = ""
    for number, line, entry in _lines(stream, path):
        if number == 1:
            head = entry
        elif "caller_id" in entry:
            caller = _decode(entry, number, path)
            if caller.caller_id <= last:
                raise _damaged(path, f"line {number} is a caller out of order")
            last = caller.caller_id
            figures.add_caller(caller)
        elif "deletions" in entry:
            figures.deletions += len(_decode_deletions(entry, number, path))
        elif entry.get("end") is True:
            if entry != figures.last_line() or stream.read(1):
                raise _damaged(path, "its content and its last line differ")
            return figures.report(head)
        else:
            raise _damaged(path, f"line {number} is not a line of a backup")
        figures.add_line(line)
    raise _damaged(path, "it ends before its last line: it was cut off")


def _lines(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Number, bytes and content of each line, from the first."""
    stream.seek(0)
    number = 0
    while True:
        try:
            line = stream.readline(LONGEST_LINE)
        except OSError as error:
            raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}.") from error
        except SealedFileError as error:
            raise _damaged(path, str(error)) from error
        if not line:
            return
        number += 1
        try:
            entry = orjson.loads(line)
        except (orjson.JSONDecodeError, RecursionError):  # not chained: it quotes the line
            entry = None
        if number == 1:
            _check_head(entry, line, path)
        if not isinstance(entry, dict):
            raise _damaged(path, f"line {number} is not a JSON object")
        yield number, line, entry


def _check_head(entry: Any, line: bytes, path: Path) -> None:
    if not isinstance(entry, dict) and is_backup(line):
        raise _damaged(path, "line 1 is not a JSON object")
    if not isinstance(entry, dict) or "voiceprint_backup" not in entry:
        raise InvalidArgumentError(
            f"{path} is not a backup: its first line is another. For an export, use `voiceprint import`."
        )
    if entry["voiceprint_backup"] not in _READABLE:
        raise InvalidArgumentError(
            f"{path} is a backup of another format, and this version reads up to {FORMAT}: update the "
            "library."
        )
    kinds = {"created_at": str, "store": str, "revision": int, "token": str}
    if not all(isinstance(entry.get(name), kind) for name, kind in kinds.items()):
        raise _damaged(path, "its first line is damaged")


def _callers(stream: BinaryIO, path: Path) -> Iterator[Caller]:
    for number, _, entry in _lines(stream, path):
        if "caller_id" in entry:
            yield _decode(entry, number, path)


def _deletions(stream: BinaryIO, path: Path) -> list[Deletion]:
    return [
        deletion
        for number, _, entry in _lines(stream, path)
        if "deletions" in entry
        for deletion in _decode_deletions(entry, number, path)
    ]


def _enrolled(noted: list[Deletion], callers: Iterable[Caller]) -> set[Deletion]:
    """The deletions that concern these callers, who were enrolled again since, or by another store."""
    deletions = DeletionList(noted)
    return {entry for caller in callers for entry in deletions.entries(caller.caller_id)}


def _decode(entry: dict[str, Any], number: int, path: Path) -> Caller:
    try:
        return decode_caller(entry, _from_base64)
    except (TypeError, ValueError):  # bad Base64, or an InvalidArgumentError; not chained: it may quote data
        raise _damaged(path, f"line {number} is not a caller") from None


def _decode_deletions(entry: dict[str, Any], number: int, path: Path) -> list[Deletion]:
    rows = entry["deletions"]
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 3 and all(isinstance(part, str) for part in row) for row in rows
    ):
        raise _damaged(path, f"line {number} is not a list of deletions")
    return [Deletion(*row) for row in rows]


def _damaged(path: Path, what: str) -> StorageCorruptError:
    return StorageCorruptError(f"{path} is damaged: {what}. Use another backup.")
