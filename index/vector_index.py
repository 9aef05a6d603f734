"""`VectorIndex`: maximum inner product search over vectors with ids, from the first to some millions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.index.base import Ids, WritableIndex, filter_of, share, whole
from voiceprint.index.errors import IndexCorruptError
from voiceprint.index.ivf import MIN_SAMPLE, rerank_k
from voiceprint.index.maintenance import Maintainer, no_structure
from voiceprint.index.parts import Parts
from voiceprint.index.rows import Scored, empty, to_half, to_single
from voiceprint.index.snapshot import MAX_DIMENSION, Coding, SnapshotReader, fill_parts, write_snapshot
from voiceprint.index.threads import limited

EXACT_UP_TO = 20_000
"""Vectors up to which comparing with all, 0.8 ms at 256 dimensions, is worth no training."""


@dataclass(frozen=True)
class IndexStatus:
    """How an index searches.

    structure: "exact" while every vector is compared; beyond, "ivf" in memory and "hnsw" on a server.
    buffered: vectors that are compared exactly. nlist, nprobe, rerank_k: lists, how many of them a query
    scans, and how many candidates are compared exactly for one answer; 0 for other structures. recall:
    measured at the last training or tuning, 1.0 when exact, 0.0 before the first. recall_target: asked for.
    trained_on: vectors at the last training or tuning. training: whether one, or a merge, is under way.
    reason: why every vector is compared, and what follows from that, in words; empty where not. engine:
    "faiss" or "pgvector".
    ef_search: vectors that a search of the graph keeps; 0 for other structures. dead: removed vectors that
    wait for the server's vacuum.
    """

    structure: Literal["exact", "ivf", "hnsw"]
    vectors: int
    buffered: int
    nlist: int
    nprobe: int
    rerank_k: int
    recall: float
    recall_target: float
    trained_on: int
    training: bool
    reason: str = ""
    engine: Literal["faiss", "pgvector"] = "faiss"
    ef_search: int = 0
    dead: int = 0


class VectorIndex(WritableIndex):
    """Ids and vectors, searched by inner product; cosine where the vectors have length 1.

    Vectors are rounded to float16 when they are added, 3 digits, and scores are the exact inner products of
    the rounded vectors; only which vectors are found is approximate. Up to `exact_up_to` every vector is
    compared. Beyond, the index trains an inverted file in the background, and again whenever it has doubled;
    recent vectors are compared exactly until they are merged into it. It answers, and takes in changes, all
    the time.

    Every method may be called from many threads: searches run beside each other, and wait only for the short
    moments of a write. A fork gets a whole index of its own, without the training that may be under way, and
    searches with one thread.

    dimension: length of the vectors, 1 to 65536.
    recall: the share of queries that are to find their very nearest vector, above 0, up to 1; 1 compares with
        all. The index measures itself, by queries that lie two fifths of the way from one of its vectors to
        another. Queries that are nearer to a stored vector do better, and those far from all do worse.
    threads: that a search, or a training, may use, at least 1. A search of one query uses one anyway.
    exact_up_to: vectors up to which every vector is compared.
    """

    def __init__(
        self,
        dimension: int = 256,
        *,
        recall: float = 0.99,
        threads: int = 1,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.stamp: dict[str, str] = {}
        self._parts = Parts(
            dimension=whole("dimension", dimension, 1, MAX_DIMENSION),
            recall=share("recall", recall),
            exact_up_to=whole("number of vectors that are searched exactly", exact_up_to, 0),
            threads=whole("number of threads", threads, 1),
        )
        self._maintainer = Maintainer(self._parts)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._parts.dimension

    def __len__(self) -> int:
        return len(self._parts)

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in no particular order."""
        return self._parts.ids()

    def sample(self, count: int) -> NDArray[np.int64]:
        """As `SearchIndex.sample`."""
        ids = np.sort(self.ids())
        return np.random.default_rng(len(ids)).permutation(ids)[: whole("count", count, 0)]

    def vectors_of(self, ids: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which ids are there, bool[n], and the stored vectors of those, float32[m, dimension].

        All of one moment. A vector that `search` found may be gone by then.
        """
        wanted = self._check_ids(ids)
        with self._parts.lock.reading(), limited(self._parts.threads):
            return self._parts.vectors_of(wanted)

    # Changing

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add vectors, and replace those of ids that are there; of an id given twice the last one counts.

        ids: int[n], 0 or more. vectors: float[n, dimension], up to 65504. Raises ValueError for other input,
        which changes nothing. MemoryError may leave out the last vectors.
        """
        self._add(ids, vectors)
        self._maintainer.start_if_due()

    def fill(self, blocks: Iterable[tuple[ArrayLike, ArrayLike]]) -> None:
        """`add` many blocks of ids and vectors, and train once, at the end."""
        for ids, vectors in blocks:
            self._add(ids, vectors)
        self._maintainer.start_if_due()

    def _add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        wanted, matrix = self._check_pairs(ids, vectors)
        if len(wanted) > 1:
            _, last = np.unique(wanted[::-1], return_index=True)
            if len(last) < len(wanted):
                wanted, matrix = wanted[len(wanted) - 1 - last], matrix[len(wanted) - 1 - last]
        with limited(self._parts.threads):
            self._parts.put(wanted, to_single(to_half(matrix)))

    def remove(self, ids: ArrayLike) -> int:
        """Remove vectors; returns how many there were. An id that is not there is passed over."""
        removed = self._parts.remove(np.unique(self._check_ids(ids)))
        self._maintainer.start_if_due()
        return removed

    # Searching

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> Scored:
        """The k vectors of the largest inner product with each query, the largest first.

        queries: float32[m, dimension] or float32[dimension]. k: at least 1. allowed: the ids to search among;
        None for all. excluded: ids that are not found. An `IdSet` for either is read once for many searches.
        Sets of up to a tenth of the vectors are compared as a whole, at a cost in proportion to their number.
        Returns scores float32[m, k] and ids int64[m, k]; -1 where fewer than k vectors may be found, and only
        there.
        """
        whole("k", k, 1)
        matrix = self._check_vectors(queries)
        # Read before the lock: an iterable that asks this very index would wait for itself.
        among = filter_of(allowed, excluded)
        scores, ids = empty(len(matrix), int(k))
        with self._parts.lock.reading(), limited(self._parts.threads):
            found = self._parts.nearest(matrix, int(k), among)
        columns = found[0].shape[1]
        scores[:, :columns], ids[:, :columns] = found
        return scores, ids

    def candidates(
        self, queries: ArrayLike, count: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors from which another score than the inner product may choose the best.

        queries, count, allowed, excluded: as `queries`, `k`, `allowed` and `excluded` of `search`. Returns
        ids int64[n] and vectors float32[n, dimension], each once: for each query, `count` or more of the
        largest inner products, found with less care than by `search` towards the end; all vectors where
        `count` is their number.
        """
        whole("count", count, 1)
        matrix = self._check_vectors(queries)
        among = filter_of(allowed, excluded)
        with self._parts.lock.reading(), limited(self._parts.threads):
            return self._parts.candidates(matrix, int(count), among)

    # Training

    @property
    def recall(self) -> float:
        """The recall that was asked for."""
        return self._parts.recall

    def status(self) -> IndexStatus:
        """How the index searches at this moment."""
        parts, training = self._parts, self._maintainer.running
        with parts.lock.reading():
            trained = parts.trained if self.recall < 1.0 else None
            exact = trained is None or not trained.nprobe
            return IndexStatus(
                structure="exact" if exact else "ivf",
                vectors=len(parts),
                buffered=len(parts.buffer),
                nlist=0 if trained is None or exact else trained.ivf.nlist,
                nprobe=0 if trained is None else trained.nprobe,
                rerank_k=0 if exact else rerank_k(1),
                recall=1.0 if trained is None else trained.recall,
                recall_target=self.recall,
                trained_on=parts.trained_on,
                training=training,
                reason=self._why_exact(training) if exact else "",
            )

    def _why_exact(self, training: bool) -> str:
        parts = self._parts
        if self.recall >= 1.0:
            return "a recall of 1 is asked for, which only comparing with all gives"
        if len(parts) <= max(parts.exact_up_to, MIN_SAMPLE - 1):
            return f"up to {parts.exact_up_to:,} that is as fast as anything else"
        if training:
            return "the inverted file is being trained"
        if self._maintainer.failure is not None:
            return (
                f"training failed ({self._maintainer.failure}); it is tried again with the next change after "
                "a minute, and until then a search takes time in proportion to the number of vectors"
            )
        if parts.trained is not None:
            return no_structure(self.recall)
        return "the inverted file is trained with the next change"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no training or merge is under way; False when one still is after `timeout` seconds."""
        return self._maintainer.wait(timeout)

    def train(self) -> None:
        """Train anew now, whether it is due or not, and wait for it. Raises what training raises."""
        with self._maintainer.alone():
            if self.recall < 1.0:
                self._maintainer.train()
        self._maintainer.start_if_due()

    def tune(self, recall: float | None = None) -> None:
        """Measure again how many lists to scan, for another target recall or with the vectors of now."""
        with self._maintainer.alone():
            if recall is not None:
                self._parts.recall = share("recall", recall)
            self._maintainer.tune()
        self._maintainer.start_if_due()

    def check(self) -> list[str]:
        """Contradictions between the parts of the index, in words; none for a sound index."""
        return self._parts.check()

    # Snapshots

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        stamp: Mapping[str, str] | None = None,
        apart_from: Iterable[Path] = (),
        coding: Coding | None = None,
    ) -> None:
        """Write a snapshot: one checksummed file, replaced as a whole, while others search and write.

        A training that is under way is waited for. stamp: texts to know it by again, see `read_stamp`.
        apart_from: files that are never written to. coding: encrypts the file, see `Coding`.
        Raises OSError; a file that is there and is no snapshot is left as it is, which is an OSError too.
        """
        write_snapshot(self._parts, self._maintainer, path, stamp or {}, apart_from, coding)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        recall: float = 0.99,
        threads: int = 1,
        exact_up_to: int = EXACT_UP_TO,
        unit: bool = False,
        coding: Coding | None = None,
    ) -> VectorIndex:
        """The index of a snapshot. Raises OSError, or `IndexCorruptError` for damage and for older versions.

        unit: whether all vectors have length 1; another length is damage. coding: the one of `save`.
        """
        with SnapshotReader(path, coding) as reader:
            index = cls(reader.table["dimension"], recall=recall, threads=threads, exact_up_to=exact_up_to)
            index.stamp = reader.table["stamp"]
            try:
                with limited(threads):
                    fill_parts(index._parts, reader, unit=unit)
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                # The checksums match, so something else wrote a file of the same form.
                raise IndexCorruptError(f"{os.fspath(path)!r} holds what no index has ({error}).") from error
        index._maintainer.start_if_due()
        return index
