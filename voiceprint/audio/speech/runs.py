"""Runs of equal values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]


def runs(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First places of runs of equal values, and the places after them."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate(([0], changes)), np.concatenate((changes, [len(values)]))


def long_runs(flags: Flags, least: int) -> list[tuple[int, int]]:
    """Runs of at least so many set flags."""
    if not flags.any():
        return []
    starts, stops = runs(flags)
    wanted = flags[starts] & (stops - starts >= least)
    return list(zip(starts[wanted].tolist(), stops[wanted].tolist(), strict=True))
