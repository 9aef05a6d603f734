"""The trials of accuracy.py: who is enrolled, who calls, and what the product and two cosines answer.

Some speakers of a population are drawn to be enrolled, all others call as strangers. Where speakers have
several sessions, those with one session are not searched for: enrollment and probe would share it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.fit_scoring import caller_prints
from tools.populations import PIECE_S, Population, Vectors, finite
from voiceprint.evaluation.metrics import Searches, searches
from voiceprint.scoring import CallerPrints, GalleryScorer, Projection, probabilities

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ENROLLMENTS: Final = {
    "train": ((1, 5),),
    "other": ((1, 5),),
    "chapters": ((1, 5), (3, 10)),
    "mobile": ((1, 5), (2, 5)),
}
"""Prints of a caller, and the seconds of each, by population."""

FIRST_PROBE_S: Final = {"train": 5, "other": 30, "chapters": 30, "mobile": 10}
"""The start of probes in a session that callers are enrolled from, in seconds."""

PAIRS: Final = (
    ("clean", "clean"),
    ("clean", "full"),
    ("clean", "narrow"),
    ("full", "full"),
    ("narrow", "narrow"),
    ("clean", "noise"),
)
"""Lines of enrollment and probe."""

SIZES: Final = (10, 20, 50)
PROBES_EACH: Final = 3
SEARCHES: Final = 600  # of enrolled callers in all draws of a cell, about
LEAST_DRAWS, MOST_DRAWS = 12, 40
HALF_CENTERING: Final = 0.7
SCORES: Final = ("cosine", "half-centered cosine", "llr")


class Cell(NamedTuple):
    """The conditions of one row. prints: of each caller, of `seconds`. size: callers in a gallery."""

    population: str
    prints: int
    seconds: int
    enrolled: str
    probe: str
    size: int


class Trial(NamedTuple):
    """The speakers of a population who can be enrolled, and the probes.

    prints: of each speaker, float32[n, 3, d]. speakers, probes: str[m], float32[m, 3, d]. own: whether a
    probe may be searched for its own caller, bool[m].
    """

    prints: dict[str, Vectors]
    speakers: NDArray[np.str_]
    probes: Vectors
    own: Flags


@dataclass(frozen=True)
class Outcome:
    """The searches of a cell: n by enrolled callers, m by strangers.

    speakers: their number. callers, strangers: the speaker of each search, int64[n], int64[m].
    found: by each score. rates: `Match.fpir` of the best caller, float64[n], float64[m].
    probable: `Match.probability` of the best. targets, impostors: llrs of true and false claims.
    """

    speakers: int
    callers: NDArray[np.int64]
    strangers: NDArray[np.int64]
    found: dict[str, Searches]
    rates: tuple[Floats, Floats]
    probable: tuple[Floats, Floats]
    targets: Floats
    impostors: Floats


def sizes_of(speakers: int) -> list[int]:
    """Sizes of galleries that leave half of the speakers as strangers."""
    return sorted({min(size, speakers // 2) for size in SIZES})


def cells_of(one: Population, sizes: list[int] | None = None) -> list[Cell]:
    """The rows of a population. sizes: instead of all of `sizes_of`."""
    return [
        Cell(one.name, *enrollment, *pair, size)
        for enrollment in ENROLLMENTS[one.name]
        for pair in PAIRS
        for size in (sizes or sizes_of(len(one.speakers)))
    ]


def trial(one: Population, cell: Cell) -> Trial:
    """Enroll from the first session; probe with another session, or with a later part where there is none."""
    first = {piece.speaker: piece.session for piece in reversed(one.pieces)}
    several = {piece.speaker for piece in one.pieces if piece.session != first[piece.speaker]}
    prints: dict[str, list[Vectors]] = {}
    probes: dict[str, list[Vectors]] = {}
    for row, piece in enumerate(one.pieces):
        in_first = piece.session == first[piece.speaker]
        enrolled, called = one.vectors[cell.enrolled][row], one.vectors[cell.probe][row]
        used = piece.seconds == cell.seconds and piece.start_s < cell.prints * cell.seconds
        if in_first and used and finite(enrolled[0]):
            prints.setdefault(piece.speaker, []).append(enrolled)
        after = max(FIRST_PROBE_S[one.name], cell.prints * cell.seconds)
        later = not in_first if piece.speaker in several else piece.start_s >= after
        own = probes.setdefault(piece.speaker, [])
        if piece.seconds == PIECE_S and later and finite(called[1]) and len(own) < PROBES_EACH:
            own.append(called)
    calls = [(name, vectors) for name, own in probes.items() for vectors in own if name in prints]
    return Trial(
        {name: np.stack(vectors) for name, vectors in sorted(prints.items())},
        np.array([name for name, _ in calls]),
        np.stack([vectors for _, vectors in calls]),
        np.array([not several or name in several for name, _ in calls]),
    )


def galleries(names: list[str], cell: Cell, share: float = 1.0) -> Iterator[list[str]]:
    """Draws of the enrolled speakers, the same for all lines. share: of the usual number of draws."""
    seed = zlib.crc32(f"{cell.population} {cell.prints} {cell.seconds} {cell.size}".encode())
    chance = np.random.default_rng(seed)
    count = round(share * min(max(SEARCHES // cell.size, LEAST_DRAWS), MOST_DRAWS))
    for _ in range(max(count, 1)):
        yield sorted(chance.permutation(names)[: cell.size].tolist())


def run(one: Population, cell: Cell, projection: Projection, share: float = 1.0) -> Outcome:
    """Search every gallery of the cell with every probe."""
    of_cell = trial(one, cell)
    names = [*of_cell.prints]
    numbers = np.searchsorted(names, of_cell.speakers)
    return joined(
        [
            search(of_cell, numbers, drawn, cell, projection, len(names))
            for drawn in galleries(names, cell, share)
        ]
    )


def search(
    of_cell: Trial,
    numbers: NDArray[np.int64],
    drawn: list[str],
    cell: Cell,
    projection: Projection,
    speakers: int,
) -> Outcome:
    """Search one gallery with every probe."""
    columns = {name: place for place, name in enumerate(drawn)}
    owners = np.array([columns.get(name, -1) for name in of_cell.speakers.tolist()])
    known, strange = (owners >= 0) & of_cell.own, owners < 0
    asked = known | strange
    callers = [caller_prints(of_cell.prints[name]) for name in drawn]
    scorer = GalleryScorer(projection, callers)
    llrs = scorer.llrs_of_many(of_cell.probes[:, 1], callers)
    scores = zip(SCORES, (*cosines(of_cell.probes[:, 0], callers), llrs), strict=True)
    rates = np.array([scorer.fpir(row.max(), cell.size) for row in llrs])
    probable = np.array([probabilities(row, cell.size).max() for row in llrs])
    true_claims = np.zeros(llrs.shape, dtype=np.bool_)
    true_claims[owners >= 0, owners[owners >= 0]] = True
    return Outcome(
        speakers,
        numbers[known],
        numbers[strange],
        {name: searches(matrix[asked], owners[asked]) for name, matrix in scores},
        (rates[known], rates[strange]),
        (probable[known], probable[strange]),
        llrs[known][true_claims[known]],
        llrs[~true_claims],
    )


def cosines(probes: Vectors, callers: list[CallerPrints]) -> tuple[Floats, Floats]:
    """The best cosine with the prints of each caller, and the half-centered cosine with their mean."""
    prints = np.concatenate([one.plain for one in callers]).astype(np.float64)
    counts = np.array([len(one.plain) for one in callers])
    starts = np.cumsum(counts) - counts
    best = np.maximum.reduceat(probes @ prints.T, starts, axis=1)
    center = HALF_CENTERING * prints.mean(axis=0)
    means = np.add.reduceat(prints, starts, axis=0) / counts[:, None]
    return best, _unit(probes - center) @ _unit(means - center).T


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def joined(parts: list[Outcome]) -> Outcome:
    """The searches of several galleries, one after the other."""
    stack = np.concatenate
    return Outcome(
        parts[0].speakers,
        stack([one.callers for one in parts]),
        stack([one.strangers for one in parts]),
        {
            name: Searches(*map(stack, zip(*(one.found[name] for one in parts), strict=True)))
            for name in SCORES
        },
        (stack([one.rates[0] for one in parts]), stack([one.rates[1] for one in parts])),
        (stack([one.probable[0] for one in parts]), stack([one.probable[1] for one in parts])),
        stack([one.targets for one in parts]),
        stack([one.impostors for one in parts]),
    )
