"""Scorers: the exchangeable comparison of probes with the callers of a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring import MIN_CALLERS, Calibration, CallerPrints, GalleryScorer, projection_for

Embeddings = NDArray[np.float32]
Scores = NDArray[np.float64]

COSINE_THRESHOLD = 0.75
"""The product's default threshold."""


@runtime_checkable
class Scorer(Protocol):
    """Scores probes against a gallery; more similar voices score higher."""

    @property
    def name(self) -> str:
        """The name in the report."""

    @property
    def calibrated(self) -> bool:
        """Whether the scores are natural log-likelihood ratios."""

    @property
    def threshold(self) -> float | None:
        """The score from which a match is accepted; None where that depends on the gallery."""

    def score(self, gallery: Sequence[Embeddings], probes: Embeddings) -> Scores:
        """Compare every probe with every caller.

        A score may depend on the other callers of the gallery, but not on the other probes.

        Args:
            gallery: of each caller float32[prints, conditions, d] of unit vectors: the embedding of each
                print under each condition of the enrollment.
            probes: float32[n, d] of unit vectors, n >= 1.

        Returns:
            float64[n, callers], finite.
        """


class CosineScorer:
    """The cosine with the nearest of a caller's embeddings, as in `match_caller`."""

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
    """A scorer whose threshold follows the gallery and a target FPIR."""

    def thresholds(self, gallery: Sequence[Embeddings], targets: Sequence[float]) -> Scores:
        """The score from which to accept for each target, float64[targets]; gallery: as for `score`."""


class CalibratedScorer:
    """The log-likelihood ratio by statistics of each gallery, as in `identify`.

    The first condition of a caller's prints is the plain one; the mean of the others is the augmented print.
    """

    name = "llr"
    calibrated = True
    threshold = None

    def __init__(self, space: str, dimension: int, calibration: Calibration | None = None) -> None:
        self._projection = projection_for(space, dimension)
        self.least_callers = MIN_CALLERS if self._projection.prior is None else 2
        self._calibration = calibration
        self._last: tuple[Sequence[Embeddings], list[CallerPrints], GalleryScorer] | None = None

    def score(self, gallery: Sequence[Embeddings], probes: Embeddings) -> Scores:
        """As `Scorer.score`.

        Raises:
            InvalidArgumentError: the gallery is too small for log-likelihood ratios.
        """
        callers, scorer = self._scorer(gallery)
        if scorer.statistics is None:
            raise InvalidArgumentError(
                f"A gallery of {len(gallery)} callers is too small for log-likelihood ratios."
            )
        return scorer.llrs_of_many(probes, callers)

    def thresholds(self, gallery: Sequence[Embeddings], targets: Sequence[float]) -> Scores:
        """As `TargetScorer.thresholds`."""
        scorer = self._scorer(gallery)[1]
        return np.array([scorer.threshold(target, len(gallery)) for target in targets])

    def _scorer(self, gallery: Sequence[Embeddings]) -> tuple[list[CallerPrints], GalleryScorer]:
        """The callers and the scorer of a gallery; cached for the next block of probes."""
        if self._last is None or self._last[0] is not gallery:
            callers = [
                CallerPrints(
                    caller[:, 0], caller[:, 1:].mean(axis=1) if caller.shape[1] > 1 else caller[:0, 0]
                )
                for caller in gallery
            ]
            scorer = GalleryScorer.of_gallery(self._projection, callers, self._calibration)
            self._last = gallery, callers, scorer
        return self._last[1:]


def least_callers(scorer: Scorer) -> int:
    """Callers that a gallery needs for this scorer: its attribute of that name, or 2 without one."""
    return int(getattr(scorer, "least_callers", 2))


class AffineCalibration:
    """An affine map of scores to log-likelihood ratios, fitted by logistic regression.

    Source: Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU submission
    for the NIST SRE 2006", IEEE TASLP 15 (2007): minimizes the Cllr with equal weights of both classes; with
    the labels of Platt, "Probabilistic outputs for support vector machines" (1999), for small samples.
    """

    def __init__(self, targets: NDArray[np.floating], impostors: NDArray[np.floating]) -> None:
        """Fit to scores, float[n] and float[m]."""
        scores = np.concatenate([targets, impostors]).astype(np.float64)
        # Not 1 and 0: with few scores that happen not to overlap, the ratios would be unbounded.
        soft = (len(targets) + 1.0) / (len(targets) + 2.0), 1.0 / (len(impostors) + 2.0)
        labels = np.repeat(soft, [len(targets), len(impostors)])
        weights = np.repeat([0.5 / len(targets), 0.5 / len(impostors)], [len(targets), len(impostors)])
        self._scale, self._offset = logistic_regression(scores, labels, weights)

    def llr(self, scores: NDArray[np.floating]) -> Scores:
        """The natural log-likelihood ratios, float64 of the shape of `scores`."""
        return np.asarray(self._scale * np.asarray(scores, dtype=np.float64) + self._offset, dtype=np.float64)


_RIDGE = 1e-9  # where all scores are equal, the scale is undefined
_STEPS = 100


def logistic_regression(scores: Scores, labels: Scores, weights: Scores) -> tuple[float, float]:
    """The maximum-likelihood scale and offset of the log odds, scale * score + offset, by Newton's method.

    scores, labels (0..1), weights (of sum about 1): float64[n].
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
        solution -= step if size <= 1.0 else step / size  # a longer step may overshoot
        if size < 1e-9:
            break
    scale = float(solution[0]) / deviation
    return scale, float(solution[1]) - scale * mean
