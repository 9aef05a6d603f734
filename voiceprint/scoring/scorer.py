"""Scores of a probe with the callers of one gallery, relative to statistics of that gallery.

Three statistics of the gallery replace constants of the package:

- its mean. Population, microphones and lines explain most of what two embeddings have in common, so
  `CENTERING` of the gallery's mean is subtracted from prints and probe, separately for plain and augmented
  prints, which come from different lines.
- the similarity of its callers to each other: the meaning of a score, and how often a stranger reaches it.
- the similarity of a probe to all of its callers: noise on a line makes all voices more alike, so part of a
  probe's excess over the mean is subtracted (`LEVEL_WEIGHT`).

`python -m benchmarks.accuracy DATA --ablations` measures the effect of each constant, leaving one population
out. FNIR is at a true FPIR of 5 %, the geometric mean over lines and populations; with the constants below
14.2 % in galleries of 10 callers or fewer and 21.8 % in those of 50.
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
and 16 % with 0 and with 1, as the mean is partly each caller's own; with 0 the worst FPIR at a target of 5 %
is 21 %. In galleries of 50, values from 0.6 to 1 differ little."""

PRIOR_PRINTS: Final = 10
"""Voiceprints that the mean of the fitted speakers counts as in that of the gallery. Its effect is small:
with 0, 5 or 40 the FNIR is 14.5, 14.0 and 14.3 % in galleries of 10."""

LEVEL_WEIGHT: Final = 0.5
"""Share of a probe's level over the mean level that is subtracted. In galleries of 50 the FNIR is 23.8 % with
0, 22.1 % with 0.75, and 23.5 % with 1, as a voice unlike all others has a low level too."""

LEVEL_CALLERS: Final = 20
"""Cohort size at which half of `LEVEL_WEIGHT` applies: the level among few callers is mostly chance. With 5
the FNIR is 15.0 % in galleries of 10; with 80 it is 22.4 % in those of 50."""

UPPER_SHARE: Final = 0.2
"""Share of a probe's highest cohort scores whose mean is its level, without the best, which may be the
caller's own. With 0.1 the FNIR is 21.2 % in galleries of 50, with 0.4 22.5 %, with 0.7 23.6 %."""

COHORT: Final = 300
"""Most callers in a cohort. Mean and deviation of 300 maxima place a threshold within 0.09 deviations, a
fifth of an FPIR of 5 %; of 1,000, within a tenth, in ten times the time."""

MIN_CALLERS: Final = 5
"""Callers from which a gallery has statistics in a space without a prior."""


class CallerPrints(NamedTuple):
    """The prints of a caller: plain embeddings, float32[n, d], n >= 1, and augmented ones, float32[m, d]."""

    plain: Embeddings
    augmented: Embeddings


class _ProjectedPrints:
    """The plain, or the augmented, prints of several callers, projected.

    prints: float32[n, d] of each caller; n may be 0. prior_mean: float64[d], of the fitted speakers.
    callers: indices of the callers with a print. projected: float64[prints, k]. owners: the caller of each.
    """

    def __init__(
        self, projection: Projection, prints: Sequence[Embeddings], prior_mean: Vectors | None
    ) -> None:
        self._projection = projection
        self.callers = np.flatnonzero([len(each) > 0 for each in prints])
        stacked = [each for each in prints if len(each)]
        counts = np.array([len(each) for each in stacked], dtype=np.int64)
        self._starts = np.cumsum(counts) - counts
        self.owners = np.repeat(self.callers, counts)
        self.projected = (
            projection.project(np.concatenate(stacked)) if stacked else np.empty((0, projection.dimension))
        )
        self._total, self._weight = self.projected.sum(axis=0), len(self.projected)
        if prior_mean is not None:
            self._total = self._total + PRIOR_PRINTS * projection.project(prior_mean[None])[0]
            self._weight += PRIOR_PRINTS

    def center(self, without: int | None = None) -> Vectors:
        """The part of the mean that is subtracted, float64[k]; `without` leaves a caller out of the mean."""
        total, weight = self._total, self._weight
        if without is not None:
            own = self.projected[self.owners == without]
            total, weight = total - own.sum(axis=0), weight - len(own)
        return np.asarray(CENTERING * total / max(weight, 1))

    def models(self, center: Vectors) -> Vectors:
        """The normalized mean of each caller's normalized prints, float64[len(callers), k]."""
        normalize = self._projection.normalize
        if not len(self._starts):
            return np.empty((0, self.projected.shape[1]))
        return normalize(np.add.reduceat(normalize(self.projected - center), self._starts, axis=0))


class GalleryScorer:
    """Scores of one gallery. Create a new scorer when the gallery changes.

    projection: of the embedding space.
    cohort: callers of the gallery, all of them or a sample.
    calibration: as fitted by `voiceprint calibrate`; None for the package's.

    `statistics` is None where the gallery has too few callers for statistics; all log-likelihood ratios are
    then NaN, and callers should be ranked by their cosines.
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
        self._plain = _ProjectedPrints(projection, [caller.plain for caller in cohort], means[0])
        self._augmented = _ProjectedPrints(projection, [caller.augmented for caller in cohort], means[1])
        self._centers = self._plain.center(), self._augmented.center()
        self._models = self._plain.models(self._centers[0]), self._augmented.models(self._centers[1])
        self._size = len(cohort)
        self._level_weight = LEVEL_WEIGHT * self._size / (self._size + LEVEL_CALLERS)
        self.statistics: ImpostorStatistics | None = None
        self._mean_level = 0.0
        self._pairs = np.empty((0, 0))
        self._maxima = self._corrections = self._left_out = np.empty(0)
        if prior is not None or self._size >= MIN_CALLERS:
            self._compute_statistics(cohort)

    @classmethod
    def of_gallery(
        cls, projection: Projection, callers: Sequence[CallerPrints], calibration: Calibration | None = None
    ) -> GalleryScorer:
        """The scorer of a gallery in memory, with its first `COHORT` callers as the cohort."""
        scorer = cls(projection, callers[:COHORT], calibration)
        if len(callers) > COHORT and scorer.statistics is not None:
            plain = np.concatenate([caller.plain for caller in callers])
            owners = np.repeat(np.arange(len(callers)), [len(caller.plain) for caller in callers])
            maxima = []
            for index, caller in enumerate(callers[:COHORT]):
                scores = scorer.approximate_scores(caller.plain[0], plain)
                maxima.append(scores[owners != index].max())
            scorer.use_gallery_maxima(np.array(maxima), len(callers) - 1)
        return scorer

    def with_calibration(self, calibration: Calibration) -> GalleryScorer:
        """This scorer with another calibration; its statistics do not depend on the calibration."""
        if calibration == self.calibration:
            return self
        other = copy(self)
        other.calibration = calibration
        return other

    def _compute_statistics(self, cohort: Sequence[CallerPrints]) -> None:
        """Leave out every caller in turn, and score the caller's prints as those of a stranger."""
        if self._size < 2:
            self._set_statistics(self._maxima, 1)
            return
        rows, owners = [], []
        for index, caller in enumerate(cohort):
            centers = self._plain.center(index), self._augmented.center(index)
            models = self._plain.models(centers[0]), self._augmented.models(centers[1])
            scores = self._compare(self.projection.project(self.as_probes(caller)), centers, models)
            scores[:, index] = np.nan
            rows.append(scores)
            owners += [index] * len(scores)
        self._pairs = np.concatenate(rows)
        levels = self._levels(self._pairs)
        self._mean_level = float(levels.mean())
        # Average over the prints of a caller: they are not independent.
        counts = np.bincount(owners, minlength=self._size)
        corrections = self._level_weight * (levels - self._mean_level)
        self._corrections = np.bincount(owners, corrections, self._size) / counts
        best = np.nanmax(self._pairs, axis=1)
        self._maxima = np.bincount(owners, best, self._size) / counts
        within = 0.0
        if self.projection.prior is None:
            # A stranger calls with one print: means of several deviate less. The constants of a prior were
            # measured with these means.
            deviations = (best - corrections) - (self._maxima - self._corrections)[owners]
            within = float(np.mean(np.bincount(owners, deviations**2, self._size) / counts))
        self._set_statistics(self._maxima - self._corrections, self._size - 1, within)

    def _set_statistics(self, maxima: Vectors, others: int, within: float = 0.0) -> None:
        self._left_out = maxima
        prior = self.projection.prior
        pair_prior = None if prior is None else (prior.pair_mean, prior.pair_std)
        self.statistics = impostor_statistics(self._pairs, maxima, others, pair_prior, within)

    def use_gallery_maxima(self, maxima: NDArray[np.float64], others: int) -> None:
        """Compute the statistics from the whole gallery, of which the cohort is a sample.

        maxima: the greatest of `approximate_scores` of each caller of the cohort with prints of others,
            float64[n]. others: callers of the gallery, less one.
        """
        # Approximate scores ignore augmented prints and average no prints: correct them by their mean
        # difference from the full scores within the cohort.
        approximate = np.full(self._size, -np.inf)
        for index in range(self._size):
            own = self._plain.owners == index
            scores = self._compare_plain(self._plain.projected[own][:1], self._plain.projected[~own])
            approximate[index] = scores.max()
        offset = float((self._maxima - approximate).mean())
        self._set_statistics(maxima + offset - self._corrections, others)

    def as_probes(self, caller: CallerPrints) -> Embeddings:
        """The prints as probes of the caller would be: without noise, low frequencies restored.

        For telephone enrollment that is the augmented print.
        """
        prior = self.projection.prior
        if prior is None or len(caller.augmented) != len(caller.plain):
            return caller.plain
        by_telephone = (caller.augmented - caller.plain) @ prior.augmentation_axis < 0.0
        return np.where(by_telephone[:, None], caller.augmented, caller.plain)

    def _compare(
        self, probes: Vectors, centers: tuple[Vectors, Vectors], models: tuple[Vectors, Vectors]
    ) -> Vectors:
        """Scores of projected probes, float64[n, k], with the cohort, float64[n, callers]."""
        scores = np.full((len(probes), self._size), -np.inf)
        for prints, center, model in zip((self._plain, self._augmented), centers, models, strict=True):
            self._raise_scores(scores, probes, prints.callers, center, model)
        return scores

    def _raise_scores(
        self, scores: Vectors, probes: Vectors, callers: NDArray[np.int64], center: Vectors, models: Vectors
    ) -> None:
        """Raise the scores of these callers to those with their models, where these are higher."""
        found = self.projection.compare(self.projection.normalize(probes - center), models)
        scores[:, callers] = np.maximum(scores[:, callers], found)

    def _levels(self, scores: Vectors) -> Vectors:
        """The similarity of each probe to the cohort: the mean of `UPPER_SHARE` of its scores, float64[n]."""
        ranked = -np.sort(-np.where(np.isnan(scores), -np.inf, scores), axis=1)
        counts = np.isfinite(ranked).sum(axis=1)
        return np.array(
            [
                row[1 : 1 + max(1, round(UPPER_SHARE * count))].mean() if count > 1 else self._mean_level
                for row, count in zip(ranked, counts, strict=True)
            ]
        )

    def llrs(self, probe: Embeddings, callers: Sequence[CallerPrints]) -> NDArray[np.float64]:
        """The natural log-likelihood ratio of each caller against a stranger, float64[n].

        probe: float32[d]. The plain prints of a caller are averaged, and so are the augmented ones; the
        better of the two scores counts.

        Raises:
            InvalidArgumentError: another dimension.
        """
        return np.asarray(self.llrs_of_many(probe[None], callers)[0])

    def llrs_of_many(self, probes: Embeddings, callers: Sequence[CallerPrints]) -> NDArray[np.float64]:
        """`llrs` of every probe, float32[n, d]: float64[n, callers]."""
        if self.statistics is None:
            return np.full((len(probes), len(callers)), np.nan)
        projected = self.projection.project(probes)
        scores = np.full((len(probes), len(callers)), -np.inf)
        kinds = ([caller.plain for caller in callers], [caller.augmented for caller in callers])
        for kind, center in zip(kinds, self._centers, strict=True):
            prints = _ProjectedPrints(self.projection, kind, None)
            if len(prints.callers):
                self._raise_scores(scores, projected, prints.callers, center, prints.models(center))
        return self._to_llrs(scores - self._correction(projected)[:, None])

    def _correction(self, probes: Vectors) -> Vectors:
        """The part of each projected probe's level that is subtracted from its scores, float64[n]."""
        if self._size < 3:
            return np.zeros(len(probes))
        levels = self._levels(self._compare(probes, self._centers, self._models))
        return np.asarray(self._level_weight * (levels - self._mean_level))

    @property
    def _required_statistics(self) -> ImpostorStatistics:
        assert self.statistics is not None  # noqa: S101  callers check
        return self.statistics

    def _to_llrs(self, scores: Vectors) -> Vectors:
        return self.calibration.llr(self._required_statistics.deviations(scores))

    @property
    def left_out_llrs(self) -> NDArray[np.float64]:
        """The best llr of each caller of the cohort among the others, as if a stranger called, float64[n].

        `fpir` is estimated from these.
        """
        if self.statistics is None:
            return np.empty(0)
        statistics, calibration = self.statistics, self.calibration
        middle, spread = (calibration.to_traffic_score(score, statistics) for score in (0.0, 1.0))
        return np.asarray(self._to_llrs(middle + (spread - middle) * self._left_out))

    def fpir(self, llr: float, gallery_size: int) -> float:
        """The expected false-positive identification rate, 0..1, at this llr as the threshold."""
        statistics, calibration = self._required_statistics, self.calibration
        score = statistics.score(calibration.deviations(llr))
        return statistics.fpir(calibration.to_gallery_score(score, statistics), gallery_size)

    def threshold(self, target_fpir: float, gallery_size: int) -> float:
        """The llr from which to accept for a target false-positive identification rate."""
        statistics = self._required_statistics
        score = self.calibration.to_traffic_score(statistics.threshold(target_fpir, gallery_size), statistics)
        return self.calibration.llr(statistics.deviations(score))

    # For the shortlist of a large gallery, of which only plain embeddings are in memory

    def search_vector(self, probe: Embeddings) -> Embeddings:
        """The unit vector, float32[d], to search an index of plain embeddings with.

        The gradient of the score at the print that is expected of the probe's speaker.
        """
        projected = self.projection.project(probe[None]) - self._centers[0]
        normalized = self.projection.normalize(projected)[0]
        gradient = self.projection.transform @ (self.projection.speaker_share * normalized)
        return np.asarray(gradient / max(float(np.linalg.norm(gradient)), 1e-12), dtype=np.float32)

    def approximate_scores(self, probe: Embeddings, embeddings: Embeddings) -> NDArray[np.float64]:
        """Scores of plain prints, float32[n, d], each as the only print of its caller, to five digits."""
        center = self._centers[0]
        normalized = self.projection.normalize(self.projection.project(probe[None]) - center)[0]
        return self.projection.compare_float32(normalized, embeddings, center)

    def _compare_plain(self, probes: Vectors, prints: Vectors) -> Vectors:
        normalize, center = self.projection.normalize, self._centers[0]
        return self.projection.compare(normalize(probes - center), normalize(prints - center))
