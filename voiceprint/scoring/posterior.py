"""Posterior probabilities of callers: Bayes' rule on the log-likelihood ratios of a gallery."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.errors import InvalidArgumentError


def probabilities(llrs: ArrayLike, gallery_size: int) -> NDArray[np.float64]:
    """The probability that each of these callers spoke, float64[n] in 0..1; the sum is at most 1.

    The prior: half of the calls are of strangers, the other half evenly of all N callers. By Bayes' rule
    P(i) = L_i / (N + sum of all L_j), with L the likelihood ratios against a stranger.

    llrs: calibrated natural log-likelihood ratios, float[n], of the likeliest callers; the ratios of all
        others must be negligible. gallery_size: N, the callers searched, >= n.

    Raises:
        InvalidArgumentError: more ratios than callers, or one that is not finite.
    """
    ratios = np.asarray(llrs, dtype=np.float64)
    if ratios.ndim != 1 or len(ratios) > gallery_size or not np.isfinite(ratios).all():
        raise InvalidArgumentError(
            f"Probabilities take finite log ratios of some of {gallery_size} callers, float[n], not "
            f"{ratios.dtype}{[*ratios.shape]}"
        )
    if not len(ratios):
        return ratios
    stranger = math.log(gallery_size)
    largest = max(stranger, float(ratios.max()))
    weights = np.exp(ratios - largest)
    return np.asarray(weights / (math.exp(stranger - largest) + weights.sum()))
