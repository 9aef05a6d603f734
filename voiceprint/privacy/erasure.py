"""Proof of erasure: the deletion with a receipt, and the search for remains.

The search is for the removed values: the first and last 32 bytes of each embedding, the text of its first
numbers (as in a JSON file), the metadata as JSON text, and the wrapped data key of an encrypted record. It
covers the whole files, including unused
space.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint._audited import recording
from voiceprint._files import RefusedFileError, leftovers
from voiceprint.errors import CallerNotFoundError
from voiceprint.models import Caller, DeletionReceipt, ErasedPlace, ErasureCheck, Finding, PlaceState
from voiceprint.retention import Expiry
from voiceprint.storage.base import FLUSH_S, Storage
from voiceprint.storage.deletions import DeletionList
from voiceprint.storage.snapshot_files import snapshot_leftovers, snapshots_at
from voiceprint.validation import check_caller_id, now

__all__ = [
    "delete_or_prove",
    "delete_with_receipt",
    "files_of",
    "opt_out_with_receipt",
    "pieces_of",
    "remains_of",
]

_BLOCK = 8 << 20  # bytes read at once
_PIECE = 32  # bytes: eight numbers of an embedding, which no other embedding shares
_NUMBERS = 4  # of an embedding as text
# The findings of a search by id, as states of a receipt. The others say that the search cannot tell.
_STATES: Final[dict[str, PlaceState]] = {
    "enrolled": "there_again",
    "remains": "remains",
    "stale_snapshot": "remains",
    "kept_by_server": "kept_by_server",
}
_SHORTEST = 8  # bytes of metadata to search for: fewer occur by chance


def delete_with_receipt(
    storage: Storage, caller_id: str, *, timeout_s: float = FLUSH_S, rewrite: bool = False
) -> DeletionReceipt:
    """Delete a caller, wait until the disk has followed, and search for remains.

    timeout_s: longest wait for other connections that delay the erasure. rewrite: have a Redis server rewrite
    all of its files.

    Raises `CallerNotFoundError`, and the errors of the store.
    """
    name = check_caller_id(caller_id)
    with recording(storage.auditor, "delete", caller=name) as operation:
        receipt = _delete_with_receipt(storage, name, timeout_s=timeout_s, rewrite=rewrite)
        operation.note(
            count=receipt.voiceprints, detail="complete" if receipt.complete else "remains were found"
        )
    return receipt


def delete_or_prove(storage: Storage, caller_id: str) -> DeletionReceipt:
    """As `delete_with_receipt`, for a deletion that may have been done already, without its receipt.

    The removed values are known no more then, so the search is for the caller's id, as in `remains_of`, and
    `voiceprints` is 0. Raises `CallerNotFoundError` for a caller whose deletion the store has not noted.
    """
    try:
        return delete_with_receipt(storage, caller_id)
    except CallerNotFoundError:  # deleted already, or never there
        check = remains_of(storage, caller_id)
        if check.deleted_at is None:
            raise
    places = {
        place: ErasedPlace(place=place, state="erased", detail="The id of the caller was not found.")
        for place in check.searched
    }
    for finding in check.findings:
        state = _STATES.get(finding.code, "not_searched")
        place = storage.location if finding.place == _of(check.caller_id) else finding.place
        places[place] = ErasedPlace(place=place, state=state, detail=finding.message)
    return DeletionReceipt(
        caller_id=check.caller_id,
        voiceprints=0,
        deleted_at=check.deleted_at,
        checked_at=check.checked_at,
        places=tuple(places.values()),
    )


def _delete_with_receipt(storage: Storage, name: str, *, timeout_s: float, rewrite: bool) -> DeletionReceipt:
    caller = storage.get(name)
    if caller is None:
        raise CallerNotFoundError(f"There is no caller {name!r} in the store: nothing was deleted.")
    return _erase(storage, caller, lambda: storage.delete(name), timeout_s=timeout_s, rewrite=rewrite)


def opt_out_with_receipt(
    storage: Storage,
    caller_id: str,
    *,
    reason: str | None = None,
    by: str | None = None,
    timeout_s: float = FLUSH_S,
    rewrite: bool = False,
) -> DeletionReceipt:
    """As `delete_with_receipt`, for a caller who refuses, see `Storage.opt_out`.

    The id and the refusal stay, and a caller of the store is not needed.
    """
    name = check_caller_id(caller_id)
    caller = storage.get(name) or Caller(caller_id=name)
    return _erase(
        storage,
        caller,
        lambda: storage.opt_out(name, reason=reason, by=by),
        timeout_s=timeout_s,
        rewrite=rewrite,
    )


def expire_with_receipt(
    storage: Storage, caller: Caller, expiry: Expiry, *, timeout_s: float = FLUSH_S
) -> DeletionReceipt | None:
    """As `delete_with_receipt`, for a caller who is expired; None for one who was renewed meanwhile."""
    name = caller.caller_id
    receipt = _erase(
        storage, caller, lambda: storage.delete_expired(name, expiry), timeout_s=timeout_s, rewrite=False
    )
    return None if storage.get(name) is not None else receipt


def _erase(
    storage: Storage, caller: Caller, remove: Callable[[], int], *, timeout_s: float, rewrite: bool
) -> DeletionReceipt:
    """Remove the caller's data by `remove`, wait until the disk has followed, and search for remains."""
    name = caller.caller_id
    pieces = pieces_of(caller) | _key_pieces(storage, name)
    ids = [voiceprint.id for voiceprint in caller.voiceprints if voiceprint.id is not None]
    snapshots = snapshots_at(storage.snapshot_places)
    removed = remove()
    deleted_at = now()
    flushed = storage.flush_removals(timeout_s)
    left = storage.get(name)
    deleted = (left is None or left.opt_out is not None) and not storage.get_many(ids)
    detail = "Neither the caller nor a voiceprint is found by its id."
    if left is not None:
        detail = "No voiceprint is found by its id. The caller's id and refusal are stored."
    places = [
        ErasedPlace(
            place=storage.location,
            state="erased" if deleted else "there_again",
            detail=detail if deleted else "Another process has enrolled the caller again since.",
        )
    ]
    for path in files_of(storage):
        try:
            found = _searched(storage, path, pieces)
            size = path.stat().st_size if found is not None else 0
        except FileNotFoundError:  # the file was replaced or removed meanwhile
            continue
        except OSError as error:  # the deletion stands, and the receipt names the file
            detail = f"The file cannot be read ({error.strerror}): search it by hand."
            places.append(ErasedPlace(place=str(path), state="not_searched", detail=detail))
            continue
        if found is None:
            continue
        detail = f"{size:,} bytes were searched."
        if found:
            detail = "The file still holds the embedding or metadata" + (
                ": another enrollment may hold the same values."
                if flushed
                else f": other connections delayed the erasure for {timeout_s:g} s. The next change or "
                "closing the store erases it."
            )
        places.append(ErasedPlace(place=str(path), state="remains" if found else "erased", detail=detail))
    places += [
        ErasedPlace(
            place=str(path),
            state="erased",
            detail="This snapshot of the index was removed with the embeddings in it.",
        )
        for path in snapshots
        if not path.exists()
    ]
    places += storage.server_remains(rewrite=rewrite)
    places += _index_servers(storage)
    return DeletionReceipt(
        caller_id=name,
        voiceprints=removed,
        deleted_at=deleted_at,
        checked_at=now(),
        places=tuple(places),
    )


def remains_of(storage: Storage, caller_id: str) -> ErasureCheck:
    """Search the store and its files for remains of a deleted caller; without any, `findings` is empty.

    Of a caller who has opted out the id stays, so only the snapshots of the index are looked at.

    The embeddings are gone, so the search is for the caller's id in every file of the store, and for a
    snapshot of the index that is older than the last removal. The files of a server cannot be read from here,
    and are among the findings.
    """
    name = check_caller_id(caller_id)
    noted = DeletionList(storage.deletions()).entries(name)
    files = files_of(storage)
    caller = storage.get(name)
    if caller is not None and caller.opt_out is None:
        findings = [
            Finding(code="enrolled", place=_of(name), message="The caller is enrolled: nothing was erased.")
        ]
    else:
        searched = [] if caller is not None else files  # the id of a refusal stays in them
        findings = _found_remains(storage, name, searched, is_noted=bool(noted))
    return ErasureCheck(
        caller_id=name,
        deleted_at=noted[-1].deleted_at if noted else None,
        checked_at=now(),
        searched=(storage.location, *(str(path) for path in files if path.exists())),
        findings=tuple(findings),
    )


def _found_remains(storage: Storage, name: str, files: list[Path], *, is_noted: bool) -> list[Finding]:
    findings = []
    if not is_noted:
        findings.append(
            Finding(
                code="no_deletion",
                place=_of(name),
                message="No deletion of a caller of this id is noted: look for the right spelling.",
            )
        )
    storage.flush_removals()
    texts = {name.encode(), orjson.dumps(name)[1:-1]}
    shared = None
    for path in files:
        try:
            if not _searched(storage, path, texts):
                continue
        except OSError as error:  # the search of the others goes on
            message = f"The file cannot be read ({error.strerror}): search it by hand."
            findings.append(Finding(code="not_searched", place=str(path), message=message))
            continue
        shared = _mentions(storage, name) if shared is None else shared
        if not shared:
            findings.append(_found(path, is_logged=_logs(storage, texts)))
    if shared:
        findings.append(
            Finding(
                code="not_told",
                place=_of(name),
                message="Records of other callers hold the same text, so a search cannot identify remains.",
            )
        )
    findings += [_stale(path) for path in _stale_snapshots(storage)]
    remains = [*storage.server_remains(), *_index_servers(storage)]
    return findings + [Finding(code=each.state, place=each.place, message=each.detail) for each in remains]


def _logs(storage: Storage, texts: set[bytes]) -> bool:
    """Whether an audit log in the store names the caller."""
    table = storage.line_table()
    return table is not None and any(text in line for _, line in table.rows() for text in texts)


def _found(path: Path, *, is_logged: bool) -> Finding:
    if not is_logged:
        return Finding(code="remains", place=str(path), message="The file holds the id of the caller.")
    return Finding(
        code="audit_log",
        place=str(path),
        message="The audit log in this file names the caller, as evidence; a search cannot say whether "
        "another record does too.",
    )


def files_of(storage: Storage) -> list[Path]:
    """Every file that may hold data of a record: of the store, snapshots, and temporary files of both."""
    files = dict.fromkeys([*storage.record_files(), *snapshots_at(storage.snapshot_places)])
    for path in storage.files()[:1]:
        files.update(dict.fromkeys(leftovers(path)))
    for place in storage.snapshot_places:
        files.update(dict.fromkeys(snapshot_leftovers(place)))
    return list(files)


def pieces_of(caller: Caller) -> set[bytes]:
    """The bytes to search for in files: parts of the embeddings, and the metadata."""
    pieces: set[bytes] = set()
    for voiceprint in caller.voiceprints:
        for vector in (voiceprint.embedding, voiceprint.augmented):
            if vector is not None:
                pieces.update(_vector_pieces(vector))
    texts = [orjson.dumps(caller.metadata)]
    if caller.consent is not None:
        texts.append(orjson.dumps(caller.consent.model_dump(exclude_none=True)))
    pieces.update(text for text in texts if len(text) >= _SHORTEST)
    return pieces


def _key_pieces(storage: Storage, name: str) -> set[bytes]:
    """The wrapped data key of an encrypted record, without which nobody can read the rest of it."""
    key = storage.data_key(name)
    # As it is in the tables of a database, and as text in a JSON file or a Redis record.
    return set() if key is None else {key, base64.b64encode(key)}


def _vector_pieces(vector: NDArray[np.float32]) -> Iterator[bytes]:
    for dtype in ("<f4", "<f2"):  # stores hold the former, snapshots of the index the latter
        raw = vector.astype(dtype).tobytes()
        yield raw[:_PIECE]
        yield raw[-_PIECE:]
    numbers: Any = vector[:_NUMBERS]
    yield orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _searched(storage: Storage, path: Path, pieces: Iterable[bytes]) -> bool | None:
    """Whether any of the pieces is in the file; None where there is no such file."""
    wanted = list(pieces)
    overlap = max(map(len, wanted), default=1) - 1
    try:
        with storage.open_for_search(path) as file:
            return _is_in(file, wanted, overlap)
    except (FileNotFoundError, RefusedFileError):
        return None


def _is_in(file: int, wanted: list[bytes], overlap: int) -> bool:
    start, tail = 0, b""
    while block := os.pread(file, _BLOCK, start):
        content = tail + block
        if any(piece in content for piece in wanted):
            return True
        start += len(block)
        tail = content[-overlap:] if overlap else b""
    return False


def _index_servers(storage: Storage) -> list[ErasedPlace]:
    return [
        ErasedPlace(
            place=f"index in {location}",
            state="kept_by_server",
            detail="No search finds the embedding any more. A process over the store removes it from the "
            "index within seconds, and has the server VACUUM it within 90 seconds, or within thirty times "
            "the time of the last VACUUM. It stays in the write-ahead log and its archives for as long as "
            "the server keeps these.",
        )
        for location in sorted(storage.index_servers)
    ]


def _mentions(storage: Storage, name: str) -> bool:
    """Whether a record of another caller holds the text."""
    text = orjson.dumps(name)[1:-1]
    return any(
        name in caller.caller_id or text in orjson.dumps(caller.metadata) for caller in storage.iter_callers()
    )


def _stale_snapshots(storage: Storage) -> Iterator[Path]:
    from voiceprint.identification.snapshots import Stamp, changes_since, snapshot_coding
    from voiceprint.index import IndexCorruptError, read_stamp

    for path in snapshots_at(storage.snapshot_places):
        try:
            stamp = Stamp.from_text(read_stamp(path, snapshot_coding(storage)))
        except (IndexCorruptError, OSError, KeyError, ValueError):  # unreadable, so it may hold anything
            yield path
            continue
        if stamp.store != storage.identity() or any(
            changes is None or len(changes.removed) for changes in changes_since(storage, stamp)
        ):
            yield path


def _stale(path: Path) -> Finding:
    return Finding(
        code="stale_snapshot",
        place=str(path),
        message="The snapshot of the index is older than a removal and may hold removed embeddings: "
        "remove it, or write another with `voiceprint index rebuild`.",
    )


def _of(name: str) -> str:
    return f"caller {name[:40]!r}"
