"""How probable is it that a caller spoke? Bayes' rule on the log-likelihood ratios of a gallery."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.errors import InvalidArgumentError


def probabilities(llrs: ArrayLike, gallery_size: int) -> NDArray[np.float64]:
    """The probability that each of these callers spoke, float64[n] in 0..1, together at most 1.

    Half of the calls are taken to be of strangers, and of the others all N callers to make as many, so that
    by Bayes' rule P(i) = L_i / (N + sum of all L_j), L being the likelihood ratios against a stranger.

    llrs: calibrated natural log-likelihood ratios, float[n], of the likeliest callers: those who are left
        out must be so unlikely that they add nothing. gallery_size: N, all who were searched, >= n.

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
    most = max(stranger, float(ratios.max()))
    weights = np.exp(ratios - most)
    return np.asarray(weights / (math.exp(stranger - most) + weights.sum()))
