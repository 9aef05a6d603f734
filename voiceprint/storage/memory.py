"""The store in memory: for tests and trials, and the model that the other stores are tested against."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from voiceprint.storage.base import DEFAULT_MAX_VOICEPRINTS
from voiceprint.storage.records import Change, Records
from voiceprint.storage.resident import ResidentStorage

__all__ = ["MemoryStorage"]


class MemoryStorage(ResidentStorage):
    """Callers in the memory of this process, gone when it ends. Each object is a store of its own."""

    def __init__(self, *, max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller)
        self._lock = threading.RLock()
        self._records = Records(identity=uuid.uuid4().hex)

    @property
    def location(self) -> str:
        return f"memory:{self._records.identity}"

    @contextmanager
    def _reading(self) -> Iterator[Records]:
        with self._lock:
            self._check_open()
            yield self._records

    def exists(self) -> bool:
        self._check_open()
        return True

    @contextmanager
    def _writing(self, *, creates: bool = True) -> Iterator[Change]:  # noqa: ARG002  it is there
        with self._lock:
            self._check_open()
            change = Change(self._records)
            yield change
            if change:
                self._records.apply(change)

    def close(self) -> None:
        self._closed = True
