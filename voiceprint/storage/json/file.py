"""The file of a JSON store: its content in memory, its lock, and its replacement by every change.

A change is written to a new file in the same folder, flushed to the disk, and renamed over the old one, so
that every process reads the old state or the new one, and a crash leaves one of them. Writers take turns by a
lock file that the system releases when its holder dies.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from voiceprint import _fork
from voiceprint._files import (
    MOUNT_THE_FOLDER,
    is_mounted_alone,
    open_regular,
    remove_leftovers,
    replace_file,
    sync_folder,
)
from voiceprint._keyed_cache import KeyedCache
from voiceprint.errors import StorageUnavailableError
from voiceprint.storage.json.format import encode_caller, encode_file, parse_file
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.sealed_codec import StoreSeals
from voiceprint.storage.sealing import Sealing
from voiceprint.storage.state import StoreState
from voiceprint.storage.transaction import Transaction

log = logging.getLogger(__name__)

# One state of the file: device, inode, size, time of modification in ns.
_Fingerprint = tuple[int, int, int, int]
_NO_FILE: _Fingerprint = (0, 0, 0, 0)

# Files whose content stays in memory while no handle is open, so that a recognizer built per call does not
# parse the file again.
CACHED_FILES = 4


class JSONFile:
    """One file and its content in memory, shared by all handles of the process.

    `lock` guards the content in memory and is held briefly. A writer holds `exclusive()` from before it reads
    until its file is in place; readers go on meanwhile.
    """

    _shared: ClassVar[KeyedCache[tuple[Path, Sealing | None], JSONFile]] = KeyedCache(idle=CACHED_FILES)

    @classmethod
    def shared(cls, path: Path, sealing: Sealing | None = None) -> JSONFile:
        """The one object for this path and key; sealing: as in `Storage`."""
        # By the key too: a handle without it must not read what another one has decrypted.
        return cls._shared.get((path, sealing), lambda: cls(path, sealing))

    @classmethod
    def forget_all(cls) -> None:
        """Have later handles read the disk, as in a new process."""
        cls._shared.forget_all()

    @classmethod
    def renew_after_fork(cls) -> None:
        """Replace the locks: a thread of the parent may have held one, and never releases it here."""
        cls._shared.renew_lock()
        for file in cls._shared.values():
            file.lock, file._write_lock = threading.RLock(), threading.RLock()
            # The content in memory may be half a change. The file is whole.
            file._fingerprint, file._loaded = None, False

    def __init__(self, path: Path, sealing: Sealing | None = None) -> None:
        self.path = path
        self.sealing = sealing
        self.lock_path = path.with_name(f"{path.name}.lock")
        self.lock = threading.RLock()
        self._write_lock = threading.RLock()
        self._state = StoreState()
        # By caller id: the record and its line in the file.
        self._lines: dict[str, tuple[CallerRecord, bytes]] = {}
        self._fingerprint: _Fingerprint | None = None
        self._loaded = False
        self._cleaned = False
        # The file as last read stays open. No later file then gets its inode, so that an unchanged
        # fingerprint proves an unchanged file, however coarse the clock.
        self._pinned: int | None = None

    def __del__(self) -> None:
        self._pin(None)

    def _pin(self, descriptor: int | None) -> None:
        # In this order: a fork between the two must not leave the child the number of a closed file.
        previous, self._pinned = self._pinned, descriptor
        if previous is not None:
            os.close(previous)

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """The lock by which the writers of all threads and processes take turns."""
        write_lock = self._write_lock  # a fork replaces the attribute
        if not write_lock.acquire(timeout=timeout_s):
            raise self._busy(timeout_s)
        try:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.lock_path, timeout=timeout_s, mode=0o600)
                lock.acquire(poll_interval=0.002)
            except Timeout as error:
                raise self._busy(timeout_s) from error
            except OSError as error:  # no such folder, or no right to write there
                raise self._unavailable("cannot be locked for writing", error) from error
            try:
                yield
            finally:
                lock.release()
        finally:
            write_lock.release()

    def _busy(self, timeout_s: float) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"{self.path}: another writer has held the lock for {timeout_s:g} s. Try again."
        )

    def _unavailable(self, problem: str, error: OSError) -> StorageUnavailableError:
        return StorageUnavailableError(f"{self.path} {problem} ({error.strerror}). Nothing was changed.")

    @property
    def exists(self) -> bool:
        """Whether the file existed at the last `refresh`."""
        return self._fingerprint != _NO_FILE

    @property
    def is_empty(self) -> bool:
        """Whether the file had no bytes at the last `refresh`, as `touch` makes one."""
        return self.exists and self._fingerprint is not None and self._fingerprint[2] == 0

    def refresh(self) -> StoreState:
        """The state on disk; the file is read only if it has changed. Under `lock`."""
        try:
            present = _fingerprint(self.path.stat())
        except FileNotFoundError:
            present = _NO_FILE
        except OSError as error:  # no right to look, or a loop of links
            raise self._unavailable("cannot be read", error) from error
        if present != self._fingerprint:
            self._load()
        return self._state

    def _load(self) -> None:
        before = self._state
        state, fingerprint, descriptor = self._read()
        is_later = state.identity == before.identity and state.revision > before.revision
        if self._loaded and not is_later and state.position == before.position:
            # The file was edited by other means: followers must not conclude that nothing happened.
            state.restart_feed()
        self._state, self._fingerprint, self._loaded = state, fingerprint, True
        self._pin(descriptor)

    def _read(self) -> tuple[StoreState, _Fingerprint, int | None]:
        """Content, fingerprint and descriptor of the file; None if it does not exist."""
        try:
            with open_regular(self.path) as stream:
                fingerprint = _fingerprint(os.fstat(stream.fileno()))
                content = stream.read()
                descriptor = os.dup(stream.fileno())
        except FileNotFoundError:
            return StoreState(), _NO_FILE, None
        except OSError as error:  # no right to read, or not a file
            raise self._unavailable("cannot be read", error) from error
        try:
            if fingerprint[2] == 0 and not content:
                log.warning(
                    "%s is an empty file and is taken for a new store. If it held callers before, it was "
                    "cut off, by a full disk or a crash: restore a backup before anyone is enrolled.",
                    self.path,
                )
                return StoreState(), fingerprint, descriptor
            return parse_file(content, str(self.path), self.sealing), fingerprint, descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def commit(self, transaction: Transaction) -> None:
        """Write the state after `transaction` to the disk, then to the memory. Within `exclusive()`."""
        unused_keys = transaction.give_data_keys()
        lines = self._encode(transaction)
        content = encode_file(transaction, [line for _, line in lines.values()])
        try:
            # Leftovers of killed writers may hold data that is removed here.
            if not self._cleaned or transaction.removes_personal_data():
                remove_leftovers(self.path)
                self._cleaned = True
            descriptor = replace_file(self.path, content)
        except OSError as error:  # a full disk, no right to write, a mount point
            problem = "cannot be written"
            if error.errno == errno.EBUSY and is_mounted_alone(self.path):
                problem = f"is a mount point and cannot be replaced: {MOUNT_THE_FOLDER}"
            raise self._unavailable(problem, error) from error
        with self.lock:
            if self._state is transaction.base:
                self._state.apply(transaction)
                self._lines = lines
                self._fingerprint = _fingerprint(os.fstat(descriptor))
                self._pin(descriptor)
            else:  # a reader saw the new file first, and `refresh` has read it, or what another program wrote
                os.close(descriptor)
        try:
            sync_folder(self.path.parent)
        except OSError as error:  # the rename may not survive a crash of the machine
            raise StorageUnavailableError(
                f"{self.path} was written, but the disk did not confirm it ({error.strerror}): "
                "the change may be lost if the machine fails now."
            ) from error
        if self.sealing is not None:
            self.sealing.forget(unused_keys)

    def _encode(self, transaction: Transaction) -> dict[str, tuple[CallerRecord, bytes]]:
        seals = StoreSeals(self.sealing, lambda: transaction.identity)
        present = {**transaction.base.callers, **transaction.callers}
        records = [record for record in present.values() if record is not None]

        def kept(record: CallerRecord) -> tuple[CallerRecord, bytes] | None:
            line = self._lines.get(record.caller_id)
            return line if line and line[0] is record else None

        with seals.prefetched(record.data_key for record in records if kept(record) is None):
            return {
                record.caller_id: kept(record) or (record, encode_caller(record, seals)) for record in records
            }


def _fingerprint(status: os.stat_result) -> _Fingerprint:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_fork.register(_fork.Step.STORE, in_child=JSONFile.renew_after_fork)
