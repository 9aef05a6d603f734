"""Curves and histograms in few enough points to be kept in a report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from voiceprint.evaluation.metrics import Det, Floats

BINS: Final = 50
_STEP: Final = 0.03  # standard deviations
_EDGE: Final = 1e-5


def probit(shares: Sequence[float] | Floats) -> Floats:
    """The standard normal's quantiles, float64[n], of shares in 0..1; the ends are moved in by 1e-5."""
    quantile = NormalDist().inv_cdf
    return np.array([quantile(min(max(float(share), _EDGE), 1.0 - _EDGE)) for share in shares])


def thinned(xs: Floats, ys: Floats) -> tuple[tuple[float, float], ...]:
    """The points of a curve of shares that can be told apart on probit axes, ends included."""
    if not len(xs):
        return ()
    # What is equal to both neighbors in one coordinate lies on a straight line between corners.
    inner = ((xs[1:-1] == xs[:-2]) & (xs[1:-1] == xs[2:])) | ((ys[1:-1] == ys[:-2]) & (ys[1:-1] == ys[2:]))
    corners = np.concatenate([[True], ~inner, [True]])[: len(xs)]
    xs, ys = xs[corners], ys[corners]
    cells = np.floor(np.stack([probit(xs), probit(ys)], axis=1) / _STEP)
    kept = np.append(True, (np.diff(cells, axis=0) != 0).any(axis=1))
    kept[-1] = True
    return tuple((float(x), float(y)) for x, y in zip(xs[kept], ys[kept], strict=True))


def det_curve(det: Det) -> tuple[tuple[float, float], ...]:
    """(FMR, FNMR) as the threshold rises."""
    return thinned(det.fmr, det.fnmr)


def histogram(scores: Sequence[Floats]) -> tuple[float, float, list[tuple[float, ...]]]:
    """(low, high, shares): of each kind of scores, in `BINS` bins from the lowest to the highest of all."""
    there = [some for some in scores if len(some)]
    low, high = min(float(some.min()) for some in there), max(float(some.max()) for some in there)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [tuple((np.histogram(some, edges)[0] / max(1, len(some))).tolist()) for some in scores]
    return low, high, shares
