"""Callers from one store to another: exported as JSON Lines, imported, and copied directly.

An exported line is one caller:

    {"caller_id": "alice", "metadata": {...}, "created_at": "...Z", "last_seen": "...Z",
     "voiceprints": [{"id": 1, "encoder": "resemblyzer", "created_at": "...Z", "embedding": [...]}]}

and "simulated": [...] beside the embedding of a print that has it.
Ids and times survive. Lines are in the code-point order of the caller ids, so two stores of the same
callers give the same text, and `digest` compares them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError, StorageError
from voiceprint.models import Caller, Voiceprint
from voiceprint.storage.base import DEFAULT_PAGE, Deletion, Progress, Storage
from voiceprint.storage.deletions import DeletionList
from voiceprint.validation import check_caller_id, check_metadata, check_time

__all__ = ["CopyReport", "copy_callers", "digest", "export_callers", "import_callers"]


@dataclass(frozen=True)
class CopyReport:
    """Result of a copy.

    callers, voiceprints: that are in the target now as they were read; changed: callers that were written, as
    the others were there already; digest: of them, as by `digest`; left_out: callers who were read and left
    out, as the target had deleted them after these copies were made.
    """

    callers: int
    voiceprints: int
    changed: int
    digest: str
    left_out: int = 0


class Put:
    """The callers that `put_callers` has put into a store so far. deleted: whom it leaves out."""

    def __init__(self, deleted: DeletionList) -> None:
        self.deleted = deleted
        self.caller_ids: list[str] = []
        self.voiceprints = self.changed = self.left_out = 0
        self._read = hashlib.sha256()

    @property
    def count(self) -> int:
        """How many callers."""
        return len(self.caller_ids)

    @property
    def digest(self) -> str:
        """Of the callers, as by `digest`."""
        return self._read.hexdigest()

    def add(self, callers: list[Caller], changed: int) -> None:
        """These were put in, of which so many were written."""
        self.changed += changed
        for caller in callers:
            self.caller_ids.append(caller.caller_id)
            self.voiceprints += len(caller.voiceprints)
            self._read.update(_encode(caller))

    def report(self) -> CopyReport:
        """As what a copy gives."""
        return CopyReport(self.count, self.voiceprints, self.changed, self.digest, self.left_out)


def is_export(head: bytes) -> bool:
    """Whether a file that begins so is an export."""
    return head.startswith(b'{"caller_id":')


def export_callers(storage: Storage, stream: BinaryIO, *, progress: Progress | None = None) -> int:
    """Write all callers to `stream`, a line each; gives how many. Raises what the store and stream raise."""
    done = 0
    for caller in storage.iter_callers():
        stream.write(_encode(caller))
        done += 1
        if progress is not None:
            progress(done)
    return done


def import_callers(
    storage: Storage,
    lines: Iterable[bytes],
    *,
    include_deleted: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Put the callers of exported lines in, each in place of the caller of its id.

    A thousand at a time are one change. A bad line raises `InvalidArgumentError` naming its number; what
    came before its thousand is in the store then, and importing again passes over it. Callers who were
    deleted after they were exported are left out, unless `include_deleted`.
    """
    put = Put(DeletionList(() if include_deleted else storage.deletions()))
    put_callers(storage, _decoded(lines), put, progress)
    return put.report()


def copy_callers(
    source: Storage, target: Storage, *, include_deleted: bool = False, progress: Progress | None = None
) -> CopyReport:
    """Copy all callers with their ids and times, and verify the copy by count and digest.

    Callers that are in the target already just so are passed over, so a copy that was broken off is resumed
    by calling again. Callers that only the target has stay. Callers whom the target has deleted since the
    source enrolled them are left out, unless `include_deleted`; what the source has deleted is noted in the
    target. Raises `InvalidArgumentError` where ids of the source are other callers' in the target,
    `StorageError` where the copy turns out to differ from what was read, as another writes to the target.
    """
    if source.location == target.location:
        raise InvalidArgumentError(f"{source.location} is both source and target of the copy.")
    put = Put(DeletionList(() if include_deleted else target.deletions()))
    put_callers(target, source.iter_callers(), put, progress)
    noted = source.deletions()
    alive = verify_callers(target, put, source.location, DeletionList(noted))
    target.note_deletions(entry for entry in noted if entry not in alive)
    return put.report()


def digest(storage: Storage) -> str:
    """A checksum (SHA-256, hexadecimal) of all callers: the same for stores of the same callers."""
    value = hashlib.sha256()
    for caller in storage.iter_callers():
        value.update(_encode(caller))
    return value.hexdigest()


def put_callers(storage: Storage, callers: Iterable[Caller], put: Put, progress: Progress | None) -> None:
    """Restore the callers in the store, a thousand at a time, without those whom `put` leaves out."""
    for page in _pages(callers):
        kept = [caller for caller in page if not put.deleted.covers(caller)]
        put.left_out += len(page) - len(kept)
        put.add(kept, storage.restore_many(kept) if kept else 0)
        if progress is not None:
            progress(put.count + put.left_out)


def verify_callers(
    storage: Storage, put: Put, source: str, noted: DeletionList | None = None
) -> set[Deletion]:
    """Compare what the store holds of the callers of `put`, which came in the order of their ids, with them.

    Gives those of the `noted` deletions that are of callers of the store, who were enrolled anew since.
    Raises `StorageError` where they differ.
    """
    stored = hashlib.sha256()
    alive: set[Deletion] = set()
    wanted = iter(put.caller_ids)
    next_id = next(wanted, None)
    for caller in storage.iter_callers():
        if noted:
            alive.update(noted.entries(caller.caller_id))
        if caller.caller_id == next_id:
            stored.update(_encode(caller))
            next_id = next(wanted, None)
    if stored.hexdigest() != put.digest:
        raise StorageError(
            f"The callers in {storage.location} are not those that were read from {source}: something else "
            "wrote to one of them meanwhile. Do it again."
        )
    return alive


def _pages(callers: Iterable[Caller]) -> Iterator[list[Caller]]:
    page: list[Caller] = []
    for caller in callers:
        page.append(caller)
        if len(page) == DEFAULT_PAGE:
            yield page
            page = []
    if page:
        yield page


def caller_entry(caller: Caller, vector: Callable[[NDArray[np.float32]], Any]) -> dict[str, Any]:
    """A caller as the JSON object of a line; vector: gives what stands there for an embedding."""
    return {
        "caller_id": caller.caller_id,
        "metadata": caller.metadata,
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        "voiceprints": [
            {
                "id": print_.id,
                "encoder": print_.encoder,
                "created_at": print_.created_at,
                "embedding": vector(print_.embedding),
                # Absent where there is none: as older versions wrote it, so that digests of then hold.
                **({} if print_.augmented is None else {"simulated": vector(print_.augmented)}),
            }
            for print_ in caller.voiceprints
        ],
    }


def _encode(caller: Caller) -> bytes:
    line = caller_entry(caller, lambda vector: vector)
    # Keys sorted: not every store keeps the order of metadata, and it must not count in a digest.
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(line, option=options)


def _decoded(lines: Iterable[bytes]) -> Iterator[Caller]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _decode(line, number)


def _decode(line: bytes, number: int) -> Caller:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:  # not chained: its text may quote the line, which is biometric
        raise InvalidArgumentError(f"Line {number} is not JSON: it is damaged or cut off.") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("voiceprints"), list):
        if isinstance(entry, dict) and "voiceprint_backup" in entry:
            raise InvalidArgumentError("This is a backup, not an export: use `voiceprint restore`.")
        raise InvalidArgumentError(f"Line {number} is not an exported caller.")
    try:
        caller_id = check_caller_id(entry.get("caller_id"))
        return Caller(
            caller_id=caller_id,
            metadata=check_metadata(entry.get("metadata")),
            created_at=check_time(entry.get("created_at")),
            last_seen=check_time(entry.get("last_seen")),
            voiceprints=tuple(_print(caller_id, print_) for print_ in entry["voiceprints"]),
        )
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"Line {number}: {error}") from error


def _print(caller_id: str, entry: Any) -> Voiceprint:
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise InvalidArgumentError("a voiceprint has no id.")
    fields = {name: entry[name] for name in ("id", "encoder", "created_at") if name in entry}
    return Voiceprint(caller_id, entry.get("embedding"), augmented=entry.get("simulated"), **fields)
