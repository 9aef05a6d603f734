"""Fit a `Calibration` to searches of labeled calls, and measure its error rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation import metrics
from voiceprint.evaluation.mixture import PRIOR_STRANGERS, Component, stranger_component
from voiceprint.evaluation.scoring import Embeddings, logistic_regression
from voiceprint.scoring import Calibration, CallerPrints, GalleryScorer, ImpostorStatistics, Projection
from voiceprint.scoring.calibration import OFFSET, SCALE

TARGETS: Final = (0.01, 0.05)
"""Target FPIRs of the measurements."""

DRAWS: Final = 5
"""Random splits of the speakers in two galleries."""

PRIOR_SPEAKERS: Final = PRIOR_STRANGERS
"""Speakers that the package's scale and offset count as: with 60 speakers a quarter of the weight; 40 % if
doubled."""

_NORMAL: Final = NormalDist()
_MIN_FPIR: Final = 1e-15
_PRIOR_POINTS: Final = 50  # quantiles of the prior's target and impostor scores

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Enrollment(NamedTuple):
    """A possible enrollment of a speaker: the number of the call, its prints, and its index in the probes."""

    call: int
    prints: CallerPrints
    probe: int


class Calls(NamedTuple):
    """Labeled calls: the embedding of each piece, float32[n, d], its speaker and its call, int64[n].

    enrollments: one or more of each speaker.
    """

    probes: Embeddings
    speakers: Indices
    calls: Indices
    enrollments: dict[int, list[Enrollment]]


class Searches(NamedTuple):
    """Searches of one gallery.

    deviations: scores in deviations from the mean of different callers, float64[n, callers].
    columns: the column of the speaker of each search, int64[n]; -1 for a stranger. speakers: int64[n].
    """

    deviations: Floats
    columns: Indices
    speakers: Indices
    statistics: ImpostorStatistics

    @property
    def size(self) -> int:
        """Callers in the gallery."""
        return int(self.deviations.shape[1])

    def threshold(self, target_fpir: float, calibration: Calibration) -> float:
        """The deviations from which to accept at a target FPIR."""
        score = self.statistics.threshold(target_fpir, self.size)
        return self.statistics.deviations(calibration.to_traffic_score(score, self.statistics))


@dataclass(frozen=True)
class TargetRates:
    """Measured FPIR and FNIR, 0..1, at the thresholds for a target FPIR."""

    target: float
    fpir: float
    fnir: float


@dataclass(frozen=True)
class Measured:
    """Error rates of speakers outside the fit. cllr: bits; 1 for scores without information."""

    cllr: float
    at_target: tuple[TargetRates, ...]


def deviates(scores: Floats, statistics: ImpostorStatistics, gallery_size: int) -> Floats:
    """Deviates of best scores, float64[n], normal ones where the tail of the statistics is normal.

    Those of strangers have mean 0 and deviation 1 if the statistics hold for them.
    """
    rates = [statistics.fpir(float(score), gallery_size) for score in scores]
    return np.array([statistics.deviate(min(max(rate, _MIN_FPIR), 1.0 - _MIN_FPIR)) for rate in rates])


def search(calls: Calls, speakers: Sequence[int], projection: Projection, seed: int) -> list[Searches]:
    """Searches of galleries of each half of the speakers, for `DRAWS` random splits.

    A speaker is enrolled from one call and probed with the others; a speaker with a single call is probed
    with its other pieces.

    Raises:
        InvalidArgumentError: the galleries are too small for log-likelihood ratios.
    """
    rng = np.random.default_rng(seed)
    halves = [half for _ in range(DRAWS) for half in np.array_split(rng.permutation(np.array(speakers)), 2)]
    return [_search(calls, speakers, sorted(half.tolist()), projection, rng) for half in halves]


def _search(
    calls: Calls,
    speakers: Sequence[int],
    callers: list[int],
    projection: Projection,
    rng: np.random.Generator,
) -> Searches:
    enrolled = [calls.enrollments[one][rng.integers(len(calls.enrollments[one]))] for one in callers]
    columns = np.full(len(calls.speakers), -1)
    used = np.isin(calls.speakers, speakers)
    for column, (speaker, enrollment) in enumerate(zip(callers, enrolled, strict=True)):
        own = calls.speakers == speaker
        columns[own] = column
        other = own & (calls.calls != enrollment.call)
        used &= ~own | other if other.any() else np.arange(len(own)) != enrollment.probe
    gallery = [enrollment.prints for enrollment in enrolled]
    scorer = GalleryScorer.of_gallery(projection, gallery)
    if scorer.statistics is None:
        raise InvalidArgumentError(
            f"Galleries of {len(gallery)} callers are too small for {projection.space}: calibrate "
            "with more speakers"
        )
    deviations = scorer.calibration.deviations(scorer.llrs_of_many(calls.probes[used], gallery))
    return Searches(deviations, columns[used], calls.speakers[used], scorer.statistics)


def fit(searched: Sequence[Searches], space: str) -> Calibration:
    """The calibration of searches; every speaker has the same weight."""
    strangers = _fit_strangers(searched)
    scale, offset = _fit_scale_and_offset(searched)
    return Calibration(
        scale=scale,
        offset=offset,
        stranger_shift=strangers.mean,
        stranger_spread=strangers.std,
        space=space,
    )


def _fit_strangers(searched: Sequence[Searches]) -> Component:
    parts = []
    for one in searched:
        best = one.statistics.score(one.deviations[one.columns < 0].max(axis=1))
        parts.append(deviates(best, one.statistics, one.size))
    owners = np.concatenate([one.speakers[one.columns < 0] for one in searched])
    return stranger_component(np.concatenate(parts), _speaker_weights(owners))


def _fit_scale_and_offset(searched: Sequence[Searches]) -> tuple[float, float]:
    targets, impostors = zip(*(_trials(one) for one in searched), strict=True)
    owners = np.concatenate([one.speakers[one.columns >= 0] for one in searched])
    count = len(np.unique(owners))
    # The prior is points of the package's calibration, which holds for normal ratios whose variance is twice
    # their mean; impostors have deviation 0 in the mean, and so the ratio SCALE * -OFFSET.
    mean = SCALE * OFFSET
    quantiles = np.array([_NORMAL.inv_cdf((n + 0.5) / _PRIOR_POINTS) for n in range(_PRIOR_POINTS)])
    expected = quantiles * (2.0 * mean) ** 0.5 + mean
    parts = [np.concatenate(targets), np.concatenate(impostors), *(np.array([1, -1])[:, None] * expected)]
    parts[2:] = [part / SCALE + OFFSET for part in parts[2:]]
    within = [
        _speaker_weights(owners),
        np.ones(len(parts[1])),
        np.ones(_PRIOR_POINTS),
        np.ones(_PRIOR_POINTS),
    ]
    counts = [count, count, PRIOR_SPEAKERS, PRIOR_SPEAKERS]
    weights = [
        0.5 * speakers / (count + PRIOR_SPEAKERS) * weight / weight.sum()
        for speakers, weight in zip(counts, within, strict=True)
    ]
    labels = np.repeat([1.0, 0.0, 1.0, 0.0], [len(part) for part in parts])
    scale, offset = logistic_regression(np.concatenate(parts), labels, np.concatenate(weights))
    return scale, -offset / scale


def measure(pairs: Sequence[tuple[Calibration, Sequence[Searches]]]) -> Measured:
    """The error rates of calibrations in searches of speakers outside their fit."""
    targets, impostors = [], []
    accepted: list[list[Floats]] = [[] for _ in TARGETS]
    missed: list[list[Floats]] = [[] for _ in TARGETS]
    for calibration, searched in pairs:
        for one in searched:
            own, others = _trials(one)
            targets.append(calibration.llr(own))
            impostors.append(calibration.llr(others))
            best, known = one.deviations.max(axis=1), one.columns >= 0
            right = known & (one.deviations.argmax(axis=1) == one.columns)
            for place, target in enumerate(TARGETS):
                over = best >= one.threshold(target, calibration)
                accepted[place].append(over[~known])
                missed[place].append(~(over & right)[known])
    return Measured(
        metrics.cllr(np.concatenate(targets), np.concatenate(impostors)),
        tuple(
            TargetRates(target, float(np.concatenate(false).mean()), float(np.concatenate(misses).mean()))
            for target, false, misses in zip(TARGETS, accepted, missed, strict=True)
        ),
    )


def _trials(one: Searches) -> tuple[Floats, Floats]:
    """Deviations of searches with their own caller, and with other callers."""
    rows = np.flatnonzero(one.columns >= 0)
    own = np.zeros(one.deviations.shape, dtype=np.bool_)
    own[rows, one.columns[rows]] = True
    return one.deviations[own], one.deviations[~own]


def _speaker_weights(owners: Indices) -> Floats:
    """Weights whose sum is 1 over the searches of each speaker."""
    _, inverse, counts = np.unique(owners, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse])
