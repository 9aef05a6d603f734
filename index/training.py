"""Training in the background: new cells are made beside the old ones, and put in their place."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakValueDictionary, ref

import numpy as np

# Not at their first use, as numpy would: a fork just then would leave the child waiting for the import.
import numpy.linalg
import numpy.ma
import numpy.random
from numpy.typing import NDArray

from voiceprint.index.cells import ALGEBRA, LEAST_SAMPLE, Cells, cell_count, sample_size
from voiceprint.index.memory import give_back_memory
from voiceprint.index.threads import limited
from voiceprint.index.tuning import QUERIES, HeldOut, Tuning, measured, tune

if TYPE_CHECKING:
    from voiceprint.index.vector_index import VectorIndex

logger = logging.getLogger(__name__)

_FEW = 200  # changes that are caught up with while writers wait; more are taken in beside them
_ROWS_AT_ONCE = 16_384
_SEED = 4321
_CONFINED = 1.5  # times the cells that queries look into in the mean
_DEPTH = 256  # where the number of probes is given and the depth is not
_AT_EXIT_S = 60.0
_AGAIN_AFTER_S = 60.0  # since a training that failed


@dataclass(frozen=True)
class Aim:
    """What searching is tuned for: a recall, unless probes or depth are given instead."""

    recall: float
    probes: int | None
    depth: int | None


@dataclass(frozen=True)
class Approximation:
    """Cells, how to search them, and what that was tuned for."""

    cells: Cells
    tuning: Tuning
    aim: Aim

    def depth_for(self, k: int) -> int:
        """How many candidates to score for k answers."""
        return max(self.tuning.depth, 4 * k)

    def candidates(
        self, queries: NDArray[np.float32], k: int, *, confined: bool = False
    ) -> Iterable[NDArray[np.int64]]:
        """The rows to score for each query, at most `depth_for(k)`."""
        tuning = self.tuning
        probes = tuning.most_probes
        if confined:
            probes = max(1, min(probes, math.ceil(_CONFINED * tuning.probes)))
        found, _ = self.cells.candidates(queries, self.depth_for(k), probes, tuning.reach)
        for rows in found:
            rows.sort()
            first = rows >= 0
            first[1:] &= rows[1:] != rows[:-1]  # not a row that came twice
            yield rows[first]


def no_structure(recall: float) -> str:
    """The reason reported where no cells are worth searching."""
    return (
        f"no cells give a recall of {recall:g} for less than comparing with all: the vectors have too little "
        "structure, as random ones have. Every answer is right; a search takes time in proportion to the "
        "number of vectors. Ask for a lower recall, or see whether these are embeddings"
    )


class _Cancelled(Exception):  # noqa: N818
    """The process ends."""


class Trainer:
    """Trains one index, one training at a time; in a thread of its own, unless it is to be waited for."""

    _all: ClassVar[WeakValueDictionary[int, Trainer]] = WeakValueDictionary()
    _exiting: ClassVar[bool] = False

    def __init__(self, index: VectorIndex) -> None:
        self._index = ref(index)  # an index that nobody uses any more is not kept alive by its trainer
        self._not_before = -math.inf
        self.failure: str | None = None
        self._without_structure = False
        self._renew()
        self._all[id(self)] = self

    def _renew(self) -> None:
        self._starting = threading.Lock()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        thread = self._thread
        return self._working.locked() or (thread is not None and thread.is_alive())

    def start(self, *, tune_only: bool = False) -> None:
        """Train in the background; while that is under way, look again at its end whether it is due."""
        with self._starting:
            if self._exiting or time.monotonic() < self._not_before:
                return
            if self._thread is not None and self._thread.is_alive():
                self._again = True
                return
            thread = threading.Thread(
                target=self._in_background, args=(tune_only,), name="voiceprint-index", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                self._failed(error)
            else:
                self._thread = thread

    def wait(self, timeout: float | None) -> bool:
        """Wait until no training is under way, in whichever thread."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self.running:
            left = end - time.monotonic()
            if left <= 0:
                return False
            limit = None if timeout is None else left
            thread = self._thread
            if thread is not None and thread.is_alive():
                thread.join(limit)
            elif self._working.acquire(timeout=-1 if limit is None else limit):
                self._working.release()
        return True

    def run(self, *, if_due: bool = False) -> None:
        """Train in this thread; nothing to do for an index that is always to compare with all."""
        index = self._index()
        if index is None:
            return
        with self._working, limited(index.threads), index._copying() as journal:
            if (if_due and not index._due()) or index.recall >= 1.0:
                return
            made = self._make(index)
            if made is not None:
                self._fill(index, made)
                self._catch_up(index, made, journal)
                aim = index._aim()
                tuning = self._tuned(index, made)
                approximation = None if tuning is None else Approximation(made, tuning, aim)
                self._install(index, made, journal, approximation)
        give_back_memory()

    def tune(self) -> None:
        """Measure anew how to search the cells that there are; make them where the aim calls for some."""
        index = self._index()
        if index is None:
            return
        with self._working, limited(index.threads):
            approximation = index._approximation
            if approximation is not None:
                aim, cells = index._aim(), approximation.cells
                tuning = self._tuned(index, cells)
                with index._lock.writing():
                    if index._approximation is approximation:
                        index._approximation = None if tuning is None else Approximation(cells, tuning, aim)
        if approximation is None and len(index) > index.exact_up_to:
            self.run()

    def _in_background(self, tune_only: bool) -> None:
        while True:
            try:
                self.tune() if tune_only else self.run(if_due=True)
            except _Cancelled:
                return
            except (RuntimeError, MemoryError, np.linalg.LinAlgError) as error:  # faiss's, and numpy's
                self._failed(error)
                return
            with self._starting:
                if not self._again:
                    self._thread = None
                    return
                self._again = tune_only = False

    def _failed(self, error: Exception) -> None:
        # The index goes on as it is, exact and complete. The next change after a while tries again.
        self._again, self._not_before = False, time.monotonic() + _AGAIN_AFTER_S
        self.failure = type(error).__name__
        logger.warning("The index could not be trained and goes on without (%s).", type(error).__name__)

    def _go_on(self) -> None:
        if self._exiting:
            raise _Cancelled

    def _make(self, index: VectorIndex) -> Cells | None:
        """Cells fitted to a sample of the vectors, still empty."""
        with index._lock.reading():
            count = len(index._rows)
        self._go_on()
        places = np.random.default_rng(_SEED).permutation(count)[: sample_size(count)]
        sample, taken = np.empty((len(places), index.dimension), dtype=np.float32), 0
        for start in range(0, len(places), 1_024):
            with index._lock.reading():
                some = places[start : start + 1_024]
                some = some[some < len(index._rows)]
                sample[taken : taken + len(some)] = index._rows.vectors()[some]
            taken += len(some)
        sample = sample[:taken]
        if len(sample) < LEAST_SAMPLE:
            return None
        return Cells.train(sample, min(cell_count(count), len(sample)))

    def _fill(self, index: VectorIndex, cells: Cells) -> None:
        with index._lock.reading():
            count = len(index._rows)  # what comes now is in the journal
        codes, homes, encoded = np.empty((0, 0), np.uint8), np.empty((0, 0), np.int64), 0
        for _, vectors in index._blocks():
            with ALGEBRA.reading():
                some_codes, some_homes = cells.encode(vectors[: count - encoded])
            if not encoded:
                codes = np.empty((count, some_codes.shape[1]), dtype=np.uint8)
                homes = np.empty((count, some_homes.shape[1]), dtype=np.int64)
            end = encoded + len(some_codes)
            codes[encoded:end], homes[encoded:end], encoded = some_codes, some_homes, end
            self._go_on()
            if encoded == count:
                break
        # Many at once, which is several times as fast; not all, as others would wait for the interpreter.
        for start in range(0, encoded, _ROWS_AT_ONCE):
            rows = np.arange(start, min(encoded, start + _ROWS_AT_ONCE))
            cells.put(rows, codes[rows], homes[rows])
            self._go_on()

    def _catch_up(self, index: VectorIndex, cells: Cells, journal: set[int]) -> None:
        """Take in what has changed since, until little is left."""
        while True:
            self._go_on()
            with index._lock.writing():
                if len(journal) <= _FEW:
                    return
                changed = np.array(list(journal), dtype=np.int64)
                journal.clear()
            cells.remove(changed)
            for start in range(0, len(changed), 4_096):
                with index._lock.reading():
                    rows = changed[start : start + 4_096]
                    rows = rows[rows < len(index._rows)]
                    vectors = index._rows.vectors()[rows]
                cells.add(rows, vectors)

    def _tuned(self, index: VectorIndex, cells: Cells) -> Tuning | None:
        with index._lock.reading():
            count = len(index._rows)
            rows = np.random.default_rng(_SEED + 1).permutation(count)[:QUERIES]
            queries = index._rows.vectors()[rows]
        self.failure = None
        if not count or index.recall >= 1.0:
            return None

        def blocks() -> Iterable[NDArray[np.float32]]:
            for _, vectors in index._blocks():
                self._go_on()
                yield vectors

        held_out = HeldOut.of(rows, queries, blocks())
        live = index._approximation is not None and index._approximation.cells is cells

        def candidates(depth: int, probes: int, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            self._go_on()
            lock = index._lock if live else ALGEBRA
            found = []
            for n in range(0, len(queries), 32):  # a few, so that writers, or a fork, do not wait long
                with lock.reading():
                    found.append(cells.candidates(queries[n : n + 32], depth, probes, reach))
            return np.concatenate([rows for rows, _ in found]), np.concatenate(
                [counts for _, counts in found]
            )

        if index.probes is None and index.depth is None:
            tuning = tune(held_out, candidates, cells, index.recall)
            if tuning is None and not self._without_structure:  # once
                logger.warning("All %d vectors are compared: %s.", count, no_structure(index.recall))
            self._without_structure = tuning is None
            return tuning
        probes = min(index.probes or cells.count, cells.count)
        return measured(held_out, candidates, index.depth or _DEPTH, probes, math.inf)

    def _install(
        self, index: VectorIndex, cells: Cells, journal: set[int], approximation: Approximation | None
    ) -> None:
        while True:
            self._catch_up(index, cells, journal)
            with index._lock.writing():
                if len(journal) > _FEW:
                    continue
                if len(index._rows) <= index.exact_up_to // 2:  # it has shrunk meanwhile
                    return
                index._trained_on = len(index._rows)
                rows = np.array(list(journal), dtype=np.int64)
                cells.remove(rows)
                rows = rows[rows < len(index._rows)]
                cells.add(rows, index._rows.vectors()[rows])
                index._approximation = approximation
                return

    @classmethod
    def _cancel_all(cls) -> None:
        # A thread that is still inside faiss while the process is taken down can bring it to crash.
        cls._exiting = True
        for trainer in cls._known():
            trainer.wait(_AT_EXIT_S)

    @classmethod
    def _after_fork(cls) -> None:
        for trainer in cls._known():
            trainer._renew()  # the thread has stayed behind in the parent
            index = trainer._index()
            if index is not None:
                index._forget_other_threads()

    @classmethod
    def _known(cls) -> list[Trainer]:
        # Not by iterating, which fails when another thread makes an index meanwhile.
        return [trainer for known in cls._all.valuerefs() if (trainer := known()) is not None]


atexit.register(Trainer._cancel_all)
os.register_at_fork(after_in_child=Trainer._after_fork)
