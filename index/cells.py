"""Cells: proposes the likely neighbours of a query without looking at most vectors.

Three approximations, each of which only chooses candidates; their scores are computed from the vectors:

1. Vectors are projected on the directions in which inner products mostly differ: the leading
   eigenvectors of the second moment (principal components without centring, since it is inner products
   that are to be kept).
2. K-means splits the projected vectors into cells; a query looks into the nearest ones (IVF: Sivic and
   Zisserman, "Video Google", ICCV 2003; Jégou et al., "Product quantization", TPAMI 2011).
3. In a cell, 4 bits a dimension are compared, 32 vectors at a time in registers (André et al., "Cache
   locality is not enough", VLDB 2015), by faiss's `IndexIVFPQFastScan`.

The other families that were measured are in benchmarks/results/structures.json.
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

PROJECTED = 48
"""Dimensions that are kept for choosing candidates: more propose better, and take longer."""

LEAST_SAMPLE = 16
"""Vectors that training needs at least: one for each value of 4 bits."""

_SAMPLE_A_CELL = 100
_USUAL_SAMPLE = 20_000
_ITERATIONS = 10
_POINTS_A_LEVEL = 1_000
_SEED = 1234
_NEAREST = 10
_BLOCK = 32  # vectors that faiss interleaves


def cell_count(vectors: int) -> int:
    """How many cells for so many vectors: of the order of the square root, by measurement at a million."""
    return max(1, round(1.5 * math.sqrt(vectors)))


def sample_size(vectors: int) -> int:
    """How many of the vectors training looks at."""
    return min(vectors, max(_USUAL_SAMPLE, _SAMPLE_A_CELL * cell_count(vectors)))


class Cells:
    """Numbers of rows, found by an approximate inner product. Not locked: the owner sees to that."""

    def __init__(self, projection: NDArray[np.float32], ivf: Any) -> None:
        self._projection = projection  # float32[dimension, projected]
        self._ivf = ivf
        self._lists = faiss.downcast_InvertedLists(ivf.invlists)

    @classmethod
    def train(cls, sample: NDArray[np.float32], cells: int) -> Cells:
        """Empty cells, fitted to a sample float32[s, d] of the vectors that they will hold."""
        moment = sample.T @ sample
        projected = min(PROJECTED, sample.shape[1])
        directions = np.linalg.eigh(moment)[1][:, ::-1][:, :projected]
        projection = np.ascontiguousarray(directions, dtype=np.float32)
        quantizer = faiss.IndexFlatL2(projected)
        ivf = faiss.IndexIVFPQFastScan(quantizer, projected, cells, projected, 4, faiss.METRIC_INNER_PRODUCT)
        quantizer.this.disown()
        ivf.own_fields = True
        ivf.by_residual = False
        ivf.cp.niter = _ITERATIONS
        ivf.pq.cp.max_points_per_centroid = _POINTS_A_LEVEL
        for clustering in (ivf.cp, ivf.pq.cp):
            clustering.seed = _SEED
            clustering.min_points_per_centroid = 1  # a small sample is the caller's choice, not an error
        ivf.train(sample @ projection)
        return cls(projection, ivf)

    def __len__(self) -> int:
        return int(self._ivf.ntotal)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return int(self._ivf.nlist)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return len(self._projection)

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take in rows that are not there yet."""
        if len(rows):
            self._ivf.add_with_ids(vectors @ self._projection, rows)

    def remove(self, row: int, vector: NDArray[np.float32]) -> None:
        """Take out one row, in place; `vector` is the one that it was added with."""
        found = self._find(row, vector)
        if found is None:
            self.remove_all(np.array([row]))
            return
        cell, place, ids = found
        last = len(ids) - 1
        blocks, packer = self._blocks(cell), self._lists.packer
        if place != last:
            packer.pack_1(packer.unpack_1(blocks, last), place, blocks)
            ids[place] = ids[last]
        self._clear(blocks, last, last + 1)
        self._lists.resize(cell, last)
        self._ivf.ntotal -= 1

    def rename(self, row: int, new: int, vector: NDArray[np.float32]) -> None:
        """Give a row another number; `vector` is the one that it was added with."""
        found = self._find(row, vector)
        if found is None:
            self.remove_all(np.array([row]))
            self.add(np.array([new]), vector[None])
            return
        _, place, ids = found
        ids[place] = new

    def _find(self, row: int, vector: NDArray[np.float32]) -> tuple[int, int, NDArray[np.int64]] | None:
        """Where a row is: its cell, its place there, and all rows of that cell, a view.

        None where two cells are equally near, to the last bits of float32, and the vector was rounded
        otherwise when it came in beside others.
        """
        cell = int(self._ivf.quantizer.search((vector @ self._projection)[None], 1)[1][0, 0])
        size = self._lists.list_size(cell)
        if not size:
            return None
        ids = faiss.rev_swig_ptr(self._lists.get_ids(cell), size)
        places = np.flatnonzero(ids == row)
        return (cell, int(places[0]), ids) if len(places) else None

    def remove_all(self, rows: NDArray[np.int64]) -> None:
        """Take out rows whose vectors are not known, by looking through all cells."""
        if not len(rows):
            return
        sizes = [self._lists.list_size(cell) for cell in range(self.count)]
        self._ivf.remove_ids(rows)
        for cell, size in enumerate(sizes):
            left = self._lists.list_size(cell)
            if left < size and left % _BLOCK:
                self._clear(self._blocks(cell), left, -(-left // _BLOCK) * _BLOCK)

    def _blocks(self, cell: int) -> NDArray[np.uint8]:
        """The codes of a cell that is not empty, uint8[blocks, bytes a block], a view."""
        size = -(-self._lists.list_size(cell) // _BLOCK) * self._lists.packer.block_size
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self._lists.get_codes(cell), size)
        return codes.reshape(-1, self._lists.packer.block_size)

    def _clear(self, blocks: NDArray[np.uint8], start: int, stop: int) -> None:
        # faiss adds a code by OR to what is in its place, and trusts that there are zeros.
        packer = self._lists.packer
        zeros = np.zeros(packer.code_size, dtype=np.uint8)
        for place in range(start, stop):
            packer.pack_1(zeros, place, blocks)

    def candidates(
        self, queries: NDArray[np.float32], depth: int, probes: int, reach: float = math.inf
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The `depth` most promising rows for each query, int64[m, depth]; -1 where there are fewer.

        queries: float32[m, d]. Looked into are at most the `probes` nearest cells, and of these only the
        ones whose squared distance is up to `reach` times the mean of the ten nearest: a query amid others
        has many cells about as near, one apart has few. Gives also how many cells these were, int64[m].
        """
        projected = np.ascontiguousarray(queries @ self._projection)
        probes = min(probes, self.count)
        distances, cells = self._ivf.quantizer.search(projected, probes)
        limits = reach * distances[:, :_NEAREST].mean(axis=1)
        counts = np.array(
            [np.searchsorted(row, limit, "right") for row, limit in zip(distances, limits, strict=True)]
        )
        widest = int(counts.max(initial=1))
        cells, distances = (
            np.ascontiguousarray(cells[:, :widest]),
            np.ascontiguousarray(distances[:, :widest]),
        )
        for row, count in zip(cells, counts, strict=True):
            row[count:] = -1
        found = np.empty((len(queries), depth), dtype=np.int64)
        scores = np.empty((len(queries), depth), dtype=np.float32)
        # Not faiss's Python wrapper of it, which takes the number of probes from the shared index alone.
        self._ivf.search_preassigned_c(
            len(queries), faiss.swig_ptr(projected), depth, faiss.swig_ptr(cells), faiss.swig_ptr(distances),
            faiss.swig_ptr(scores), faiss.swig_ptr(found), False, faiss.IVFSearchParameters(nprobe=widest),
        )  # fmt: skip
        return found, counts

    def rows(self) -> NDArray[np.int64]:
        """All rows, int64[n], cell by cell."""
        parts = [
            faiss.rev_swig_ptr(self._lists.get_ids(cell), self._lists.list_size(cell)).copy()
            for cell in range(self.count)
            if self._lists.list_size(cell)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def to_bytes(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """For a snapshot: the projection, and faiss's own form of the rest."""
        return self._projection, faiss.serialize_index(self._ivf)

    @classmethod
    def from_bytes(cls, projection: NDArray[np.float32], ivf: NDArray[np.uint8]) -> Cells:
        """What `to_bytes` gave. The bytes have been checked: faiss trusts them.

        Raises RuntimeError for what this faiss cannot read, and ValueError for other things than cells.
        """
        index = faiss.deserialize_index(ivf)
        if not isinstance(index, faiss.IndexIVFPQFastScan) or projection.shape[1:] != (index.d,):
            raise ValueError("cells of another form")
        return cls(projection, index)
