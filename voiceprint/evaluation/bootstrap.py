"""Confidence intervals of what was measured on some speakers, as a sample of all.

The scores of one speaker go up and down together, so it is the speakers that are drawn anew, not the
trials: drawing trials would give intervals several times too narrow (Bolle, Ratha and Pankanti,
"Error analysis of pattern recognition systems: the subsets bootstrap", CVIU 93, 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

Counts = NDArray[np.float64]


class Interval(NamedTuple):
    """A range that holds the true value with the confidence asked for."""

    low: float
    high: float


def bootstrap(
    statistic: Callable[[Counts], float | None],
    speakers: int,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """The percentile interval of a statistic over speakers drawn with replacement.

    Args:
        statistic: of how often each speaker was drawn, float64[speakers] of whole numbers that sum up
            to `speakers`; None where the draw does not define it (it has no impostor, say).
        speakers: how many there are, 1 or more.
        resamples: how many draws, 1 or more.
        confidence: between 0 and 1.
        seed: the same one gives the same interval.

    Returns:
        The interval; None where under half of the draws define the statistic.
    """
    return bootstrap_all(
        lambda drawn: [statistic(drawn)],
        speakers,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )[0]


def bootstrap_all(
    statistics: Callable[[Counts], Sequence[float | None]],
    speakers: int,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Interval | None]:
    """`bootstrap` of several statistics of the same draws, which come together in the same order."""
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
    """The interval of a rate without an error, or without a success, which no draw can widen.

    Where none of n independent speakers errs, the rate lies under 3 / n with 95 % confidence
    (ISO/IEC 19795-1:2021, "rule of 3").
    """
    if value == 0.0:
        return Interval(0.0, min(1.0, 3.0 / speakers))
    if value == 1.0:
        return Interval(max(0.0, 1.0 - 3.0 / speakers), 1.0)
    return interval
