"""Error rates, costs and calibration losses of scores.

A trial is accepted when its score is at or above the threshold. Terms are those of ISO/IEC 19795-1:2021: FMR
and FNMR of one-to-one comparisons, FPIR and FNIR of one-to-many searches. Arrays are float64[n] of finite
scores, n >= 1; every function raises `InvalidArgumentError` for anything else. A weight is the number of
times that a trial counts (>= 0, not all zero), as in `voiceprint.evaluation.bootstrap`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.errors import InvalidArgumentError

Floats = NDArray[np.float64]
_Weights = ArrayLike | None


class Det(NamedTuple):
    """The errors at every threshold, float64[k] each, from the lowest threshold to +inf.

    fmr: share of the impostors' scores at or above the threshold; falls from 1 to 0.
    fnmr: share of the targets' scores below it; rises from 0 to 1.
    """

    threshold: Floats
    fmr: Floats
    fnmr: Floats


class Measures(NamedTuple):
    """The result of `Trials.measures`."""

    eer: float
    min_dcf: float
    min_cllr: float


class Trials:
    """Scores of one-to-one comparisons, sorted once for measures with many different weights.

    targets: same-speaker scores, float[n]. impostors: different-speaker scores, float[m].
    """

    def __init__(self, targets: ArrayLike, impostors: ArrayLike) -> None:
        own, other = _scores(targets, "targets"), _scores(impostors, "impostors")
        scores = np.concatenate([own, other])
        self._targets = len(own)
        self._order = np.argsort(scores, kind="stable")
        ascending = scores[self._order]
        self._ends = np.flatnonzero(np.append(np.diff(ascending) > 0, True))
        self._distinct = ascending[self._ends]

    def det(self, target_weights: _Weights = None, impostor_weights: _Weights = None) -> Det:
        """The errors at every distinct score as the threshold, and above all scores."""
        return self._det(*self._shares(target_weights, impostor_weights))

    def eer(self, target_weights: _Weights = None, impostor_weights: _Weights = None) -> float:
        """Equal error rate, 0..1: the intersection of FMR and FNMR, interpolated between points of the DET.

        Source: ISO/IEC 19795-1:2021, with the interpolation of the trapezoidal ROC.
        """
        return _eer(self.det(target_weights, impostor_weights))

    def min_dcf(
        self,
        p_target: float = 0.01,
        cost_miss: float = 1.0,
        cost_false_alarm: float = 1.0,
        *,
        target_weights: _Weights = None,
        impostor_weights: _Weights = None,
    ) -> float:
        """Least detection cost over all thresholds, 0..1; 1 is the cost of a decision without the score.

        min over t of (C_miss P FNMR(t) + C_fa (1 - P) FMR(t)) / min(C_miss P, C_fa (1 - P)).
        Source: NIST Speaker Recognition Evaluation plans (2016 and after), "normalized" cost.
        p_target: P, prior probability of a target, in 0..1 without the ends. Costs: above 0.
        """
        if not (0.0 < p_target < 1.0 and cost_miss > 0.0 and cost_false_alarm > 0.0):
            raise InvalidArgumentError("p_target must lie between 0 and 1, and costs above 0")
        det = self.det(target_weights, impostor_weights)
        return _min_dcf(det, cost_miss * p_target, cost_false_alarm * (1.0 - p_target))

    def min_cllr(self, target_weights: _Weights = None, impostor_weights: _Weights = None) -> float:
        """The least Cllr, bits in 0..1, of any increasing function of the scores.

        The optimal posteriors of the targets, at equal priors, are the isotonic regression of the labels
        on the scores, by pooling adjacent violators.
        Source: Brümmer and du Preez, "Application-independent evaluation of speaker detection",
        Computer Speech and Language 20 (2006).
        """
        return _min_cllr(*self._shares(target_weights, impostor_weights))

    def measures(self, target_weights: _Weights = None, impostor_weights: _Weights = None) -> Measures:
        """`eer`, `min_dcf` at 0.01, and `min_cllr`, in little more time than one alone."""
        own, other = self._shares(target_weights, impostor_weights)
        det = self._det(own, other)
        return Measures(_eer(det), _min_dcf(det, 0.01, 0.99), _min_cllr(own, other))

    def _det(self, own: Floats, other: Floats) -> Det:
        return Det(np.append(self._distinct, np.inf), 1.0 - _below(other), _below(own))

    def _shares(self, target_weights: _Weights, impostor_weights: _Weights) -> tuple[Floats, Floats]:
        """The shares of the targets and of the impostors at each distinct score."""
        total = len(self._order)
        shares = []
        for values, first, last in (
            (target_weights, 0, self._targets),
            (impostor_weights, self._targets, total),
        ):
            weights = np.zeros(total)
            weights[first:last] = _weights(values, last - first)
            running = np.cumsum(weights[self._order])[self._ends]
            shares.append(np.diff(running, prepend=0.0) / running[-1])
        return shares[0], shares[1]


def det(targets: ArrayLike, impostors: ArrayLike) -> Det:
    """`Trials.det` of scores."""
    return Trials(targets, impostors).det()


def eer(targets: ArrayLike, impostors: ArrayLike) -> float:
    """`Trials.eer` of scores."""
    return Trials(targets, impostors).eer()


def min_dcf(
    targets: ArrayLike,
    impostors: ArrayLike,
    p_target: float = 0.01,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
) -> float:
    """`Trials.min_dcf` of scores."""
    return Trials(targets, impostors).min_dcf(p_target, cost_miss, cost_false_alarm)


def min_cllr(targets: ArrayLike, impostors: ArrayLike) -> float:
    """`Trials.min_cllr` of scores."""
    return Trials(targets, impostors).min_cllr()


def cllr(
    target_llrs: ArrayLike,
    impostor_llrs: ArrayLike,
    target_weights: _Weights = None,
    impostor_weights: _Weights = None,
) -> float:
    """Cost of log-likelihood ratios, bits, 0 and up; 1 is the cost of ratios that are all 0.

    1/2 (mean over targets of log2(1 + e^-s) + mean over impostors of log2(1 + e^s)).
    Source: see `Trials.min_cllr`.
    target_llrs, impostor_llrs: natural logarithms of p(score | same) / p(score | different).
    """
    own, other = _scores(target_llrs, "target_llrs"), _scores(impostor_llrs, "impostor_llrs")
    missed = np.average(np.logaddexp(0.0, -own), weights=_weights(target_weights, len(own)))
    accepted = np.average(np.logaddexp(0.0, other), weights=_weights(impostor_weights, len(other)))
    return float((missed + accepted) / 2.0 / np.log(2.0))


class Searches(NamedTuple):
    """The results of searches of a gallery by enrolled and unknown speakers.

    true: the score with the own caller, of searches by enrolled speakers, float64[n].
    first: whether it exceeds the scores of all other callers, bool[n]: a tie is not rank 1.
    best: the highest score, of searches by unknown speakers, float64[m].
    """

    true: Floats
    first: NDArray[np.bool_]
    best: Floats


def searches(scores: ArrayLike, owners: ArrayLike) -> Searches:
    """The results of the searches in a matrix of scores.

    Args:
        scores: float[searches, callers].
        owners: int[searches], the column of the speaker; -1 for an unknown speaker.

    Raises:
        InvalidArgumentError: the shapes differ, an owner is no column, or a score is not finite.
    """
    matrix, columns = np.asarray(scores, dtype=np.float64), np.asarray(owners)
    if matrix.ndim != 2 or not matrix.size or columns.shape != matrix.shape[:1]:
        raise InvalidArgumentError(
            f"scores of shape {matrix.shape} and owners of shape {columns.shape} are not "
            "[searches, callers] and [searches]"
        )
    if columns.dtype.kind != "i" or columns.min() < -1 or columns.max() >= matrix.shape[1]:
        raise InvalidArgumentError(f"owners must be integers from -1 to {matrix.shape[1] - 1}")
    if not np.isfinite(matrix).all():
        raise InvalidArgumentError("scores must be finite")
    known = np.flatnonzero(columns >= 0)
    true = matrix[known, columns[known]]
    others = matrix[known]  # a copy
    others[np.arange(len(known)), columns[known]] = -np.inf
    return Searches(true, true > others.max(axis=1, initial=-np.inf), matrix[columns < 0].max(axis=1))


def rank_one(first: ArrayLike, weights: _Weights = None) -> float:
    """True-positive identification rate at rank 1 without a threshold, 0..1, of `Searches.first`."""
    hits = np.asarray(first)
    if hits.ndim != 1 or not hits.size or hits.dtype != np.bool_:
        raise InvalidArgumentError("first must be bool[n], n >= 1")
    return float(np.average(hits, weights=_weights(weights, len(hits))))


def fpir(best: ArrayLike, threshold: float, weights: _Weights = None) -> float:
    """False-positive identification rate, 0..1: share of searches by unknown speakers that name a caller.

    best: `Searches.best`. Source: ISO/IEC 19795-1:2021.
    """
    scores = _scores(best, "best")
    return float(np.average(scores >= threshold, weights=_weights(weights, len(scores))))


def fnir(true: ArrayLike, first: ArrayLike, threshold: float, weights: _Weights = None) -> float:
    """False-negative identification rate, 0..1: share of searches by enrolled speakers that miss them.

    A miss: another caller scores as high or higher, or the true one is below the threshold.
    true, first: of `Searches`. Source: ISO/IEC 19795-1:2021, at rank 1.
    """
    scores, hits = _scores(true, "true"), np.asarray(first)
    if hits.shape != scores.shape or hits.dtype != np.bool_:
        raise InvalidArgumentError("first must be bool[n], of the length of true")
    return float(np.average(~hits | (scores < threshold), weights=_weights(weights, len(scores))))


def threshold_at_fpir(best: ArrayLike, target: float, weights: _Weights = None) -> float:
    """The least threshold whose measured FPIR is at most `target`.

    With fewer than 1 / target searches the threshold is above all scores.
    best: `Searches.best`. target: in 0..1.
    """
    if not 0.0 <= target <= 1.0:
        raise InvalidArgumentError(f"an FPIR is from 0 to 1, not {target}")
    scores = _scores(best, "best")
    counts = _weights(weights, len(scores))
    order = np.argsort(-scores, kind="stable")
    descending, reached = scores[order], np.cumsum(counts[order])
    ends = np.flatnonzero(np.append(np.diff(descending) < 0, True))
    allowed = reached[ends] <= target * reached[-1] * (1.0 + 1e-12)
    refused = int(allowed.sum())  # index of the highest score that must not be accepted
    if refused == len(ends):
        return float(descending[-1])
    return float(np.nextafter(descending[ends[refused]], np.inf))


def _scores(values: ArrayLike, name: str) -> Floats:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name} must be numbers: {error}") from error
    if scores.ndim != 1 or not scores.size:
        raise InvalidArgumentError(f"{name} must be float[n], n >= 1, not of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise InvalidArgumentError(f"{name} must be finite")
    return scores


def _weights(values: _Weights, count: int) -> Floats:
    if values is None:
        return np.ones(count)
    weights = np.asarray(values, dtype=np.float64)
    if weights.shape != (count,) or not (weights >= 0.0).all() or not 0.0 < weights.sum() < np.inf:
        raise InvalidArgumentError(f"weights must be {count} numbers from 0, not all of them 0")
    return weights


def _eer(det: Det) -> float:
    _, fmr, fnmr = det
    after = int(np.argmax(fnmr >= fmr))  # the first point is (1, 0), the last (0, 1)
    before = after - 1
    gap = fmr[before] - fnmr[before]
    rise = gap + fnmr[after] - fmr[after]
    return float(fnmr[before] + (fnmr[after] - fnmr[before]) * gap / rise)


def _min_dcf(det: Det, miss: float, false_alarm: float) -> float:
    return float((miss * det.fnmr + false_alarm * det.fmr).min() / min(miss, false_alarm))


def _min_cllr(own: Floats, other: Floats) -> float:
    cost = 0.0
    for target, impostor in _pooled(own, other):
        # Posterior p = target / (target + impostor), llr = log(target / impostor).
        if target > 0.0 and impostor > 0.0:
            cost += target * np.log2(1.0 + impostor / target)
            cost += impostor * np.log2(1.0 + target / impostor)
    return float(min(cost / 2.0, 1.0))


def _below(shares: Floats) -> Floats:
    """The share below each score, and below +inf, float64[k + 1] in 0..1."""
    running = np.cumsum(shares)[:-1]
    # Rounding, as no share is so small: 1 - 1e-16 would count as an error.
    running[running > 1.0 - 1e-12] = 1.0
    return np.concatenate([[0.0], running, [1.0]])


def _pooled(own: Floats, other: Floats) -> list[list[float]]:
    """Blocks (target share, impostor share) whose ratios rise, by pooling adjacent violators."""
    # Pool runs of one kind first, which never split: the loop below then has few iterations.
    kind = np.where(other == 0.0, 1, np.where(own == 0.0, 0, 2))
    used = (own > 0.0) | (other > 0.0)
    own, other, kind = own[used], other[used], kind[used]
    starts = np.flatnonzero(np.append(True, (np.diff(kind) != 0) | (kind[1:] == 2)))
    blocks: list[list[float]] = []
    for target, impostor in zip(np.add.reduceat(own, starts), np.add.reduceat(other, starts), strict=True):
        block: list[Any] = [float(target), float(impostor)]
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            target_before, impostor_before = blocks.pop()
            block = [block[0] + target_before, block[1] + impostor_before]
        blocks.append(block)
    return blocks
