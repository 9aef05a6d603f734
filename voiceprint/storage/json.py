"""The JSON store: one readable file, replaced as a whole by every change.

A change is written to a new file in the same folder, flushed to the disk, and renamed over the old
one, so that a reader in any process sees the old state or the new one, and a crash leaves one of
these. Writers take turns by a lock file that the system releases when its holder dies.
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
from voiceprint._files import open_regular, remove_leftovers, replace_file, sync_folder
from voiceprint._keyed_cache import KeyedCache
from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageUnavailableError
from voiceprint.models import Finding
from voiceprint.storage.base import DEFAULT_MAX_VOICEPRINTS
from voiceprint.storage.json_format import encode_caller, encode_file, parse_file
from voiceprint.storage.mounts import MOUNT_THE_FOLDER, is_mounted_alone
from voiceprint.storage.records import CallerRecord, Change, Records
from voiceprint.storage.removals import erase_snapshots, removes, removes_voiceprints
from voiceprint.storage.resident import ResidentStorage
from voiceprint.storage.sightings import Sighting

__all__ = ["JSONStorage"]

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 30.0
TOUCH_TIMEOUT_S = 5.0

# What tells one state of the file from another: device, inode, size, time of modification in ns.
_Fingerprint = tuple[int, int, int, int]
_NO_FILE: _Fingerprint = (0, 0, 0, 0)

# Files whose content stays in memory when no handle is open, so that a recognizer built per call
# does not read the file anew.
KEPT_FILES = 4


class JSONStorage(ResidentStorage):
    """Callers in one JSON file, shared by threads and processes.

    Made for up to some ten thousand voiceprints: all records are held in memory, and every change
    writes the whole file. Handles on one file share the memory. The file is created by the first
    change, with the folders above it, readable for its owner alone.

    file_path: the file. A damaged one raises `StorageCorruptError` and is left as it is; an empty one, as
    `touch` makes it, is taken for a new store, with a warning.
    """

    def __init__(
        self,
        file_path: str | os.PathLike[str] = "voiceprints.json",
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
    ) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller)
        path = os.fspath(file_path)
        if not isinstance(path, str) or not path or "\0" in path:
            raise InvalidArgumentError(f"The path of the JSON store is {path!r}: give the path of a file.")
        # The real path: a rename over a symbolic link would replace the link, not the file behind it.
        # By os.path, which passes over an unknown "~user" and a loop of links: opening tells of them.
        self._file = _JSONFile.shared(Path(os.path.realpath(os.path.expanduser(path))))  # noqa: PTH111
        self._sighting = Sighting(self.location)
        self.snapshot_places = {self.path.with_name(f"{self.path.name}.index")}
        with self._reading():
            pass  # so that a damaged file is told when it is opened

    @property
    def path(self) -> Path:
        """The file, absolute and with symbolic links resolved."""
        return self._file.path

    def files(self) -> list[Path]:
        return [self.path, self.path.with_name(f"{self.path.name}.lock")]

    @property
    def location(self) -> str:
        return f"json:{self._file.path}"

    @contextmanager
    def _reading(self) -> Iterator[Records]:
        self._check_open()
        with self._file.lock:
            yield self._refresh()

    def _refresh(self) -> Records:
        expected = self._sighting.expected
        records = self._file.refresh()
        if not self._file.is_there:
            self._sighting.missing(expected=expected)
        elif self._file.is_empty:
            self._sighting.missing(expected=expected, what="was emptied: it held a store before")
        else:
            self._sighting.found(records.identity)
        return records

    def exists(self) -> bool:
        with self._reading():
            return self._file.is_there and not self._file.is_empty

    @contextmanager
    def _writing(self, *, timeout_s: float = LOCK_TIMEOUT_S, creates: bool = True) -> Iterator[Change]:
        # First, as a lock file and the folders must not be made where nothing is written.
        if not self.exists() and not creates:
            yield Change(Records())
            return
        with self._file.exclusive(timeout_s):
            with self._file.lock:
                change = Change(self._refresh())
            yield change
            if change:
                removed = removes_voiceprints(change)  # before: the commit makes its base the new state
                self._file.commit(change)
                self._sighting.found(change.identity)
                if removed:
                    erase_snapshots(self.snapshot_places)

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        # A match has its answer by now: it must not wait long for a writer that is stuck.
        with self._writing(timeout_s=TOUCH_TIMEOUT_S, creates=False) as change:
            return change.touch(caller_id, when)

    def check(self, *, fix: bool = False) -> list[Finding]:
        self._check_open()
        try:
            return super().check(fix=fix)
        except StorageCorruptError as error:
            return [Finding(code="corrupt", place=str(self._file.path), message=str(error))]

    def close(self) -> None:
        self._closed = True


class _JSONFile:
    """One file and its content in memory, shared by all handles of the process.

    `lock` guards the content in memory and is held briefly. A writer holds `exclusive()` from before
    it reads until its file is in place, and meanwhile readers go on.
    """

    _shared: ClassVar[KeyedCache[Path, _JSONFile]] = KeyedCache(idle=KEPT_FILES)

    @classmethod
    def shared(cls, path: Path) -> _JSONFile:
        """The one object for this path, kept for the handles to come."""
        return cls._shared.get(path, lambda: cls(path))

    @classmethod
    def forget_all(cls) -> None:
        """Let later handles start from what is on the disk alone."""
        cls._shared.forget_all()

    @classmethod
    def renew_after_fork(cls) -> None:
        """Another thread of the parent may have been at work at the fork: nobody here would finish it."""
        cls._shared.renew_lock()
        for file in cls._shared.values():
            file.lock, file._write_lock = threading.RLock(), threading.RLock()
            # What was in memory may be half a change; what is on the disk is whole, and follows it.
            file._seen, file._loaded = None, False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._write_lock = threading.RLock()
        self._records = Records()
        self._lines: dict[str, tuple[CallerRecord, bytes]] = {}
        self._seen: _Fingerprint | None = None
        self._loaded = False
        self._cleaned = False
        # The file as last read stays open: its inode can then not be given to a later file, so that
        # an unchanged fingerprint is proof of an unchanged file, however coarse the clock.
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
        """Holds what the writers of all threads and processes take turns by."""
        turn = self._write_lock  # after a fork, the attribute is another
        if not turn.acquire(timeout=timeout_s):
            raise self._busy(timeout_s)
        try:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(f"{self.path}.lock", timeout=timeout_s, mode=0o600)
                lock.acquire(poll_interval=0.002)
            except Timeout as error:
                raise self._busy(timeout_s) from error
            except OSError as error:
                raise self._unavailable("cannot be locked for writing", error) from error
            try:
                yield
            finally:
                lock.release()
        finally:
            turn.release()

    def _busy(self, timeout_s: float) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"{self.path}: another writer has held the lock for {timeout_s:g} s. Try again."
        )

    def _unavailable(self, what: str, error: OSError) -> StorageUnavailableError:
        return StorageUnavailableError(f"{self.path} {what} ({error.strerror}). Nothing was changed.")

    @property
    def is_there(self) -> bool:
        """Whether there was a file when it was last looked for."""
        return self._seen != _NO_FILE

    @property
    def is_empty(self) -> bool:
        """Whether it was a file of no bytes, as `touch` makes one."""
        return self.is_there and self._seen is not None and self._seen[2] == 0

    def _look(self) -> _Fingerprint:
        try:
            return _fingerprint(self.path.stat())
        except FileNotFoundError:
            return _NO_FILE
        except OSError as error:
            raise self._unavailable("cannot be read", error) from error

    def refresh(self) -> Records:
        """The state on disk; the file is read only if it is another than last time. Under `lock`."""
        if self._look() != self._seen:
            self.load()
        return self._records

    def load(self) -> None:
        """Make what is on the disk the content in memory. Under `lock`."""
        known = self._records
        records, seen, descriptor = self.read()
        followed = records.identity == known.identity and records.revision > known.revision
        if self._loaded and not followed and records.position == known.position:
            # Not a later state of the file that was known, and not one that the tokens of its commits tell
            # from it: one that was edited by other means. Followers must not be told that nothing happened.
            records.restart_feed()
        self._records, self._seen, self._loaded = records, seen, True
        self._pin(descriptor)

    def read(self) -> tuple[Records, _Fingerprint, int | None]:
        """What is on the disk: the content, the fingerprint, and the open file (None if there is none)."""
        try:
            with open_regular(self.path) as stream:
                seen = _fingerprint(os.fstat(stream.fileno()))
                content = stream.read()
                descriptor = os.dup(stream.fileno())
        except FileNotFoundError:
            return Records(), _NO_FILE, None
        except OSError as error:
            raise self._unavailable("cannot be read", error) from error
        try:
            if seen[2] == 0 and not content:
                log.warning(
                    "%s is an empty file and is taken for a new store. If it held callers before, it was "
                    "cut off, by a full disk or a crash: restore a backup before anyone is enrolled.",
                    self.path,
                )
                return Records(), seen, descriptor
            return parse_file(content, str(self.path)), seen, descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def commit(self, change: Change) -> None:
        """Write the state after `change` to the disk, then make it the one in memory. Under `exclusive()`."""
        lines = self._encode(change)
        content = encode_file(change, list(lines.values()))
        try:
            # What killed writers left may hold what is removed here.
            if not self._cleaned or removes(change):
                remove_leftovers(self.path)
                self._cleaned = True
            descriptor = replace_file(self.path, content)
        except OSError as error:
            what = "cannot be written"
            if error.errno == errno.EBUSY and is_mounted_alone(self.path):
                what = f"is a mount point and cannot be replaced: {MOUNT_THE_FOLDER}"
            raise self._unavailable(what, error) from error
        with self.lock:
            if self._records is change.base:
                self._records.apply(change)
                self._lines = lines
                self._seen = _fingerprint(os.fstat(descriptor))
                self._pin(descriptor)
            else:  # something that takes no turns wrote to the file meanwhile, and it was read: read again
                self._seen = None
                os.close(descriptor)
        try:
            sync_folder(self.path.parent)
        except OSError as error:
            raise StorageUnavailableError(
                f"{self.path} was written, but the disk did not confirm it ({error.strerror}): "
                "the change may be lost if the machine fails now."
            ) from error

    def _encode(self, change: Change) -> dict[str, tuple[CallerRecord, bytes]]:
        known = self._lines
        lines = {}
        for caller_id, record in {**change.base.callers, **change.callers}.items():
            if record is not None:
                line = known.get(caller_id)
                lines[caller_id] = line if line and line[0] is record else (record, encode_caller(record))
        return lines


def _fingerprint(status: os.stat_result) -> _Fingerprint:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_fork.register(_fork.Step.STORE, in_child=_JSONFile.renew_after_fork)
