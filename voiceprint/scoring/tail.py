"""How often would a stranger be given a name? The tail of the impostors' scores, and the size of the gallery.

A stranger is held against every caller, so the best of many scores decides. How high a probe scores with
strangers depends on the probe and the gallery (noise on both makes all voices alike), and is measured: by
the mean and deviation of its scores with a cohort, a sample of the gallery's own callers. Counted from that
mean in these deviations, the upper tenth of the scores has the same shape everywhere: a generalised Pareto
distribution (Pickands 1975), of which the best of N follows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

SHARE: Final = 0.1
"""Of the impostors' scores that count as the tail in a fit."""

_SHAPES: Final = (
    -0.3,
    0.1,
)  # what a fit may give: a tail with an end, as measured, to a little over exponential
LEAST_SCORES: Final = 1000
"""Of strangers, that a fit takes."""


_NORMAL: Final = NormalDist()

# A tail of negative shape ends somewhere. That no stranger can lie beyond is not known from some thousands.
_RAREST: Final = 1e-12


class Standing(NamedTuple):
    """Where a probe's scores with strangers lie: mean and deviation (> 0) of its log ratios."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class ImpostorTail:
    """The distribution of a stranger's standardised scores with one caller.

    start: where the tail begins, in deviations over the mean; share: of the scores that lie beyond it.
    scale (> 0), shape: of the generalised Pareto distribution of the excess over `start`.
    mean, deviation (> 0): the standing of a usual probe, where none was measured.
    """

    start: float = 1.33
    share: float = SHARE
    scale: float = 0.4
    shape: float = -0.14
    mean: float = 0.0
    deviation: float = 1.0

    def numbers(self) -> dict[str, float]:
        """All fields, for a file."""
        return asdict(self)

    def fpir(self, llr: float, gallery_size: int, standing: Standing | None = None) -> float:
        """The expected false-positive identification rate, 0..1, were this log ratio the threshold.

        gallery_size: callers, >= 0. standing: of the probe; that of a usual one if None.
        """
        mean, deviation = standing or (self.mean, self.deviation)
        one = self._beyond((llr - mean) / deviation)
        return 1.0 if one >= 1.0 and gallery_size else -math.expm1(_size(gallery_size) * math.log1p(-one))

    def threshold_for(self, target_fpir: float, gallery_size: int, standing: Standing | None = None) -> float:
        """The log ratio whose `fpir` is the target, in 0..1 (both excluded); grows with the gallery."""
        if not 0.0 < target_fpir < 1.0:
            raise InvalidArgumentError(f"A target FPIR is a share between 0 and 1, not {target_fpir}")
        mean, deviation = standing or (self.mean, self.deviation)
        one = -math.expm1(math.log1p(-target_fpir) / max(_size(gallery_size), 1))
        return mean + deviation * self._place(one)

    def _beyond(self, place: float) -> float:
        """The share of scores at or over a place, in deviations."""
        if place < self.start:
            below = _NORMAL.cdf(place) / _NORMAL.cdf(self.start)
            return 1.0 - (1.0 - self.share) * below
        excess = (place - self.start) / self.scale
        if abs(self.shape) < 1e-9:
            return self.share * math.exp(-excess)
        left = 1.0 + self.shape * excess
        return max(self.share * left ** (-1.0 / self.shape), _RAREST) if left > 0.0 else _RAREST

    def _place(self, share: float) -> float:
        """The inverse of `_beyond`."""
        if share > self.share:
            return _NORMAL.inv_cdf((1.0 - share) / (1.0 - self.share) * _NORMAL.cdf(self.start))
        times = math.log(self.share / share)
        excess = times if abs(self.shape) < 1e-9 else math.expm1(self.shape * times) / self.shape
        return self.start + self.scale * excess


def standing(scores: NDArray[np.floating]) -> Standing:
    """Of a probe's log ratios with a cohort, a sample of the gallery's callers, float[n], n >= 3.

    The best score is not looked at, as it may be the caller's own.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < 3 or not np.isfinite(values).all():
        raise InvalidArgumentError(f"A standing takes three finite scores or more, not {values.size}")
    others = np.delete(values, values.argmax())
    # In its place what the best of so many is likely to be (Blom 1958), or small cohorts would look narrow.
    best = _NORMAL.inv_cdf((len(values) - 0.375) / (len(values) + 0.25))
    others = np.append(others, others.mean() + best * others.std(ddof=1))
    return Standing(float(others.mean()), max(float(others.std(ddof=1)), 1e-6))


def fit_tail(scores: NDArray[np.floating], share: float = SHARE) -> ImpostorTail:
    """The tail of strangers' scores: float[probes, callers], a probe a row; NaN where there is no comparison.

    share: of the scores that the tail takes; smaller for large galleries, where there are enough of them.

    Raises:
        InvalidArgumentError: fewer than 1000 scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or np.isfinite(values).sum() < LEAST_SCORES:
        raise InvalidArgumentError(f"A tail is fitted to {LEAST_SCORES} scores of strangers or more")
    rows = [row[np.isfinite(row)] for row in values]
    standings = [standing(row) for row in rows]
    places = np.concatenate(
        [(row - mean) / deviation for row, (mean, deviation) in zip(rows, standings, strict=True)]
    )
    start = float(np.quantile(places, 1.0 - share))
    shape, scale = _pareto(places[places > start] - start)
    mean, deviation = (float(np.mean(column)) for column in zip(*standings, strict=True))
    return ImpostorTail(start, share, scale, shape, mean, deviation)


def _pareto(excesses: NDArray[np.float64]) -> tuple[float, float]:
    """Shape and scale of the greatest likelihood, the shape within `_SHAPES`."""
    from scipy import optimize  # fitting alone needs it

    largest, mean = float(excesses.max()), float(excesses.mean())

    def cost(shape: float) -> tuple[float, float]:
        def negative(log_scale: float) -> float:
            left = 1.0 + shape * excesses / math.exp(log_scale)
            if left.min() <= 0.0:
                return math.inf
            rate = (
                excesses.mean() / math.exp(log_scale) if shape == 0 else (1 / shape + 1) * np.log(left).mean()
            )
            return log_scale + float(rate)

        least = math.log(max(-shape * largest * 1.0001, mean * 0.2))
        found = optimize.minimize_scalar(negative, bounds=(least, math.log(mean * 3.0)), method="bounded")
        return float(found.fun), math.exp(float(found.x))

    shape = float(optimize.minimize_scalar(lambda one: cost(one)[0], bounds=_SHAPES, method="bounded").x)
    return shape, cost(shape)[1]


def _size(gallery_size: int) -> int:
    if gallery_size < 0:
        raise InvalidArgumentError(f"A gallery has 0 callers or more, not {gallery_size}")
    return gallery_size
