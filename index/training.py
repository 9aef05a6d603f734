"""Training in the background: new cells are made beside the old ones, and put in their place."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet, ref

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.cells import Cells, cell_count, sample_size
from voiceprint.index.errors import IndexCorruptError
from voiceprint.index.threads import limited
from voiceprint.index.tuning import QUERIES, HeldOut, Tuning, measured, tune

if TYPE_CHECKING:
    from voiceprint.index.snapshot import SnapshotReader
    from voiceprint.index.vector_index import VectorIndex

logger = logging.getLogger(__name__)

_FEW = 200  # changes that are caught up with while writers wait; more are taken in beside them
_SEED = 4321
_DEPTH = 256  # where the number of probes is given and the depth is not
_AT_EXIT_S = 60.0


@dataclass(frozen=True)
class Approximation:
    """Cells, and how to search them; target: the recall that was aimed at."""

    cells: Cells
    tuning: Tuning
    target: float

    def depth_for(self, k: int) -> int:
        """How many candidates to score for k answers."""
        return max(self.tuning.depth, 4 * k)

    def candidates(self, queries: NDArray[np.float32], k: int) -> Iterable[NDArray[np.int64]]:
        """The rows to score for each query, at most `depth_for(k)`."""
        tuning = self.tuning
        found, _ = self.cells.candidates(queries, self.depth_for(k), tuning.most_probes, tuning.reach)
        for rows in found:
            yield rows[rows >= 0]


class Trainer:
    """Trains one index, one training at a time, in a thread of its own."""

    _all: ClassVar[WeakSet[Trainer]] = WeakSet()

    def __init__(self, index: VectorIndex) -> None:
        self._index = ref(index)  # an index that nobody uses any more is not kept alive for its training
        self._renew()
        self._all.add(self)

    def _renew(self) -> None:
        self._starting = threading.Lock()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        self._cancelled = False

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        return self._working.locked() or (self._thread is not None and self._thread.is_alive())

    def start(self, *, tune_only: bool = False) -> None:
        """Train in the background, unless that is under way."""
        with self._starting:
            if self.running or self._cancelled:
                return
            self._thread = threading.Thread(
                target=self._in_background, args=(tune_only,), name="voiceprint-index", daemon=True
            )
            self._thread.start()

    def wait(self, timeout: float | None) -> bool:
        """Wait for the training in the background."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self.running

    def run(self) -> None:
        """Train in this thread."""
        index = self._index()
        if index is None:
            return
        with self._working, limited(index.threads), index._copying() as journal:
            made = self._make(index)
            if made is not None:
                self._fill(index, made)
                self._catch_up(index, made, journal)
                self._install(index, made, journal, self._tuned(index, made))

    def tune(self) -> None:
        """Measure anew how to search the cells that there are."""
        index = self._index()
        approximation = index._approximation if index is not None else None
        if index is None:
            return
        if approximation is None:
            index._train_if_due()
            return
        with self._working, limited(index.threads):
            tuning = self._tuned(index, approximation.cells)
            with index._lock.writing():
                if index._approximation is not None and index._approximation.cells is approximation.cells:
                    index._approximation = tuning and Approximation(approximation.cells, tuning, index.recall)

    def _in_background(self, tune_only: bool) -> None:
        try:
            self.tune() if tune_only else self.run()
        except (RuntimeError, MemoryError) as error:
            # faiss's errors. The index goes on as it is, exact and complete; the next change tries again.
            logger.warning("The index could not be trained and goes on without (%s).", type(error).__name__)

    def _make(self, index: VectorIndex) -> Cells | None:
        """Cells fitted to a sample of the vectors, still empty."""
        with index._lock.reading():
            count = len(index._rows)
        if count == 0 or self._cancelled:
            return None
        places = np.random.default_rng(_SEED).permutation(count)[: sample_size(count)]
        parts = []
        for start in range(0, len(places), 4_096):
            with index._lock.reading():
                some = places[start : start + 4_096]
                parts.append(index._rows.vectors()[some[some < len(index._rows)]])
        sample = np.concatenate(parts)
        return Cells.train(sample, min(cell_count(count), len(sample))) if len(sample) else None

    def _fill(self, index: VectorIndex, cells: Cells) -> None:
        start = 0
        for ids, vectors in index._blocks():
            cells.add(np.arange(start, start + len(ids)), vectors)
            start += len(ids)
            if self._cancelled:
                return

    def _catch_up(self, index: VectorIndex, cells: Cells, journal: set[int]) -> None:
        """Take in what has changed since, until little is left."""
        while not self._cancelled:
            with index._lock.writing():
                if len(journal) <= _FEW:
                    return
                changed = np.array(list(journal), dtype=np.int64)
                journal.clear()
            cells.remove_all(changed)
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
        held_out = HeldOut.of(rows, queries, (vectors for _, vectors in index._blocks()))
        live = index._approximation is not None and index._approximation.cells is cells

        def candidates(depth: int, probes: int, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            if not live:
                return cells.candidates(queries, depth, probes, reach)
            found = []
            for n in range(0, len(queries), 32):  # a few at a time, so that writers do not wait long
                with index._lock.reading():
                    found.append(cells.candidates(queries[n : n + 32], depth, probes, reach))
            return np.concatenate([rows for rows, _ in found]), np.concatenate(
                [counts for _, counts in found]
            )

        if index.probes is None and index.depth is None:
            return tune(held_out, candidates, cells, index.recall)
        probes = min(index.probes or cells.count, cells.count)
        return measured(held_out, candidates, index.depth or _DEPTH, probes, math.inf)

    def _install(self, index: VectorIndex, cells: Cells, journal: set[int], tuning: Tuning | None) -> None:
        while not self._cancelled:
            self._catch_up(index, cells, journal)
            with index._lock.writing():
                if len(journal) > _FEW:
                    continue
                index._trained_on = len(index._rows)
                if index._trained_on <= index.exact_up_to // 2:  # it has shrunk meanwhile
                    return
                rows = np.array(list(journal), dtype=np.int64)
                cells.remove_all(rows)
                rows = rows[rows < len(index._rows)]
                cells.add(rows, index._rows.vectors()[rows])
                index._approximation = tuning and Approximation(cells, tuning, index.recall)
                return

    @classmethod
    def _cancel_all(cls) -> None:
        # A thread that is still inside faiss while the process is taken down can bring it to crash.
        for trainer in list(cls._all):
            trainer._cancelled = True
        for trainer in list(cls._all):
            trainer.wait(_AT_EXIT_S)

    @classmethod
    def _after_fork(cls) -> None:
        for trainer in list(cls._all):
            trainer._renew()  # the thread has stayed behind in the parent
            index = trainer._index()
            if index is not None:
                index._journals = []
                index.threads = 1  # the threads of OpenMP have stayed behind too, and it would wait for them


atexit.register(Trainer._cancel_all)
os.register_at_fork(after_in_child=Trainer._after_fork)


def approximation_to(
    approximation: Approximation | None,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any] | None]:
    """For a snapshot: the arrays, and the entries of its table."""
    if approximation is None:
        return {}, None
    projection, cells = approximation.cells.to_bytes()
    entries = {"tuning": asdict(approximation.tuning), "target": approximation.target}
    return {"projection": projection, "cells": cells}, entries


def approximation_from(reader: SnapshotReader, count: int) -> Approximation | None:
    """What `approximation_to` gave; None if there was none, or this version of faiss cannot read it."""
    entries = reader.table["approximation"]
    if entries is None:
        return None
    projection, raw = reader.part("projection"), reader.part("cells")
    try:
        cells = Cells.from_bytes(projection, raw)
    except RuntimeError as error:  # faiss's
        logger.warning("The snapshot's cells cannot be read, and are made anew (%s).", type(error).__name__)
        return None
    if len(cells) != count:
        raise IndexCorruptError("The snapshot's cells hold another number of vectors than the snapshot.")
    return Approximation(cells, Tuning(**entries["tuning"]), entries["target"])
