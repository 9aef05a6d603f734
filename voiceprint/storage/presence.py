"""Remembers the stores that this process has opened: a vanished store must not read as an empty one.

A handle stays with the store that it has opened first. While that store is missing, or another has taken its
place, every operation raises `StorageUnavailableError`, and the log says so once. Opening the location anew
gives the other store, with a warning. A location where this process has opened a store never counts as empty
afterwards, for any handle, as a service may open its store for every call: to start there with an empty
store, start the process anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import ClassVar, NoReturn

from voiceprint.errors import StorageUnavailableError

__all__ = ["StorePresence"]

log = logging.getLogger(__name__)


class StorePresence:
    """The store that one handle has opened at `location`."""

    _lock = threading.Lock()
    # By location: the last identity of the store, the problem that was logged, the last file opened.
    _identities: ClassVar[dict[str, str]] = {}
    _problems: ClassVar[dict[str, str]] = {}
    _files: ClassVar[dict[str, object]] = {}

    def __init__(self, location: str) -> None:
        self.location = location
        self._identity = ""
        self._check: Callable[[str], None] | None = None

    def guard(self, check: Callable[[str], None]) -> None:
        """Call `check` with the identity once there is one, before the store is used; errors pass through.

        It may run while locks of the store are held, and must not use a store.
        """
        self._check = check
        if self._identity:
            check(self._identity)

    def renewed(self) -> StorePresence:
        """One for the store of another identity at the same location, with the same guard."""
        new = StorePresence(self.location)
        new._check = self._check
        return new

    @classmethod
    def forget_all(cls) -> None:
        """Return to the state of a new process."""
        cls._identities.clear()
        cls._problems.clear()
        cls._files.clear()

    @property
    def is_expected(self) -> bool:
        """Whether this process has opened a store here."""
        return self.location in self._identities

    def record_file(self, file: object) -> None:
        """Remember the file that is opened at the location."""
        self._files[self.location] = file

    def is_another_file(self, file: object) -> bool:
        """Whether this process opened another file at the location last."""
        return self._files.get(self.location, file) != file

    def confirm(self, identity: str) -> None:
        """The store is present; identity "": it has none yet. Raises if it is another store."""
        if self._identity and identity != self._identity:
            self._raise(
                "is another store than before (it was replaced). Put the right one back, or open it anew"
            )
        if identity and identity != self._identity and self._check is not None:
            self._check(identity)  # before it is noted: an error here is raised by every later operation too
        if self._identity == identity and self.location not in self._problems and self.is_expected:
            return
        with self._lock:
            before = self._identities.get(self.location)
            self._identities[self.location] = identity
            problem = self._problems.pop(self.location, None)
        self._identity = identity
        if before and before != identity:
            log.warning("%s is another store than before: it was replaced, and opened anew.", self.location)
        elif problem:
            log.warning("%s is there again.", self.location)

    def report_missing(self, *, expected: bool, problem: str = "is gone: it was there before") -> None:
        """The store is missing. Raises if it was present before.

        expected: `is_expected` from before the check, as another thread may have created the store since.
        """
        if expected:
            self._raise(
                f"{problem}. Put it back, or restore a backup; to start with an empty store, start the "
                "process anew"
            )

    def _raise(self, problem: str) -> NoReturn:
        with self._lock:
            is_new = self._problems.get(self.location) != problem
            self._problems[self.location] = problem
        message = f"{self.location} {problem}. Nothing was changed."
        if is_new:
            log.error("%s", message)
        raise StorageUnavailableError(message)
