"""Maintenance in the background: vectors move to the trained part, which is trained anew as it grows."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np

# Not at their first use, as numpy would: a fork just then would leave the child waiting for the import.
import numpy.linalg
import numpy.ma
import numpy.random
from numpy.typing import NDArray

from voiceprint.index.ivf import MIN_SAMPLE, IVFIndex, list_count, sample_size
from voiceprint.index.parts import Parts
from voiceprint.index.rows import BLOCK, Rows, to_half, to_single
from voiceprint.index.threads import give_back_memory, limited
from voiceprint.index.trained import TrainedPart, directory_of
from voiceprint.index.tuning import tune

logger = logging.getLogger(__name__)

_GROWN = 2  # trained again when there are this many times the vectors of the last training, or one in so many
MERGED_AT = 4_096  # rows of the buffer, and removed ones: a search compares them in 0.15 ms
_SEED = 4321
_AT_EXIT_S = 60.0
_AGAIN_AFTER_S = 60.0  # since a step that failed


def no_structure(recall: float) -> str:
    """The reason reported where an inverted file does not reach the recall."""
    return (
        f"an inverted file does not give a recall of {recall:g}: too many vectors are almost equal. Every "
        "answer is right; a search takes time in proportion to the number of vectors. Ask for a lower "
        "recall, or see whether these are embeddings"
    )


class _CancelledError(Exception):
    """The process ends."""


class Maintainer:
    """The one owner of the trained part: one step at a time, in its own thread or in that of the caller.

    A step copies what it needs, computes beside searches and changes, and exchanges the result in a short
    write. Nobody records changes for it: a row that was removed meanwhile is no longer live at its source.
    """

    _all: ClassVar[WeakValueDictionary[int, Maintainer]] = WeakValueDictionary()
    _exiting: ClassVar[bool] = False

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._not_before = -math.inf
        self._warned = False
        self.failure: str | None = None
        self._renew()
        self._all[id(self)] = self

    def _renew(self) -> None:
        self._starting = threading.Lock()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether a step is under way."""
        return self._working.locked() or self._thread is not None

    def start_if_due(self) -> None:
        """Do what is due in the background."""
        if self._due() is None:
            return
        with self._starting:
            if self._exiting or self._thread is not None or time.monotonic() < self._not_before:
                return
            thread = threading.Thread(target=self._in_background, name="voiceprint-index", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                self._failed(error)
            else:
                self._thread = thread

    def _in_background(self) -> None:
        try:
            while True:
                with self._starting:
                    if (step := self._due()) is None:
                        self._thread = None
                        return
                with self.alone():
                    step()
        except _CancelledError:
            self._thread = None
        except (RuntimeError, MemoryError, np.linalg.LinAlgError) as error:  # faiss's, and numpy's
            with self._starting:
                self._thread = None
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        # The index goes on as it is, complete. The next change after a while tries again.
        self._not_before = time.monotonic() + _AGAIN_AFTER_S
        self.failure = type(error).__name__
        logger.warning("The index could not be trained and goes on as it is (%s).", self.failure)

    def wait(self, timeout: float | None) -> bool:
        """Wait until no step is under way, in whichever thread; False when one still is."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.running:
            left = -1 if end is None else end - time.monotonic()
            if end is not None and left <= 0:
                return False
            thread = self._thread
            if thread is not None:
                thread.join(None if end is None else left)
            elif self._working.acquire(timeout=left):
                self._working.release()
        return True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No step starts within the block."""
        with self._working, limited(self._parts.threads):
            yield

    def _proceed(self) -> None:
        if self._exiting:
            raise _CancelledError

    def _due(self) -> Callable[[], None] | None:
        """The next step; None when nothing is due."""
        parts, trained = self._parts, self._parts.trained
        at_least, count = max(parts.exact_up_to, MIN_SAMPLE - 1), len(parts)
        if trained is not None and count <= at_least // 2:
            return self.dissolve
        if parts.recall < 1.0 and count > at_least:
            # With the removed rows of the trained part, whose memory is to be given back.
            size = len(parts.buffer) + (0 if trained is None else trained.rows.size)
            if size > _GROWN * parts.trained_on or _GROWN * count < parts.trained_on:
                return self.train
            if trained is not None and trained.tuned_for != parts.recall:
                return self.tune
        if trained is not None and parts.buffer.size + sum(map(len, trained.stale)) >= MERGED_AT:
            return self.merge
        return None

    # The steps; each within `alone`

    def merge(self) -> None:
        """Move the oldest chunk of the buffer to the trained part, and purge the codes of removed rows."""
        parts, trained = self._parts, self._parts.trained
        assert trained is not None  # noqa: S101  due with a trained part only
        with parts.lock.writing():
            parts.buffer.seal()
            empty = Rows(parts.dimension, np.float32)
            number, source = next(iter(parts.buffer.sealed().items()), (-1, empty))
            stale = [*trained.stale]
        added, first = Rows(parts.dimension, np.float16), trained.rows.size
        at = self._copy(source, added)
        ivf = trained.ivf.without(np.concatenate([np.empty(0, np.int64), *stale]))
        ivf.add(first + np.arange(added.size), to_single(added.vectors))
        rows = trained.rows
        directory = directory_of(
            np.concatenate([rows.ids, added.ids]), np.concatenate([rows.live, added.live])
        )
        with parts.lock.writing():
            trained.extend(added, ivf, directory)
            del trained.stale[: len(stale)]
            trained.remove(first + np.flatnonzero(~source.live[at]))
            parts.buffer.drop([number])

    def merge_all(self) -> None:
        """Merge the buffer of now; nothing where there is no trained part."""
        parts = self._parts
        if parts.trained is None:
            return
        with parts.lock.writing():
            parts.buffer.seal()
            steps = len(parts.buffer.sealed())
        for _ in range(max(steps, 1 if parts.trained.stale else 0)):
            self.merge()

    def train(self) -> None:
        """Move all vectors to a new trained part."""
        parts = self._parts
        with parts.lock.writing():
            parts.buffer.seal()
            chunks = parts.buffer.sealed()
        sources = [*chunks.values()] if parts.trained is None else [parts.trained.rows, *chunks.values()]
        rows, copied = Rows(parts.dimension, np.float16), []
        for source in sources:
            self._proceed()
            copied.append((rows.size, source, self._copy(source, rows)))
        if rows.size < MIN_SAMPLE:
            return
        self._proceed()
        chosen = np.random.default_rng(_SEED).permutation(rows.size)[: sample_size(rows.size)]
        ivf = IVFIndex.train(
            to_single(rows.vectors[np.sort(chosen)]), min(list_count(rows.size), len(chosen))
        )
        for some, vectors in rows.live_blocks():
            self._proceed()
            ivf.add(some, vectors)
        trained = TrainedPart(rows, ivf, *self._tuned(ivf, rows))
        with parts.lock.writing():
            parts.trained, parts.trained_on = trained, rows.size
            for first, source, at in copied:
                trained.remove(first + np.flatnonzero(~source.live[at]))
            parts.buffer.drop([*chunks])
        self.failure = None
        # Not after each merge: it makes other threads that allocate memory wait, 0.1 s for a gigabyte.
        del sources, copied, chunks
        give_back_memory()

    def _copy(self, source: Rows, rows: Rows) -> NDArray[np.int64]:
        """Append the live rows of a source; gives their numbers there, int64[n]."""
        numbers = [np.empty(0, np.int64)]
        for start in range(0, source.size, BLOCK):
            with self._parts.lock.reading():
                at = start + np.flatnonzero(source.live[start : start + BLOCK])
                ids, vectors = source.ids[at], source.vectors[at]
            rows.append(ids, vectors if vectors.dtype == np.float16 else to_half(vectors))
            numbers.append(at)
        return np.concatenate(numbers)

    def _tuned(self, ivf: IVFIndex, rows: Rows) -> tuple[int, float, float]:
        """nprobe, recall, and the recall asked for, as a `TrainedPart` takes them."""
        asked_for = self._parts.recall
        nprobe, recall = tune(ivf, rows, asked_for, self._proceed)
        if not nprobe and not self._warned:
            logger.warning("All %d vectors are compared: %s.", rows.live_count, no_structure(asked_for))
        self._warned = not nprobe
        return nprobe, recall, asked_for

    def tune(self) -> None:
        """Measure anew how many lists to scan, for the recall that is asked for now."""
        trained = self._parts.trained
        if trained is not None and self._parts.recall < 1.0:
            tuned = self._tuned(trained.ivf, trained.rows)
            with self._parts.lock.writing():
                trained.nprobe, trained.recall, trained.tuned_for = tuned

    def dissolve(self) -> None:
        """Move the few vectors of the trained part back to the buffer."""
        parts, trained = self._parts, self._parts.trained
        if trained is None:
            return
        with parts.lock.writing():
            for rows, vectors in trained.rows.live_blocks():
                parts.buffer.put(trained.rows.ids[rows], vectors)
            parts.trained, parts.trained_on = None, 0

    @classmethod
    def _cancel_all(cls) -> None:
        # A thread that is still inside faiss while the process is taken down can bring it to crash.
        cls._exiting = True
        for maintainer in cls._known():
            maintainer.wait(_AT_EXIT_S)

    @classmethod
    def _after_fork(cls) -> None:
        for maintainer in cls._known():
            maintainer._renew()  # the thread has stayed behind in the parent

    @classmethod
    def _known(cls) -> list[Maintainer]:
        # Not by iterating, which fails when another thread makes an index meanwhile.
        return [known for reference in cls._all.valuerefs() if (known := reference()) is not None]


atexit.register(Maintainer._cancel_all)
os.register_at_fork(after_in_child=Maintainer._after_fork)
