"""A mixture of two normal components, strangers and known callers, for the best scores of unlabeled calls.

Values are normal deviates: a gallery expects mean 0 and deviation 1 of strangers, which is the prior of the
stranger component. The component of known callers lies above. Expectation maximization (EM) from several
starts finds the greatest posterior. Calls without known callers, or without strangers, leave one component
empty, at its prior.

Source: Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", JRSS B 39
(1977); priors as in Fraley and Raftery, "Bayesian regularization for normal mixture estimation" (2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PRIOR_STRANGERS: Final = 20
"""Strangers that the prior counts as. It is a quarter of the weight among 60 strangers; with 0, a few known
callers on poor lines pass for strangers (tests/evaluation/test_mixture.py)."""

PRIOR_KNOWN: Final = 10
_KNOWN: Final = (3.0, 1.2)
"""Calls that the prior of known callers counts as, and its mean and deviation: on four populations and seven
lines the means are 0.6 to 4.3, the deviations 0.5 to 1.5."""

_MIN_DISTANCE: Final = 1.0  # of the means, in deviations of the strangers
_STARTS: Final = (0.02, 0.2, 0.5, 0.8, 0.98)  # shares of known callers
_PSEUDO: Final = 1.0  # calls added to each component, so that no share is 0
_STEPS: Final = 500

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Component:
    """A normal distribution."""

    mean: float
    std: float

    def log_density(self, values: Floats) -> Floats:
        """The log density without its constant, float64[n]."""
        return np.asarray(-0.5 * ((values - self.mean) / self.std) ** 2 - math.log(self.std))


@dataclass(frozen=True)
class Mixture:
    """The components, and the share of known callers among the calls, 0..1."""

    strangers: Component
    known: Component
    known_share: float

    def stranger_probability(self, values: Floats) -> Floats:
        """The probability of each call that its caller is a stranger, float64[n]."""
        return 1.0 - _known_probability(self._log_joint(values))

    def _log_joint(self, values: Floats) -> Floats:
        share = self.known_share
        return np.stack(
            [
                math.log1p(-share) + self.strangers.log_density(values),
                math.log(share) + self.known.log_density(values),
            ]
        )

    def log_posterior(self, values: Floats) -> float:
        """The log posterior density of the parameters, up to a constant."""
        prior = _log_prior(self.strangers, PRIOR_STRANGERS, 0.0, 1.0)
        prior += _log_prior(self.known, PRIOR_KNOWN, *_KNOWN)
        prior += _PSEUDO * (math.log(self.known_share) + math.log1p(-self.known_share))
        return prior + float(np.logaddexp.reduce(self._log_joint(values), axis=0).sum())


def stranger_component(values: Floats, weights: Floats | None = None) -> Component:
    """Mean and deviation of strangers, with the prior.

    values: normal deviates, float64[n]. weights: of the values; None for 1.
    """
    return _shrunk(values, np.ones(len(values)) if weights is None else weights, PRIOR_STRANGERS, 0.0, 1.0)


def fit_mixture(values: Floats) -> Mixture:
    """The mixture with the greatest posterior; values: normal deviates of calls, float64[n]."""
    fits = [_maximize(values, share) for share in _STARTS]
    return max(fits, key=lambda fit: fit.log_posterior(values))


def _maximize(values: Floats, share: float) -> Mixture:
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    known = (order >= (1.0 - share) * len(values)).astype(np.float64)
    found = _update(values, known)
    for _ in range(_STEPS):
        latest = _update(values, _known_probability(found._log_joint(values)))
        converged = abs(latest.known_share - found.known_share) < 1e-7
        found = latest
        if converged:
            break
    return found


def _update(values: Floats, known: Floats) -> Mixture:
    """The maximization step; known: the probability of each call to be of a known caller."""
    strangers = stranger_component(values, 1.0 - known)
    enrolled = _shrunk(values, known, PRIOR_KNOWN, *_KNOWN)
    lowest = strangers.mean + _MIN_DISTANCE * strangers.std
    if enrolled.mean < lowest:
        enrolled = Component(lowest, enrolled.std)
    share = (float(known.sum()) + _PSEUDO) / (len(values) + 2.0 * _PSEUDO)
    return Mixture(strangers, enrolled, share)


def _shrunk(values: Floats, weights: Floats, prior: float, mean: float, std: float) -> Component:
    total = prior + float(weights.sum())
    middle = (prior * mean + float(weights @ values)) / total
    # Around the shrunk mean, so that the deviation grows where prior and values disagree.
    square = prior * (std**2 + (middle - mean) ** 2) + float(weights @ (values - middle) ** 2)
    return Component(middle, math.sqrt(square / total))


def _known_probability(joint: Floats) -> Floats:
    return np.asarray(np.exp(joint[1] - np.logaddexp(joint[0], joint[1])))


def _log_prior(component: Component, weight: float, mean: float, std: float) -> float:
    """The log likelihood of `weight` values with this mean and deviation."""
    square = std**2 + (component.mean - mean) ** 2
    return -weight * (math.log(component.std) + 0.5 * square / component.std**2)
