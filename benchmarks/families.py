"""The families of search structures that benchmarks/structures.py chooses among, behind one interface.

Each is made with faiss directly, and holds what a `Transform` makes of the vectors. It only proposes
candidates, whose scores are then computed from the vectors; a structure is `exact` where it has these itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import timed
from tools.gallery_model import GalleryModel
from voiceprint.index.cells import Cells, cell_count, sample_size

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]

BLOCK = 50_000  # vectors that are transformed in one go
GRAPH_LINKS = 32
_SEED = 1234
_ITERATIONS = 10
_POINTS_A_LEVEL = 1_000
_RIDGE = 0.1  # of the mean variance within a speaker, added before it is divided by


@dataclass(frozen=True)
class Transform:
    """What is done to a vector before a structure sees it: (x - offset) matrix, and then length 1 if `unit`.

    metric: faiss's, by which a structure then compares. It is the squared distance, which orders vectors
    of length 1 as the inner product does, but for projections, whose inner products are the ones to keep.
    """

    name: str
    dimension: int
    offset: Vectors | None = field(default=None, repr=False)
    matrix: Vectors | None = field(default=None, repr=False)
    unit: bool = False
    metric: int = faiss.METRIC_L2

    def __call__(self, vectors: Vectors) -> Vectors:
        """float32[n, dimension]."""
        made = vectors if self.offset is None else vectors - self.offset
        made = made if self.matrix is None else made @ self.matrix
        return made / np.linalg.norm(made, axis=1, keepdims=True) if self.unit else made


def transforms(sample: Vectors, model: GalleryModel) -> dict[str, Transform]:
    """Those that are tried, fitted to a sample; `model` knows how one speaker's recordings differ."""
    dimension = sample.shape[1]
    mean = sample.mean(axis=0)
    values, axes = np.linalg.eigh(model.within @ model.within.T)
    whitening = (axes / np.sqrt(np.maximum(values, 0) + _RIDGE * values.mean())) @ axes.T
    whitened = (sample - mean) @ whitening
    # Not with a random rotation only, but centerd first: its codes are the signs of the coordinates.
    rotation = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((dimension, dimension)))[0]
    made = [
        Transform("none", dimension),
        Transform("centerd", dimension, mean, unit=True),
        Transform("rotated", dimension, mean, rotation.astype(np.float32), unit=True),
        Transform("whitened-64", 64, mean, (whitening @ _directions(whitened, 64)).astype(np.float32)),
    ]
    made += [
        Transform(f"pca-{count}", count, matrix=_directions(sample, count), metric=faiss.METRIC_INNER_PRODUCT)
        for count in (48, 64)
    ]
    return {transform.name: transform for transform in made}


def _directions(sample: Vectors, count: int) -> Vectors:
    """The leading eigenvectors of the second moment, float32[d, count]."""
    leading = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :count]
    return np.ascontiguousarray(leading, dtype=np.float32)


class Material:
    """What structures are made of: the vectors, and what several of them share."""

    def __init__(self, vectors: Vectors, model: GalleryModel) -> None:
        self.vectors = vectors
        self.cells = cell_count(len(vectors))
        chosen = np.random.default_rng(_SEED).choice(len(vectors), sample_size(len(vectors)), replace=False)
        self.sample = np.array(vectors[np.sort(chosen)])
        self.transforms = transforms(self.sample, model)
        self._centers: dict[str, tuple[Vectors, float]] = {}

    def centers(self, transform: Transform) -> tuple[Vectors, float]:
        """The centers of the cells after a transform, and the seconds that finding them took."""
        if transform.name not in self._centers:
            clustering = faiss.Kmeans(
                transform.dimension, self.cells, niter=_ITERATIONS, seed=_SEED, min_points_per_centroid=1
            )
            seconds = timed(lambda: clustering.train(transform(self.sample)))
            self._centers[transform.name] = clustering.centroids, seconds
        return self._centers[transform.name]


class Structure(ABC):
    """One structure, built.

    efforts: how hard a search can be told to try, in rising order. seconds: of building, with what is shared.
    exact: candidates come in the order of their scores, so that none are needed beyond the answers.
    """

    efforts: tuple[float, ...]
    exact = False
    seconds: float
    bytes: int

    @abstractmethod
    def candidates(self, queries: Vectors, depth: int, effort: float) -> Ids:
        """The most promising rows for each query, int64[m, depth], best first; -1 where there are fewer."""

    @abstractmethod
    def remove(self, row: int) -> None:
        """Take one out in place. RuntimeError where that is impossible."""


class Flat(Structure):
    """All vectors are compared."""

    efforts = (1,)
    exact = True

    def __init__(self, material: Material) -> None:
        self._index = faiss.IndexFlatIP(material.vectors.shape[1])
        self.seconds = timed(lambda: self._index.add(material.vectors))
        self.bytes = material.vectors.nbytes

    def candidates(self, queries: Vectors, depth: int, effort: float) -> Ids:  # noqa: ARG002
        found: Ids = self._index.search(queries, depth)[1]
        return found

    def remove(self, row: int) -> None:
        self._index.remove_ids(np.array([row]))


class Transformed(Structure):
    """A faiss index behind a transform."""

    def __init__(self, material: Material, transform: Transform, index: Any, *, holds_vectors: bool) -> None:
        self._transform, self._index = transform, index
        self.exact = holds_vectors and transform.name == "none"
        self.seconds = timed(lambda: self._fill(material))
        self.bytes = faiss.serialize_index(index).nbytes + (0 if self.exact else material.vectors.nbytes)

    def _fill(self, material: Material) -> None:
        self._index.train(self._transform(material.sample))
        for start in range(0, len(material.vectors), BLOCK):
            self._index.add(self._transform(material.vectors[start : start + BLOCK]))

    @abstractmethod
    def _try(self, effort: float) -> None:
        """Set one of the efforts."""

    def candidates(self, queries: Vectors, depth: int, effort: float) -> Ids:
        self._try(effort)
        found: Ids = self._index.search(self._transform(queries), depth)[1]
        return found

    def remove(self, row: int) -> None:
        self._index.remove_ids(np.array([row]))


class InvertedLists(Transformed):
    """Cells, and in them codes of some kind; an effort is a number of cells to look into."""

    def __init__(
        self, material: Material, transform: Transform, make: Callable[..., Any], *, holds_vectors: bool
    ) -> None:
        centers, seconds = material.centers(transform)
        quantizer = faiss.IndexFlatL2(transform.dimension)
        quantizer.add(centers)
        index = make(quantizer, transform.dimension, material.cells, transform.metric)
        quantizer.this.disown()
        index.own_fields = True
        super().__init__(material, transform, index, holds_vectors=holds_vectors)
        self.seconds += seconds
        self.efforts = ladder(1, material.cells, 1.15)

    def _try(self, effort: float) -> None:
        self._index.nprobe = int(effort)


class Graph(Transformed):
    """HNSW (Malkov and Yashunin, TPAMI 2018); an effort is how many vectors are kept while searching."""

    def __init__(self, material: Material, transform: Transform) -> None:
        # By distance always: in a graph by inner products, of projections, some are hard to come to.
        index = faiss.IndexHNSWFlat(transform.dimension, GRAPH_LINKS, faiss.METRIC_L2)
        super().__init__(material, transform, index, holds_vectors=True)
        self.efforts = ladder(8, min(4_096, len(material.vectors)), 1.25)

    def _try(self, effort: float) -> None:
        self._index.hnsw.efSearch = int(effort)


class ProductCells(Structure):
    """The product's own; an effort is how much farther than the nearest cells others may be."""

    efforts = (*(round(1.0 + 0.02 * step, 2) for step in range(64)), math.inf)

    def __init__(self, material: Material) -> None:
        self.seconds = timed(lambda: self._fill(material))
        held = sum(part.nbytes for part in self._cells.to_bytes()) + 4 * self._cells.entries  # and the homes
        self.bytes = held + material.vectors.nbytes

    def _fill(self, material: Material) -> None:
        self._cells = Cells.train(material.sample, material.cells)
        for start in range(0, len(material.vectors), BLOCK):
            some = material.vectors[start : start + BLOCK]
            self._cells.add(np.arange(start, start + len(some)), some)

    def candidates(self, queries: Vectors, depth: int, effort: float) -> Ids:
        most = self._cells.count if math.isinf(effort) else max(1, self._cells.count // 5)
        # Not all in one go: as many cells are reserved for each as the one with the most looks into.
        parts = [queries[n : n + 32] for n in range(0, len(queries), 32)]
        return np.concatenate([self._cells.candidates(part, depth, most, effort)[0] for part in parts])

    def remove(self, row: int) -> None:
        self._cells.remove(np.array([row]))


def ladder(least: int, most: int, step: float) -> tuple[float, ...]:
    """Whole numbers from `least` to `most`, each about `step` times the one before."""
    count = math.ceil(math.log(max(1, most / least)) / math.log(step))
    return tuple(sorted({min(most, round(least * step**power)) for power in range(count + 1)} | {most}))


def _scalar(kind: int) -> Callable[..., Any]:
    def make(quantizer: Any, dimension: int, cells: int, metric: int) -> Any:
        return faiss.IndexIVFScalarQuantizer(quantizer, dimension, cells, kind, metric, False)

    return make


def _fast_scan(quantizer: Any, dimension: int, cells: int, metric: int) -> Any:
    """Four bits a dimension, compared in registers."""
    index = faiss.IndexIVFPQFastScan(quantizer, dimension, cells, dimension, 4, metric)
    index.by_residual = False
    index.pq.cp.max_points_per_centroid = _POINTS_A_LEVEL
    index.pq.cp.min_points_per_centroid = 1
    return index


def _rabitq(quantizer: Any, dimension: int, cells: int, metric: int) -> Any:
    """One bit a dimension (Gao and Long, "RaBitQ", SIGMOD 2024)."""
    return faiss.IndexIVFRaBitQFastScan(quantizer, dimension, cells, metric)


def _inverted(
    transform: str, make: Callable[..., Any], *, holds_vectors: bool = False
) -> Callable[[Material], Structure]:
    return lambda material: InvertedLists(
        material, material.transforms[transform], make, holds_vectors=holds_vectors
    )


def _graph(transform: str) -> Callable[[Material], Structure]:
    return lambda material: Graph(material, material.transforms[transform])


_EVERY = ("none", "centerd", "pca-64", "whitened-64")
_KINDS = faiss.ScalarQuantizer
STRUCTURES: dict[str, Callable[[Material], Structure]] = {
    "flat": Flat,
    **{f"ivf-flat {name}": _inverted(name, faiss.IndexIVFFlat, holds_vectors=True) for name in _EVERY},
    **{f"ivf-sq8 {name}": _inverted(name, _scalar(_KINDS.QT_8bit)) for name in _EVERY},
    **{f"ivf-fp16 {name}": _inverted(name, _scalar(_KINDS.QT_fp16)) for name in _EVERY},
    **{f"ivf-pq4 {name}": _inverted(name, _fast_scan) for name in ("pca-48", "pca-64", "whitened-64")},
    "cells pca-48": ProductCells,
    "ivf-rabitq rotated": _inverted("rotated", _rabitq),
    **{f"hnsw {name}": _graph(name) for name in _EVERY},
}
"""Every structure, by family and transform; those that this faiss has."""

if not hasattr(faiss, "IndexIVFRaBitQFastScan"):
    del STRUCTURES["ivf-rabitq rotated"]
