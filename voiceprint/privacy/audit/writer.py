"""`AuditWriter`: writes events in a thread of its own, so that no answer waits for the disk.

The queue holds `CAPACITY` events. While the log cannot be written, such as on a full disk, the thread tries
again once a second, and says so in the Python log. An operation that finds the queue full waits `PATIENCE_S`
for room; then its event is left out and counted, and the next line that can be written is a `log_gap` with
that number. With `wait` the operation instead waits until its own line is written, and fails without it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from voiceprint import _fork
from voiceprint.errors import AuditError
from voiceprint.privacy.audit.event import Event, new_event_id
from voiceprint.validation import now

logger = logging.getLogger(__name__)

CAPACITY: Final = 10_000
"""Events in the queue: at most some 10 MB, and at 100 matches a second the writes of 100 s. Doubled, so are
both."""

PATIENCE_S: Final = 1.0
"""Seconds that an operation waits for room in a full queue. Doubled, a disk that fails delays every operation
by as much more."""

_RETRY_S: Final = 1.0  # between attempts to write
_WAIT_S: Final = 10.0  # for the own line, or for the end of the queue: a disk under load, not a broken one
_IDLE_S: Final = 10.0  # without an event, after which the thread ends; the next event starts another
_COMPLAINT_S: Final = 60.0  # between messages of one problem

Append = Callable[[Sequence[Event]], None]


class AuditWriter:
    """Appends events in the order of `put`.

    append: writes the lines of events, all or none. place: of the log, for messages. wait: whether `put`
    returns only once the line is written. reset: called in a forked child, before its first `append`.
    """

    _alive: ClassVar[weakref.WeakSet[AuditWriter]] = weakref.WeakSet()

    def __init__(
        self, append: Append, place: str, *, wait: bool = False, reset: Callable[[], None] = lambda: None
    ) -> None:
        self._append, self.place, self._wait, self._reset = append, place, wait, reset
        self._begin()
        AuditWriter._alive.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Event] = deque()
        self._put = self._written = self._lost = 0
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._complained = float("-inf")

    def put(self, event: Event) -> None:
        """Add an event. With `wait`, raises `AuditError` where its line cannot be written."""
        with self._changed:
            if self._thread is None:
                self._start()
            if len(self._queue) >= CAPACITY and not self._changed.wait_for(
                lambda: len(self._queue) < CAPACITY, PATIENCE_S
            ):
                self._lost += 1
                self._complain(f"{self._lost} events were left out so far, as the queue is full")
                if self._wait:
                    raise self._error()
                return
            self._queue.append(event)
            self._put += 1
            number = self._put
            self._changed.notify_all()
            if self._wait and not self._is_written(number, _WAIT_S):
                raise self._error()

    def _is_written(self, number: int, timeout_s: float) -> bool:
        """Wait until the event of this number is written, or a write fails; whether it is written."""
        self._changed.wait_for(lambda: self._written >= number or self._failure is not None, timeout_s)
        return self._written >= number

    def _error(self) -> AuditError:
        why = f" ({self._failure})" if self._failure is not None else ""
        return AuditError(
            f"The audit log {self.place} cannot be written{why}. The operation itself may have taken place. "
            "Make room or mend the place, or unset VOICE_AUDIT_WAIT."
        )

    def flush(self, timeout_s: float = _WAIT_S) -> bool:
        """Wait until all events are written; False: not in time, or a write failed."""
        with self._changed:
            return self._is_written(self._put, timeout_s)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="voiceprint-audit", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._queue or self._lost, _IDLE_S):
                    self._thread = None
                    return
                events, lost = [*self._queue], self._lost
            gap = [Event(new_event_id(), now(), "log_gap", count=lost)] if lost else []
            try:
                # The events of the queue came before those for which it had no room.
                self._append([*events, *gap])
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread must go on, and tries again
                with self._changed:
                    self._failure = error
                    self._complain(str(error))
                    self._changed.notify_all()
                time.sleep(_RETRY_S)
                continue
            with self._changed:
                for _ in events:
                    self._queue.popleft()
                self._written += len(events)
                self._lost -= lost
                if self._failure is not None:
                    logger.warning("The audit log %s is written again.", self.place)
                    self._failure, self._complained = None, float("-inf")
                self._changed.notify_all()

    def _complain(self, why: str) -> None:
        if time.monotonic() - self._complained >= _COMPLAINT_S:
            self._complained = time.monotonic()
            logger.error("The audit log %s cannot be written: %s.", self.place, why.removesuffix("."))

    @property
    def unwritten(self) -> int:
        """Events that are not written yet, with those that were left out."""
        with self._changed:
            return len(self._queue) + self._lost

    @classmethod
    def flush_all(cls) -> None:
        """Write all waiting events at exit, and log the number that could not be written."""
        for writer in list(cls._alive):
            if not writer.flush() and writer.unwritten:
                logger.error("%d events are missing in the audit log %s.", writer.unwritten, writer.place)

    @classmethod
    def forget_all(cls) -> None:
        """After a fork, in the child: its parent writes the events of the queue."""
        for writer in list(cls._alive):
            writer._begin()
            writer._reset()


atexit.register(AuditWriter.flush_all)
_fork.register(_fork.Step.STORE, in_child=AuditWriter.forget_all)
