"""Verification: every probe against every caller, one to one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import Counts, Interval, bootstrap_all, rule_of_three
from voiceprint.evaluation.curves import det_curve
from voiceprint.evaluation.report import Estimate, Verification
from voiceprint.evaluation.scoring import AffineCalibration, Scores
from voiceprint.evaluation.settings import Settings

LEAST_TO_CALIBRATE = 4
"""Speakers that it takes to fit a calibration on one half and have impostors in the other."""

OF_SCORES = "the scores"
OF_CALIBRATION = "an affine calibration of the scores, fitted on the other half of the speakers"

Indices = NDArray[np.int64]


class ScoredTrials:
    """The scores of all trials, with the speakers in them.

    matrix: float64[probes, callers] of all against all. owners: int64[probes], the caller of each.
    """

    def __init__(self, matrix: Scores, owners: Indices) -> None:
        own = np.zeros(matrix.shape, dtype=np.bool_)
        own[np.arange(len(owners)), owners] = True
        self.callers = matrix.shape[1]
        self.targets, self.impostors = matrix[own], matrix[~own]
        self.target_speakers = owners
        probes, self._impostor_callers = np.nonzero(~own)
        self._impostor_speakers = owners[probes]

    def weights(self, drawn: Counts) -> tuple[Counts, Counts]:
        """How often each target and each impostor trial counts where speakers are drawn so often.

        Two copies of one speaker are no impostors of each other.
        """
        return drawn[self.target_speakers], drawn[self._impostor_callers] * drawn[self._impostor_speakers]

    def within(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which targets and which impostor trials are of chosen speakers, bool[callers], alone."""
        return chosen[self.target_speakers], chosen[self._impostor_callers] & chosen[self._impostor_speakers]


def verify(scored: ScoredTrials, settings: Settings, *, calibrated: bool) -> Verification:
    """Measure the trials; calibrated: whether the scores are log-likelihood ratios."""
    trials = metrics.Trials(scored.targets, scored.impostors)
    llrs: _Llrs | None = None
    if calibrated:
        llrs = _Llrs(scored.targets, scored.impostors)
    elif scored.callers >= LEAST_TO_CALIBRATE:
        llrs = _cross_fitted(scored, settings.seed)

    def measure(drawn: Counts) -> list[float | None]:
        targets, impostors = scored.weights(drawn)
        if not targets.any() or not impostors.any():
            return [None] * 4
        return [*trials.measures(targets, impostors), None if llrs is None else llrs.cllr(targets, impostors)]

    values = measure(np.ones(scored.callers))
    intervals: list[Interval | None] = [None] * len(values)
    if settings.resamples:
        intervals = bootstrap_all(measure, scored.callers, resamples=settings.resamples, seed=settings.seed)
    intervals[0] = intervals[0] and rule_of_three(intervals[0], values[0] or 0.0, scored.callers)
    eer, min_dcf, min_cllr, cllr = (
        None if value is None else _estimate(value, interval)
        for value, interval in zip(values, intervals, strict=True)
    )
    assert eer is not None  # noqa: S101 - there are targets and impostors
    assert min_dcf is not None  # noqa: S101
    assert min_cllr is not None  # noqa: S101
    return Verification(
        targets=len(scored.targets),
        impostors=len(scored.impostors),
        eer=eer,
        min_dcf=min_dcf,
        min_cllr=min_cllr,
        cllr=cllr,
        cllr_of=OF_SCORES if calibrated else OF_CALIBRATION,
        det=det_curve(trials.det()),
    )


def _estimate(value: float, interval: Interval | None) -> Estimate:
    # Where no draw differs, as without any error, the draws say nothing about the range.
    return (
        Estimate(value) if interval is None or interval.low == interval.high else Estimate(value, *interval)
    )


class _Llrs:
    """Log-likelihood ratios of some of the trials, the others being NaN."""

    def __init__(self, targets: Scores, impostors: Scores) -> None:
        self._used = np.isfinite(targets), np.isfinite(impostors)
        self._llrs = targets[self._used[0]], impostors[self._used[1]]

    def cllr(self, targets: Counts, impostors: Counts) -> float | None:
        weights = targets[self._used[0]], impostors[self._used[1]]
        if not weights[0].any() or not weights[1].any():
            return None
        return metrics.cllr(*self._llrs, *weights)


def _cross_fitted(scored: ScoredTrials, seed: int) -> _Llrs:
    """Each half of the speakers calibrated by the other; trials between the halves are not used."""
    first = np.zeros(scored.callers, dtype=np.bool_)
    first[np.random.default_rng(seed).permutation(scored.callers)[: scored.callers // 2]] = True
    targets = np.full(len(scored.targets), np.nan)
    impostors = np.full(len(scored.impostors), np.nan)
    for half in (first, ~first):
        fitted_on, used_for = scored.within(half), scored.within(~half)
        calibration = AffineCalibration(scored.targets[fitted_on[0]], scored.impostors[fitted_on[1]])
        targets[used_for[0]] = calibration.llr(scored.targets[used_for[0]])
        impostors[used_for[1]] = calibration.llr(scored.impostors[used_for[1]])
    return _Llrs(targets, impostors)
