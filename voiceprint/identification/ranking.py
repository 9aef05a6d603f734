"""The ranking of callers by the scores of a probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint._stages import timed
from voiceprint.embedder import Probe
from voiceprint.models import Voiceprint

if TYPE_CHECKING:
    from voiceprint.scoring import CallerPrints, GalleryScorer


class Scored(NamedTuple):
    """A caller's best voiceprint by cosine, and the scores of the probe.

    llr: natural log-likelihood ratio of all the caller's voiceprints; None where the gallery is too small.
    """

    similarity: float
    voiceprint: Voiceprint
    llr: float | None = None

    @property
    def score(self) -> float:
        """The score for the ranking."""
        return self.similarity if self.llr is None else self.llr


@timed("score")
def rank(
    probe: Probe, voiceprints: Iterable[Voiceprint], scorer: GalleryScorer | None = None
) -> list[Scored]:
    """Each caller, the best first: by log-likelihood ratio with a scorer, else by the best similarity.

    Ties are in the order of similarity, then of caller ids. Both scores come from the records, so that no
    fault of an index can give a caller the score of another.
    """
    callers = by_caller(voiceprints)
    best = [_best(probe.plain, prints) for prints in callers]
    if scorer is not None and callers:
        llrs = scorer.llrs(probe.best, [prints_of(prints) for prints in callers])
        best = [
            one if math.isnan(llr) else one._replace(llr=float(llr))
            for one, llr in zip(best, llrs, strict=True)
        ]
    return sorted(best, key=lambda scored: (-scored.score, -scored.similarity, scored.voiceprint.caller_id))


def by_caller(voiceprints: Iterable[Voiceprint]) -> list[list[Voiceprint]]:
    """The voiceprints of each caller."""
    callers: dict[str, list[Voiceprint]] = {}
    for voiceprint in voiceprints:
        callers.setdefault(voiceprint.caller_id, []).append(voiceprint)
    return [*callers.values()]


def prints_of(voiceprints: Sequence[Voiceprint]) -> CallerPrints:
    """The embeddings of one caller's voiceprints."""
    from voiceprint.scoring import CallerPrints

    # np.array of a few vectors takes half the time of np.stack.
    plain = np.array([one.embedding for one in voiceprints])
    augmented = [one.augmented for one in voiceprints if one.augmented is not None]
    return CallerPrints(plain, np.array(augmented) if augmented else plain[:0])


def _best(probe: NDArray[np.float32], prints: list[Voiceprint]) -> Scored:
    similarities = [max(-1.0, min(1.0, float(np.dot(probe, one.embedding)))) for one in prints]
    place = max(range(len(prints)), key=similarities.__getitem__)
    return Scored(similarities[place], prints[place])
