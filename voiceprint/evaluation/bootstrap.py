"""Bootstrap confidence intervals over speakers.

The scores of one speaker are correlated, so the bootstrap draws speakers, not trials: drawing trials would
give intervals several times too narrow (Bolle, Ratha and Pankanti, "Error analysis of pattern recognition
systems: the subsets bootstrap", CVIU 93, 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

Counts = NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap(
    statistics: Callable[[Counts], Sequence[float | None]],
    speakers: int,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Interval | None]:
    """The percentile intervals of several statistics over speakers drawn with replacement.

    Args:
        statistics: of the number of times each speaker was drawn, float64[speakers], whole numbers whose sum
            is `speakers`; a statistic is None where the draw does not define it (no impostors, say).
        speakers: 1 or more.
        resamples: number of draws, 1 or more.
        confidence: between 0 and 1.
        seed: equal seeds give equal intervals.

    Returns:
        The interval of each statistic; None where under half of the draws define it.
    """
    if speakers < 1 or resamples < 1 or not 0.0 < confidence < 1.0:
        raise InvalidArgumentError(
            "bootstrap needs a speaker, a resample, and a confidence between 0 and 1: "
            f"not {speakers}, {resamples} and {confidence}"
        )
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(speakers, size=speakers), minlength=speakers)
        draws.append(statistics(drawn.astype(np.float64)))
    tails = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    intervals: list[Interval | None] = []
    for values in zip(*draws, strict=True):
        found = [value for value in values if value is not None]
        enough = len(found) * 2 >= resamples
        intervals.append(Interval(*map(float, np.quantile(found, tails))) if enough else None)
    return intervals


def rule_of_three(interval: Interval | None, value: float, speakers: int) -> Interval | None:
    """The interval of a rate; by the rule of 3 where it is 0 or 1, as no resampling widens that interval.

    Where none of n independent speakers errs, the rate lies under 3 / n with 95 % confidence
    (ISO/IEC 19795-1:2021, "rule of 3").
    """
    if value == 0.0:
        return Interval(0.0, min(1.0, 3.0 / speakers))
    if value == 1.0:
        return Interval(max(0.0, 1.0 - 3.0 / speakers), 1.0)
    return interval
