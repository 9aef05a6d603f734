"""Verification: one-to-one trials of every probe with every caller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import Counts, Interval, bootstrap, rule_of_three
from voiceprint.evaluation.curves import thin
from voiceprint.evaluation.report import Estimate, Verification
from voiceprint.evaluation.scoring import AffineCalibration, Scores
from voiceprint.evaluation.settings import Settings

LEAST_TO_CALIBRATE = 4
"""Speakers for a calibration fitted on one half, with impostors in the other half."""

OF_SCORES = "the scores"
OF_CALIBRATION = "an affine calibration of the scores, fitted on the other half of the speakers"

Indices = NDArray[np.int64]


class ScoredTrials:
    """The scores of all trials, with their speakers.

    matrix: float64[probes, callers]. owners: int64[probes], the column of each probe's speaker.
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
        """The weights of target and impostor trials, for the number of times each speaker was drawn.

        Two copies of one speaker are no impostors of each other.
        """
        return drawn[self.target_speakers], drawn[self._impostor_callers] * drawn[self._impostor_speakers]

    def within(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of the target and impostor trials between chosen speakers, bool[callers]."""
        return chosen[self.target_speakers], chosen[self._impostor_callers] & chosen[self._impostor_speakers]


def verify(scored: ScoredTrials, settings: Settings, *, calibrated: bool) -> Verification:
    """The error rates of trials; calibrated: whether the scores are log-likelihood ratios."""
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

    det = trials.det()
    values = measure(np.ones(scored.callers))
    intervals: list[Interval | None] = [None] * len(values)
    if settings.resamples:
        intervals = bootstrap(measure, scored.callers, resamples=settings.resamples, seed=settings.seed)
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
        det=thin(det.fmr, det.fnmr),
    )


def _estimate(value: float, interval: Interval | None) -> Estimate:
    # Equal draws, as without any error, define no interval.
    if interval is None or interval.low == interval.high:
        return Estimate(value)
    return Estimate(value, *interval)


class _Llrs:
    """Log-likelihood ratios of the trials; NaN excludes a trial."""

    def __init__(self, targets: Scores, impostors: Scores) -> None:
        self._used = np.isfinite(targets), np.isfinite(impostors)
        self._llrs = targets[self._used[0]], impostors[self._used[1]]

    def cllr(self, targets: Counts, impostors: Counts) -> float | None:
        weights = targets[self._used[0]], impostors[self._used[1]]
        if not weights[0].any() or not weights[1].any():
            return None
        return metrics.cllr(*self._llrs, *weights)


def _cross_fitted(scored: ScoredTrials, seed: int) -> _Llrs:
    """Calibrate each half of the speakers by the other, and exclude trials between the halves."""
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
