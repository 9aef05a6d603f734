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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from voiceprint.errors import InvalidArgumentError, StorageError
from voiceprint.models import Caller, Voiceprint
from voiceprint.storage.base import DEFAULT_PAGE, Progress, Storage
from voiceprint.validation import check_caller_id, check_metadata, check_time

__all__ = ["CopyReport", "copy_callers", "digest", "export_callers", "import_callers"]


@dataclass(frozen=True)
class CopyReport:
    """What a copy did.

    callers, voiceprints: that were read; changed: callers that were written, as the others were there
    already; digest: of what was read, as by `digest`.
    """

    callers: int
    voiceprints: int
    changed: int
    digest: str


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
    storage: Storage, lines: Iterable[bytes], *, progress: Progress | None = None
) -> CopyReport:
    """Put the callers of exported lines in, each in place of the caller of its id.

    A thousand at a time are one change. A bad line raises `InvalidArgumentError` naming its number; what
    came before its thousand is in the store then, and importing again passes over it.
    """
    return _put(storage, _decoded(lines), progress)


def copy_callers(source: Storage, target: Storage, *, progress: Progress | None = None) -> CopyReport:
    """Copy all callers with their ids and times, and verify the copy by count and digest.

    Callers that are in the target already just so are passed over, so a copy that was broken off is
    resumed by calling again. Callers that only the target has stay. Raises `InvalidArgumentError`
    where ids of the source are other callers' in the target, `StorageError` where the copy turns out
    to differ from the source, for instance because the source was written to meanwhile.
    """
    if source.location == target.location:
        raise InvalidArgumentError(f"{source.location} is both source and target of the copy.")
    copied: list[str] = []

    def read() -> Iterator[Caller]:
        for caller in source.iter_callers():
            copied.append(caller.caller_id)
            yield caller

    report = _put(target, read(), progress)
    stored = hashlib.sha256()
    wanted = iter(copied)  # both stores give their callers in the same order
    next_id = next(wanted, None)
    for caller in target.iter_callers():
        if caller.caller_id == next_id:
            stored.update(_encode(caller))
            next_id = next(wanted, None)
    if stored.hexdigest() != report.digest:
        raise StorageError(
            f"The callers in {target.location} are not those that were read from {source.location}: "
            "something else wrote to the target meanwhile. Copy again."
        )
    return report


def digest(storage: Storage) -> str:
    """A checksum (SHA-256, hexadecimal) of all callers: the same for stores of the same callers."""
    value = hashlib.sha256()
    for caller in storage.iter_callers():
        value.update(_encode(caller))
    return value.hexdigest()


def _put(storage: Storage, callers: Iterable[Caller], progress: Progress | None) -> CopyReport:
    count = voiceprints = changed = 0
    read = hashlib.sha256()
    for page in _pages(callers):
        changed += storage.restore_many(page)
        count += len(page)
        for caller in page:
            voiceprints += len(caller.voiceprints)
            read.update(_encode(caller))
        if progress is not None:
            progress(count)
    return CopyReport(count, voiceprints, changed, read.hexdigest())


def _pages(callers: Iterable[Caller]) -> Iterator[list[Caller]]:
    page: list[Caller] = []
    for caller in callers:
        page.append(caller)
        if len(page) == DEFAULT_PAGE:
            yield page
            page = []
    if page:
        yield page


def _encode(caller: Caller) -> bytes:
    line = {
        "caller_id": caller.caller_id,
        "metadata": caller.metadata,
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        "voiceprints": [
            {
                "id": print_.id,
                "encoder": print_.encoder,
                "created_at": print_.created_at,
                "embedding": print_.embedding,
                # Absent where there is none: as older versions wrote it, so that digests of then hold.
                **({} if print_.simulated is None else {"simulated": print_.simulated}),
            }
            for print_ in caller.voiceprints
        ],
    }
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
    fields = {name: entry[name] for name in ("id", "encoder", "created_at", "simulated") if name in entry}
    return Voiceprint(caller_id, entry.get("embedding"), **fields)
