"""Ranking callers by how well a probe goes with their voiceprints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.models import Voiceprint

if TYPE_CHECKING:
    from voiceprint.scoring import Backend


class Probe(NamedTuple):
    """What is held against voiceprints: unit embeddings of the audio, and where it was noisy, of it cleaned.

    Similarities are of `plain`, log-likelihood ratios of `cleaned` where there is one.
    """

    plain: NDArray[np.float32]
    cleaned: NDArray[np.float32] | None = None

    @property
    def best(self) -> NDArray[np.float32]:
        """What says most of the voice."""
        return self.plain if self.cleaned is None else self.cleaned


class Scored(NamedTuple):
    """A caller: the cosine of the probe with the best of the voiceprints, which one that is, and the llr.

    llr: calibrated natural log-likelihood ratio of all the caller's voiceprints; None without a backend.
    """

    similarity: float
    voiceprint: Voiceprint
    llr: float | None = None

    @property
    def score(self) -> float:
        """What callers are ranked by."""
        return self.similarity if self.llr is None else self.llr


def rank(probe: Probe, voiceprints: Iterable[Voiceprint], backend: Backend | None = None) -> list[Scored]:
    """Each caller, the best first: by log-likelihood ratio with a backend, else by the best similarity.

    Equal ones are in the order of similarity, then of caller ids. Both are computed from the records and
    not taken from an index, so that whatever an index may hold, no caller gets the score of another.
    """
    of_callers: dict[str, list[Voiceprint]] = {}
    for voiceprint in voiceprints:
        of_callers.setdefault(voiceprint.caller_id, []).append(voiceprint)
    callers = [*of_callers.values()]
    best = [_best(probe.plain, prints) for prints in callers]
    if backend is not None and callers:
        ratios = backend.score(
            probe.best,
            [np.stack([one.embedding for one in prints]) for prints in callers],
            _simulated(callers),
        )
        best = [scored._replace(llr=float(llr)) for scored, llr in zip(best, ratios, strict=True)]
    return sorted(best, key=lambda scored: (-scored.score, -scored.similarity, scored.voiceprint.caller_id))


def _best(probe: NDArray[np.float32], prints: list[Voiceprint]) -> Scored:
    similarities = [max(-1.0, min(1.0, float(np.dot(probe, one.embedding)))) for one in prints]
    place = max(range(len(prints)), key=similarities.__getitem__)
    return Scored(similarities[place], prints[place])


def _simulated(callers: list[list[Voiceprint]]) -> list[NDArray[np.float32] | None]:
    """The embeddings of each caller's enrolments as heard on simulated lines, where there are any."""
    found: list[NDArray[np.float32] | None] = []
    for prints in callers:
        heard = [one.simulated for one in prints if one.simulated is not None]
        found.append(np.stack(heard) if heard else None)
    return found


class Cohort:
    """Voiceprints of many callers, ready to be held against probe after probe."""

    def __init__(self, backend: Backend, voiceprints: list[Voiceprint]) -> None:
        self._backend = backend
        self._plain = backend.prepare([one.embedding[None] for one in voiceprints])
        simulated = _simulated([[one] for one in voiceprints])
        self._having = [place for place, one in enumerate(simulated) if one is not None]
        self._simulated = backend.prepare([one for one in simulated if one is not None])

    def scores(self, probe: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log-likelihood ratio of each, float64[n], as `rank` would give it."""
        scores = self._backend.score(probe, self._plain)
        better = self._backend.score(probe, self._simulated)
        scores[self._having] = np.maximum(scores[self._having], better)
        return scores
