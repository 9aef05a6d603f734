"""The factors of the quality score, 0..1, as functions of the measures.

Each curve lists points (measure, factor), is linear between them and constant beyond. Measured, with the
margins on both sides, in research/quality.md.
"""

from __future__ import annotations

from typing import Final

import numpy as np

Points = tuple[tuple[float, float], ...]

SPECTRAL_VARIATION_DB: Final[Points] = ((3.2, 0.0), (4.4, 1.0))
BAND_OCCUPANCY: Final[Points] = ((0.30, 0.0), (0.37, 1.0))
MODULATION_DB: Final[Points] = ((2.5, 0.0), (4.5, 1.0))
HARMONIC_STATIONARITY: Final[Points] = ((0.12, 1.0), (0.26, 0.0))
NET_SPEECH_S: Final[Points] = ((0.3, 0.0), (1.0, 0.75), (3.0, 1.0))
SNR_DB: Final[Points] = ((6.0, 0.0), (12.0, 0.6), (16.0, 1.0))
CLIPPING: Final[Points] = ((0.005, 1.0), (0.025, 0.0))
# In 16 bits the embedding at -66 dBFS has a cosine of 0.999 with that at -50; at -70, 0.996; at -74, 0.989.
LEVEL_DBFS: Final[Points] = ((-72.0, 0.0), (-62.0, 1.0))
BANDWIDTH_HZ: Final[Points] = ((1000.0, 0.3), (3000.0, 0.9), (7000.0, 1.0))


def interpolate(value: float, points: Points) -> float:
    """The factor at `value`, 0..1."""
    return float(np.interp(value, [x for x, _ in points], [y for _, y in points]))


def saturation(points: Points) -> float:
    """The worst value whose factor is 1."""
    return next(x for x, y in (points if points[0][1] < 1.0 else points[::-1]) if y == 1.0)
