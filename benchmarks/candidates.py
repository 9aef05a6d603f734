"""How many callers are missed because only those that the index proposes are looked at?

    python benchmarks/candidates.py FOLDER [--cache FILE] [--prints 1000000]

FOLDER/**/SPEAKER/*.flac or .wav. The speakers are enrolled, with one or two pieces of 5 s and second prints,
among generated voiceprints, and probed with another piece, clean and by telephone. Of the probes for which
the own caller has a greater log-likelihood ratio than every generated one, it is counted how many find no
print of that caller among what `voiceprint.proposals` has read from the store; and how many if the plain
embedding alone were searched for, or all that is found were read. The generated ones have no second prints,
so that more callers come first, and are missed, than among real ones. Written to results/candidates.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy_pieces import all_pieces
from gallery_model import GalleryModel
from generated_galleries import linear, linear_scores
from held_out import kept
from numpy.typing import NDArray
from results_file import keep

from voiceprint.index import VectorIndex
from voiceprint.proposals import FOUND, propose, views_for
from voiceprint.ranking import Probe
from voiceprint.scoring import Backend, Pieces, default_backend

ENROLLED = ("clean", "full", "narrow")
HEARD = ("clean", "full 2", "narrow 2")
CALLERS = 6  # that a match asks for: five, and one for the margin of the last
PRINTS_EACH = 3
PROBES_EACH = 2


class Trial(NamedTuple):
    """A probe, and the pieces that its caller is enrolled with."""

    enrolled: str
    heard: str
    pieces: tuple[int, ...]
    probe: Probe


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="a file that keeps the embeddings, as of accuracy.py")
    parser.add_argument("--prints", type=int, default=1_000_000, help="generated voiceprints")
    arguments = parser.parse_args()
    pieces, backend = kept(arguments.folder, arguments.cache, all_pieces), default_backend()
    trials = {count: [*trials_of(pieces, count)] for count in (1, 2)}
    index, best = generated(arguments.prints, backend, [one for some in trials.values() for one in some])
    figures: dict[str, Any] = {"generated": arguments.prints, "found": FOUND, "prints_a_caller": {}}
    start = 0
    for count, some in trials.items():
        rows = missed(index, backend, pieces, some, best[start : start + len(some)])
        figures["prints_a_caller"][count] = rows
        start += len(some)
        print(f"{count} prints a caller: {rows}", flush=True)
    print(f"Raw figures: benchmarks/results/{keep('candidates', figures).name}")
    return 0


def trials_of(pieces: Pieces, count: int) -> Iterator[Trial]:
    """Every speaker enrolled with the first pieces, and probed with the last."""
    for speaker in dict.fromkeys(pieces.speakers.tolist()):
        places = np.flatnonzero(pieces.speakers == speaker).tolist()
        own, others = places[:count], places[count:][-PROBES_EACH:]
        for enrolled in ENROLLED:
            for heard in HEARD:
                for place in others:
                    plain, best = (pieces.vectors[f"{heard} {kind}"][place] for kind in ("plain", "best"))
                    if len(own) == count and np.isfinite(best).all():
                        yield Trial(enrolled, heard, tuple(own), Probe(plain, best))


def generated(prints: int, backend: Backend, trials: list[Trial]) -> tuple[VectorIndex, NDArray[np.float64]]:
    """An index of generated voiceprints, and the best log ratio of each probe with any of them."""
    index = VectorIndex(len(backend.plda.mean))
    places = linear(backend, np.stack([trial.probe.best for trial in trials]))
    best = np.full(len(trials), -np.inf)
    with index.held():
        for block in GalleryModel.load().gallery(prints, 1).blocks():
            index.add(block.ids, block.vectors)
            best = np.maximum(best, linear_scores(backend, places, block.vectors).max(axis=1))
    index.wait()
    return index, best


def missed(
    index: VectorIndex,
    backend: Backend,
    pieces: Pieces,
    trials: list[Trial],
    best: NDArray[np.float64],
) -> dict[str, float]:
    """The share of the probes whose caller comes first, and of those that are missed in each way."""
    counts = dict.fromkeys(("first", "missed", "missed by plain search alone", "missed if all were read"), 0)
    for trial, rival in zip(trials, best, strict=True):
        own = pieces.vectors[f"{trial.enrolled} plain"][[*trial.pieces]]
        second = pieces.vectors[f"{trial.enrolled} second"][[*trial.pieces]]
        second = second[np.isfinite(second).all(axis=1)]
        ratio = backend.score(trial.probe.best, [own], [second if len(second) else None])[0]
        if ratio <= rival:
            continue
        ids = {len(index) + 1 + number for number in range(len(own))}
        index.add([*ids], own)
        views = views_for(trial.probe, backend, CALLERS, PRINTS_EACH)
        counts["first"] += 1
        counts["missed"] += ids.isdisjoint(propose(index, views, FOUND).ids)
        plain = [view._replace(query=trial.probe.plain, confined=False) for view in views]
        counts["missed by plain search alone"] += ids.isdisjoint(propose(index, plain, FOUND).ids)
        counts["missed if all were read"] += ids.isdisjoint(propose(index, views, FOUND, 2 * FOUND).ids)
        index.remove([*ids])
    return {name: round(count / len(trials), 4) for name, count in counts.items()} | {"probes": len(trials)}


if __name__ == "__main__":
    sys.exit(main())
