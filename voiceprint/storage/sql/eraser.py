"""Schedules the erasure of removed data from the disk."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from voiceprint import _fork
from voiceprint.errors import StorageError
from voiceprint.storage.sql.dialect import Dialect, translated
from voiceprint.storage.sql.fork_gate import fork_gate

log = logging.getLogger(__name__)

# How long a change waits for other connections before it leaves the erasure to a later operation.
ERASE_S = 1.0
# Pause after a run, in multiples of its time: a twentieth of the time goes into erasure.
_PAUSE = 20


class Eraser:
    """Erases from the disk the data that this process has removed from the database at one location.

    All handles of the process share it, as a service may open its store for every call. It takes at most a
    twentieth of the time, and runs in a thread if it takes long.
    """

    _all: ClassVar[dict[str, Eraser]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def of(cls, dialect: Dialect) -> Eraser:
        """The one of this process for the location of this database."""
        with cls._all_lock:
            return cls._all.setdefault(dialect.location, cls(dialect))

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._state: object = None  # of the database at the last removal
        self._pending = False
        # Earliest time of the next run, by the monotonic clock: in a large database; after others held it up.
        self._not_before = self._retry_at = 0.0
        self._turn = threading.Lock()
        self._deferring = threading.local()  # .here: within `deferred`
        self._thread: threading.Thread | None = None

    def removed(self) -> None:
        """Data was removed, and the change is committed."""
        self._state = self._dialect.state()
        self._pending = True

    def when_due(self) -> None:
        """Erase pending removals: now, or if that takes long in a thread, not too soon after the last run."""
        if not self._pending or self._is_deferred():
            return
        if self._dialect.erases_quickly():
            if time.monotonic() >= self._retry_at:
                self.now(ERASE_S)
        elif time.monotonic() < self._not_before:
            return
        elif self._thread is None or not self._thread.is_alive():
            log.info(
                "%s: removed data is being erased from the disk in the background, which takes some seconds "
                "in a large database. flush_removals waits for it.",
                self._dialect.name,
            )
            self._thread = threading.Thread(
                target=self.now, args=(ERASE_S,), name="voiceprint-erasure", daemon=True
            )
            self._thread.start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it, this thread does not erase; at the end, it erases pending removals as `when_due`."""
        if self._is_deferred():
            yield
            return
        self._deferring.here = True
        try:
            yield
        finally:
            self._deferring.here = False
            self.when_due()

    def _is_deferred(self) -> bool:
        return getattr(self._deferring, "here", False)

    def now(self, timeout_s: float) -> bool:
        """Erase pending removals; False, with a line in the log, if that is not possible yet."""
        with self._turn:
            if not self._pending:
                return True
            began = time.monotonic()
            try:
                with fork_gate.entered(), translated(self._dialect):
                    self._pending = False  # before: another thread may remove data meanwhile
                    if self._dialect.state() != self._state:
                        return True  # the file was replaced, and this one has no remains
                    done, why = self._dialect.erase_remains(timeout_s), "other connections are using it"
            except StorageError as error:  # the change itself is committed
                done, why = False, str(error)
            now = time.monotonic()
            self._not_before = now + _PAUSE * (now - began)
            if not done:
                self._pending = True
                self._retry_at = self._not_before
                log.warning(
                    "%s: removed data cannot be erased from the disk yet (%s). It is gone from the store; "
                    "the next operations try again, and flush_removals waits for it.",
                    self._dialect.name,
                    why,
                )
            return done

    def at_the_end(self) -> None:
        """Erase pending removals, as a handle is closed; in a thread if it takes long."""
        if self._dialect.erases_quickly():
            self.now(ERASE_S)
        else:
            self.when_due()

    @classmethod
    def _finish(cls) -> None:
        """Erase pending removals, at the end of the process."""
        for eraser in list(cls._all.values()):
            eraser.now(ERASE_S)

    @classmethod
    def forget_all(cls) -> None:
        """After a fork: the removals of the parent are the parent's to erase."""
        cls._all_lock = threading.Lock()
        for eraser in cls._all.values():
            eraser.__init__(eraser._dialect)  # type: ignore[misc]


_fork.register(_fork.Step.STORE, in_child=Eraser.forget_all)
atexit.register(Eraser._finish)
