"""Curves and histograms of a report, in few points."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from voiceprint.evaluation.metrics import Floats

BINS: Final = 50
_STEP: Final = 0.03  # standard deviations
_EDGE: Final = 1e-5


def probit(shares: Sequence[float] | Floats) -> Floats:
    """Quantiles of the standard normal distribution, float64[n], of shares clipped to 1e-5..1 - 1e-5."""
    quantile = NormalDist().inv_cdf
    return np.array([quantile(min(max(float(share), _EDGE), 1.0 - _EDGE)) for share in shares])


def thin(xs: Floats, ys: Floats) -> tuple[tuple[float, float], ...]:
    """The points of a curve of shares that are distinct on probit axes, with both ends."""
    if not len(xs):
        return ()
    # A point equal to both neighbors in one coordinate lies on a straight line between corners.
    inner = ((xs[1:-1] == xs[:-2]) & (xs[1:-1] == xs[2:])) | ((ys[1:-1] == ys[:-2]) & (ys[1:-1] == ys[2:]))
    corners = np.concatenate([[True], ~inner, [True]])[: len(xs)]
    xs, ys = xs[corners], ys[corners]
    cells = np.floor(np.stack([probit(xs), probit(ys)], axis=1) / _STEP)
    distinct = np.append(True, (np.diff(cells, axis=0) != 0).any(axis=1))
    distinct[-1] = True
    return tuple((float(x), float(y)) for x, y in zip(xs[distinct], ys[distinct], strict=True))


def histogram(scores: Sequence[Floats]) -> tuple[float, float, list[tuple[float, ...]]]:
    """(low, high, shares of each kind of scores in `BINS` bins from the lowest to the highest score)."""
    joined = np.concatenate(scores)
    low, high = float(joined.min()), float(joined.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [tuple((np.histogram(kind, edges)[0] / max(1, len(kind))).tolist()) for kind in scores]
    return low, high, shares
