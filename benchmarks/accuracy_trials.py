"""The trials of accuracy.py: who is enrolled, who calls, and what the product and two cosines answer.

Some speakers of a population are drawn to be enrolled, all others call as strangers. Where speakers have
several sessions, those who have but one are not searched for: enrollment and probe would be of one session.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from fit_scoring import caller_prints
from numpy.typing import NDArray
from populations import PIECE_S, Population, Vectors, finite

from voiceprint.scoring import CallerPrints, GalleryScorer, Projection, probabilities

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ENROLLMENTS: Final = {
    "train": ((1, 5),),
    "other": ((1, 5),),
    "chapters": ((1, 5), (3, 10)),
    "mobile": ((1, 5), (2, 5)),
}
"""Prints, and the seconds of each."""

FIRST_PROBE_S: Final = {"train": 5, "other": 30, "chapters": 30, "mobile": 10}
"""From where on probes are taken of the session that callers are enrolled from."""

PAIRS: Final = (
    ("clean", "clean"),
    ("clean", "full"),
    ("clean", "narrow"),
    ("full", "full"),
    ("narrow", "narrow"),
    ("clean", "noise"),
)
SIZES: Final = (10, 20, 50)
PROBES_EACH: Final = 3
SEARCHES: Final = 600  # callers who are searched for in all draws of a cell
LEAST_DRAWS, MOST_DRAWS = 12, 40
HALF_CENTERING: Final = 0.7
SCORES: Final = ("cosine", "half-centered cosine", "llr")


class Cell(NamedTuple):
    """What one row of the table is of. prints: of each caller, of `seconds`. size: callers of a gallery."""

    population: str
    prints: int
    seconds: int
    enrolled: str
    probe: str
    size: int


class Trial(NamedTuple):
    """Those of a population who can be enrolled, and the probes.

    prints: of each speaker, float32[n, 3, d]. own: whether a probe may be searched for its own caller.
    """

    prints: dict[str, Vectors]
    speakers: NDArray[np.str_]
    probes: Vectors
    own: Flags


class Found(NamedTuple):
    """Of one score.

    true: of the own caller, float64[n]. first: whether that is the best, bool[n]. best: of strangers,
        float64[m].
    """

    true: Floats
    first: Flags
    best: Floats


@dataclass(frozen=True)
class Outcome:
    """The searches of a cell: n of enrolled callers, m of strangers.

    callers, strangers: the speaker of each search, as a number under `speakers`.
    found: by each score. rates: `Match.fpir` of the best caller, for callers and strangers.
    probable: `Match.probability` of the best. targets, impostors: llrs of claims that are true and false.
    """

    speakers: int
    callers: NDArray[np.int64]
    strangers: NDArray[np.int64]
    found: dict[str, Found]
    rates: tuple[Floats, Floats]
    probable: tuple[Floats, Floats]
    targets: Floats
    impostors: Floats


def sizes_of(speakers: int) -> list[int]:
    """Galleries that leave half of the speakers as strangers."""
    return sorted({min(size, speakers // 2) for size in SIZES})


def cells_of(one: Population, sizes: tuple[int, ...] | None = None) -> list[Cell]:
    """The rows of a population. sizes: those of `SIZES` that are wanted."""
    kept = sizes_of(len(one.speakers)) if sizes is None else sizes
    return [
        Cell(one.name, *enrollment, *pair, size)
        for enrollment in ENROLLMENTS[one.name]
        for pair in PAIRS
        for size in sizes_of(len(one.speakers))
        if size in kept or len(one.speakers) // 2 < min(kept)
    ]


def trial(one: Population, cell: Cell) -> Trial:
    """Enroll from the first session, and probe with another; where there is one, with a later part of it."""
    first = {piece.speaker: piece.session for piece in reversed(one.pieces)}
    several = {piece.speaker for piece in one.pieces if piece.session != first[piece.speaker]}
    prints: dict[str, list[Vectors]] = {}
    probes: dict[str, list[Vectors]] = {}
    for row, piece in enumerate(one.pieces):
        begins = piece.session == first[piece.speaker]
        enrolled, called = one.vectors[cell.enrolled][row], one.vectors[cell.probe][row]
        used = piece.seconds == cell.seconds and piece.start_s < cell.prints * cell.seconds
        if begins and used and finite(enrolled[0]):
            prints.setdefault(piece.speaker, []).append(enrolled)
        after = max(FIRST_PROBE_S[one.name], cell.prints * cell.seconds)
        later = not begins if piece.speaker in several else piece.start_s >= after
        kept = probes.setdefault(piece.speaker, [])
        if piece.seconds == PIECE_S and later and finite(called[1]) and len(kept) < PROBES_EACH:
            kept.append(called)
    names = [name for name, some in probes.items() for _ in some if name in prints]
    return Trial(
        {name: np.stack(some) for name, some in sorted(prints.items())},
        np.array(names),
        np.stack([vectors for name, some in probes.items() for vectors in some if name in prints]),
        np.array([not several or name in several for name in names]),
    )


def galleries(names: list[str], cell: Cell, share: float = 1.0) -> Iterator[list[str]]:
    """Draws of those who are enrolled, the same over all lines. share: of the draws that are wanted."""
    seed = zlib.crc32(f"{cell.population} {cell.prints} {cell.seconds} {cell.size}".encode())
    chance = np.random.default_rng(seed)
    count = round(share * min(max(SEARCHES // cell.size, LEAST_DRAWS), MOST_DRAWS))
    for _ in range(max(count, 1)):
        yield sorted(chance.permutation(names)[: cell.size].tolist())


def run(one: Population, cell: Cell, projection: Projection, share: float = 1.0) -> Outcome:
    """Search every gallery of the cell with every probe."""
    all_of = trial(one, cell)
    names = [*all_of.prints]
    numbers = np.searchsorted(names, all_of.speakers)
    parts: list[Outcome] = []
    for drawn in galleries(names, cell, share):
        columns = {name: place for place, name in enumerate(drawn)}
        owners = np.array([columns.get(name, -1) for name in all_of.speakers.tolist()])
        known, strange = (owners >= 0) & all_of.own, owners < 0
        vectors = [all_of.prints[name] for name in drawn]
        callers = [caller_prints(some) for some in vectors]
        scorer = GalleryScorer(projection, callers)
        llrs = scorer.llrs_of_many(all_of.probes[:, 1], callers)
        scores = dict(zip(SCORES, (*cosines(all_of.probes[:, 0], callers), llrs), strict=True))
        rates = np.array([scorer.fpir(row.max(), cell.size) for row in llrs])
        probable = np.array([probabilities(row, cell.size).max() for row in llrs])
        found = {name: _found(matrix, owners, known, strange) for name, matrix in scores.items()}
        claims = np.zeros(llrs.shape, dtype=np.bool_)
        claims[owners >= 0, owners[owners >= 0]] = True
        parts.append(
            Outcome(
                len(names),
                numbers[known],
                numbers[strange],
                found,
                (rates[known], rates[strange]),
                (probable[known], probable[strange]),
                llrs[known][claims[known]],
                llrs[~claims],
            )
        )
    return _joined(parts)


def cosines(probes: Vectors, callers: list[CallerPrints]) -> tuple[Floats, Floats]:
    """The best cosine with the prints of each caller; and, half-centered, that with their mean."""
    prints = np.concatenate([one.plain for one in callers]).astype(np.float64)
    counts = np.array([len(one.plain) for one in callers])
    starts = np.cumsum(counts) - counts
    best = np.maximum.reduceat(probes @ prints.T, starts, axis=1)
    center = HALF_CENTERING * prints.mean(axis=0)
    means = np.add.reduceat(prints, starts, axis=0) / counts[:, None]
    return best, _unit(probes - center) @ _unit(means - center).T


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _found(scores: Floats, owners: NDArray[np.int64], known: Flags, strange: Flags) -> Found:
    own = owners[known]
    true = scores[known][np.arange(len(own)), own]
    return Found(true, scores[known].argmax(axis=1) == own, scores[strange].max(axis=1))


def _joined(parts: list[Outcome]) -> Outcome:
    def joined(values: list[NDArray[np.float64]]) -> Floats:
        return np.concatenate(values)

    return Outcome(
        parts[0].speakers,
        np.concatenate([one.callers for one in parts]),
        np.concatenate([one.strangers for one in parts]),
        {
            name: Found(
                joined([one.found[name].true for one in parts]),
                np.concatenate([one.found[name].first for one in parts]),
                joined([one.found[name].best for one in parts]),
            )
            for name in SCORES
        },
        (joined([one.rates[0] for one in parts]), joined([one.rates[1] for one in parts])),
        (joined([one.probable[0] for one in parts]), joined([one.probable[1] for one in parts])),
        joined([one.targets for one in parts]),
        joined([one.impostors for one in parts]),
    )
