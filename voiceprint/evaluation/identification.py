"""Identification: every probe against a whole gallery, with or without speakers who are not in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import Counts, bootstrap_all, rule_of_three
from voiceprint.evaluation.curves import thinned
from voiceprint.evaluation.embedding import Material
from voiceprint.evaluation.report import AtFpir, AtTarget, AtThreshold, ClosedSet, Estimate, OpenSet
from voiceprint.evaluation.scoring import Scorer, TargetScorer
from voiceprint.evaluation.settings import Settings

_BLOCK = 4_000_000  # scores that are in memory together

Indices = NDArray[np.int64]
Floats = metrics.Floats
Statistic = Callable[[Counts], float | None]


class Searched(NamedTuple):
    """The searches of all galleries of one size, one after the other.

    As `metrics.Searches`; known and unknown are the speakers of each search, int64[n] and int64[m].
    over_known, over_unknown: by how much `true` and `best` are over the scorer's own threshold for each
        target, float64[targets, n] and float64[targets, m]; no targets where it sets none.
    """

    gallery: int
    splits: int
    true: Floats
    first: NDArray[np.bool_]
    known: Indices
    best: Floats
    unknown: Indices
    over_known: Floats
    over_unknown: Floats


class Searcher:
    """Searches galleries that are drawn from the speakers of a run."""

    def __init__(self, material: Material, scorer: Scorer, settings: Settings) -> None:
        self._prints, self._scorer, self._settings = material.prints, scorer, settings
        self._probes = np.array(material.probes, dtype=np.float32)
        self._owners = np.array(material.owners, dtype=np.int64)
        self.speakers = len(material.names)
        # At least one unknown where any are wanted.
        share = settings.unknown_share
        self.held_out = max(1, round(share * self.speakers)) if share else 0

    def closed(self, size: int) -> ClosedSet:
        """Searches by the callers of galleries of `size`, at most `speakers`."""
        splits = self._settings.splits if size < self.speakers else 1
        found = self._search(size, splits, held_out=0)
        rank = self._estimates([lambda drawn: _rank_one(found, drawn)], found.known)[0]
        return ClosedSet(size, splits, len(found.true), _there(rank))

    def open(self, size: int) -> Searched:
        """Searches of galleries of `size`, at most `speakers - held_out`, also by those held out."""
        return self._search(size, self._settings.splits, held_out=self.held_out)

    def measure(
        self, found: Searched, fpirs: Sequence[float], threshold: float | None, thresholds: Sequence[float]
    ) -> OpenSet:
        """Read the figures from the searches of one size."""
        known: list[Statistic] = [lambda drawn: _rank_one(found, drawn)]
        known += [lambda drawn, target=target: _fnir_at_fpir(found, target, drawn) for target in fpirs]  # type: ignore[misc]
        if threshold is not None:
            known.append(lambda drawn: _fnir(found, threshold, drawn))
        rank, *at = self._estimates(known, found.known)
        limits = [*([] if threshold is None else [threshold]), *thresholds]
        unknown: list[Statistic] = [
            lambda drawn, limit=limit: _fpir(found, limit, drawn)  # type: ignore[misc]
            for limit in limits
        ]
        rates = [_there(rate) for rate in self._estimates(unknown, found.unknown)]
        at_threshold = None
        if threshold is not None:
            at_threshold = AtThreshold(threshold, rates.pop(0), _there(at.pop()))
        targets = []
        for place in range(len(found.over_unknown)):
            missed, named = found.over_known[place], found.over_unknown[place]
            fnir = self._estimates([lambda drawn, over=missed: _missed(found, over, drawn)], found.known)  # type: ignore[misc]
            fpir = self._estimates([lambda drawn, over=named: _named(found, over, drawn)], found.unknown)  # type: ignore[misc]
            targets.append(AtTarget(self._settings.targets[place], _there(fpir[0]), _there(fnir[0])))
        return OpenSet(
            gallery=found.gallery,
            splits=found.splits,
            known_searches=len(found.true),
            unknown_searches=len(found.best),
            rank_one=_there(rank),
            at_fpir=tuple(
                AtFpir(target, metrics.threshold_at_fpir(found.best, target), _there(estimate))
                for target, estimate in zip(fpirs, at, strict=True)
            ),
            at_threshold=at_threshold,
            at_target=tuple(targets),
            fpir_by_threshold=tuple(rates),
            curve=_curve(found),
        )

    def unknown_probes(self, found: Searched) -> int:
        """How many different probes of unknown speakers there were, over all splits."""
        return int(np.isin(self._owners, found.unknown).sum())

    def _search(self, size: int, splits: int, *, held_out: int) -> Searched:
        parts: list[tuple[metrics.Searches, Indices, Indices, Floats, Floats]] = []
        targets = self._settings.targets if held_out else ()
        for split in range(splits):
            # Smaller galleries are parts of the larger ones of the same split.
            order = np.random.default_rng([self._settings.seed, split]).permutation(self.speakers)
            callers = order[held_out : held_out + size]
            column = np.full(self.speakers, -2)
            column[order[:held_out]], column[callers] = -1, np.arange(size)
            columns = column[self._owners]
            used = np.flatnonzero(columns > -2)
            gallery = [self._prints[caller] for caller in callers]
            for rows in np.array_split(used, max(1, -(-len(used) * size // _BLOCK))):
                scores = self._scorer.score(gallery, self._probes[rows])
                owners, is_known = self._owners[rows], columns[rows] >= 0
                searched = metrics.searches(scores, columns[rows])
                limits = np.empty((0, 1))
                if targets and isinstance(self._scorer, TargetScorer):
                    limits = self._scorer.limits(gallery, targets)[:, None]
                over = searched.true - limits, searched.best - limits
                parts.append((searched, owners[is_known], owners[~is_known], *over))
        found, known, unknown, over_known, over_unknown = zip(*parts, strict=True)
        return Searched(
            size,
            splits,
            np.concatenate([one.true for one in found]),
            np.concatenate([one.first for one in found]),
            np.concatenate(known),
            np.concatenate([one.best for one in found]),
            np.concatenate(unknown),
            np.concatenate(over_known, axis=1),
            np.concatenate(over_unknown, axis=1),
        )

    def _estimates(self, statistics: Sequence[Statistic], speakers: Indices) -> list[Estimate | None]:
        """Rates with intervals; speakers: of the searches that they are rates of."""
        settings = self._settings
        everyone = np.ones(self.speakers)
        values = [statistic(everyone) for statistic in statistics]
        if not settings.resamples or not statistics:
            return [None if value is None else Estimate(value) for value in values]
        intervals = bootstrap_all(
            lambda drawn: [statistic(drawn) for statistic in statistics],
            self.speakers,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        count = len(np.unique(speakers))
        return [
            None if value is None else Estimate(value, *(rule_of_three(interval, value, count) or ()))
            for value, interval in zip(values, intervals, strict=True)
        ]


def _rank_one(found: Searched, drawn: Counts) -> float | None:
    weights = drawn[found.known]
    return metrics.rank_one(found.first, weights) if weights.any() else None


def _fnir(found: Searched, threshold: float, drawn: Counts) -> float | None:
    weights = drawn[found.known]
    return metrics.fnir(found.true, found.first, threshold, weights) if weights.any() else None


def _fpir(found: Searched, threshold: float, drawn: Counts) -> float | None:
    weights = drawn[found.unknown]
    return metrics.fpir(found.best, threshold, weights) if weights.any() else None


def _named(found: Searched, over: Floats, drawn: Counts) -> float | None:
    weights = drawn[found.unknown]
    return metrics.fpir(over, 0.0, weights) if weights.any() else None


def _missed(found: Searched, over: Floats, drawn: Counts) -> float | None:
    weights = drawn[found.known]
    return metrics.fnir(over, found.first, 0.0, weights) if weights.any() else None


def _fnir_at_fpir(found: Searched, target: float, drawn: Counts) -> float | None:
    weights = drawn[found.unknown]
    if not weights.any():
        return None
    return _fnir(found, metrics.threshold_at_fpir(found.best, target, weights), drawn)


def _curve(found: Searched) -> tuple[tuple[float, float], ...]:
    """(FPIR, FNIR) as the threshold falls, from above every score to below them all."""
    thresholds = np.unique(np.concatenate([found.true, found.best]))[::-1]
    best, hits = np.sort(found.best), np.sort(found.true[found.first])
    fpir = 1.0 - np.searchsorted(best, thresholds) / len(best)
    fnir = 1.0 - (len(hits) - np.searchsorted(hits, thresholds)) / len(found.true)
    return thinned(np.append(0.0, fpir), np.append(1.0, fnir))


def _there(estimate: Estimate | None) -> Estimate:
    """With every speaker in it once, no rate is left undefined."""
    assert estimate is not None  # noqa: S101
    return estimate
