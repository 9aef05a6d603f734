"""The false-positive identification rate (FPIR) of a score, estimated from the gallery's own callers.

Every enrolled caller is a stranger to all others: with a caller left out, the best score of that caller's
print among the others stands for the score of a stranger's call. The tail of these maxima gives the FPIR, by
Student's t distribution, as mean and deviation are estimated from few callers. The estimate follows the
gallery's own population and lines.

A gallery of n callers gives maxima among n - 1 others. For another number the callers count as independent:
1 - FPIR(m) = (1 - FPIR(n)) ** (m / n). With m = 1 that is the false-match rate of a verification.

A prior counts as `PRIOR_CALLERS` callers: maxima of independent normal scores.

The tail is that of a normal distribution where the constants of the prior were measured with it. In other
embedding spaces it is the tail of the maximum of as many independent normal scores as there are others, which
falls more slowly. Of 3D-Speaker's CAM++, which nothing here was fitted to, the mean FPIR on five sets of real
speech at a target of 1 % is 0.6 to 2.9 % by it, and 1.6 to 4.9 % by the normal tail; at a target of 5 %, 4.8
to 9.3 % and 5.7 to 10.8 % (research/other-encoders.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, pstdev
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

Number = TypeVar("Number", float, NDArray[np.float64])

PRIOR_CALLERS: Final = 5
"""Callers that the prior counts as. At targets of 1 and 5 % the mean FPIR is 1.4 and 5.2 % in galleries of 10
and 1.8 and 5.1 % in those of 50; with 10 it is 0.8 and 3.5, and 1.4 and 4.1 %; with none 4.5 and 10, and 2.4
and 6.5 % (`python -m benchmarks.accuracy DATA --ablations`)."""

PRIOR_FREEDOM: Final = 10
"""Degrees of freedom that the prior adds to the tail: populations differ less in the deviation of their
scores, by a tenth, than in the mean, by half a deviation. At a target of 1 %, the mean FPIR in galleries of
10 is 1.4 %; 1.2 % with 5, which puts the target out of reach for one enrolled caller; 1.7 % with 20."""

_NORMAL: Final = NormalDist()
_MAX_DEVIATIONS: Final = 37.0  # beyond, the tail of the normal distribution underflows a float
_STEPS: Final = 1_000  # quantiles of the maximum's distribution: half of them give 0.4 %


@dataclass(frozen=True)
class ImpostorStatistics:
    """Statistics of the scores of strangers.

    callers: enrolled callers that were left out in turn. others: callers compared with each, >= 1.
    pair_mean, pair_std (> 0): of the scores of different callers.
    best_mean, best_std (> 0): of the best score of a stranger among the `others`.
    maximum_of: the best score is distributed as the maximum of so many independent normal scores; 1 is a
        normal distribution.
    """

    callers: int
    others: int
    pair_mean: float
    pair_std: float
    best_mean: float
    best_std: float
    maximum_of: int = 1

    @property
    def _tail(self) -> tuple[int, float]:
        """Degrees of freedom, and the deviation of a stranger's best score with the error of the mean."""
        width = math.sqrt(1.0 + 1.0 / (self.callers + PRIOR_CALLERS))
        return self.callers + PRIOR_FREEDOM - 1, self.best_std * width

    def fpir(self, score: float, gallery_size: int) -> float:
        """The expected share of strangers who reach a score with a caller of the gallery, 0 to 1."""
        freedom, deviation = self._tail
        t = (score - self.best_mean) / deviation
        z = _shrinkage(freedom) * math.copysign(math.sqrt(freedom * math.log1p(t * t / freedom)), t)
        mean, std = _maximum_moments(self.maximum_of)
        z = mean + std * z
        # erfc of the smaller tail: the larger rounds to 1 from 8 deviations on.
        tail = 0.5 * math.erfc((z if z > 0.0 else min(-z, _MAX_DEVIATIONS)) / math.sqrt(2.0))
        below = self.maximum_of * (math.log1p(-tail) if z > 0.0 else math.log(tail))
        return max(0.0, -math.expm1(_size(gallery_size) / self.others * below))  # not -0.0

    def threshold(self, target_fpir: float, gallery_size: int) -> float:
        """The score whose `fpir` is the target, 0 to 1 exclusive; grows with the gallery."""
        if not 0.0 < target_fpir < 1.0:
            raise InvalidArgumentError(f"A target FPIR is a share between 0 and 1, not {target_fpir}")
        freedom, deviation = self._tail
        below = math.log1p(-target_fpir) * self.others / max(_size(gallery_size), 1)
        z = self._deviate(below) / _shrinkage(freedom)
        t = math.copysign(math.sqrt(freedom * math.expm1(z * z / freedom)), z)
        return self.best_mean + deviation * t

    def deviate(self, rate: float) -> float:
        """The deviations of the best score with this `fpir`, 0 to 1 exclusive, from that of strangers."""
        return self._deviate(math.log1p(-rate))

    def _deviate(self, log_below: float) -> float:
        x = _quantile(log_below / self.maximum_of)
        mean, std = _maximum_moments(self.maximum_of)
        return (x - mean) / std

    def deviations(self, score: Number) -> Number:
        """Standard deviations of scores above the mean of different callers."""
        return (score - self.pair_mean) / self.pair_std

    def score(self, deviations: Number) -> Number:
        """The inverse of `deviations`."""
        return self.pair_mean + self.pair_std * deviations


def impostor_statistics(
    pairs: NDArray[np.float64],
    maxima: NDArray[np.float64],
    others: int,
    prior: tuple[float, float] | None,
    within: float = 0.0,
) -> ImpostorStatistics:
    """The statistics of a gallery.

    pairs: scores of every left-out caller with the callers of the cohort, float64[n, m]; NaN with themselves.
    maxima: the best score of each left-out caller with `others` callers of the gallery, float64[n].
    prior: mean and deviation of the scores of different speakers; None for the gallery's.
    within: variance of the maxima of one caller's prints, where `maxima` are means over these.
    """
    callers, others = len(maxima), max(others, 1)
    scores = pairs[np.isfinite(pairs)]
    own = (float(scores.mean()), float(scores.std())) if scores.size else None
    blended = own if prior is None else _blend(own, callers - 1, prior)
    assert blended is not None  # noqa: S101  the scorer requires MIN_CALLERS without a prior
    pair_mean, pair_std = blended[0], max(blended[1], 1e-9)
    # Median, and half of the range of the middle 68 %: the deviation of a normal distribution.
    low, middle, high = (_maximum_quantile(_NORMAL.cdf(z), others) for z in (-1.0, 0.0, 1.0))
    expected = (pair_mean + pair_std * middle, pair_std * 0.5 * (high - low))
    observed = None
    if callers >= 2:
        observed = float(maxima.mean()), math.sqrt(float(maxima.var(ddof=1)) + within)
    best_mean, best_std = _blend(observed, callers, expected)
    return ImpostorStatistics(
        callers if observed else 0,
        others,
        pair_mean,
        pair_std,
        best_mean,
        max(best_std, 1e-9),
        others if prior is None else 1,
    )


def _blend(
    observed: tuple[float, float] | None, count: int, prior: tuple[float, float]
) -> tuple[float, float]:
    """Mean and deviation of `count` callers, with the prior counted as `PRIOR_CALLERS`."""
    if observed is None or count < 1:
        return prior
    weight = count / (count + PRIOR_CALLERS)
    return (
        weight * observed[0] + (1.0 - weight) * prior[0],
        math.sqrt(weight * observed[1] ** 2 + (1.0 - weight) * prior[1] ** 2),
    )


def _shrinkage(freedom: int) -> float:
    """The factor from Student's t to a normal deviate: z = factor * sqrt(f * log(1 + t^2 / f)), signed as t.

    Source: Wallace, "Bounds on normal approximations to Student's and the chi-square distributions", Annals
    of Mathematical Statistics 30 (1959). With 9 degrees of freedom an FPIR of 0.01 % is 0.010 %; by formula
    26.7.8 of Abramowitz and Stegun it would be 0.038 %, and no score would exceed a bound.
    """
    return (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)


def _quantile(log_probability: float) -> float:
    """The quantile of the standard normal distribution, of a probability by its logarithm."""
    if log_probability > -math.log(2.0):  # by the complement: the probability itself rounds to 1
        return -_NORMAL.inv_cdf(max(-math.expm1(log_probability), 1e-300))
    return _NORMAL.inv_cdf(max(math.exp(log_probability), 1e-300))


def _maximum_quantile(probability: float, count: int) -> float:
    """A quantile of the greatest of `count` independent standard normal values."""
    return _NORMAL.inv_cdf(probability ** (1.0 / count))


@lru_cache(maxsize=64)
def _maximum_moments(count: int) -> tuple[float, float]:
    """Mean and deviation of the greatest of `count` independent standard normal values, to 0.2 %."""
    if count == 1:
        return 0.0, 1.0
    places = [(step + 0.5) / _STEPS for step in range(_STEPS)]
    values = [_quantile(math.log(place) / count) for place in places]
    return fmean(values), pstdev(values)


def _size(gallery_size: int) -> int:
    if gallery_size < 0:
        raise InvalidArgumentError(f"A gallery has 0 callers or more, not {gallery_size}")
    return gallery_size
