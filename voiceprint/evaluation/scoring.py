"""What compares a probe with the callers of a gallery: the part that is exchanged to try another scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring import Calibration, CallerPrints, GalleryScorer, projection_for

Embeddings = NDArray[np.float32]
Scores = NDArray[np.float64]

COSINE_THRESHOLD = 0.75
"""The cosine from which the product accepts a match unless told otherwise."""


@runtime_checkable
class Scorer(Protocol):
    """Scores probes against a gallery; the larger, the more alike."""

    @property
    def name(self) -> str:
        """For the report."""

    @property
    def calibrated(self) -> bool:
        """Whether the scores are log-likelihood ratios, natural logarithms."""

    @property
    def threshold(self) -> float | None:
        """The score from which a match is accepted; None where there is no such number."""

    def score(self, gallery: Sequence[Embeddings], probes: Embeddings) -> Scores:
        """Compare every probe with every caller.

        It is called with each gallery as it is, so a score may depend on who else is enrolled, but
        not on the other probes.

        Args:
            gallery: of each caller float32[prints, conditions, d] of unit vectors: one for each print
                under each of the conditions that go into it.
            probes: float32[n, d] of unit vectors, n >= 1.

        Returns:
            float64[n, callers], finite.
        """


class CosineScorer:
    """The cosine with the nearest of a caller's embeddings, as `match_caller` compares."""

    name = "cosine"
    calibrated = False

    def __init__(self, threshold: float | None = COSINE_THRESHOLD) -> None:
        self.threshold = threshold

    def score(self, gallery: Sequence[Embeddings], probes: Embeddings) -> Scores:
        """As `Scorer.score`."""
        prints = [caller.reshape(-1, caller.shape[-1]) for caller in gallery]
        starts = np.cumsum([0, *map(len, prints[:-1])])
        cosines = probes.astype(np.float64) @ np.concatenate(prints).astype(np.float64).T
        return np.asarray(np.maximum.reduceat(cosines, starts, axis=1), dtype=np.float64)


@runtime_checkable
class TargetScorer(Scorer, Protocol):
    """A scorer whose threshold follows the gallery and a wanted FPIR."""

    def limits(self, gallery: Sequence[Embeddings], targets: Sequence[float]) -> Scores:
        """The score from which to accept, float64[targets]; gallery: as for `score`."""


class CalibratedScorer:
    """The log-likelihood ratio, as `identify` ranks by it: what it means is read off each gallery.

    Of a caller's conditions the first is the plain enrollment; further ones, such as the print for simulated
    lines, count by their mean where that is better.
    """

    name = "llr"
    calibrated = True
    threshold = None

    def __init__(self, space: str, dimension: int, calibration: Calibration | None = None) -> None:
        self._projection = projection_for(space, dimension)
        self._calibration = calibration
        self._last: tuple[Sequence[Embeddings], list[CallerPrints], GalleryScorer] | None = None

    def score(self, gallery: Sequence[Embeddings], probes: Embeddings) -> Scores:
        """As `Scorer.score`.

        Raises:
            InvalidArgumentError: the gallery is too small to say what a score means.
        """
        callers, scorer = self._of(gallery)
        if scorer.statistics is None:
            raise InvalidArgumentError(f"A gallery of {len(gallery)} callers says nothing of its scores.")
        return scorer.llrs_of_many(probes, callers)

    def limits(self, gallery: Sequence[Embeddings], targets: Sequence[float]) -> Scores:
        """As `TargetScorer.limits`."""
        scorer = self._of(gallery)[1]
        return np.array([scorer.threshold(target, len(gallery)) for target in targets])

    def _of(self, gallery: Sequence[Embeddings]) -> tuple[list[CallerPrints], GalleryScorer]:
        """The scorer of a gallery; that of the last is kept, as probes come in several blocks."""
        if self._last is None or self._last[0] is not gallery:
            callers = [
                CallerPrints(one[:, 0], one[:, 1:].mean(axis=1) if one.shape[1] > 1 else one[:0, 0])
                for one in gallery
            ]
            self._last = (
                gallery,
                callers,
                GalleryScorer.of_gallery(self._projection, callers, self._calibration),
            )
        return self._last[1:]


class AffineCalibration:
    """Scores to log-likelihood ratios by a scale and an offset, fitted by logistic regression.

    Source: Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU submission
    for the NIST SRE 2006", IEEE TASLP 15 (2007): minimizes the Cllr, both classes counting alike; with
    the labels of Platt, "Probabilistic outputs for support vector machines" (1999), for small samples.
    """

    def __init__(self, targets: NDArray[np.floating], impostors: NDArray[np.floating]) -> None:
        """Fit to scores, float[n] and float[m]."""
        scores = np.concatenate([targets, impostors]).astype(np.float64)
        # Not quite 1 and 0: else few scores that happen not to overlap would give ratios without bounds.
        sure = (len(targets) + 1.0) / (len(targets) + 2.0), 1.0 / (len(impostors) + 2.0)
        labels = np.repeat(sure, [len(targets), len(impostors)])
        weights = np.repeat([0.5 / len(targets), 0.5 / len(impostors)], [len(targets), len(impostors)])
        self._scale, self._offset = logistic_regression(scores, labels, weights)

    def llr(self, scores: NDArray[np.floating]) -> Scores:
        """The natural log-likelihood ratios, float64 of the shape of `scores`."""
        return np.asarray(self._scale * np.asarray(scores, dtype=np.float64) + self._offset, dtype=np.float64)


_RIDGE = 1e-9  # where all scores are equal, their scale is not defined
_STEPS = 100


def logistic_regression(scores: Scores, labels: Scores, weights: Scores) -> tuple[float, float]:
    """Scale and offset of the log odds, scale * score + offset, of the greatest likelihood.

    scores, labels (0..1), weights (together about 1): float64[n].
    """
    mean, deviation = float(scores.mean()), float(scores.std()) or 1.0
    design = np.stack([(scores - mean) / deviation, np.ones(len(scores))], axis=1)
    solution = np.zeros(2)
    for _ in range(_STEPS):
        posterior = 0.5 * (1.0 + np.tanh(0.5 * (design @ solution)))
        slope = design.T @ (weights * (posterior - labels)) + _RIDGE * solution
        curve = weights * posterior * (1.0 - posterior)
        step = np.linalg.solve(design.T @ (curve[:, None] * design) + _RIDGE * np.eye(2), slope)
        size = float(np.abs(step).max())
        solution -= step if size <= 1.0 else step / size  # a longer one may overshoot
        if size < 1e-9:
            break
    scale = float(solution[0]) / deviation
    return scale, float(solution[1]) - scale * mean
