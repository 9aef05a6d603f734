"""How many cells to look into, for the recall that was asked for: measured, not guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint.index.cells import Cells

QUERIES = 1_000
"""Vectors that the index asks itself for: a recall of 0.99 is then known to about 0.003."""

_DEPTHS = (64, 96, 128, 192, 256, 384)

_REACHES = [1.0 + 0.01 * step for step in range(128)]
_SHARE = 5  # a fifth of the cells that are looked into at most

# Seconds, measured at 256 dimensions on one core; only their proportions matter here.
_COST_COMPARED = 3e-9  # a code of a cell
_COST_PROBE = 7e-7  # a cell that is looked into
_COST_CELL = 2e-8  # a cell whose center is compared
_COST_SCORED = 6e-7  # a candidate whose exact score is computed
_COST_EXACT = 4e-8  # a vector, when all are compared exactly


@dataclass(frozen=True)
class Tuning:
    """How to search cells, and what was measured with it.

    most_probes, reach: which cells to look into, see `Cells.candidates`; probes: how many these are in the
    mean. depth: candidates to score exactly. recall: 0 to 1.
    """

    most_probes: int
    reach: float
    depth: int
    probes: float
    recall: float


@dataclass(frozen=True)
class HeldOut:
    """Queries with known answers: vectors of the index, each with its nearest neighbor but itself.

    rows: int64[q]; queries: float32[q, d]; nearest: int64[q], rows.
    """

    rows: NDArray[np.int64]
    queries: NDArray[np.float32]
    nearest: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        rows: NDArray[np.int64],
        queries: NDArray[np.float32],
        blocks: Iterable[NDArray[np.float32]],
    ) -> HeldOut:
        """Find the nearest neighbors among all vectors, which come in blocks of rows."""
        best = np.full(len(rows), -np.inf, dtype=np.float32)
        nearest = np.full(len(rows), -1, dtype=np.int64)
        start = 0
        for vectors in blocks:
            scores, places = faiss.knn(
                queries, vectors, min(2, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT
            )
            for column in range(scores.shape[1]):
                found = start + places[:, column]
                better = (found != rows) & (scores[:, column] > best)
                best[better], nearest[better] = scores[better, column], found[better]
            start += len(vectors)
        return cls(rows, queries, nearest)

    def recall(self, candidates: NDArray[np.int64]) -> float:
        """The share of the queries whose nearest neighbor is among their candidates, int64[q, depth]."""
        return float((candidates == self.nearest[:, None]).any(axis=1).mean())


Candidates = Callable[[int, int, float], tuple[NDArray[np.int64], NDArray[np.int64]]]


def tune(held_out: HeldOut, candidates: Candidates, cells: Cells, target: float) -> Tuning | None:
    """The cheapest setting that reaches the target recall; None where comparing all vectors is as cheap.

    candidates: gives those of the held-out queries as `Cells.candidates` does, for a depth, a number of
    probes and a reach.
    """
    probe = _COST_PROBE + cells.entries / cells.count * _COST_COMPARED
    # Of so few queries the recall is known to about this: what falls short by chance is not to pass.
    target = min(1.0, target + math.sqrt(target * (1 - target) / len(held_out.rows)))
    best: Tuning | None = None
    least = len(cells) * _COST_EXACT
    for depth in _DEPTHS:
        found = _least_reach(held_out, candidates, depth, cells.count, target)
        if found is not None:
            cost = cells.count * _COST_CELL + found.probes * probe + depth * _COST_SCORED
            if cost < least:
                best, least = found, cost
    return best


def measured(held_out: HeldOut, candidates: Candidates, depth: int, most_probes: int, reach: float) -> Tuning:
    """A setting with the recall that it has."""
    # One more, because the query itself, which is in the index, is not what is looked for.
    found, probes = candidates(depth + 1, most_probes, reach)
    return Tuning(most_probes, reach, depth, float(probes.mean()), held_out.recall(found))


def _least_reach(
    held_out: HeldOut, candidates: Candidates, depth: int, cells: int, target: float
) -> Tuning | None:
    """The setting with the least reach, of a ladder, that attains the target; without any, with all cells."""
    widest = measured(held_out, candidates, depth, cells, math.inf)
    if widest.recall < target:
        return None
    best, low, high = widest, 0, len(_REACHES)
    while low < high:
        middle = (low + high) // 2
        now = measured(held_out, candidates, depth, max(1, cells // _SHARE), _REACHES[middle])
        if now.recall >= target:
            best, high = now, middle
        else:
            low = middle + 1
    return best
