"""The scorer of a gallery, computed from a cohort: a sample of its callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.identification.ranking import prints_of

if TYPE_CHECKING:
    from voiceprint.index import SearchIndex
    from voiceprint.models import Voiceprint
    from voiceprint.scoring import GalleryScorer, ImpostorStatistics
    from voiceprint.storage.base import Storage

STALE_SHARE: Final = 20
"""The scorer is computed again when one voiceprint in this many has changed."""

_RIVALS: Final = 20  # index hits to search for the best other caller of a cohort member


class CohortScorer:
    """Computes the `GalleryScorer` of a gallery, and again when the gallery has changed.

    A gallery of a million takes a third of a second.
    """

    def __init__(self, encoder: str, dimension: int) -> None:
        self._encoder = encoder
        self._dimension = dimension
        self._scorer: GalleryScorer | None = None
        self._computed_at = (0, 0)  # changes, and voiceprints, when the scorer was computed
        self._cohort: frozenset[int] = frozenset()  # voiceprint ids
        self._cosines: NDArray[np.float64] = np.empty(0)
        self._others = 1
        self._changes = 0  # voiceprints that were added or removed, ever
        self._resets = 0
        self._changed_meanwhile: set[int] | None = None  # ids, during a computation
        self._lock = threading.Lock()

    def get(self, storage: Storage, index: SearchIndex, callers: Callable[[], int]) -> GalleryScorer:
        """The scorer, without a calibration. callers: counts the callers of the gallery."""
        with self._lock:
            changes, size = self._computed_at
            if self._scorer is not None and (self._changes - changes) * STALE_SHARE <= size:
                return self._scorer
            before, resets = (self._changes, len(index)), self._resets
            meanwhile = self._changed_meanwhile = set()
            try:
                scorer, self._cohort = self._compute(storage, index, callers)
                self._scorer, self._computed_at = scorer, before
                # `note_changes` adds the ids before it reads the cohort, so no change is missed.
                if resets != self._resets or not self._cohort.isdisjoint(meanwhile):
                    self._scorer = None
            finally:
                self._changed_meanwhile = None
            return scorer

    def cosine_statistics(
        self, storage: Storage, index: SearchIndex, callers: Callable[[], int]
    ) -> ImpostorStatistics | None:
        """Statistics of strangers' best cosines with the gallery; None where it has too few callers."""
        self.get(storage, index, callers)
        return _cosine_statistics(self._cosines, self._others)

    def left_out(
        self, storage: Storage, index: SearchIndex, callers: Callable[[], int]
    ) -> tuple[list[list[Voiceprint]], NDArray[np.float64]]:
        """The prints of each caller of the cohort, and strangers' best cosines, float64[n].

        The cosines are those of each caller's first print with the prints of others.
        """
        self.get(storage, index, callers)
        return self._prints(storage, self._cohort), self._cosines

    def note_changes(self, ids: Iterable[int]) -> None:
        """Count voiceprints that were added or removed; drop the scorer where one was of the cohort."""
        changed = set(ids)
        self._changes += len(changed)
        meanwhile = self._changed_meanwhile
        if meanwhile is not None:
            meanwhile.update(changed)
        if not self._cohort.isdisjoint(changed):
            self._scorer = None  # no removed or replaced embedding stays in memory

    def reset(self) -> None:
        """Drop the scorer, after a new build of the index."""
        self._resets += 1
        self._scorer = None

    def _compute(
        self, storage: Storage, index: SearchIndex, callers: Callable[[], int]
    ) -> tuple[GalleryScorer, frozenset[int]]:
        """The scorer, and the voiceprint ids of its cohort."""
        from voiceprint.scoring import COHORT, GalleryScorer, projection_for

        cohort = self._prints(storage, index.sample(COHORT).tolist())
        others = self._others = callers() - 1
        self._cosines = _best_cosines(index, cohort)
        scorer = GalleryScorer(projection_for(self._encoder, self._dimension), [*map(prints_of, cohort)])
        if len(index) > COHORT and len(cohort) > 1 and scorer.statistics is not None:
            best = _best_rivals(index, scorer, cohort)
            if best is not None:
                scorer.use_gallery_maxima(best, others)
        return scorer, frozenset(id_ for prints in cohort for id_ in _ids(prints))

    def _prints(self, storage: Storage, ids: Iterable[int]) -> list[list[Voiceprint]]:
        """The prints in this space of each caller of these voiceprint ids."""
        found = (
            [one for one in caller.voiceprints if one.encoder == self._encoder]
            for caller in storage.callers_of(sorted(ids))
        )
        return [prints for prints in found if prints]


def _best_cosines(index: SearchIndex, cohort: list[list[Voiceprint]]) -> NDArray[np.float64]:
    """The best cosine of each caller's first print with another caller's print, float64[n]."""
    if not cohort:
        return np.empty(0)
    probes = np.stack([prints[0].embedding for prints in cohort])
    found, ids = index.search(probes, 1 + max(map(len, cohort)))
    best = [
        cosines[~np.isin(row, _ids(prints)) & (row >= 0)].max(initial=-1.0)
        for cosines, row, prints in zip(found, ids, cohort, strict=True)
    ]
    return np.array(best, dtype=np.float64)


def _cosine_statistics(best: NDArray[np.float64], others: int) -> ImpostorStatistics | None:
    """Statistics of strangers' best cosines with the gallery, float64[n]; None for too few callers."""
    from voiceprint.scoring import MIN_CALLERS, ImpostorStatistics

    if len(best) < MIN_CALLERS:
        return None
    return ImpostorStatistics(
        callers=len(best),
        others=max(others, 1),
        pair_mean=0.0,
        pair_std=1.0,
        best_mean=float(np.mean(best)),
        best_std=max(float(np.std(best, ddof=1)), 1e-9),
    )


def _best_rivals(
    index: SearchIndex, scorer: GalleryScorer, cohort: list[list[Voiceprint]]
) -> NDArray[np.float64] | None:
    """The greatest approximate score of each caller's first print with another caller's print, float64[n].

    None where the index holds no other print for one of them.
    """
    probes = [prints[0].embedding for prints in cohort]
    k = min(max(map(len, cohort)) + _RIVALS, len(index))
    # All at once: an index on a server answers each search after a way there and back.
    queries = np.stack([*probes, *map(scorer.search_vector, probes)])
    found = np.hstack(np.split(index.search(queries, max(1, k))[1], 2))
    ids = np.unique(found)
    there, vectors = index.vectors_of(ids[ids >= 0])
    ids = ids[ids >= 0][there]
    best = []
    for row, probe, prints in zip(found, probes, cohort, strict=True):
        rivals = vectors[np.isin(ids, np.setdiff1d(row, _ids(prints)))]
        if not len(rivals):
            return None
        best.append(scorer.approximate_scores(probe, rivals).max())
    return np.array(best, dtype=np.float64)


def _ids(prints: list[Voiceprint]) -> list[int]:
    return [one.id for one in prints if one.id is not None]
