"""Speakers who are fitted to and others who are measured; galleries drawn of these; how many are found."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fit_scoring import CONDITIONS, fit
from numpy.typing import NDArray

from voiceprint.scoring import Backend, Pieces, Plda

HALVINGS, DRAWS = 4, 10
TARGETS = (0.01, 0.05, 0.1)

Matrix = NDArray[np.float64]


def pieces_of(description: str | None, embed: Callable[[Path], Pieces]) -> Pieces:
    """Of the folder on the command line; embedded once where --cache names a file."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="a file that keeps the embeddings")
    arguments = parser.parse_args()
    return kept(arguments.folder, arguments.cache, embed)


def kept(folder: Path, cache: Path | None, embed: Callable[[Path], Pieces]) -> Pieces:
    """Of the folder; embedded once where there is a file to keep them."""
    if cache and cache.exists():
        with np.load(cache) as file:
            vectors = {name: file[name] for name in file.files}
        return Pieces(vectors, vectors.pop("speakers"))
    pieces = embed(folder)
    if cache:
        np.savez(cache, speakers=pieces.speakers, **pieces.vectors)
    return pieces


def halves(pieces: Pieces, halvings: int = HALVINGS) -> Iterator[tuple[Pieces, Pieces]]:
    """Speakers to fit to, and the others, both ways."""
    speakers = np.unique(pieces.speakers)
    for number in range(halvings):
        one, other = np.array_split(np.random.default_rng([1, number]).permutation(speakers), 2)
        yield pieces.of(one), pieces.of(other)
        yield pieces.of(other), pieces.of(one)


def draws(speakers: NDArray[Any], seed: int, each: int = 1) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each speaker with enough pieces, those to enrol and another to probe with."""
    chance = np.random.default_rng([2, seed])
    owned = [np.flatnonzero(speakers == one) for one in np.unique(speakers)]
    for _ in range(DRAWS):
        drawn = np.array([chance.choice(own, each + 1, replace=False) for own in owned if len(own) > each])
        yield (drawn[:, 0] if each == 1 else drawn[:, :-1]), drawn[:, -1]


def found(scores: Matrix) -> tuple[Matrix, Matrix]:
    """Of scores[callers, probes], each caller probed once: of every probe the own and the best other."""
    others = scores.copy()
    np.fill_diagonal(others, -np.inf)
    return np.diag(scores).copy(), others.max(axis=0)


def rank_and_fnir(own: Matrix, best: Matrix) -> list[float]:
    """Rank-1, and FNIR at the FPIR of 5 % and 1 %."""
    missed = [((own < np.quantile(best, 1 - rate)) | (own <= best)).mean() for rate in (0.05, 0.01)]
    return [float(one) for one in (np.mean(own > best), *missed)]


def train_plda(train: Pieces) -> Plda:
    """The model that ships, of other speakers."""
    return train.plda(CONDITIONS)


def backend_of(train: Pieces) -> Backend:
    """The backend that ships, of other speakers."""
    return fit(train)
