"""The shortlist: which voiceprints to read from the store for a probe.

Reading a caller from a store takes as long as some hundred scores. So every hit of the index is first scored
with the vectors in the index, the plain embeddings, and only the best are read. The ranking uses the records
alone: the index proposes, and none of its scores count.

The index holds neither the augmented embeddings (`Voiceprint.augmented`) nor the owner of a voiceprint.
benchmarks/shortlist.py measures the callers that the shortlist misses therefore.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.identification.groups import ALL_IDS, Scope, ScopeIds

if TYPE_CHECKING:
    from voiceprint.embedder import Probe
    from voiceprint.index import SearchIndex
    from voiceprint.scoring import GalleryScorer

CANDIDATES_PER_QUERY: Final = 200
"""Least number of index hits per query."""

_SMALL: Final = 50_000
_CANDIDATES_OF_SMALL: Final = 64
"""Least number of hits per query in groups of up to `_SMALL` voiceprints. A print is behind fewer others in
proportion: 200 of a million are as many as 10 of 50,000. Doubled, a match takes 0.1 ms longer."""

_LEAST_READ: Final = 16  # voiceprints that a query by likelihood reads


class CandidateQuery(NamedTuple):
    """A search of the index, and a score for its hits.

    query: float32[dimension]. score: of float32[n, dimension]; greater is better.
    read: voiceprints to read from the store, of the best scores.
    """

    query: NDArray[np.float32]
    score: Callable[[NDArray[np.float32]], NDArray[np.floating]]
    read: int


class Shortlist(NamedTuple):
    """Voiceprint ids, the best of each query. is_all: no voiceprint of the index is missing."""

    ids: list[int]
    is_all: bool


def least_hits(scope: Scope, voiceprints: int) -> int:
    """Least number of index hits per query in a scope of this many voiceprints."""
    return CANDIDATES_PER_QUERY if scope.is_everyone or voiceprints > _SMALL else _CANDIDATES_OF_SMALL


def candidate_queries(
    probe: Probe, scorer: GalleryScorer | None, callers: int, prints_each: int
) -> list[CandidateQuery]:
    """Queries that find the top `callers` callers, each with at most `prints_each` voiceprints.

    With a scorer by likelihood, and by cosine too, so that every caller over a cosine threshold is found.
    """
    if scorer is None:
        return [_by_cosine(probe.plain, callers * prints_each)]
    return [
        _by_cosine(probe.plain, callers),
        CandidateQuery(
            scorer.search_vector(probe.best),
            lambda prints: scorer.approximate_scores(probe.best, prints),
            max(_LEAST_READ, callers * prints_each),
        ),
    ]


def _by_cosine(probe: NDArray[np.float32], read: int) -> CandidateQuery:
    return CandidateQuery(probe, lambda prints: prints @ probe, read)


def shortlist(
    index: SearchIndex,
    queries: Sequence[CandidateQuery],
    found: int,
    wider: int = 1,
    among: ScopeIds = ALL_IDS,
) -> Shortlist:
    """Shortlist voiceprint ids. found: hits per query; wider: multiplies each query's `read`."""
    vectors_of_queries = np.stack([one.query for one in queries])
    ids, vectors = index.candidates(
        vectors_of_queries, max(1, found), allowed=among.allowed, excluded=among.excluded
    )
    if len(ids) > found:
        # Each query's own best alone: a score by likelihood takes longer than this choice.
        near = vectors_of_queries @ vectors.T
        hits = np.zeros(len(ids), dtype=np.bool_)
        hits[np.argpartition(-near, found - 1, axis=1)[:, :found]] = True
        ids, vectors = ids[hits], vectors[hits]
    chosen: dict[int, None] = {}
    for one in queries:
        best = np.argsort(-one.score(vectors), kind="stable")[: wider * one.read]
        chosen.update(dict.fromkeys(ids[best].tolist()))
    return Shortlist([*chosen], is_all=found >= among.most(len(index)) and len(chosen) == len(ids))
