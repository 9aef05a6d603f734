"""How well does a large gallery do, and how many callers are missed because only a shortlist is looked at?

    python benchmarks/candidates.py DATA [--cache FILE] [--prints 1000000]

Speakers of train-clean-100 (populations.py; one session each, which flatters), to whom the projection was not
fitted, are enrolled one at a time among generated voiceprints, with one or two prints of 5 s and their
augmented prints, and probed over several lines. Counted, as the gallery grows: for how many no generated
caller has a greater llr; and of strangers, who are generated too, how many get a name at a wanted FPIR. In
the whole gallery, of those who come first: how many are not shortlisted; and
how many if the plain embedding alone were searched for, or twice as many prints were read. Generated callers
have no augmented prints.
Written to results/candidates.json.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from accuracy_figures import TARGETS
from accuracy_trials import PAIRS, Cell, trial
from fit_scoring import caller_prints, fit
from gallery_model import GalleryModel
from numpy.typing import NDArray
from populations import Population, Vectors, arguments, but, populations
from results_file import keep

from voiceprint.identification.candidates import CANDIDATES_PER_QUERY, propose, views_for
from voiceprint.identification.ranking import Probe
from voiceprint.index import VectorIndex
from voiceprint.scoring import COHORT, CallerPrints, GalleryScorer, Projection

POPULATION: Final = "train"
SIZES: Final = (1_000, 10_000, 100_000)  # callers after which the gallery is looked at, and at its end
STRANGERS: Final = 500
CALLERS: Final = 6  # that a match asks for: five, and one for the margin of the last
PRINTS_EACH: Final = 3
RIVALS: Final = 20  # as of a gallery: prints that are looked at for a caller of the cohort


class Trial(NamedTuple):
    """A probe, and the prints of its caller."""

    enrolled: str
    called: str
    prints: CallerPrints
    probe: Probe


class Part(NamedTuple):
    """Successive generated callers. ids: of their prints, int64[n]; starts: where each one's begin."""

    ids: NDArray[np.int64]
    vectors: Vectors
    starts: NDArray[np.int64]


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = arguments(__doc__)
    parser.add_argument("--prints", type=int, default=1_000_000, help="generated voiceprints")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")
    found = populations(options.data, options.cache)
    projection = fit(but(found, POPULATION))
    trials = {count: [*trials_of(found[POPULATION], count)] for count in (1, 2)}
    gallery = Generated(
        projection, options.prints, [one.probe.best for some in trials.values() for one in some]
    )
    rows = []
    for callers in gallery.grow():
        rows.append({"callers": callers} | first(gallery, trials[1]) | {"fpir": gallery.strangers_named()})
        print(rows[-1], flush=True)
    figures: dict[str, Any] = {"generated": options.prints, "found": CANDIDATES_PER_QUERY, "galleries": rows}
    figures["index"] = gallery.index.status().structure
    figures["prints_a_caller"] = {}
    start = 0
    for count, some in trials.items():
        figures["prints_a_caller"][count] = missed(gallery, some, gallery.best[start : start + len(some)])
        start += len(some)
        print(f"{count} prints a caller: {figures['prints_a_caller'][count]}", flush=True)
    print(f"Raw figures: benchmarks/results/{keep('candidates', figures).name}")
    return 0


def trials_of(one: Population, count: int) -> Iterator[Trial]:
    """Every speaker enrolled with so many pieces."""
    for enrolled, called in PAIRS:
        made = trial(one, Cell(one.name, count, 5, enrolled, called, 0))
        for speaker, vectors in zip(made.speakers.tolist(), made.probes, strict=True):
            prints = caller_prints(made.prints[speaker])
            if len(prints.plain) == count:
                yield Trial(enrolled, called, prints, Probe(vectors[0], vectors[1]))


class Generated:
    """A growing gallery of generated callers. best: the greatest llr of each probe with any of them."""

    def __init__(self, projection: Projection, prints: int, probes: list[Vectors]) -> None:
        model = GalleryModel.load()
        chance = np.random.default_rng(8)
        strangers = model.recordings(model.voices(STRANGERS, chance), chance)
        self.projection = projection
        self.parts = parts_of(model, prints)
        self.index = VectorIndex(projection.dimension)
        self.callers = 0
        self._probes = np.concatenate([np.stack(probes), strangers])
        self._best = np.full(len(self._probes), -np.inf)
        self._cohort: list[CallerPrints] = []
        self._ids: list[NDArray[np.int64]] = []
        self.scorer = GalleryScorer(projection, [])

    @property
    def best(self) -> NDArray[np.float64]:
        """Of the probes that were given."""
        return self._best[:-STRANGERS]

    def grow(self) -> Iterator[int]:
        """Add callers; gives their number at each of `SIZES`, and at the end."""
        due, seen = [*SIZES], 0
        for part in self.parts:
            self._add(part)
            if due and self.callers >= due[0]:
                due.pop(0)
                seen = self.callers
                self.index.wait()
                yield seen
        self.index.wait()
        if self.callers > seen:
            yield self.callers

    def _add(self, part: Part) -> None:
        callers = [CallerPrints(vectors, vectors[:0]) for vectors in np.split(part.vectors, part.starts[1:])]
        if not self._cohort:
            self._cohort = callers[:COHORT]
            self._ids = np.split(part.ids, part.starts[1:])[:COHORT]
            self.scorer = GalleryScorer(self.projection, self._cohort)
        self.index.add(part.ids, part.vectors)
        self._best = np.maximum(self._best, self.scorer.llrs_of_many(self._probes, callers).max(axis=1))
        self.callers += len(callers)

    def strangers_named(self) -> dict[str, float]:
        """FPIR got, by the rivals of the cohort in the whole gallery, as the product takes them."""
        scorer = GalleryScorer(self.projection, self._cohort)
        rivals = [
            rival(self.index, scorer, one.plain[0], ids)
            for one, ids in zip(self._cohort, self._ids, strict=True)
        ]
        scorer.observe_rivals(np.array(rivals), self.callers - 1)
        rates = np.array([scorer.fpir(llr, self.callers) for llr in self._best[-STRANGERS:]])
        return {f"{target}": round(float((rates <= target).mean()), 4) for target in TARGETS}


def parts_of(model: GalleryModel, prints: int) -> Iterator[Part]:
    """The generated gallery, so many callers at a time that every one of `SIZES` is the end of a part."""
    for number, block in enumerate(model.gallery(prints, 1).blocks()):
        starts = np.flatnonzero(np.diff(block.callers, prepend=-1))
        cuts = [0, SIZES[0], len(starts)] if number == 0 and len(starts) > SIZES[0] else [0, len(starts)]
        ends = np.append(starts, len(block.ids))
        for first_, last in pairwise(cuts):
            rows = slice(ends[first_], ends[last])
            yield Part(block.ids[rows], block.vectors[rows], starts[first_:last] - starts[first_])


def rival(index: VectorIndex, scorer: GalleryScorer, print_: Vectors, own: NDArray[np.int64]) -> float:
    """The greatest rough score of a print with that of another caller."""
    found = [index.search(query[None], RIVALS)[1][0] for query in (print_, scorer.query(print_))]
    ids = np.setdiff1d(np.concatenate(found), [-1, *own.tolist()])
    return float(scorer.rough_scores(print_, index.vectors_of(ids)[1]).max())


def own_llr(gallery: Generated, one: Trial) -> float:
    """Of the caller."""
    return float(gallery.scorer.llrs(one.probe.best, [one.prints])[0])


def first(gallery: Generated, trials: list[Trial]) -> dict[str, float]:
    """How many, enrolled over a clear line, come before all generated callers, by the line of the call."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for one, best in zip(trials, gallery.best, strict=False):
        if one.enrolled == "clean":
            counts[one.called].append(own_llr(gallery, one) > best)
    return {line: round(float(np.mean(some)), 4) for line, some in counts.items()}


def missed(gallery: Generated, trials: list[Trial], best: NDArray[np.float64]) -> dict[str, float]:
    """The share of the probes whose caller comes first, and of those that are missed in each way."""
    counts = dict.fromkeys(
        ("first", "missed", "missed by plain search alone", "missed if twice were read"), 0
    )
    index = gallery.index
    for one, rival_ in zip(trials, best, strict=True):
        if own_llr(gallery, one) <= rival_:
            continue
        own = one.prints.plain
        ids = {len(index) + 1 + number for number in range(len(own))}
        index.add([*ids], own)
        views = views_for(one.probe, gallery.scorer, CALLERS, PRINTS_EACH)
        counts["first"] += 1
        counts["missed"] += ids.isdisjoint(propose(index, views, CANDIDATES_PER_QUERY).ids)
        plain = [view._replace(query=one.probe.plain) for view in views]
        counts["missed by plain search alone"] += ids.isdisjoint(
            propose(index, plain, CANDIDATES_PER_QUERY).ids
        )
        counts["missed if twice were read"] += ids.isdisjoint(
            propose(index, views, CANDIDATES_PER_QUERY, 2).ids
        )
        index.remove([*ids])
    return {name: round(count / len(trials), 4) for name, count in counts.items()} | {"probes": len(trials)}


if __name__ == "__main__":
    sys.exit(main())
