"""How many lists a query scans, for the recall that was asked for: measured, not guessed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint.index.ivf import IVFIndex, rerank_k
from voiceprint.index.locks import COMPUTING
from voiceprint.index.rows import Rows, to_single
from voiceprint.index.trials import trial_queries

_QUERIES = 1_000  # the standard error of a recall of 0.99 is then 0.003
_AT_ONCE = 100  # of these, between two looks at whether to proceed
_STEP = 1.1  # ratio of the numbers of lists that are tried: the chosen one is at most a tenth too large
_SEED = 4321


def tune(ivf: IVFIndex, rows: Rows, recall: float, proceed: Callable[[], None]) -> tuple[int, float]:
    """The fewest lists that reach a recall, and their recall@1; 0 and 1.0 where all lists together do not.

    The queries are `trial_queries` of stored vectors. proceed: called now and then, may raise to stop.
    """
    truth = GroundTruth.of(rows, proceed)

    def measured(nprobe: int) -> float:
        found = []
        for start in range(0, len(truth.queries), _AT_ONCE):
            proceed()
            with COMPUTING.reading():
                queries = truth.queries[start : start + _AT_ONCE]
                found.append(ivf.candidates(queries, nprobe, rerank_k(1)))
        return truth.recall(np.concatenate(found))

    # A recall that falls short by the chance of so few queries is not to pass.
    wanted = min(1.0, recall + math.sqrt(recall * (1 - recall) / len(truth.queries)))
    ladder = [1]
    while ladder[-1] < ivf.nlist:
        ladder.append(min(ivf.nlist, max(ladder[-1] + 1, round(_STEP * ladder[-1]))))
    place = bisect_left(ladder, wanted, key=measured)
    return (ladder[place], measured(ladder[place])) if place < len(ladder) else (0, 1.0)


@dataclass(frozen=True)
class GroundTruth:
    """Queries, float32[q, d], each with the row of the nearest vector, int64[q]."""

    queries: NDArray[np.float32]
    nearest: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, proceed: Callable[[], None]) -> GroundTruth:
        """Of some of the live rows, by comparing with all."""
        chosen = np.random.default_rng(_SEED).permutation(np.flatnonzero(rows.live))[:_QUERIES]
        queries = trial_queries(to_single(rows.vectors[chosen]))
        best = np.full(len(chosen), -np.inf, dtype=np.float32)
        nearest = np.full(len(chosen), -1, dtype=np.int64)
        for some, vectors in rows.live_blocks():
            proceed()
            with COMPUTING.reading():
                scores, places = faiss.knn(queries, vectors, 1, metric=faiss.METRIC_INNER_PRODUCT)
            better = scores[:, 0] > best
            best[better], nearest[better] = scores[better, 0], some[places[better, 0]]
        return cls(queries, nearest)

    def recall(self, candidates: NDArray[np.int64]) -> float:
        """The share of the queries whose nearest is among their candidates, int64[q, c]; 0 to 1."""
        return float((candidates == self.nearest[:, None]).any(axis=1).mean())
