"""How well does a large gallery do, and how many callers are missed because only a shortlist is scored?

    python -m benchmarks.shortlist DATA [--cache FILE] [--prints 1000000]

Speakers of train-clean-100 (tools/populations.py; one session each, which flatters), to whom the projection
was not fitted, are enrolled one at a time among generated voiceprints, with one or two prints of 5 s and
their augmented prints, and probed over several lines. As the gallery grows: for how many no generated caller
has a greater llr, and how many generated strangers get a name for a wanted FPIR. In the whole gallery: how
many of those who rank first are not on the shortlist that the product reads. Generated callers have no
augmented prints.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_trials import PAIRS, Cell, trial
from benchmarks.report import command_line, write
from tools.fit_scoring import caller_prints, fit
from tools.gallery_model import GalleryModel
from tools.populations import Population, Vectors, add_recordings, but, populations
from voiceprint.embedder import Probe
from voiceprint.identification.candidates import CANDIDATES_PER_QUERY, candidate_queries, shortlist
from voiceprint.index import VectorIndex
from voiceprint.scoring import COHORT, CallerPrints, GalleryScorer, Projection

POPULATION: Final = "train"
SIZES: Final = (1_000, 10_000, 100_000)  # callers at which the gallery is measured, and at its end
CHUNK: Final = 1_000  # callers that are added at once
TARGETS: Final = (0.01, 0.05)
STRANGERS: Final = 500
CALLERS: Final = 6  # of a match: the five that are returned, and one for the margin of the last
PRINTS_EACH: Final = 3
RIVALS: Final = 20  # prints that a gallery compares with a caller of the cohort


class Trial(NamedTuple):
    """A probe, the prints of its caller, and their lines."""

    enrolled: str
    called: str
    prints: CallerPrints
    probe: Probe


def main() -> int:
    """Measure, print, write the figures."""
    parser = command_line(__doc__)
    add_recordings(parser)
    parser.add_argument("--prints", type=int, default=1_000_000, help="generated voiceprints")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")
    found = populations(options.data, options.cache)
    trials = {count: [*trials_of(found[POPULATION], count)] for count in (1, 2)}
    probes = np.stack([one.probe.best for some in trials.values() for one in some])
    gallery = Generated(fit(but(found, POPULATION)), probes)
    rows = []
    for callers in gallery.grow(options.prints):
        ranked = ranked_first(gallery, trials[1])
        rows.append({"callers": callers} | ranked | {"fpir": gallery.strangers_named()})
        print(rows[-1], flush=True)
    figures: dict[str, Any] = {"generated": options.prints, "found": CANDIDATES_PER_QUERY, "galleries": rows}
    figures["prints_a_caller"] = {}
    best = iter(gallery.best[:-STRANGERS].tolist())
    for count, some in trials.items():
        figures["prints_a_caller"][count] = missed(gallery, [(one, next(best)) for one in some])
        print(f"{count} prints a caller: {figures['prints_a_caller'][count]}", flush=True)
    write("shortlist", figures, options.results)
    return 0


def trials_of(one: Population, count: int) -> Iterator[Trial]:
    """Every speaker enrolled from `count` pieces."""
    for enrolled, called in PAIRS:
        of_cell = trial(one, Cell(one.name, count, 5, enrolled, called, 0))
        for speaker, vectors in zip(of_cell.speakers.tolist(), of_cell.probes, strict=True):
            prints = caller_prints(of_cell.prints[speaker])
            if len(prints.plain) == count:
                yield Trial(enrolled, called, prints, Probe(vectors[0], vectors[1]))


class Generated:
    """A growing gallery of generated callers. best: the greatest llr of each probe, then of each stranger."""

    def __init__(self, projection: Projection, probes: Vectors) -> None:
        self.model = GalleryModel.load()
        chance = np.random.default_rng(8)
        strangers = self.model.recordings(self.model.voices(STRANGERS, chance), chance)
        self.index = VectorIndex(projection.dimension)
        self.callers = 0
        self._projection = projection
        self._probes = np.concatenate([probes, strangers])
        self.best = np.full(len(self._probes), -np.inf)
        self._cohort: list[tuple[NDArray[np.int64], CallerPrints]] = []
        self.scorer = GalleryScorer(projection, [])

    def grow(self, prints: int) -> Iterator[int]:
        """Add voiceprints; yields the number of callers at each of `SIZES`, and at the end."""
        for block in self.model.gallery(prints).blocks():
            starts = np.flatnonzero(np.diff(block.callers, prepend=-1))
            for first in range(0, len(starts), CHUNK):
                stop = starts[first + CHUNK] if first + CHUNK < len(starts) else len(block.ids)
                rows = slice(starts[first], stop)
                cuts = starts[first + 1 : first + CHUNK] - starts[first]
                self._add(np.split(block.ids[rows], cuts), np.split(block.vectors[rows], cuts))
                if self.callers in SIZES:
                    self.index.wait()
                    yield self.callers
        self.index.wait()
        if self.callers not in SIZES:
            yield self.callers

    def _add(self, ids: list[NDArray[np.int64]], vectors: list[Vectors]) -> None:
        callers = [CallerPrints(prints, prints[:0]) for prints in vectors]
        if not self._cohort:
            self._cohort = list(zip(ids, callers, strict=True))[:COHORT]
            self.scorer = self._cohort_scorer()
        self.index.add(np.concatenate(ids), np.concatenate(vectors))
        self.best = np.maximum(self.best, self.scorer.llrs_of_many(self._probes, callers).max(axis=1))
        self.callers += len(callers)

    def _cohort_scorer(self) -> GalleryScorer:
        return GalleryScorer(self._projection, [prints for _, prints in self._cohort])

    def strangers_named(self) -> dict[str, float]:
        """FPIR for each target, by the cohort's rivals in the whole gallery, as the product computes it."""
        scorer = self._cohort_scorer()
        rivals = [rival(self.index, scorer, prints.plain[0], ids) for ids, prints in self._cohort]
        scorer.use_gallery_maxima(np.array(rivals), self.callers - 1)
        rates = np.array([scorer.fpir(llr, self.callers) for llr in self.best[-STRANGERS:]])
        return {f"{target}": round(float((rates <= target).mean()), 4) for target in TARGETS}


def rival(index: VectorIndex, scorer: GalleryScorer, print_: Vectors, own: NDArray[np.int64]) -> float:
    """The greatest approximate score of a print with the print of another caller."""
    found = [index.search(query[None], RIVALS)[1][0] for query in (print_, scorer.search_vector(print_))]
    ids = np.setdiff1d(np.concatenate(found), [-1, *own.tolist()])
    return float(scorer.approximate_scores(print_, index.vectors_of(ids)[1]).max())


def own_llr(gallery: Generated, one: Trial) -> float:
    """The llr of the caller."""
    return float(gallery.scorer.llrs(one.probe.best, [one.prints])[0])


def ranked_first(gallery: Generated, trials: list[Trial]) -> dict[str, float]:
    """The share that ranks before all generated callers, by line of the call, enrolled over a clear line."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for one, best in zip(trials, gallery.best, strict=False):
        if one.enrolled == "clean":
            counts[one.called].append(own_llr(gallery, one) > best)
    return {line: round(float(np.mean(some)), 4) for line, some in counts.items()}


def missed(gallery: Generated, trials: list[tuple[Trial, float]]) -> dict[str, float]:
    """The share of probes whose caller ranks first, and the share of these that the shortlist misses."""
    first = not_read = 0
    index = gallery.index
    for one, best in trials:
        if own_llr(gallery, one) <= best:
            continue
        ids = len(index) + 1 + np.arange(len(one.prints.plain))
        index.add(ids, one.prints.plain)
        queries = candidate_queries(one.probe, gallery.scorer, CALLERS, PRINTS_EACH)
        first += 1
        not_read += set(ids.tolist()).isdisjoint(shortlist(index, queries, CANDIDATES_PER_QUERY).ids)
        index.remove(ids)
    return {
        "probes": len(trials),
        "first": round(first / len(trials), 4),
        "missed of these": round(not_read / max(first, 1), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
