"""Runs of equal values, and unions of intervals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]


def runs(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Start and stop indices of runs of equal values; values: [n], n >= 1."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate(([0], changes)), np.concatenate((changes, [len(values)]))


def true_runs(flags: Flags, min_length: int = 1) -> list[tuple[int, int]]:
    """Start and stop of each run of True that is at least `min_length` long."""
    if not flags.any():
        return []
    starts, stops = runs(flags)
    selected = flags[starts] & (stops - starts >= min_length)
    return list(zip(starts[selected].tolist(), stops[selected].tolist(), strict=True))


def union(intervals: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Intervals (start, stop) in order, with those that overlap or touch merged."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)
