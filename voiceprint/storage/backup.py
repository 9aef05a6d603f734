"""Backups: all callers of a store as of one moment, in one file that says whether it is whole.

The file is JSON Lines:

    {"voiceprint_backup": 1, "created_at": "...Z", "store": "...", "revision": 7, "token": "..."}
    {"caller_id": "alice", ..., "voiceprints": [{"id": 1, ..., "embedding": "BASE64"}]}      (a caller a line)
    {"deletions": [["KEY", "DIGEST", "...Z"], ...]}
    {"end": true, "callers": 1, "voiceprints": 1, "sha256": "..."}

store: the identity of the store; embeddings are little-endian float32 in Base64, a quarter of what they take
as numbers; sha256: of all bytes before the last line. The index is left out, as it is derived. Any store can
be restored from the backup of any other.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from voiceprint._files import RefusedFileError, check_apart, open_regular, replacement
from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageError
from voiceprint.models import Caller, Voiceprint
from voiceprint.storage.base import Deletion, Moment, Progress, Storage
from voiceprint.storage.deletions import DeletionList
from voiceprint.storage.transfer import Put, caller_entry, put_callers, verify_callers
from voiceprint.validation import check_caller_id, check_metadata, check_time, now

__all__ = ["BackupReport", "RestoreReport", "back_up", "read_backup", "restore"]

FORMAT = 1
_MAGIC = b'{"voiceprint_backup":'
LONGEST_LINE = 64 << 20  # bytes: metadata may have 1 MB, and a caller many voiceprints
_DELETIONS_A_LINE = 10_000


@dataclass(frozen=True)
class BackupReport:
    """The content of a backup: created_at: when it was begun; store: identity of the store; revision: of the
    moment that it shows; sha256: of the content."""

    created_at: str
    store: str
    revision: int
    callers: int
    voiceprints: int
    deletions: int
    sha256: str


@dataclass(frozen=True)
class RestoreReport:
    """callers, voiceprints: that are in the store now as in the backup; changed: callers that were written,
    as the others were there already; left_out: callers of the backup who were deleted after it was made;
    kept: callers of the store who are not in the backup."""

    callers: int
    voiceprints: int
    changed: int
    left_out: int
    kept: int


def back_up(storage: Storage, path: Path, *, progress: Progress | None = None) -> BackupReport:
    """Write a backup of the store to `path`, as of one moment, and read it again to verify it.

    An older backup at `path` is replaced once the new one is whole; a pipe or device is written to, and then
    cannot be verified. The file is readable for its owner alone.

    Raises `InvalidArgumentError` where `path` is something else or cannot be written, and what the store
    raises.
    """

    if str(path) == "-":
        raise InvalidArgumentError("A backup is verified after it is written: give a file, not -.")

    def write(moment: Moment) -> BackupReport:
        with replacement(
            path, ours=is_backup, kind="a backup", apart_from=storage.files(), pipes=True
        ) as stream:
            report = _write(moment, stream, progress)
            if stream.readable():  # a pipe or a device is not
                stream.flush()
                if _verified(stream, path) != report:
                    raise StorageError(f"{path}: what was written reads otherwise: the disk may be failing.")
                stream.seek(0, 2)
            return report

    try:
        return storage.at_one_moment(write)
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    except OSError as error:  # of the file: those of the store arrive as StorageError
        raise InvalidArgumentError(f"{path} cannot be written: {error.strerror}.") from error


def is_backup(head: bytes) -> bool:
    """Whether a file that begins so is a backup."""
    return head.startswith(_MAGIC)


def read_backup(path: Path) -> BackupReport:
    """Read a backup to the end; gives what is in it.

    Raises `InvalidArgumentError` for a file that cannot be read or is no backup, `StorageCorruptError` for a
    backup that is damaged or cut off.
    """
    with _opened(path) as stream:
        return _verified(stream, path)


def restore(
    storage: Storage,
    path: Path,
    *,
    overwrite: bool = False,
    include_deleted: bool = False,
    progress: Progress | None = None,
) -> RestoreReport:
    """Put the callers of a backup into the store, with their ids and times, and verify them.

    The file is read to the end before anything is changed. A thousand callers at a time are one change;
    restoring again goes on where a restore was broken off.

    overwrite: the store may hold callers already: those of the same id are replaced, with all voiceprints,
        and the others stay. Without it, such a store is refused.
    include_deleted: also the callers that this store has deleted since they were backed up.

    Raises what `read_backup` raises, `InvalidArgumentError` where the store holds callers already or an id of
    a voiceprint is another caller's there, and what the store raises.
    """
    try:
        check_apart(path, storage.files())
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    with _opened(path) as stream:  # once, so that all that is read is of the file that was verified
        report = _verified(stream, path)
        put = Put(DeletionList(() if include_deleted else storage.deletions()))
        there = storage.count_callers()
        if there and not overwrite and not _holds_only(storage, stream, path):
            raise InvalidArgumentError(
                f"{storage.location} holds {there} callers already. Restore into an empty store, or "
                "overwrite: the callers of the backup then take the place of those of the same id."
            )
        noted = _deletions(stream, path)
        if noted:
            # First, so that a restore that is broken off has them. But for those of callers who are enrolled.
            alive = _enrolled(noted, itertools.chain(storage.iter_callers(), _callers(stream, path)))
            storage.note_deletions([deletion for deletion in noted if deletion not in alive])
        put_callers(storage, _callers(stream, path), put, progress)
    verify_callers(storage, put, f"the backup {path}")
    if report.callers != put.count + put.left_out:
        raise StorageError(f"{path} was changed while it was read: restore again.")
    kept = storage.count_callers() - put.count
    return RestoreReport(put.count, put.voiceprints, put.changed, put.left_out, max(0, kept))


def _holds_only(storage: Storage, stream: BinaryIO, path: Path) -> bool:
    """Whether the store holds callers of the backup just so and no others: a restore that was broken off."""
    wanted = _callers(stream, path)
    for caller in storage.iter_callers():
        candidate = next((one for one in wanted if one.caller_id >= caller.caller_id), None)
        if candidate is None or _encode(candidate) != _encode(caller):
            return False
    return True


def _write(moment: Moment, stream: BinaryIO, progress: Progress | None) -> BackupReport:
    digest = hashlib.sha256()
    callers = voiceprints = 0
    created_at = now()

    def line(value: Any) -> None:
        content = value if isinstance(value, bytes) else orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        digest.update(content)
        stream.write(content)

    revision, token = moment.position
    line(
        {
            "voiceprint_backup": FORMAT,
            "created_at": created_at,
            "store": moment.identity,
            "revision": revision,
            "token": token,
        }
    )
    for caller in moment.callers:
        line(_encode(caller))
        callers += 1
        voiceprints += len(caller.voiceprints)
        if progress is not None:
            progress(callers)
    for at in range(0, len(moment.deletions), _DELETIONS_A_LINE):
        line({"deletions": [[*entry] for entry in moment.deletions[at : at + _DELETIONS_A_LINE]]})
    report = BackupReport(
        created_at,
        moment.identity,
        revision,
        callers,
        voiceprints,
        len(moment.deletions),
        digest.hexdigest(),
    )
    end = {"end": True, "callers": callers, "voiceprints": voiceprints, "sha256": report.sha256}
    stream.write(orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE))
    return report


def _encode(caller: Caller) -> bytes:
    entry = caller_entry(caller, _as_text)
    return orjson.dumps(entry, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _as_text(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except RefusedFileError as error:
        raise InvalidArgumentError(str(error)) from error
    except OSError as error:  # missing, or not ours to read
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}.") from error


def _verified(stream: BinaryIO, path: Path) -> BackupReport:
    """Read and decode all of the backup; gives its content in figures."""
    digest = hashlib.sha256()
    head: dict[str, Any] = {}
    callers = voiceprints = deletions = 0
    last = ""
    for number, line, entry in _lines(stream, path):
        if number == 1:
            head = entry
        elif "caller_id" in entry:
            caller = _decode(entry, number, path)
            if caller.caller_id <= last:
                raise _damaged(path, f"line {number} is a caller out of order")
            last = caller.caller_id
            callers += 1
            voiceprints += len(caller.voiceprints)
        elif "deletions" in entry:
            deletions += len(_decode_deletions(entry, number, path))
        elif entry.get("end") is True:
            found = {
                "end": True,
                "callers": callers,
                "voiceprints": voiceprints,
                "sha256": digest.hexdigest(),
            }
            if entry != found or stream.read(1):
                raise _damaged(path, "its content is not what its last line says")
            return BackupReport(
                str(head["created_at"]),
                str(head["store"]),
                int(head["revision"]),
                callers,
                voiceprints,
                deletions,
                digest.hexdigest(),
            )
        else:
            raise _damaged(path, f"line {number} is nothing that a backup has")
        digest.update(line)
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
    if entry["voiceprint_backup"] != FORMAT:
        raise InvalidArgumentError(
            f"{path} is a backup of another format, and this version reads {FORMAT}: update the library."
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
    """Those of the deletions that are of these callers, who were enrolled anew since or by another store."""
    found = DeletionList(noted)
    return {entry for caller in callers for entry in found.entries(caller.caller_id)}


def _decode(entry: dict[str, Any], number: int, path: Path) -> Caller:
    try:
        prints = entry["voiceprints"]
        return Caller(
            caller_id=check_caller_id(entry["caller_id"]),
            metadata=check_metadata(entry.get("metadata")),
            created_at=check_time(entry.get("created_at")),
            last_seen=check_time(entry.get("last_seen")),
            voiceprints=tuple(_decode_print(entry["caller_id"], print_) for print_ in prints),
        )
    except (KeyError, TypeError, ValueError, InvalidArgumentError):
        # Not chained: the messages may quote what stands there.
        raise _damaged(path, f"line {number} is not a caller") from None


def _decode_print(caller_id: str, entry: dict[str, Any]) -> Voiceprint:
    vectors: dict[str, Any] = {
        name: np.frombuffer(base64.b64decode(entry[name], validate=True), dtype="<f4")
        for name in ("embedding", "simulated")
        if name in entry
    }
    embedding, augmented = vectors.pop("embedding"), vectors.get("simulated")
    if type(entry["id"]) is not int:
        raise InvalidArgumentError("a voiceprint has no id.")
    fields = {"id": entry["id"], "encoder": entry["encoder"], "created_at": entry.get("created_at")}
    return Voiceprint(caller_id, embedding, augmented=augmented, **fields)


def _decode_deletions(entry: dict[str, Any], number: int, path: Path) -> list[Deletion]:
    rows = entry["deletions"]
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 3 and all(isinstance(part, str) for part in row) for row in rows
    ):
        raise _damaged(path, f"line {number} is not a list of deletions")
    return [Deletion(*row) for row in rows]


def _damaged(path: Path, what: str) -> StorageCorruptError:
    return StorageCorruptError(f"{path} is damaged: {what}. Use another backup.")
