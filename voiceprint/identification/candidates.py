"""Proposals: whose records to read for a probe, by what the index knows of the plain embeddings.

Reading a caller from a store takes as long as some hundred scores. So what the searches find is weighed
by the index's own vectors first, which are the plain embeddings, and only the best are read. They are ranked
anew from the records: the index proposes, and no score is taken from it.

What it cannot know are the second prints (`Voiceprint.augmented`) and which prints are of one caller.
benchmarks/shortlist.py measures the callers that are missed for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from voiceprint.identification.ranking import Probe
    from voiceprint.index import VectorIndex
    from voiceprint.scoring import GalleryScorer

CANDIDATES_PER_QUERY: Final = 200
"""Prints that the index finds by each view."""

_READ: Final = 16


class CandidateQuery(NamedTuple):
    """One way to look at who a probe may be.

    query: float32[dimension], what the index is searched with. score: of embeddings, float32[n, dimension];
    greater is better. read: the callers of so many of the best are read from the store.
    """

    query: NDArray[np.float32]
    score: Callable[[NDArray[np.float32]], NDArray[np.floating]]
    read: int


class Proposal(NamedTuple):
    """Ids of voiceprints, the best of each view, and whether these are all that there are."""

    ids: list[int]
    is_all: bool


def by_cosine(probe: NDArray[np.float32], read: int) -> CandidateQuery:
    """Whose prints have the greatest cosines with a unit embedding."""
    return CandidateQuery(probe, lambda prints: prints @ probe, read)


def by_ratio(probe: NDArray[np.float32], read: int, scorer: GalleryScorer) -> CandidateQuery:
    """Whose prints have the greatest log-likelihood ratios."""
    return CandidateQuery(scorer.query(probe), lambda prints: scorer.rough_scores(probe, prints), read)


def views_for(probe: Probe, scorer: GalleryScorer, callers: int, prints_each: int) -> list[CandidateQuery]:
    """The views by which so many callers of so many prints at most are found.

    By cosine too, so that whoever reaches a threshold of it is there.
    """
    return [
        by_cosine(probe.plain, callers),
        by_ratio(probe.best, max(_READ, callers * prints_each), scorer),
    ]


def propose(index: VectorIndex, views: Sequence[CandidateQuery], found: int, wider: int = 1) -> Proposal:
    """Whom to read, of so many that each view finds; wider: so many times those that the views say."""
    searched = [index.search(view.query, max(1, min(found, len(index))))[1] for view in views]
    ids = np.array([*dict.fromkeys(np.concatenate(searched, axis=1)[0].tolist())], dtype=np.int64)
    ids = ids[ids >= 0]
    there, vectors = index.vectors_of(ids)
    ids = ids[there]
    chosen: dict[int, None] = {}
    for view in views:
        best = np.argsort(-view.score(vectors), kind="stable")[: wider * view.read]
        chosen.update(dict.fromkeys(ids[best].tolist()))
    return Proposal([*chosen], is_all=found >= len(index) and len(chosen) == len(ids))
