"""The numbers of a `Calibration`, fitted to searches of labeled calls, and what they are worth."""

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
"""Wanted FPIRs that figures are given for."""

DRAWS: Final = 5
"""Galleries that are drawn of a set of speakers, and as many of the other half of it."""

PRIOR_SPEAKERS: Final = PRIOR_STRANGERS
"""Speakers that the package's scale and offset count as. Doubled, the calibration of 60 speakers goes 60 %
instead of 75 % of the way to theirs."""

_NORMAL: Final = NormalDist()
_LEAST_FPIR: Final = 1e-15
_PRIOR_POINTS: Final = 50  # quantiles that stand for the prior's scores of each kind

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Enrollment(NamedTuple):
    """What a speaker can be enrolled from: the call, by number, its print, and the place among the probes."""

    call: int
    prints: CallerPrints
    place: int


class Calls(NamedTuple):
    """Labeled calls: of each piece its embedding, float32[n, d], the speaker and the call, int64[n].

    enrollments: of each speaker, one or more.
    """

    probes: Embeddings
    speakers: Indices
    calls: Indices
    enrollments: dict[int, list[Enrollment]]


class Searches(NamedTuple):
    """Searches of one gallery.

    deviations: of the scores from the mean of different callers, float64[n, callers]. columns: of each
    search, the column of its speaker; -1 for a stranger. speakers: int64[n].
    """

    deviations: Floats
    columns: Indices
    speakers: Indices
    statistics: ImpostorStatistics

    @property
    def size(self) -> int:
        """Callers in the gallery."""
        return int(self.deviations.shape[1])

    def scores(self, deviations: Floats) -> Floats:
        """In units of the statistics."""
        return self.statistics.pair_mean + self.statistics.pair_std * deviations

    def threshold(self, target_fpir: float, calibration: Calibration) -> float:
        """The deviations from which to accept."""
        score = self.statistics.threshold(target_fpir, self.size)
        return self.statistics.deviations(calibration.to_traffic_score(score, self.statistics))


@dataclass(frozen=True)
class TargetRates:
    """FPIR and FNIR got, 0..1, at the thresholds for a wanted FPIR."""

    target: float
    fpir: float
    fnir: float


@dataclass(frozen=True)
class Measured:
    """What the scores did with speakers who were not fitted to. cllr: bits, 1 for scores that say nothing."""

    cllr: float
    at_target: tuple[TargetRates, ...]


def deviates(scores: Floats, statistics: ImpostorStatistics, gallery_size: int) -> Floats:
    """Normal deviates of best scores, float64[n].

    Those of strangers have mean 0 and deviation 1 where the statistics hold for them.
    """
    rates = [statistics.fpir(float(score), gallery_size) for score in scores]
    return np.array([-_NORMAL.inv_cdf(min(max(rate, _LEAST_FPIR), 1.0 - _LEAST_FPIR)) for rate in rates])


def search(calls: Calls, speakers: Sequence[int], projection: Projection, seed: int) -> list[Searches]:
    """Searches of galleries of half of the speakers, drawn `DRAWS` times, and of the other half.

    A speaker is enrolled from one call and probed with the others; of a speaker with one call alone, with
    its other pieces.

    Raises:
        InvalidArgumentError: the galleries are too small to say what a score means.
    """
    chance = np.random.default_rng(seed)
    halves = [
        half for _ in range(DRAWS) for half in np.array_split(chance.permutation(np.array(speakers)), 2)
    ]
    return [_search(calls, speakers, sorted(half.tolist()), projection, chance) for half in halves]


def _search(
    calls: Calls,
    speakers: Sequence[int],
    known: list[int],
    projection: Projection,
    chance: np.random.Generator,
) -> Searches:
    enrolled = [calls.enrollments[one][chance.integers(len(calls.enrollments[one]))] for one in known]
    columns = np.full(len(calls.speakers), -1)
    used = np.isin(calls.speakers, speakers)
    for column, (speaker, enrollment) in enumerate(zip(known, enrolled, strict=True)):
        own = calls.speakers == speaker
        columns[own] = column
        other = own & (calls.calls != enrollment.call)
        used &= ~own | other if other.any() else np.arange(len(own)) != enrollment.place
    gallery = [enrollment.prints for enrollment in enrolled]
    scorer = GalleryScorer.of_gallery(projection, gallery)
    if scorer.statistics is None:
        raise InvalidArgumentError(
            f"Galleries of {len(gallery)} callers say nothing of the scores of {projection.space}: calibrate "
            "with more speakers"
        )
    package = scorer.calibration
    llrs = scorer.llrs_of_many(calls.probes[used], gallery)
    return Searches(
        llrs / package.scale + package.offset, columns[used], calls.speakers[used], scorer.statistics
    )


def fit(searched: Sequence[Searches], space: str) -> Calibration:
    """The calibration of searches; each speaker counts as one, whatever the calls."""
    strangers = _strangers(searched)
    scale, offset = _scale_and_offset(searched)
    return Calibration(
        scale=scale,
        offset=offset,
        stranger_shift=strangers.mean,
        stranger_spread=strangers.std,
        space=space,
    )


def _strangers(searched: Sequence[Searches]) -> Component:
    parts = []
    for one in searched:
        best = one.scores(one.deviations[one.columns < 0].max(axis=1))
        parts.append(deviates(best, one.statistics, one.size))
    owners = np.concatenate([one.speakers[one.columns < 0] for one in searched])
    return stranger_component(np.concatenate(parts), _alike(owners))


def _scale_and_offset(searched: Sequence[Searches]) -> tuple[float, float]:
    targets, impostors = zip(*(_trials(one) for one in searched), strict=True)
    owners = np.concatenate([one.speakers[one.columns >= 0] for one in searched])
    count = len(np.unique(owners))
    # The package's calibration is right for normal ratios whose variance is twice their mean; those of
    # impostors are at SCALE * -OFFSET by what deviations are.
    mean = SCALE * OFFSET
    quantiles = np.array([_NORMAL.inv_cdf((n + 0.5) / _PRIOR_POINTS) for n in range(_PRIOR_POINTS)])
    expected = quantiles * (2.0 * mean) ** 0.5 + mean
    parts = [np.concatenate(targets), np.concatenate(impostors), *(np.array([1, -1])[:, None] * expected)]
    parts[2:] = [part / SCALE + OFFSET for part in parts[2:]]
    alike = [_alike(owners), np.ones(len(parts[1])), np.ones(_PRIOR_POINTS), np.ones(_PRIOR_POINTS)]
    shares = [count, count, PRIOR_SPEAKERS, PRIOR_SPEAKERS]
    weights = [
        0.5 * share / (count + PRIOR_SPEAKERS) * weight / weight.sum()
        for share, weight in zip(shares, alike, strict=True)
    ]
    labels = np.repeat([1.0, 0.0, 1.0, 0.0], [len(part) for part in parts])
    scale, offset = logistic_regression(np.concatenate(parts), labels, np.concatenate(weights))
    return scale, -offset / scale


def measure(pairs: Sequence[tuple[Calibration, Sequence[Searches]]]) -> Measured:
    """What calibrations do with searches of other speakers than they were fitted to."""
    targets, impostors = [], []
    accepted: list[list[Floats]] = [[] for _ in TARGETS]
    missed: list[list[Floats]] = [[] for _ in TARGETS]
    for calibration, searched in pairs:
        for one in searched:
            own, others = _trials(one)
            targets.append(calibration.scale * (own - calibration.offset))
            impostors.append(calibration.scale * (others - calibration.offset))
            best, known = one.deviations.max(axis=1), one.columns >= 0
            right = known & (one.deviations.argmax(axis=1) == one.columns)
            for place, target in enumerate(TARGETS):
                over = best >= one.threshold(target, calibration)
                accepted[place].append(over[~known])
                missed[place].append(~(over & right)[known])
    return Measured(
        metrics.cllr(np.concatenate(targets), np.concatenate(impostors)),
        tuple(
            TargetRates(target, float(np.concatenate(named).mean()), float(np.concatenate(lost).mean()))
            for target, named, lost in zip(TARGETS, accepted, missed, strict=True)
        ),
    )


def _trials(one: Searches) -> tuple[Floats, Floats]:
    """Deviations of searches with their own caller, and with others."""
    rows = np.flatnonzero(one.columns >= 0)
    own = np.zeros(one.deviations.shape, dtype=np.bool_)
    own[rows, one.columns[rows]] = True
    return one.deviations[own], one.deviations[~own]


def _alike(owners: Indices) -> Floats:
    """Weights by which those of each owner count as one."""
    _, inverse, counts = np.unique(owners, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse])
