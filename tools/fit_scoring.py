"""Fit the projection that ships: writes voiceprint/scoring/projection.npz.

    python -m tools.fit_scoring DATA [--cache FILE]

The two-covariance model of speakers (Brümmer and de Villiers, Odyssey 2010), fitted to pieces of 5 s of all
populations (tools/populations.py), clean, over two telephone lines and in noise, plain and cleaned.
benchmarks/accuracy.py fits it to all populations except the one that it measures. The same recordings give
the same file, to the byte on the same machine.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tools.populations import LINES, PIECE_S, Population, Vectors, add_recordings, finite, populations
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.scoring import CallerPrints, GalleryScorer, Prior, Projection
from voiceprint.scoring.impostors import PRIOR_CALLERS

Matrix = NDArray[np.float64]

TARGET = Path(__file__).parents[1] / "voiceprint" / "scoring" / "projection.npz"

WITHIN_SHRINKAGE: Final = 0.8
"""Share of the multiple of the identity in the covariance within speakers, 0 to 1. The FNIR of
`benchmarks.accuracy --ablations` in small and large galleries is 13.9 and 21.1 % with 0.6, 14.2 and 21.8 %
with 0.8, 14.2 and 23.1 % with 0.9."""

BETWEEN_SHRINKAGE: Final = 0.4
"""The same for the covariance between speakers, who are about as many as it has dimensions. The FNIR is 15.0
and 22.8 % with 0.2, 14.2 and 21.8 % with 0.4, 14.1 and 22.0 % with 0.8."""

PAIR_CALLERS: Final = 50
"""Most speakers of a population whose scores with each other enter the prior. Twice as many give the same."""

PAIR_LINES: Final = ("clean", "full", "narrow")


def main() -> int:
    """Embed, fit, write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_recordings(parser)
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    found = [*populations(options.data, options.cache).values()]
    fit(found).save(str(options.output))
    options.output.chmod(0o644)
    print(f"{sum(len(one.speakers) for one in found)} speakers of {len(found)} populations: {options.output}")
    return 0


def fit(
    found: Sequence[Population],
    within_shrinkage: float = WITHIN_SHRINKAGE,
    between_shrinkage: float = BETWEEN_SHRINKAGE,
) -> Projection:
    """The projection of several populations, with the statistics of speaker pairs in its prior."""
    shrinkage = (within_shrinkage, between_shrinkage)
    # The scores of speakers in the fit are further apart than others': each population by a fit to the rest.
    pairs = []
    for one in found:
        rest = [other for other in found if other is not one] or [one]
        pairs.append(pair_statistics(Projection(*parameters(rest, *shrinkage), prior(rest)), one))
    mean, std = np.mean(pairs, axis=0).tolist()
    return Projection(*parameters(found, *shrinkage), replace(prior(found), pair_mean=mean, pair_std=std))


def parameters(
    found: Iterable[Population], within_shrinkage: float, between_shrinkage: float
) -> tuple[str, Matrix, NDArray[np.float64]]:
    """Space, transform float64[d, d] and shares float64[d] of the projection."""
    rows, owners = training_rows([short(one) for one in found])
    counts = np.bincount(owners)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, owners, rows)
    means /= counts[:, None]
    center = means.mean(axis=0)
    residuals = rows - means[owners]
    # Each speaker has the same weight, however much was recorded.
    weights = (1.0 / np.maximum(counts - 1, 1))[owners] / len(counts)
    within = shrunk((residuals * weights[:, None]).T @ residuals, within_shrinkage)
    between = shrunk((means - center).T @ (means - center) / (len(counts) - 1), between_shrinkage)
    whitening = np.linalg.cholesky(np.linalg.inv(within))
    ratios, axes = np.linalg.eigh(whitening.T @ between @ whitening)
    ratios, axes = ratios[::-1], axes[:, ::-1]
    transform = (whitening @ axes) / np.sqrt(ratios + 1.0)
    # The sign of an axis is arbitrary; a fixed one makes other machines write the same.
    transform *= np.sign(transform[np.abs(transform).argmax(axis=0), np.arange(len(ratios))])
    return RESEMBLYZER_SPACE, transform, ratios / (ratios + 1.0)


def shrunk(covariance: Matrix, share: float) -> Matrix:
    """The covariance with this share replaced by a multiple of the identity of the same trace."""
    size = len(covariance)
    return np.asarray((1.0 - share) * covariance + share * np.trace(covariance) / size * np.eye(size))


def short(one: Population) -> Population:
    """Its pieces of 5 s."""
    rows = [row for row, piece in enumerate(one.pieces) if piece.seconds == PIECE_S]
    vectors = {line: found[rows] for line, found in one.vectors.items()}
    return replace(one, pieces=tuple(one.pieces[row] for row in rows), vectors=vectors)


def training_rows(found: Sequence[Population]) -> tuple[Matrix, NDArray[np.int64]]:
    """Embeddings, float64[n, d], and the speaker of each, int64[n]; except for clean audio, cleaned too."""
    numbers: dict[tuple[str, str], int] = {}
    rows: list[Matrix] = []
    owners: list[NDArray[np.int64]] = []
    for one in found:
        own = np.array([numbers.setdefault((one.name, piece.speaker), len(numbers)) for piece in one.pieces])
        for line in LINES:
            for kind in (0,) if line == "clean" else (0, 1):
                vectors = one.vectors[line][:, kind]
                present = finite(vectors)
                rows.append(vectors[present].astype(np.float64))
                owners.append(own[present])
    return np.concatenate(rows), np.concatenate(owners)


def prior(found: Iterable[Population]) -> Prior:
    """Means of clean prints, and the direction from plain to augmented print; no pair statistics."""
    populations_ = [short(one) for one in found]

    def both(line: str) -> tuple[Matrix, Matrix]:
        vectors = np.concatenate([one.vectors[line] for one in populations_])
        present = finite(vectors[:, 2])
        return vectors[present, 0].astype(np.float64), vectors[present, 2].astype(np.float64)

    plain, augmented = both("clean")
    apart = {line: np.subtract(*both(line)[::-1]).mean(axis=0) for line in PAIR_LINES}
    axis = apart["clean"] - 0.5 * (apart["full"] + apart["narrow"])
    return Prior(plain.mean(axis=0), augmented.mean(axis=0), axis, 0.0, 0.0)


def pair_statistics(projection: Projection, one: Population) -> tuple[float, float]:
    """Mean and deviation of the product's scores of different speakers of a population."""
    found = []
    for line in PAIR_LINES:
        prints = first_prints(one, line)[:PAIR_CALLERS]
        statistics = GalleryScorer(projection, prints).statistics
        if statistics is None:  # fewer than two callers
            raise ValueError(
                f"The population {one.name} has {len(prints)} speakers on the line {line}: too few."
            )
        # A prior of 0 leaves the gallery's own, times the weight of the gallery.
        weight = (len(prints) - 1) / (len(prints) - 1 + PRIOR_CALLERS)
        found.append((statistics.pair_mean / weight, statistics.pair_std / np.sqrt(weight)))
    mean, std = np.mean(found, axis=0).tolist()
    return mean, std


def first_prints(one: Population, line: str) -> list[CallerPrints]:
    """Each speaker enrolled from the first piece over a line."""
    first: dict[str, Vectors] = {}
    for piece, vectors in zip(one.pieces, one.vectors[line], strict=True):
        if piece.seconds == PIECE_S and finite(vectors[0]):
            first.setdefault(piece.speaker, vectors)
    return [caller_prints(vectors[None]) for vectors in first.values()]


def caller_prints(vectors: Vectors) -> CallerPrints:
    """The prints of a caller with the embeddings float32[n, 3, d]."""
    return CallerPrints(vectors[:, 0], vectors[finite(vectors[:, 2]), 2])


if __name__ == "__main__":
    sys.exit(main())
