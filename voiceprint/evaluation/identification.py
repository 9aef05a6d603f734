"""Closed-set and open-set identification: every probe against a gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import Counts, bootstrap, rule_of_three
from voiceprint.evaluation.curves import thin
from voiceprint.evaluation.embedding import RunEmbeddings
from voiceprint.evaluation.report import AtFpir, AtTarget, AtThreshold, ClosedSet, Estimate, OpenSet
from voiceprint.evaluation.scoring import Scorer, TargetScorer
from voiceprint.evaluation.settings import Settings

_BLOCK = 4_000_000  # scores in memory at once

Indices = NDArray[np.int64]
Floats = metrics.Floats
Statistic = Callable[[Counts], float | None]


class Searched(NamedTuple):
    """The searches of all galleries of one size.

    true, first, best: as of `metrics.Searches`. known, unknown: the speaker of each search, int64[n] and
    int64[m]. over_known, over_unknown: `true` and `best` less the scorer's own threshold for each target,
        float64[targets, n] and float64[targets, m]; no targets without such thresholds.
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
    """Searches galleries drawn from the speakers of a run."""

    def __init__(self, embeddings: RunEmbeddings, scorer: Scorer, settings: Settings) -> None:
        self._prints, self._scorer, self._settings = embeddings.prints, scorer, settings
        self._probes = np.array(embeddings.probes, dtype=np.float32)
        self._owners = np.array(embeddings.owners, dtype=np.int64)
        self.speakers = len(embeddings.names)
        share = settings.unknown_share
        self.held_out = max(1, round(share * self.speakers)) if share else 0

    def closed(self, size: int) -> ClosedSet:
        """Searches by the callers of galleries of `size`, at most `speakers`."""
        splits = self._settings.splits if size < self.speakers else 1
        found = self._search(size, splits, held_out=0)
        rank = self._estimates([lambda drawn: _rank_one(found, drawn)], found.known)[0]
        return ClosedSet(size, splits, len(found.true), _defined(rank))

    def open(self, size: int) -> Searched:
        """Searches by callers and held-out speakers; size: at most `speakers - held_out`."""
        return self._search(size, self._settings.splits, held_out=self.held_out)

    def measure(
        self, found: Searched, fpirs: Sequence[float], threshold: float | None, thresholds: Sequence[float]
    ) -> OpenSet:
        """The error rates of the searches of one size."""
        known: list[Statistic] = [lambda drawn: _rank_one(found, drawn)]
        known += [lambda drawn, target=target: _fnir_at_fpir(found, target, drawn) for target in fpirs]  # type: ignore[misc]
        if threshold is not None:
            known.append(lambda drawn: _fnir(found, found.true, threshold, drawn))
        rank, *at = self._estimates(known, found.known)
        limits = [*([] if threshold is None else [threshold]), *thresholds]
        unknown: list[Statistic] = [
            lambda drawn, limit=limit: _fpir(found, found.best, limit, drawn)  # type: ignore[misc]
            for limit in limits
        ]
        rates = [_defined(rate) for rate in self._estimates(unknown, found.unknown)]
        at_threshold = None
        if threshold is not None:
            at_threshold = AtThreshold(threshold, rates.pop(0), _defined(at.pop()))
        targets = []
        for target, true, best in zip(
            self._settings.targets, found.over_known, found.over_unknown, strict=False
        ):
            fnir = self._estimates([lambda drawn, true=true: _fnir(found, true, 0.0, drawn)], found.known)  # type: ignore[misc]
            fpir = self._estimates([lambda drawn, best=best: _fpir(found, best, 0.0, drawn)], found.unknown)  # type: ignore[misc]
            targets.append(AtTarget(target, _defined(fpir[0]), _defined(fnir[0])))
        return OpenSet(
            gallery=found.gallery,
            splits=found.splits,
            known_searches=len(found.true),
            unknown_searches=len(found.best),
            rank_one=_defined(rank),
            at_fpir=tuple(
                AtFpir(target, metrics.threshold_at_fpir(found.best, target), _defined(estimate))
                for target, estimate in zip(fpirs, at, strict=True)
            ),
            at_threshold=at_threshold,
            at_target=tuple(targets),
            fpir_by_threshold=tuple(rates),
            curve=_curve(found),
        )

    def unknown_probes(self, found: Searched) -> int:
        """The number of different probes of unknown speakers, over all splits."""
        return int(np.isin(self._owners, found.unknown).sum())

    def _search(self, size: int, splits: int, *, held_out: int) -> Searched:
        parts: list[tuple[metrics.Searches, Indices, Indices, Floats, Floats]] = []
        targets = self._settings.targets if held_out else ()
        for split in range(splits):
            # The galleries of a split are nested.
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
                thresholds = np.empty((0, 1))
                if targets and isinstance(self._scorer, TargetScorer):
                    thresholds = self._scorer.thresholds(gallery, targets)[:, None]
                over = searched.true - thresholds, searched.best - thresholds
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
        """Rates with intervals, of searches by these speakers."""
        settings = self._settings
        once = np.ones(self.speakers)
        values = [statistic(once) for statistic in statistics]
        if not settings.resamples or not statistics:
            return [None if value is None else Estimate(value) for value in values]
        intervals = bootstrap(
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


def _fnir(found: Searched, true: Floats, threshold: float, drawn: Counts) -> float | None:
    weights = drawn[found.known]
    return metrics.fnir(true, found.first, threshold, weights) if weights.any() else None


def _fpir(found: Searched, best: Floats, threshold: float, drawn: Counts) -> float | None:
    weights = drawn[found.unknown]
    return metrics.fpir(best, threshold, weights) if weights.any() else None


def _fnir_at_fpir(found: Searched, target: float, drawn: Counts) -> float | None:
    weights = drawn[found.unknown]
    if not weights.any():
        return None
    return _fnir(found, found.true, metrics.threshold_at_fpir(found.best, target, weights), drawn)


def _curve(found: Searched) -> tuple[tuple[float, float], ...]:
    """Points (FPIR, FNIR) as the threshold falls from above all scores to below."""
    thresholds = np.unique(np.concatenate([found.true, found.best]))[::-1]
    best, hits = np.sort(found.best), np.sort(found.true[found.first])
    fpir = 1.0 - np.searchsorted(best, thresholds) / len(best)
    fnir = 1.0 - (len(hits) - np.searchsorted(hits, thresholds)) / len(found.true)
    return thin(np.append(0.0, fpir), np.append(1.0, fnir))


def _defined(estimate: Estimate | None) -> Estimate:
    assert estimate is not None  # noqa: S101  every rate is defined where each speaker counts once
    return estimate
