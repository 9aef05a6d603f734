"""The scores of a gallery's own callers, each left out in turn: the picture behind a threshold.

With a caller left out, the caller's print is a stranger's call. With a print left out, it is a call of a
known caller, whom the other prints enroll. So error rates of a threshold are measured without a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voiceprint.identification.ranking import prints_of

if TYPE_CHECKING:
    from voiceprint.models import Voiceprint
    from voiceprint.scoring import GalleryScorer

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class LeftOutScores:
    """The scores of strangers and of known callers in a gallery, from a sample of up to 300 callers.

    gallery_size: callers of the gallery. callers: in the sample. known_callers: of these, those with at least
        two prints, who alone stand for known callers.
    strangers: the best llr of each caller with the others, float64[n]. known: the llr of each left-out print
        with the caller's other prints, float64[m]. Both are empty where the gallery is too small for an llr.
    stranger_similarities, known_similarities: the same as cosines, float64[n] and float64[m].

    Prints of one call are more alike than those of two calls, so FNIR is too low where enrollment stored
    several prints of a call. A caller of two prints is left with one, so FNIR is too high where callers have
    few prints.
    """

    gallery_size: int
    callers: int
    known_callers: int
    strangers: Scores = field(repr=False)
    known: Scores = field(repr=False)
    stranger_similarities: Scores = field(repr=False)
    known_similarities: Scores = field(repr=False)
    _scorer: GalleryScorer = field(repr=False)

    @property
    def has_llrs(self) -> bool:
        """Whether the gallery is large enough for llrs, and so for a target."""
        return self._scorer.statistics is not None and self.gallery_size > 0

    def threshold(self, target_fpir: float) -> float:
        """The llr from which the target accepts a match. Needs `has_llrs`."""
        return self._scorer.threshold(target_fpir, self.gallery_size)

    def fpir(self, llr: float) -> float:
        """The expected share of strangers who reach an llr, 0 to 1, as in `Match.fpir`. Needs `has_llrs`."""
        return self._scorer.fpir(llr, self.gallery_size)

    def fnir(self, llr: float) -> float | None:
        """The share of known callers' prints below an llr, 0 to 1; None without any."""
        return float(np.mean(self.known < llr)) if len(self.known) else None


def left_out_scores(
    scorer: GalleryScorer,
    cohort: Sequence[Sequence[Voiceprint]],
    stranger_similarities: Scores,
    gallery_size: int,
) -> LeftOutScores:
    """The scores of a gallery.

    scorer: of the gallery. cohort: the prints of each caller of a sample. stranger_similarities: of the same
    callers, float64[n].
    """
    several = [prints for prints in cohort if len(prints) > 1]
    known, cosines = list[float](), list[float]()
    for prints in several:
        vectors = np.stack([one.embedding for one in prints])
        alike = np.where(np.eye(len(prints), dtype=np.bool_), -1.0, vectors @ vectors.T)
        cosines += alike.max(axis=1).tolist()
        if scorer.statistics is None:
            continue
        probes = scorer.as_probes(prints_of(prints))
        rest = [prints_of([one for one in prints if one is not left_out]) for left_out in prints]
        known += np.diagonal(scorer.llrs_of_many(probes, rest)).tolist()
    return LeftOutScores(
        gallery_size=gallery_size,
        callers=len(cohort),
        known_callers=len(several),
        strangers=scorer.left_out_llrs,
        known=np.array(known, dtype=np.float64),
        stranger_similarities=stranger_similarities,
        known_similarities=np.array(cosines, dtype=np.float64),
        _scorer=scorer,
    )
