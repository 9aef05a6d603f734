"""The JSON store: callers in one readable file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.models import Finding
from voiceprint.storage.arguments import snapshot_path_beside
from voiceprint.storage.base import DEFAULT_MAX_VOICEPRINTS
from voiceprint.storage.json.file import JSONFile
from voiceprint.storage.memory import InMemoryStateStorage
from voiceprint.storage.presence import StorePresence
from voiceprint.storage.sealing import Sealing, check_plain, plain_store_allowed
from voiceprint.storage.snapshot_files import erase_snapshots
from voiceprint.storage.state import StoreState
from voiceprint.storage.transaction import Transaction
from voiceprint.validation import shown

__all__ = ["JSONStorage"]

LOCK_TIMEOUT_S = 30.0
TOUCH_TIMEOUT_S = 5.0


class JSONStorage(InMemoryStateStorage):
    """Callers in one JSON file, shared by threads and processes.

    For up to some ten thousand voiceprints: all records are in memory, and every change writes the whole
    file. Handles on one file share the memory. The first change creates the file, with the folders above it,
    readable for its owner alone.

    file_path: the file. A damaged one raises `StorageCorruptError` and is left as it is. An empty one, as
    `touch` makes it, counts as a new store, with a warning.
    """

    def __init__(
        self,
        file_path: str | os.PathLike[str] = "voiceprints.json",
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        encryption: Sealing | None = None,
    ) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller, encryption=encryption)
        path: object = os.fspath(file_path) if isinstance(file_path, os.PathLike) else file_path
        if not isinstance(path, str) or not path or "\0" in path:
            raise InvalidArgumentError(f"The path of the JSON store is {shown(path)}: give one of a file.")
        # The real path: a rename over a symbolic link would replace the link, not the file behind it. By
        # os.path, which ignores an unknown "~user" and a loop of links: opening reports them.
        self._file = JSONFile.shared(Path(os.path.realpath(os.path.expanduser(path))), encryption)  # noqa: PTH111
        self.presence: StorePresence = StorePresence(self.location)
        self._add_default_snapshot_place()
        # So that opening reports a damaged file. A plain one opens, and is refused at its first use.
        with plain_store_allowed(), self._reading():
            pass

    @property
    def file_path(self) -> Path:
        """The file, absolute and with symbolic links resolved."""
        return self._file.path

    @property
    def location(self) -> str:
        return f"json:{self.file_path}"

    def files(self) -> list[Path]:
        return [self.file_path, self._file.lock_path]

    def default_snapshot_path(self) -> Path:
        return snapshot_path_beside(self.file_path)

    @contextmanager
    def _reading(self) -> Iterator[StoreState]:
        self._check_open()
        with self._file.lock:
            yield self._refresh()

    def _refresh(self) -> StoreState:
        expected = self.presence.is_expected
        state = self._file.refresh()
        if not self._file.exists:
            self.presence.report_missing(expected=expected)
        elif self._file.is_empty:
            self.presence.report_missing(expected=expected, problem="was emptied: it held a store before")
        else:
            self.presence.confirm(state.identity)
            if state.callers:  # again, as the state may have been read where a plain store is allowed
                check_plain(self.sealing, state.encryption)
        return state

    def exists(self) -> bool:
        with self._reading():
            return self._file.exists and not self._file.is_empty

    @contextmanager
    def _writing(self, *, timeout_s: float | None = None, creates: bool = True) -> Iterator[Transaction]:
        # First, so that a change of nothing makes neither a lock file nor folders.
        if not self.exists() and not creates:
            yield Transaction(StoreState())
            return
        with self._file.exclusive(LOCK_TIMEOUT_S if timeout_s is None else timeout_s):
            with self._file.lock:
                transaction = Transaction(self._refresh(), self.sealing)
            yield transaction
            if transaction:
                removes = transaction.removes_voiceprints()  # before: the commit changes the base
                self._file.commit(transaction)
                self.presence.confirm(transaction.identity)
                if removes:
                    erase_snapshots(self.snapshot_places)

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        # A match has its answer by now: it must not wait long for a writer that is stuck.
        with self._writing(timeout_s=TOUCH_TIMEOUT_S, creates=False) as transaction:
            return transaction.touch(caller_id, when)

    def check(self, *, fix: bool = False) -> list[Finding]:
        self._check_open()
        try:
            return super().check(fix=fix)
        except StorageCorruptError as error:
            return [Finding(code="corrupt", place=str(self.file_path), message=str(error))]
