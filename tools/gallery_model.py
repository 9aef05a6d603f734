"""Generated galleries of any size, with the statistics of real embeddings: see fit_gallery_model.py.

A voice is a point of a Gaussian (`between`), a recording of it a Gaussian around that point (`within`) whose
width differs from recording to recording (lognormal, `spread`). Then, as in the encoder, negative values are
cut to 0 and the rest is scaled to length 1:

    y = mean + between z + exp(spread e - spread^2) within w,      x = max(y, 0) / |max(y, 0)|

Callers come in blocks with a random stream each, so that a gallery need not be in memory as a whole, a small
one is the beginning of a large one, and further recordings of a caller can be generated at any time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("gallery_model.npz")
QUANTILES = (0.05, 0.5, 0.95, 0.99)
BLOCK = 10_000  # callers that share a random stream
MAX_PRINTS = 3

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


class Block(NamedTuple):
    """Prints of successive callers: ids int64[n] from 1, callers int64[n] from 0, vectors float32[n, d]."""

    ids: Ids
    callers: Ids
    vectors: Vectors


@dataclass(frozen=True)
class GalleryModel:
    """The fitted parameters.

    mean: float32[d]. between, within: float32[d, rank]. spread: sigma of the width's logarithm.
    genuine, impostor: the `QUANTILES` of the real scores.
    """

    mean: Vectors = field(repr=False)
    between: Vectors = field(repr=False)
    within: Vectors = field(repr=False)
    spread: float
    genuine: tuple[float, ...] = ()
    impostor: tuple[float, ...] = ()

    @classmethod
    def load(cls, path: Path = FILE) -> GalleryModel:
        """Read a model from a file."""
        with np.load(path) as arrays:
            return cls(
                *(arrays[name].astype(np.float32) for name in ("mean", "between", "within")),
                spread=float(arrays["spread"]),
                genuine=tuple(arrays["genuine"].tolist()),
                impostor=tuple(arrays["impostor"].tolist()),
            )

    def save(self, path: Path = FILE) -> None:
        """Write the file; the factors as float16, whose rounding is far below the error of the fit."""
        arrays = {name: getattr(self, name).astype(np.float16) for name in ("between", "within")}
        arrays |= {name: np.array(getattr(self, name)) for name in ("spread", "genuine", "impostor")}
        with path.open("wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in ({"mean": self.mean} | arrays).items():
                # Not np.savez, which writes the time into the archive: the same fit must give the same file.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                    np.lib.format.write_array(member, np.asanyarray(array))

    def voices(self, count: int, chance: np.random.Generator) -> Vectors:
        """`count` speakers, float32[count, d]: points before cutting and normalizing."""
        latent = chance.standard_normal((count, self.between.shape[1]), dtype=np.float32)
        return self.mean + latent @ self.between.T

    def recordings(self, voices: Vectors, chance: np.random.Generator) -> Vectors:
        """One recording of each of the voices, float32[n, d], of length 1."""
        width = chance.standard_normal((len(voices), 1), dtype=np.float32)
        width = np.exp(np.float32(self.spread) * width - np.float32(self.spread**2))
        vectors = (
            chance.standard_normal((len(voices), self.within.shape[1]), dtype=np.float32) @ self.within.T
        )
        vectors *= width
        vectors += voices
        np.maximum(vectors, 0, out=vectors)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def gallery(self, prints: int, seed: int = 1) -> Gallery:
        """A gallery of `prints` prints, of callers with one to three prints each."""
        return Gallery(self, prints, seed)


@dataclass(frozen=True)
class Gallery:
    """Generated prints, the same for the same seed; computed when iterated, see `blocks`."""

    model: GalleryModel
    prints: int
    seed: int

    def __len__(self) -> int:
        return self.prints

    def blocks(self) -> Iterator[Block]:
        """All prints, some 20,000 at a time."""
        start = 0
        for number, counts in enumerate(self._counts):
            voices = self.model.voices(len(counts), self._chance(number, 1))
            of = np.repeat(np.arange(len(counts)), counts)
            vectors = self.model.recordings(voices[of], self._chance(number, 2))[: self.prints - start]
            callers = BLOCK * number + of[: len(vectors)]
            yield Block(np.arange(start + 1, start + 1 + len(vectors)), callers, vectors)
            start += len(vectors)

    def matrix(self) -> Vectors:
        """All prints, float32[n, d]; the print with the id n is in the row n - 1."""
        matrix = np.empty((self.prints, len(self.model.mean)), dtype=np.float32)
        for block in self.blocks():
            matrix[block.ids[0] - 1 : block.ids[-1]] = block.vectors
        return matrix

    def callers(self) -> Ids:
        """The caller of each print, int64[n]."""
        of = np.repeat(np.arange(sum(map(len, self._counts))), np.concatenate(self._counts))
        return of[: self.prints]

    def probes(self, count: int, seed: int = 1) -> tuple[Ids, Vectors]:
        """New recordings of callers who are in the gallery: callers int64[count], float32[count, d]."""
        chance = np.random.default_rng([self.seed, seed, 3])
        callers = chance.integers(0, int(self.callers()[-1]) + 1, size=count)
        voices = np.empty((count, len(self.model.mean)), dtype=np.float32)
        for number in np.unique(callers // BLOCK):
            here = callers // BLOCK == number
            of_block = self.model.voices(len(self._counts[number]), self._chance(number, 1))
            voices[here] = of_block[callers[here] % BLOCK]
        return callers, self.model.recordings(voices, chance)

    @cached_property
    def _counts(self) -> list[NDArray[np.int64]]:
        """Prints of each caller in each block; the last block may have more than the gallery."""
        counts: list[NDArray[np.int64]] = []
        total = 0
        while total < self.prints:
            counts.append(self._chance(len(counts), 0).integers(1, MAX_PRINTS + 1, size=BLOCK))
            total += int(counts[-1].sum())
        return counts

    def _chance(self, block: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, int(block), stream])


def scores(vectors: Vectors, speakers: NDArray[np.integer]) -> tuple[Vectors, Vectors]:
    """The cosines of all pairs: of recordings of one speaker (genuine), and of two speakers (impostor)."""
    cosine = vectors @ vectors.T
    pairs = np.triu_indices(len(vectors), 1)
    same = speakers[pairs[0]] == speakers[pairs[1]]
    return cosine[pairs][same], cosine[pairs][~same]


def quantiles(values: Vectors) -> tuple[float, ...]:
    """The `QUANTILES` of scores."""
    return tuple(round(float(value), 4) for value in np.quantile(values, QUANTILES))


def gallery_quantiles(gallery: Gallery) -> dict[str, tuple[float, ...]]:
    """The quantiles of the scores of a gallery that fits into memory squared."""
    genuine, impostor = scores(gallery.matrix(), gallery.callers())
    return {"genuine": quantiles(genuine), "impostor": quantiles(impostor)}
