"""Remembers the stores that this process has seen: one that vanishes must not read as an empty one.

A handle stays with the store that it has seen first. Where that is gone, or another has come to its place,
every operation is a `StorageUnavailableError` until it is back; the log tells of it once. Whoever opens the
place anew gets the other store, with a warning. A place where this process has seen a store is never taken
for an empty one, whoever opens it, as a service may open its store for every call: to start there with an
empty store, start the process anew.
"""

from __future__ import annotations

import logging
import threading
from typing import ClassVar, NoReturn

from voiceprint.errors import StorageUnavailableError

__all__ = ["Sighting"]

log = logging.getLogger(__name__)


class Sighting:
    """The store at `location`, as one handle has seen it."""

    _lock = threading.Lock()
    # By location: the identity that was seen last, and where something is amiss that was logged.
    _seen: ClassVar[dict[str, str]] = {}
    _logged: ClassVar[dict[str, str]] = {}
    # By location: the file that was opened last.
    _files: ClassVar[dict[str, object]] = {}

    def __init__(self, location: str) -> None:
        self.location = location
        self._identity = ""

    @classmethod
    def forget_all(cls) -> None:
        """Know no more than a new process."""
        cls._seen.clear()
        cls._files.clear()
        cls._logged.clear()

    @property
    def expected(self) -> bool:
        """Whether this process has seen a store here."""
        return self.location in self._seen

    def file_found(self, file: object) -> None:
        """This file is opened at the location."""
        self._files[self.location] = file

    def is_another_file(self, file: object) -> bool:
        """Whether this process opened another file at the location last."""
        return self._files.get(self.location, file) != file

    def found(self, identity: str) -> None:
        """The store is there; "" as its identity is of one that got none yet. Raises if it is another."""
        if self._identity and identity != self._identity:
            self._raise(
                "is another store than before (it was replaced). Put the right one back, or open it anew"
            )
        if self._identity == identity and self.location not in self._logged and self.expected:
            return
        with self._lock:
            before = self._seen.get(self.location)
            self._seen[self.location] = identity
            was_amiss = self._logged.pop(self.location, None)
        self._identity = identity
        if before and before != identity:
            log.warning("%s is another store than before: it was replaced, and opened anew.", self.location)
        elif was_amiss:
            log.warning("%s is there again.", self.location)

    def missing(self, *, expected: bool, what: str = "is gone: it was there before") -> None:
        """The store is not there. Raises if it was there before.

        expected: what the property was before the look: another thread may have created the store since.
        """
        if expected:
            self._raise(
                f"{what}. Put it back, or restore a backup; to start with an empty store, start the "
                "process anew"
            )

    def _raise(self, what: str) -> NoReturn:
        with self._lock:
            new = self._logged.get(self.location) != what
            self._logged[self.location] = what
        message = f"{self.location} {what}. Nothing was changed."
        if new:
            log.error("%s", message)
        raise StorageUnavailableError(message)
