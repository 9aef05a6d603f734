"""How often would a stranger be given a name? The tail of the impostors' scores, and the size of the gallery.

A stranger is held against every caller, so the best of many scores decides. How high a probe scores with
strangers depends on the probe and the gallery (noise on both makes all voices alike), and is measured: by
the level of its upper scores with a cohort, a sample of the gallery's own callers, and by their deviation.
A lead in the level is not kept up, though: of a calibrated log-likelihood ratio x, no more than exp(-x) of
the strangers reach x, whatever the probe (Royall 2000), so the tails of all probes come together as the
scores rise. Counted from the probe's level, in shares of the way from there to one score for all, `meeting`,
they have one shape; the more the scores deviate, the longer is the way. (Counted from the mean in deviations,
as is usual, the rates are about as good, and twice as many callers are missed: a voice that is far from all
others, and so easy to know, has low scores with them that deviate much.)

The upper tenth follows the law of Gompertz (1825): the farther up, the more of those who came so far are
lost at the next step, exponentially so. Unlike a generalised Pareto tail that falls as fast as the scores
of some hundred strangers do, it has no end, and what it says of a million keeps to the measured rate.

Sources: Royall, "On the probability of observing misleading statistical evidence", JASA 95 (2000).
Gompertz, "On the nature of the function expressive of the law of human mortality", Phil. Trans. 115 (1825).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

SHARE: Final = 0.1
"""Of the impostors' scores that count as the tail in a fit."""

MEETING: Final = 16.0
"""The log ratio where the tails of all probes meet. Farther off the level counts in full, which misses more
callers; nearer by it hardly counts, and lines differ more."""

BEND: Final = 0.3
"""How the tail bends. Some hundred speakers tell little of it, and it decides among a million callers."""

WIDTH: Final = 0.4
"""The power of a probe's deviation that its way to the meeting grows with."""
# All three were chosen on speakers who were not fitted to, of 8 to 22, 0.25 to 0.45 and 0 to 0.75: they keep
# the rates in galleries of 50 and 100 callers, whatever the lines, and in generated ones of up to a million.

LEAST_SCORES: Final = 1000
"""Of strangers, that a fit takes."""

_USUAL: Final = 6  # scores that the level of a usual probe counts as; of 0 to 10, by galleries of 5 to 100
_LEAST: Final = 5  # scores; fewer say nothing
_UPPER: Final = 0.2  # of a probe's scores make its level,
_LEFT_OUT: Final = 0.02  # without the best of all, which may be the caller's own
_LEAST_WAY: Final = 3.0  # from the level to the meeting
_BENDS: Final = (1e-4, 20.0)  # what a fit may give, from exponential on
_FARTHEST: Final = 100.0  # that the logarithm of a rate counts, or it would be infinite

_NORMAL: Final = NormalDist()
_TENTH: Final = _NORMAL.inv_cdf(1.0 - SHARE)  # where a level lies: over it is a tenth of normal scores

# That no stranger can lie farther out is not known from some thousands.
_RAREST: Final = 1e-12


class Standing(NamedTuple):
    """A probe's scores with strangers: where the upper tenth of them begins, and their deviation (> 0)."""

    level: float
    deviation: float


@dataclass(frozen=True)
class ImpostorTail:
    """The distribution of a stranger's scores with one caller.

    start: where the tail begins; share: of the scores that lie beyond it.
    scale (> 0), bend (> 0): of the Gompertz distribution of the excess over `start`, whose survival is
        exp(-(exp(bend * excess / scale) - 1) / bend).
    spread (> 0): the deviation of the normal distribution that the scores below `start` have.
        All four count from the probe's level, in shares of the way to `meeting`.
    level, deviation (> 0): the standing of a usual probe, where none was measured.
    meeting: log ratio where the tails of all probes meet.
    """

    start: float = 0.0
    share: float = SHARE
    scale: float = 0.11
    bend: float = BEND
    spread: float = 0.27
    level: float = -0.5
    deviation: float = 4.5
    meeting: float = MEETING

    def numbers(self) -> dict[str, float]:
        """All fields, for a file."""
        return asdict(self)

    def fpir(self, llr: float, gallery_size: int, standing: Standing | None = None) -> float:
        """The expected false-positive identification rate, 0..1, were this log ratio the threshold.

        gallery_size: callers, >= 0. standing: of the probe; that of a usual one if None.
        """
        level, way = self._way(standing)
        one = self._beyond((llr - level) / way)
        return 1.0 if one >= 1.0 and gallery_size else -math.expm1(_size(gallery_size) * math.log1p(-one))

    def threshold_for(self, target_fpir: float, gallery_size: int, standing: Standing | None = None) -> float:
        """The log ratio whose `fpir` is the target, in 0..1 (both excluded); grows with the gallery."""
        if not 0.0 < target_fpir < 1.0:
            raise InvalidArgumentError(f"A target FPIR is a share between 0 and 1, not {target_fpir}")
        level, way = self._way(standing)
        one = -math.expm1(math.log1p(-target_fpir) / max(_size(gallery_size), 1))
        return level + way * self._place(one)

    def standing(self, scores: NDArray[np.floating]) -> Standing:
        """Of a probe's log ratios with a cohort, a sample of the gallery's callers; float[n].

        The fewer there are, the more it is that of a usual probe, and under five it is just that.
        """
        usual = Standing(self.level, self.deviation)
        return usual if len(scores) < _LEAST else _shrunk(standing(scores), len(scores), usual)

    def _way(self, standing: Standing | None) -> tuple[float, float]:
        """A probe's level, and how far it is from there to the meeting."""
        level, deviation = standing or (self.level, self.deviation)
        return level, _way(level, self.meeting) * (deviation / self.deviation) ** WIDTH

    def _beyond(self, place: float) -> float:
        """The share of scores at or over a place."""
        if place < self.start:
            return 1.0 - _NORMAL.cdf((place - self.start) / self.spread + _NORMAL.inv_cdf(1.0 - self.share))
        rate = min(self.bend * (place - self.start) / self.scale, _FARTHEST)
        return max(self.share * math.exp(-math.expm1(rate) / self.bend), _RAREST)

    def _place(self, share: float) -> float:
        """The inverse of `_beyond`."""
        if share > self.share:
            beyond = _NORMAL.inv_cdf(1.0 - share) - _NORMAL.inv_cdf(1.0 - self.share)
            return self.start + self.spread * beyond
        times = math.log(self.share / share)
        return self.start + self.scale / self.bend * math.log1p(self.bend * times)


def standing(scores: NDArray[np.floating]) -> Standing:
    """Of a probe's log ratios with a cohort, a sample of the gallery's callers, float[n], n >= 3.

    The level is the mean of their upper fifth without the best 2 %, and one at least, as these may be the
    caller's own; moved by what the mean of these ranks is off among normal scores (Blom 1958).
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < 3 or not np.isfinite(values).all():
        raise InvalidArgumentError(f"A standing takes three finite scores or more, not {values.size}")
    first, last, best, upper = _ranks(len(values))
    values = np.sort(values)[::-1]
    # In the place of the best what it is likely to be, or small cohorts would look narrow.
    others = np.append(values[1:], values[1:].mean() + best * values[1:].std(ddof=1))
    deviation = max(float(others.std(ddof=1)), 1e-6)
    return Standing(float(values[first:last].mean()) + (_TENTH - upper) * deviation, deviation)


@lru_cache(maxsize=64)
def _ranks(count: int) -> tuple[int, int, float, float]:
    """The ranks of a level, from 0 on, from the first to before the last; of normal scores the best, and the
    mean of these ranks."""
    first = max(1, round(_LEFT_OUT * count))
    last = max(first + 1, round(_UPPER * count))
    usual = [_NORMAL.inv_cdf((count - rank - 0.375) / (count + 0.25)) for rank in range(last)]
    return first, last, usual[0], float(np.mean(usual[first:]))


def fit_tail(
    scores: NDArray[np.floating],
    share: float = SHARE,
    *,
    meeting: float = MEETING,
    bend: float | None = BEND,
) -> ImpostorTail:
    """The tail of strangers' scores: float[probes, callers], a probe a row; NaN where there is no comparison.

    share: of the scores that the tail takes; smaller for large galleries, where there are enough of them.
    meeting: log ratio where the tails of all probes meet. bend: None to fit it too, to many voices.

    Raises:
        InvalidArgumentError: fewer than 1000 scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or np.isfinite(values).sum() < LEAST_SCORES:
        raise InvalidArgumentError(f"A tail is fitted to {LEAST_SCORES} scores of strangers or more")
    rows = [row[np.isfinite(row)] for row in values]
    found = np.array([standing(row) for row in rows])
    usual = Standing(float(found[:, 0].mean()), float(np.exp(np.log(found[:, 1]).mean())))
    parts = []
    for row, one in zip(rows, found, strict=True):
        level, deviation = _shrunk(Standing(*one), len(row), usual)
        parts.append((row - level) / _way(level, meeting) * (usual.deviation / deviation) ** WIDTH)
    places = np.concatenate(parts)
    middle, start = (float(np.quantile(places, one)) for one in (0.5, 1.0 - share))
    scale, bend = _gompertz(places[places > start] - start, bend)
    spread = max((start - middle) / _NORMAL.inv_cdf(1.0 - share), 1e-6)
    return ImpostorTail(start, share, scale, bend, spread, *usual, meeting)


def _gompertz(excesses: NDArray[np.float64], bend: float | None) -> tuple[float, float]:
    """Scale and, where it is not given, bend of the greatest likelihood; the bend within `_BENDS`."""
    from scipy import optimize  # fitting alone needs it

    mean = float(excesses.mean())
    bounds = (math.log(mean * 0.2), math.log(mean * 5.0))

    def best(bend: float) -> tuple[float, float]:
        """Minus the mean log likelihood, and the logarithm of the scale."""

        def cost(log_scale: float) -> float:
            steps = np.minimum(bend * excesses / math.exp(log_scale), _FARTHEST)
            return log_scale - float(steps.mean()) + float(np.expm1(steps).mean()) / bend

        found = optimize.minimize_scalar(cost, bounds=bounds, method="bounded")
        return float(found.fun), float(found.x)

    if bend is None:
        bend = float(optimize.minimize_scalar(lambda one: best(one)[0], bounds=_BENDS, method="bounded").x)
    return math.exp(best(bend)[1]), bend


def _shrunk(measured: Standing, count: int, usual: Standing) -> Standing:
    weight = count / (count + _USUAL)
    return Standing(
        weight * measured.level + (1.0 - weight) * usual.level,
        math.sqrt(weight * measured.deviation**2 + (1.0 - weight) * usual.deviation**2),
    )


def _way(level: float, meeting: float) -> float:
    return max(meeting - level, _LEAST_WAY)


def _size(gallery_size: int) -> int:
    if gallery_size < 0:
        raise InvalidArgumentError(f"A gallery has 0 callers or more, not {gallery_size}")
    return gallery_size
