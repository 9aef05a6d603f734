"""Encrypts an existing store in place, and brings a store under another master key, while others use it.

Both work page by page and may be interrupted: the next run goes on with the records that are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from voiceprint._audited import audited_store
from voiceprint.errors import ConfigurationError, StorageCorruptError, StorageError, StorageUnavailableError
from voiceprint.privacy.encryption.envelope import Encryption
from voiceprint.privacy.encryption.search import Search
from voiceprint.privacy.erasure import files_of
from voiceprint.storage import Storage
from voiceprint.storage.base import FLUSH_S, Progress
from voiceprint.storage.sealing import (
    ENCRYPTING,
    ON,
    SealingError,
    mark_key,
    mark_state,
    plain_store_allowed,
)
from voiceprint.storage.snapshot_files import erase_snapshots
from voiceprint.storage.sql import SQLStorage

__all__ = ["EncryptionReport", "EncryptionStatus", "encrypt_store", "encryption_status", "rotate"]

_PAGE = 500  # callers of one change, for which other writers wait: some 0.1 s
_SEARCHED = 20_000  # callers whose plain data is searched for, evenly spread; all of a smaller store


@dataclass(frozen=True)
class EncryptionStatus:
    """The state of a store.

    state: "plain", "encrypting", "encrypted", or "damaged", where records and mark disagree. callers: all;
    plain: those whose record is not encrypted. keys: number of callers by the id of the master key, 16
    hexadecimal digits; current: the configured key's id, None without a key. mark: id of the key that a
    writer must have, None for a plain store.
    """

    state: str
    callers: int
    plain: int
    keys: dict[str, int]
    current: str | None
    mark: str | None


@dataclass(frozen=True)
class EncryptionReport:
    """changed: callers whose record was written. searched_for: callers whose plain data was searched for in
    `files`; found: the files that hold some of it. flushed: whether the store has erased what it replaced."""

    changed: int
    callers: int
    searched_for: int = 0
    files: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    flushed: bool = True


def encryption_status(storage: Storage) -> EncryptionStatus:
    """The state of a store. Reads the data keys of all callers, and decrypts none on an SQL store."""
    encryption = storage.sealing if isinstance(storage.sealing, Encryption) else None
    counts: Counter[str] = Counter()
    callers = plain = 0
    with plain_store_allowed():
        mark = storage.encryption_mark()
        for _, wrapped in _data_keys(storage):
            callers += 1
            if wrapped is None:
                plain += 1
            else:
                counts[_key_id(wrapped, encryption)] += 1
    states = {"": "plain", ENCRYPTING: "encrypting", ON: "encrypted"}
    is_damaged = (not mark and counts) or (mark_state(mark) == ON and plain)
    return EncryptionStatus(
        "damaged" if is_damaged else states.get(mark_state(mark), "damaged"),
        callers,
        plain,
        dict(sorted(counts.items())),
        None if encryption is None else encryption.keys.ids()[0],
        _key_id(mark_key(mark), encryption) if mark else None,
    )


@audited_store("key_change", detail="encryption")
def encrypt_store(storage: Storage, *, progress: Progress | None = None) -> EncryptionReport:
    """Encrypt every record of a plain store in place, verify it, and search its files for plain data.

    From the first step on, no process without the key can write to the store. Run it again after an
    interruption. Other processes that are given the key must open the store anew.

    Raises `ConfigurationError` without a key, and the errors of the store.
    """
    _encryption_of(storage)
    with plain_store_allowed():
        _begin(storage)
    erase_snapshots(storage.snapshot_places)
    with storage.removing_many():
        if isinstance(storage, SQLStorage):
            for key in storage.metadata_indexes():  # they hold plain values
                storage.drop_metadata_index(key)
        changed = _reseal(storage, progress)
        storage.set_encryption(ON)
    findings = storage.check()
    if findings:
        raise StorageError(
            f"{storage.location} is encrypted, and its check finds {findings[0].place}: {findings[0].message}"
        )
    flushed = storage.flush_removals(FLUSH_S)
    callers = storage.count_callers()
    search = Search()
    step = max(1, callers // _SEARCHED)
    for number, caller in enumerate(storage.iter_callers()):
        if number % step == 0:
            search.add(caller)
    files = [path for path in files_of(storage) if path.exists()]
    found = tuple(str(path) for path in files if search.finds(storage, path))
    return EncryptionReport(
        changed, callers, search.callers, tuple(str(path) for path in files), found, flushed
    )


def _begin(storage: Storage) -> None:
    """Mark a plain store, so that no process without the key writes to it any more."""
    if not storage.exists():
        raise StorageUnavailableError(
            f"{storage.location} does not exist: its first save encrypts it, as a key is set."
        )
    mark = storage.encryption_mark()
    if not mark and any(wrapped is not None for _, wrapped in _data_keys(storage)):
        raise StorageCorruptError(
            f"{storage.location} has encrypted records, and no mark of its encryption: somebody has changed "
            "it, and may have added plain records. Restore a backup. Nothing was changed."
        )
    if mark_state(mark) != ON:
        storage.set_encryption(ENCRYPTING)


@audited_store("key_change", detail="rotation")
def rotate(storage: Storage, *, progress: Progress | None = None) -> EncryptionReport:
    """Wrap every data key with the current master key, while others read and write.

    All processes that use the store must have the current key, first or not, before. Snapshots of the index
    are removed, as they are under the old key, and written anew. Run it again after an interruption.

    Raises `ConfigurationError` for a plain store or without a key, and the errors of the store.
    """
    encryption = _encryption_of(storage)
    if not mark_state(storage.encryption_mark()):
        raise ConfigurationError(
            f"{storage.location} is not encrypted: encrypt it with `voiceprint encryption encrypt`."
        )
    with storage.removing_many():
        changed = _reseal(storage, progress) + encryption.rewrap_apart()
        storage.rewrap_mark()
    erase_snapshots(storage.snapshot_places)
    flushed = storage.flush_removals(FLUSH_S)
    callers = storage.count_callers()  # a key store has the keys of marks, too, and perhaps of other stores
    return EncryptionReport(min(changed, callers), callers, flushed=flushed)


def _reseal(storage: Storage, progress: Progress | None) -> int:
    """Encrypt plain records and re-wrap old keys, until a look at all callers finds none."""
    encryption = _encryption_of(storage)
    total, changed = 0, -1
    while changed:  # again, as others may have written meanwhile
        changed = 0
        page: list[str] = []
        for done, (caller_id, wrapped) in enumerate(_data_keys(storage), start=1):
            if wrapped is None or not encryption.is_current(wrapped):
                page.append(caller_id)
            if len(page) == _PAGE:
                changed += storage.reseal(page)
                page = []
            if progress is not None and done % _PAGE == 0:
                progress(done)
        changed += storage.reseal(page) if page else 0
        total += changed
    return total


def _data_keys(storage: Storage) -> Iterator[tuple[str, bytes | None]]:
    after = ""
    sealing = storage.sealing
    while page := storage.data_keys(after=after, limit=_PAGE):
        keys = [key for _, key in page if key is not None]
        with nullcontext() if sealing is None else sealing.prefetched(keys):
            yield from page
        after = page[-1][0]


def _key_id(wrapped: bytes, encryption: Encryption | None) -> str:
    try:
        if encryption is not None:
            return encryption.master_key_of(wrapped)
        return Encryption.key_id(wrapped).hex()
    except SealingError:
        return "damaged"


def _encryption_of(storage: Storage) -> Encryption:
    if not isinstance(storage.sealing, Encryption):
        raise ConfigurationError(
            "There is no master key: make one with `voiceprint encryption init PATH`, and set "
            "VOICE_ENCRYPTION_KEY_FILE to the path. A store in memory cannot be encrypted."
        )
    return storage.sealing
