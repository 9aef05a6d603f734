"""How often would a stranger be given a name? Read off the gallery's own callers.

Every enrolled caller is a stranger to all others. With a caller left out, the best score of that caller's
print among the others is what a stranger's call would have scored. The tail of these maxima gives the
false-positive identification rate (FPIR) of a score: Student's t distribution, as mean and deviation are
estimated from few callers. It holds for the gallery's own population and lines, whatever these are.

A gallery of n callers gives maxima among n - 1 others. For another number the callers count as independent:
1 - FPIR(m) = (1 - FPIR(n)) ** (m / n), so that with m = 1 it is the false-match rate of a verification.

While there are few callers, a prior counts as `PRIOR_CALLERS` of them: maxima of independent normal scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

PRIOR_CALLERS: Final = 5
"""Callers that the prior counts as. For 1 and 5 % wanted, the mean FPIR is 1.4 and 5.2 % in galleries of 10
and 1.8 and 5.1 % in those of 50; with 10 it is 0.8 and 3.5, and 1.4 and 4.1 %; with none 4.5 and 10, and 2.4
and 6.5 % (`python -m benchmarks.accuracy DATA --ablations`)."""

PRIOR_FREEDOM: Final = 10
"""Degrees of freedom of the prior, in the tail of few callers: populations differ less in the deviation of
their scores, by a tenth, than in the mean, by half a deviation. For 1 % wanted, the mean FPIR in galleries of
10 is 1.4 %; 1.2 % with 5, which puts a target of 1 % out of reach for one enrolled caller; 1.7 % with 20."""

_NORMAL: Final = NormalDist()
_FARTHEST: Final = 37.0  # normal deviations, where a probability is no longer a float


@dataclass(frozen=True)
class ImpostorStatistics:
    """Scores of strangers, in units of the scorer.

    callers: enrolled callers that were left out in turn. others: callers that each was compared with, >= 1.
    pair_mean, pair_std (> 0): of the scores of different callers.
    best_mean, best_std (> 0): of the best score of a stranger among the `others`.
    """

    callers: int
    others: int
    pair_mean: float
    pair_std: float
    best_mean: float
    best_std: float

    @property
    def _tail(self) -> tuple[int, float]:
        """Degrees of freedom, and the deviation of a stranger's best score with that of its estimate."""
        width = math.sqrt(1.0 + 1.0 / (self.callers + PRIOR_CALLERS))
        return self.callers + PRIOR_FREEDOM - 1, self.best_std * width

    def fpir(self, score: float, gallery_size: int) -> float:
        """The expected share of strangers who reach a score with one of so many callers, 0 to 1."""
        freedom, deviation = self._tail
        t = (score - self.best_mean) / deviation
        z = _shrinkage(freedom) * math.copysign(math.sqrt(freedom * math.log1p(t * t / freedom)), t)
        # By erfc of the smaller tail: the other is 1, or 0, from 8 deviations on.
        tail = 0.5 * math.erfc((z if z > 0.0 else min(-z, _FARTHEST)) / math.sqrt(2.0))
        below = math.log1p(-tail) if z > 0.0 else math.log(tail)
        return max(0.0, -math.expm1(_size(gallery_size) / self.others * below))  # not -0.0

    def threshold(self, target_fpir: float, gallery_size: int) -> float:
        """The score whose `fpir` is the target, in 0..1 (both excluded); grows with the gallery."""
        if not 0.0 < target_fpir < 1.0:
            raise InvalidArgumentError(f"A target FPIR is a share between 0 and 1, not {target_fpir}")
        freedom, deviation = self._tail
        below = math.log1p(-target_fpir) * self.others / max(_size(gallery_size), 1)
        if below > -math.log(2.0):
            z = -_NORMAL.inv_cdf(max(-math.expm1(below), 1e-300))
        else:
            z = _NORMAL.inv_cdf(max(math.exp(below), 1e-300))
        z /= _shrinkage(freedom)
        t = math.copysign(math.sqrt(freedom * math.expm1(z * z / freedom)), z)
        return self.best_mean + deviation * t

    def deviations(self, score: float) -> float:
        """Standard deviations of a score above the mean of different callers."""
        return (score - self.pair_mean) / self.pair_std


def impostor_statistics(
    pairs: NDArray[np.float64],
    best: NDArray[np.float64],
    others: int,
    prior: tuple[float, float] | None,
) -> ImpostorStatistics:
    """The statistics of a gallery.

    pairs: scores of every left-out caller with the callers of the cohort, float64[n, m]; NaN with the own.
    best: of each left-out caller, the best score with `others` callers of the gallery, float64[n].
    prior: mean and deviation of the scores of different speakers; None counts those of the gallery.
    """
    callers, others = len(best), max(others, 1)
    scores = pairs[np.isfinite(pairs)]
    own = (float(scores.mean()), float(scores.std())) if scores.size else None
    known = own if prior is None else _blend(own, callers - 1, prior)
    assert known is not None  # noqa: S101  without a prior there are callers enough, the scorer looks
    pair_mean, pair_std = known[0], max(known[1], 1e-9)
    expected = (pair_mean + pair_std * _middle(others), pair_std * _half_width(others))
    observed = (float(best.mean()), float(best.std(ddof=1))) if callers >= 2 else None
    best_mean, best_std = _blend(observed, callers, expected)
    return ImpostorStatistics(
        callers if observed else 0, others, pair_mean, pair_std, best_mean, max(best_std, 1e-9)
    )


def _blend(
    observed: tuple[float, float] | None, count: int, prior: tuple[float, float]
) -> tuple[float, float]:
    """Mean and deviation of `count` callers, and of the prior as of `PRIOR_CALLERS`."""
    if observed is None or count < 1:
        return prior
    weight = count / (count + PRIOR_CALLERS)
    return (
        weight * observed[0] + (1.0 - weight) * prior[0],
        math.sqrt(weight * observed[1] ** 2 + (1.0 - weight) * prior[1] ** 2),
    )


def _shrinkage(freedom: int) -> float:
    """From Student's t to a normal deviate: z = shrinkage * sqrt(f * log(1 + t^2 / f)), with the sign of t.

    Source: Wallace, "Bounds on normal approximations to Student's and the chi-square distributions", Annals
    of Mathematical Statistics 30 (1959). With 9 degrees of freedom an FPIR of 0.01 % is 0.010 %; by formula
    26.7.8 of Abramowitz and Stegun it was 0.038 %, and a deviate had a bound that no score passes.
    """
    return (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)


def _quantile(probability: float, others: int) -> float:
    """Of the greatest of so many independent standard normal values."""
    return _NORMAL.inv_cdf(probability ** (1.0 / others))


def _middle(others: int) -> float:
    return _quantile(0.5, others)


def _half_width(others: int) -> float:
    """Half of the range of the middle 68 %, which is the deviation of a normal distribution."""
    low, high = _NORMAL.cdf(-1.0), _NORMAL.cdf(1.0)
    return 0.5 * (_quantile(high, others) - _quantile(low, others))


def _size(gallery_size: int) -> int:
    if gallery_size < 0:
        raise InvalidArgumentError(f"A gallery has 0 callers or more, not {gallery_size}")
    return gallery_size
