"""`VectorIndex`: maximum inner product search over vectors with ids, from the first to some millions."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.index.cells import LEAST_SAMPLE
from voiceprint.index.errors import IndexCorruptError
from voiceprint.index.locks import ReadWriteLock
from voiceprint.index.rows import Rows
from voiceprint.index.snapshot import MAX_DIMENSION, SnapshotReader, new_snapshot
from voiceprint.index.snapshot_parts import approximation_from, approximation_to
from voiceprint.index.threads import limited
from voiceprint.index.training import Aim, Approximation, Trainer, no_structure

EXACT_UP_TO = 20_000
"""Vectors up to which comparing with all is as fast as anything else."""

NO_ID = -1
NO_SCORE = np.float32(-np.finfo(np.float32).max)  # as faiss fills places without an answer

_GROWN = 2.0  # trained again when there are so many times the vectors of the last training
_CHUNK = 1_024  # vectors that go in under one lock: searches wait some milliseconds at most
_EDITED = 64  # the same once there are cells, where each takes longer
_BLOCK = 8_192  # vectors that are copied out under one lock
_TOO_DEEP = 10  # when a tenth of all vectors are to be scored exactly, all can be


@dataclass(frozen=True)
class IndexStatus:
    """How an index searches.

    structure: "exact" while every vector is compared, "cells" beyond. cells, probes, depth: how many
    cells there are, how many of them a query looks into in the mean, and how many candidates are
    scored exactly; 0 when exact. recall: measured at the last training or tuning, 1.0 when exact.
    recall_target: what was asked for. trained_on: vectors at the last training. training: whether one is
    under way. reason: why every vector is compared, and what that means, in words; empty where not.
    """

    structure: Literal["exact", "cells"]
    vectors: int
    cells: int
    probes: float
    depth: int
    recall: float
    recall_target: float
    trained_on: int
    training: bool
    reason: str = ""


class VectorIndex:
    """Ids and vectors, searched by inner product; cosine where the vectors have length 1.

    While there are few vectors every one is compared. Beyond `exact_up_to` the index trains in the
    background, and from then on compares a query with a part of the vectors only; it trains again
    whenever it has doubled. It answers, and takes in changes, all the time. The scores are always the
    exact inner products of the stored vectors, and only which vectors are found is approximate.

    Every method may be called from many threads: searches run beside each other, and wait only for
    the short moments in which a writer changes the vectors. A fork gets a whole index of its own,
    without the training that may be under way, and searches with one thread.

    dimension: length of the vectors, 1 to 65536.
    recall: the share of queries that are to find their very nearest vector, above 0, up to 1; 1 compares
        with all. The index measures itself, on vectors of its own that look for their nearest neighbor.
        Queries that resemble a stored vector more than the stored ones resemble each other do better.
    threads: that a search, or a training, may use, at least 1. One search of one query uses one anyway.
    exact_up_to: vectors up to which none is passed over.
    probes, depth: cells to look into, and candidates to score, instead of what `recall` would choose.

    Structure: `Rows` hold the vectors, `Cells` propose candidates among them, a `Trainer` makes new cells.
    """

    def __init__(
        self,
        dimension: int = 256,
        *,
        recall: float = 0.99,
        threads: int = 1,
        exact_up_to: int = EXACT_UP_TO,
        probes: int | None = None,
        depth: int | None = None,
    ) -> None:
        self.dimension = _whole("dimension", dimension, 1, MAX_DIMENSION)
        self.recall = _share("recall", recall)
        self.threads = _whole("number of threads", threads, 1)
        self.exact_up_to = _whole("number of vectors that are searched exactly", exact_up_to, 0)
        self.probes = None if probes is None else _whole("number of probes", probes, 1)
        self.depth = None if depth is None else _whole("depth", depth, 1)
        self.stamp: dict[str, str] = {}
        self._rows = Rows(dimension)
        self._lock = ReadWriteLock()
        self._approximation: Approximation | None = None
        self._trained_on = 0
        self._holds: list[int] = []  # a thread for each `held` block
        # Each is told the rows that change, for as long as somebody copies the vectors.
        self._journals: list[set[int]] = []
        self._trainer = Trainer(self)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id_: object) -> bool:
        # Under the lock: faiss lets other threads run while it looks into a table that these may change.
        with self._lock.reading():
            return id_ in self._rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, vectors={len(self)})"

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in no particular order."""
        with self._lock.reading():
            ids: NDArray[np.int64] = self._rows.ids().copy()
            return ids

    def reconstruct(self, ids: ArrayLike) -> NDArray[np.float32]:
        """The stored vectors, float32[n, dimension]. Raises KeyError for an id that is not there."""
        there, vectors = self.vectors_of(ids)
        if not there.all():
            raise KeyError(f"There is no vector of the id {self._check_ids(ids)[~there][0]}.")
        return vectors

    def vectors_of(self, ids: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which ids are there, bool[n], and the stored vectors of those, float32[m, dimension].

        All of one moment. What `search` finds may be gone by then.
        """
        wanted = self._check_ids(ids)
        with self._lock.reading(), limited(self.threads):
            rows = self._rows.locate(wanted)
            there = rows >= 0
            return there, self._rows.vectors()[rows[there]]

    # Changing

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Put vectors in, in place of those whose ids are there already.

        ids: int64[n], each 0 or above; of an id given twice, the last vector counts.
        vectors: float32[n, dimension], finite. Raises ValueError, and then nothing has changed.
        Searches may see the first part of a large batch before the rest.
        """
        id_array = self._check_ids(ids)
        matrix = self._check_vectors(vectors)
        if len(id_array) != len(matrix):
            raise ValueError(f"{len(id_array)} ids were given for {len(matrix)} vectors: give one each.")
        # Of an id that is given twice only the last place is kept. Not by np.unique: it imports a module at
        # its first use, and a fork just then would leave the child with that import half done.
        order = np.argsort(id_array, kind="stable")
        again = id_array[order[1:]] == id_array[order[:-1]]
        if again.any():
            keep = np.sort(np.delete(order, np.flatnonzero(again)))
            id_array, matrix = id_array[keep], matrix[keep]
        step = _CHUNK if self._approximation is None else _EDITED
        if len(id_array) > step:
            with self._lock.writing():  # where memory is short, before the first part has gone in
                self._rows.make_room(len(self._rows) + min(len(id_array), _CHUNK))
        for start in range(0, len(id_array), step):
            some, few = id_array[start : start + step], matrix[start : start + step]
            approximation = self._approximation
            with limited(self.threads):
                encoded = None if approximation is None else approximation.cells.encode(few)
            with self._lock.writing(), limited(self.threads):
                known = self._rows.locate(some)
                self._rows.make_room(len(self._rows) + int(np.count_nonzero(known < 0)))
                if self._approximation is not None:
                    self._approximation.cells.remove(known[known >= 0])
                rows = self._rows.put(some, few)
                if self._approximation is not None:
                    if self._approximation is not approximation or encoded is None:  # trained this moment
                        encoded = self._approximation.cells.encode(few)
                    self._approximation.cells.put(rows, *encoded)
                self._journal(rows)
        self._train_if_due()

    def remove(self, ids: ArrayLike) -> int:
        """Take vectors out; gives how many there were. An id that is not there is passed over."""
        removed = 0
        wanted = np.sort(self._check_ids(ids))
        for start in range(0, len(wanted), _EDITED):
            with self._lock.writing(), limited(self.threads):
                for id_ in wanted[start : start + _EDITED]:
                    row = int(self._rows.locate(np.array([id_]))[0])
                    if row >= 0:
                        self._remove_row(row)
                        removed += 1
                if len(self._rows) <= self.exact_up_to // 2:
                    self._approximation, self._trained_on = None, 0
        return removed

    def _remove_row(self, row: int) -> None:
        last = len(self._rows) - 1
        if self._approximation is not None:
            self._approximation.cells.remove(np.array([row]))
            if row != last:  # which takes its place
                self._approximation.cells.rename(last, row)
        self._rows.remove(row)
        self._journal(np.array([row, last]))

    def _journal(self, rows: NDArray[np.int64]) -> None:
        for journal in self._journals:
            journal.update(rows.tolist())

    # Searching

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        allowed: Iterable[int] | None = None,
        confined: bool = False,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k vectors of the largest inner product with each query, the largest first.

        queries: float32[m, dimension] or float32[dimension]. k: at least 1. allowed: the ids to
        search among, exactly, at a cost in proportion to them; None for all. confined: take no longer than
        for usual queries. One that is unlike the vectors, such as a direction in which to go, has no
        nearest cells, and many would be looked into to little use.
        Gives scores float32[m, k] and ids int64[m, k]; -1 where there are fewer than k vectors.
        """
        _whole("k", k, 1)
        matrix = self._check_vectors(queries)
        # Taken in before the lock: an iterable that asks this very index would wait for itself.
        wanted = None if allowed is None else _distinct(allowed)
        all_scores = np.full((len(matrix), int(k)), NO_SCORE, dtype=np.float32)
        all_ids = np.full((len(matrix), int(k)), NO_ID, dtype=np.int64)
        with self._lock.reading(), limited(self.threads):
            among = None if wanted is None else self._rows.locate(wanted)
            if among is not None:
                among = among[among >= 0]
            found = min(int(k), len(self._rows) if among is None else len(among))
            approximation = self._approximation if among is None else None
            if found and len(matrix):
                if approximation is None or _TOO_DEEP * approximation.depth_for(found) > len(self._rows):
                    scores, ids = self._rows.nearest(matrix, found, among)
                else:
                    scores, ids = self._among_candidates(matrix, found, approximation, confined)
                all_scores[:, :found], all_ids[:, :found] = scores, ids
        return all_scores, all_ids

    def _among_candidates(
        self, queries: NDArray[np.float32], k: int, approximation: Approximation, confined: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores = np.empty((len(queries), k), dtype=np.float32)
        ids = np.empty((len(queries), k), dtype=np.int64)
        for n, rows in enumerate(approximation.candidates(queries, k, confined=confined)):
            if len(rows) < k:  # these cells are all but empty
                scores[n : n + 1], ids[n : n + 1] = self._rows.nearest(queries[n : n + 1], k)
                continue
            exact = self._rows.vectors().take(rows, axis=0) @ queries[n]
            best = np.argsort(-exact, kind="stable")[:k]
            scores[n], ids[n] = exact[best], self._rows.ids()[rows[best]]
        return scores, ids

    # Training

    def status(self) -> IndexStatus:
        """How the index searches at this moment."""
        with self._lock.reading():
            approximation = self._approximation
            cells, tuning = (
                (None, None) if approximation is None else (approximation.cells, approximation.tuning)
            )
            training = self._trainer.running
            return IndexStatus(
                structure="exact" if cells is None else "cells",
                vectors=len(self._rows),
                cells=0 if cells is None else cells.count,
                probes=0.0 if tuning is None else tuning.probes,
                depth=0 if tuning is None else tuning.depth,
                recall=1.0 if tuning is None else tuning.recall,
                recall_target=self.recall,
                trained_on=self._trained_on,
                training=training,
                reason="" if cells is not None else self._why_exact(training),
            )

    def _why_exact(self, training: bool) -> str:
        if self.recall >= 1.0:
            return "a recall of 1 is asked for, which only comparing with all gives"
        if len(self._rows) <= max(self.exact_up_to, LEAST_SAMPLE - 1):
            return f"up to {self.exact_up_to:,} that is as fast as anything else"
        if training:
            return "the cells are still being trained"
        if self._trainer.failure is not None:
            return (
                f"training failed ({self._trainer.failure}); it is tried again with the next change after a "
                "minute, and until then a search takes time in proportion to the number of vectors"
            )
        if self._trained_on:
            return no_structure(self.recall)
        return "the cells are trained with the next change"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no training is under way; False when it still is after `timeout` seconds."""
        return self._trainer.wait(timeout)

    def train(self) -> None:
        """Train anew now, whether it is due or not, and wait for it. Raises what training raises."""
        self._trainer.run()
        self._train_if_due()  # what has come meanwhile

    def tune(self, recall: float | None = None) -> None:
        """Measure again how many cells to look into, for another target recall or with what is there now."""
        if recall is not None:
            self.recall = _share("recall", recall)
        self._trainer.tune()

    @contextmanager
    def held(self) -> Iterator[None]:
        """No training starts within the block; one that is due starts at its end. For filling an index."""
        thread = threading.get_ident()
        self._holds.append(thread)
        try:
            yield
        finally:
            self._holds.remove(thread)
            self._train_if_due()

    def _train_if_due(self) -> None:
        if self._due():
            self._trainer.start()

    def _due(self) -> bool:
        beyond = max(self.exact_up_to, LEAST_SAMPLE - 1, _GROWN * self._trained_on)
        return len(self._rows) > beyond and self.recall < 1.0 and not self._holds

    def _aim(self) -> Aim:
        return Aim(self.recall, self.probes, self.depth)

    def _forget_other_threads(self) -> None:
        """In the child of a fork, where there are none."""
        self._journals = []
        self._holds = [thread for thread in self._holds if thread == threading.get_ident()]

    @contextmanager
    def _copying(self) -> Iterator[set[int]]:
        """Within the block, the numbers of the rows that change are written down in the set."""
        journal: set[int] = set()
        with self._lock.writing():
            self._journals.append(journal)
        try:
            yield journal
        finally:
            with self._lock.writing():
                # By identity: two empty sets are equal.
                self._journals = [other for other in self._journals if other is not journal]

    def _blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Copies of the ids and vectors of all rows, block by block, while others may change them.

        Whoever asks for them does so within `_copying`, to know which rows have changed since.
        """
        start = 0
        while True:
            with self._lock.reading():
                rows = slice(start, start + _BLOCK)
                ids, vectors = self._rows.ids()[rows].copy(), self._rows.vectors()[rows].copy()
            if not len(ids):
                return
            yield ids, vectors
            start += len(ids)

    # Snapshots

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        stamp: Mapping[str, str] | None = None,
        apart_from: Iterable[Path] = (),
    ) -> None:
        """Write a snapshot: one checksummed file, replaced as a whole, while others search and write.

        stamp: what to know it by again, see `read_stamp`. apart_from: files that are never written to.
        Raises OSError; a file that is there and is no snapshot is left as it is, which is an OSError too.
        """
        table = {"dimension": self.dimension, "stamp": dict(stamp or {})}
        with self._copying() as journal, new_snapshot(path, table, apart_from) as writer:
            for ids, vectors in self._blocks():
                writer.block(ids, vectors)
            with self._lock.reading():  # which keeps writers out too
                count, trained_on = len(self._rows), self._trained_on
                changed = np.array([row for row in journal if row < count], dtype=np.int64)
                patch = self._rows.ids()[changed], self._rows.vectors()[changed]
                parts, entries = approximation_to(self._approximation)
            parts |= {"changed": changed, "changed_ids": patch[0], "changed_vectors": patch[1]}
            for name, array in parts.items():
                writer.part(name, array)
            writer.tell(vectors=count, approximation=entries, trained_on=trained_on)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        recall: float = 0.99,
        threads: int = 1,
        exact_up_to: int = EXACT_UP_TO,
        probes: int | None = None,
        depth: int | None = None,
        unit: bool = False,
    ) -> VectorIndex:
        """The index that a snapshot holds. Raises OSError, or `IndexCorruptError` for any damage.

        unit: whether all vectors have length 1; one that has not is damage.
        """
        with SnapshotReader(path) as reader:
            index = cls(
                reader.table["dimension"], recall=recall, threads=threads, exact_up_to=exact_up_to,
                probes=probes, depth=depth,
            )  # fmt: skip
            index.stamp = reader.table["stamp"]
            try:
                index._rows = Rows.of(*reader.rows(unit=unit))
                index._trained_on = reader.table["trained_on"]
                if index.recall < 1.0 and len(index._rows) > index.exact_up_to:
                    index._approximation = approximation_from(reader, len(index._rows))
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                # The checksums hold, so this was written by something else that uses the same form.
                raise IndexCorruptError(f"{os.fspath(path)!r} holds what no index has ({error}).") from error
        if index._approximation is None:
            index._trained_on = 0
        elif index._approximation.aim != index._aim():
            index._trainer.start(tune_only=True)
        index._train_if_due()
        return index

    def _check_ids(self, ids: ArrayLike) -> NDArray[np.int64]:
        array = np.asarray(ids)
        if array.size == 0:
            return np.empty(0, dtype=np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"Ids are a 1-D array of integers, not {array.dtype} of shape {array.shape}.")
        if int(array.min()) < 0 or int(array.max()) > np.iinfo(np.int64).max:
            raise ValueError("An id is below 0 or beyond 64 bits.")
        return array.astype(np.int64)

    def _check_vectors(self, vectors: ArrayLike) -> NDArray[np.float32]:
        array = np.asarray(vectors)
        if array.size == 0:
            return np.empty((0, self.dimension), dtype=np.float32)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or array.shape[1] != self.dimension or array.dtype.kind not in "fiu":
            raise ValueError(
                f"Vectors are numbers of shape (n, {self.dimension}), "
                f"not {array.dtype} of shape {array.shape}."
            )
        if array.dtype == np.float32:
            matrix = np.ascontiguousarray(array)
        else:
            with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused below
                matrix = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(matrix).all():
            raise ValueError("A vector holds NaN or infinite values.")
        return matrix


def _whole(what: str, value: Any, least: int, most: int | None = None) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        up_to = "" if most is None else f" to {most}"
        raise ValueError(f"The {what} is {value!r}: a whole number from {least}{up_to} is allowed.")
    return int(value)


def _share(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise ValueError(f"The {what} is {value!r}: a number above 0, up to 1, is allowed.")
    return float(value)


def _distinct(ids: Iterable[int]) -> NDArray[np.int64]:
    try:
        wanted = {operator.index(id_) for id_ in ids}
        return np.array([id_ for id_ in wanted if 0 <= id_ <= np.iinfo(np.int64).max], dtype=np.int64)
    except TypeError as error:
        raise ValueError("The allowed ids are integers.") from error
