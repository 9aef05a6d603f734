"""Scores of a probe with the callers of one gallery, by what the gallery itself shows.

Three things of the gallery count, none of which is a constant of the package:

- its mean. Most of what two embeddings have in common is no voice but the population, the microphones and
  the lines; so `CENTERING` of the gallery's mean is subtracted from prints and probe, of plain and of
  augmented prints apart, as these are of other lines.
- how alike its callers are to each other: what a score means, and how often a stranger reaches it.
- how alike a probe is to all of them: noise on a line makes all voices more alike, so that part of a
  probe's lead is taken off (`LEVEL_WEIGHT`).

`python -m benchmarks.accuracy DATA --ablations` measures the effect of each constant, leaving one population
out. FNIR is at a true FPIR of 5 %, the geometric mean over lines and populations; as it ships, 14.2 % in
galleries of 10 callers or fewer and 21.8 % in those of 50.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.scoring.calibration import Calibration
from voiceprint.scoring.impostors import ImpostorStatistics, impostor_statistics
from voiceprint.scoring.projection import Projection, Vectors

Embeddings = NDArray[np.float32]

CENTERING: Final = 0.6
"""Share of the mean that is subtracted. In galleries of 10 the FNIR is 14.5 % with 0.45, 14.7 % with 0.75,
and 16 % with 0 and with 1, as the mean is partly each caller's own; with 0 the worst FPIR for 5 % wanted is
21 %. Galleries of 50 are alike from 0.6 to 1."""

PRIOR_PRINTS: Final = 10
"""Voiceprints that the mean of the fitted speakers counts as in that of the gallery. It moves little: none, 5
or 40 give an FNIR of 14.5, 14.0 and 14.3 % in galleries of 10."""

LEVEL_WEIGHT: Final = 0.5
"""Share of a probe's lead that is taken off. In galleries of 50 the FNIR is 23.8 % with 0, 22.1 % with 0.75,
and 23.5 % with 1, as a voice unlike all others has a low level too."""

LEVEL_CALLERS: Final = 20
"""Callers of the cohort for which half of that share is: the level among few is mostly chance. With 5 the
FNIR is 15.0 % in galleries of 10; with 80 it is 22.4 % in those of 50."""

UPPER_SHARE: Final = 0.2
"""Of the cohort's scores without the best, which may be the caller's own: their mean is the level. With 0.1
the FNIR is 21.2 % in galleries of 50, with 0.4 22.5 %, with 0.7 23.6 %."""

COHORT: Final = 300
"""Callers that show how alike strangers are, at most. Mean and deviation of so many maxima place a threshold
within 0.09 deviations, a fifth of an FPIR of 5 %; of a thousand, within a tenth, in ten times the time."""

MIN_CALLERS: Final = 5
"""Callers from which a gallery has statistics in a space without a prior."""


class CallerPrints(NamedTuple):
    """The prints of a caller: plain embeddings, float32[n, d], n >= 1, and augmented ones, float32[m, d]."""

    plain: Embeddings
    augmented: Embeddings


class _Side:
    """One kind of print of a cohort: coordinates before centering, and the caller of each."""

    def __init__(self, projection: Projection, prints: Sequence[Embeddings], prior: Vectors | None) -> None:
        self._projection = projection
        self.callers = np.flatnonzero([len(each) > 0 for each in prints])
        stacked = [each for each in prints if len(each)]
        counts = np.array([len(each) for each in stacked], dtype=np.int64)
        self._starts = np.cumsum(counts) - counts
        self.owners = np.repeat(self.callers, counts)
        self.coordinates = (
            projection.coordinates(np.concatenate(stacked))
            if stacked
            else np.empty((0, projection.dimension))
        )
        weight = 0 if prior is None else PRIOR_PRINTS
        self._total = self.coordinates.sum(axis=0)
        if prior is not None:
            self._total = self._total + weight * projection.coordinates(prior[None])[0]
        self._weight = weight + len(self.coordinates)

    def center(self, without: int | None = None) -> Vectors:
        """The part of the mean that is subtracted, float64[k]; as if one caller were not enrolled."""
        total, weight = self._total, self._weight
        if without is not None:
            own = self.coordinates[self.owners == without]
            total, weight = total - own.sum(axis=0), weight - len(own)
        return np.asarray(CENTERING * total / max(weight, 1))

    def models(self, center: Vectors) -> Vectors:
        """What probes of the callers are compared with, float64[len(callers), k]."""
        return _models(self._projection, self.coordinates, self._starts, center)


class GalleryScorer:
    """Scores of one gallery. Immutable: when callers come and go, a new one is made.

    projection: of the embedding space.
    cohort: callers of the gallery, all of them or a sample.
    calibration: by recordings of real traffic, see `voiceprint calibrate`; None is without.

    `statistics` is None where the gallery has too few callers to say what a score means; all log-likelihood
    ratios are then NaN, and callers should be ranked by their cosines.
    """

    def __init__(
        self,
        projection: Projection,
        cohort: Sequence[CallerPrints],
        calibration: Calibration | None = None,
    ) -> None:
        self.projection = projection
        self.calibration = calibration or Calibration()
        prior = projection.prior
        means = (None, None) if prior is None else (prior.mean, prior.augmented_mean)
        self._plain = _Side(projection, [one.plain for one in cohort], means[0])
        self._augmented = _Side(projection, [one.augmented for one in cohort], means[1])
        self._centers = self._plain.center(), self._augmented.center()
        self._models = self._plain.models(self._centers[0]), self._augmented.models(self._centers[1])
        self._size = len(cohort)
        self._level_weight = LEVEL_WEIGHT * self._size / (self._size + LEVEL_CALLERS)
        self.statistics: ImpostorStatistics | None = None
        self._mean_level = 0.0
        self._pairs = np.empty((0, 0))
        self._best = self._corrections = np.empty(0)
        if prior is not None or self._size >= MIN_CALLERS:
            self._observe(cohort)

    @classmethod
    def of_gallery(
        cls, projection: Projection, callers: Sequence[CallerPrints], calibration: Calibration | None = None
    ) -> GalleryScorer:
        """The scorer of a gallery that is in memory, of its first `COHORT` callers where there are more."""
        scorer = cls(projection, callers[:COHORT], calibration)
        if len(callers) > COHORT and scorer.statistics is not None:
            plain = np.concatenate([one.plain for one in callers])
            owners = np.repeat(np.arange(len(callers)), [len(one.plain) for one in callers])
            best = []
            for caller, one in enumerate(callers[:COHORT]):
                scores = scorer.rough_scores(one.plain[0], plain)
                best.append(scores[owners != caller].max())
            scorer.observe_rivals(np.array(best), len(callers) - 1)
        return scorer

    def calibrated(self, calibration: Calibration) -> GalleryScorer:
        """The same scorer with another calibration, which no statistics depend on."""
        if calibration == self.calibration:
            return self
        other = copy(self)
        other.calibration = calibration
        return other

    def _observe(self, cohort: Sequence[CallerPrints]) -> None:
        """Leave every caller out in turn, and score the prints as those of a stranger."""
        rows, owners = [], []
        for caller, one in enumerate(cohort):
            centers = self._plain.center(caller), self._augmented.center(caller)
            models = self._plain.models(centers[0]), self._augmented.models(centers[1])
            scores = self._compare(self.projection.coordinates(self._as_probes(one)), centers, models)
            scores[:, caller] = np.nan
            rows.append(scores)
            owners += [caller] * len(scores)
        if self._size < 2:
            self._set_statistics(self._best, 1)
            return
        self._pairs = np.concatenate(rows)
        levels = self._levels(self._pairs)
        self._mean_level = float(levels.mean())
        # The prints of one caller are one witness.
        counts = np.bincount(owners, minlength=self._size)
        corrections = self._level_weight * (levels - self._mean_level)
        self._corrections = np.bincount(owners, corrections, self._size) / counts
        self._best = np.bincount(owners, np.nanmax(self._pairs, axis=1), self._size) / counts
        self._set_statistics(self._best - self._corrections, self._size - 1)

    def _set_statistics(self, best: Vectors, others: int) -> None:
        prior = self.projection.prior
        pair_prior = None if prior is None else (prior.pair_mean, prior.pair_std)
        self.statistics = impostor_statistics(self._pairs, best, others, pair_prior)

    def observe_rivals(self, best: NDArray[np.float64], others: int) -> None:
        """Take the statistics of strangers from the whole gallery, of which the cohort is a sample.

        best: of each caller of the cohort, the greatest of `rough_scores` with prints of others, float64[n].
        others: callers of the gallery, less one.
        """
        # Rough scores know neither augmented prints nor means of several: by how much the full ones differ is
        # measured within the cohort.
        rough = np.full(self._size, -np.inf)
        for caller in range(self._size):
            own = self._plain.owners == caller
            scores = self._rough(self._plain.coordinates[own][:1], self._plain.coordinates[~own])
            rough[caller] = scores.max()
        offset = float((self._best - rough).mean())
        self._set_statistics(best + offset - self._corrections, others)

    def _as_probes(self, caller: CallerPrints) -> Embeddings:
        """The prints as a call gives embeddings: without noise, and with the low frequencies restored.

        Of telephone enrollment that is the augmented print.
        """
        prior = self.projection.prior
        if prior is None or len(caller.augmented) != len(caller.plain):
            return caller.plain
        by_telephone = (caller.augmented - caller.plain) @ prior.augmentation_axis < 0.0
        return np.where(by_telephone[:, None], caller.augmented, caller.plain)

    def _compare(
        self, probes: Vectors, centers: tuple[Vectors, Vectors], models: tuple[Vectors, Vectors]
    ) -> Vectors:
        """Scores of coordinates, float64[n, k], with the cohort, float64[n, callers]."""
        normalize, compare = self.projection.normalize, self.projection.compare
        scores = np.full((len(probes), self._size), -np.inf)
        for side, center, model in zip((self._plain, self._augmented), centers, models, strict=True):
            found = compare(normalize(probes - center), model)
            scores[:, side.callers] = np.maximum(scores[:, side.callers], found)
        return scores

    def _levels(self, scores: Vectors) -> Vectors:
        """How alike each probe is to the cohort: the mean of upper scores without the best, float64[n]."""
        ranked = -np.sort(-np.where(np.isnan(scores), -np.inf, scores), axis=1)
        there = np.isfinite(ranked).sum(axis=1)
        return np.array(
            [
                row[1 : 1 + max(1, round(UPPER_SHARE * count))].mean() if count > 1 else self._mean_level
                for row, count in zip(ranked, there, strict=True)
            ]
        )

    def llrs(self, probe: Embeddings, callers: Sequence[CallerPrints]) -> NDArray[np.float64]:
        """The natural log-likelihood ratio of each caller, float64[n]: this caller against a stranger.

        probe: float32[d]. Several prints of a caller are compared by their mean, plain and augmented ones
        apart, and the better score counts.

        Raises:
            InvalidArgumentError: another dimension.
        """
        return np.asarray(self.llrs_of_many(probe[None], callers)[0])

    def llrs_of_many(self, probes: Embeddings, callers: Sequence[CallerPrints]) -> NDArray[np.float64]:
        """`llrs` of every probe, float32[n, d]: float64[n, callers]."""
        if self.statistics is None:
            return np.full((len(probes), len(callers)), np.nan)
        coordinates = self.projection.coordinates(probes)
        normalize, compare = self.projection.normalize, self.projection.compare
        scores = np.full((len(probes), len(callers)), -np.inf)
        kinds = ([one.plain for one in callers], [one.augmented for one in callers])
        for prints, center in zip(kinds, self._centers, strict=True):
            side = _Side(self.projection, prints, None)
            if len(side.callers):
                found = compare(normalize(coordinates - center), side.models(center))
                scores[:, side.callers] = np.maximum(scores[:, side.callers], found)
        return self._as_llrs(scores - self._correction(coordinates)[:, None])

    def _correction(self, coordinates: Vectors) -> Vectors:
        """What is taken off the scores of each probe, float64[n]."""
        if self._size < 3:
            return np.zeros(len(coordinates))
        levels = self._levels(self._compare(coordinates, self._centers, self._models))
        return np.asarray(self._level_weight * (levels - self._mean_level))

    def _as_llrs(self, scores: Vectors) -> Vectors:
        assert self.statistics is not None  # noqa: S101  callers look
        known, calibration = self.statistics, self.calibration
        return np.asarray(
            calibration.scale * ((scores - known.pair_mean) / known.pair_std - calibration.offset)
        )

    def _as_score(self, llr: float) -> float:
        assert self.statistics is not None  # noqa: S101
        deviations = llr / self.calibration.scale + self.calibration.offset
        return self.statistics.pair_mean + self.statistics.pair_std * deviations

    def fpir(self, llr: float, gallery_size: int) -> float:
        """The expected false-positive identification rate, 0..1, were this llr the threshold."""
        assert self.statistics is not None  # noqa: S101
        return self.statistics.fpir(
            self.calibration.as_observed(self._as_score(llr), self.statistics), gallery_size
        )

    def threshold(self, target_fpir: float, gallery_size: int) -> float:
        """The llr from which to accept, for so large a false-positive identification rate."""
        assert self.statistics is not None  # noqa: S101
        score = self.calibration.as_expected(
            self.statistics.threshold(target_fpir, gallery_size), self.statistics
        )
        return float(self._as_llrs(np.array(score)))

    # For the shortlist of a large gallery, of which only plain embeddings are in memory

    def query(self, probe: Embeddings) -> Embeddings:
        """The unit vector, float32[d], to search an index of plain embeddings with.

        It is the gradient of the score at the print that the probe makes one expect.
        """
        coordinates = self.projection.normalize(self.projection.coordinates(probe[None]) - self._centers[0])[
            0
        ]
        gradient = self.projection.transform @ (self.projection.speaker_share * coordinates)
        return np.asarray(gradient / max(float(np.linalg.norm(gradient)), 1e-12), dtype=np.float32)

    def rough_scores(self, probe: Embeddings, embeddings: Embeddings) -> NDArray[np.float64]:
        """Scores of plain prints, float32[n, d], each as if it were all that is known of a caller."""
        probes, prints = (
            self.projection.coordinates(probe[None]),
            self.projection.rough_coordinates(embeddings),
        )
        return np.asarray(self._rough(probes, prints)[0])

    def _rough(self, probes: Vectors, prints: Vectors) -> Vectors:
        normalize, center = self.projection.normalize, self._centers[0]
        return self.projection.compare(normalize(probes - center), normalize(prints - center))


def _models(
    projection: Projection, coordinates: Vectors, starts: NDArray[np.int64], center: Vectors
) -> Vectors:
    """The normalized mean of each caller's normalized prints."""
    if not len(starts):
        return np.empty((0, coordinates.shape[1]))
    return projection.normalize(np.add.reduceat(projection.normalize(coordinates - center), starts, axis=0))
