"""Cells: proposes the likely neighbors of a query without looking at most vectors.

Four approximations, each of which only chooses candidates; their scores are computed from the vectors:

1. Vectors are projected on the directions in which inner products mostly differ: the leading
   eigenvectors of the second moment (principal components without centring, since it is inner products
   that are to be kept).
2. K-means splits the projected vectors into cells; a query looks into the nearest ones (IVF: Sivic and
   Zisserman, "Video Google", ICCV 2003; Jégou et al., "Product quantization", TPAMI 2011).
3. A vector is in two cells: the nearest, and one whose center lies in another direction from it, which
   a query finds that misses the first (Sun et al., "SOAR", NeurIPS 2023).
4. In a cell, 4 bits a dimension are compared, 32 vectors at a time in registers (André et al., "Cache
   locality is not enough", VLDB 2015), by faiss's `IndexIVFPQFastScan`.

benchmarks/structures.py holds these against other families and transforms; its figures are in
benchmarks/results/structures-100000.json.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint.index.lists import Lists
from voiceprint.index.locks import ReadWriteLock

PROJECTED = 64
"""Dimensions that are kept for choosing candidates: more propose better, and take longer."""

LEAST_SAMPLE = 16
"""Vectors that training needs at least: one for each value of 4 bits."""

_SAMPLE_A_CELL = 100
_USUAL_SAMPLE = 20_000
_ITERATIONS = 10
_POINTS_A_LEVEL = 1_000
_SEED = 1234
_NEAREST = 10
_COPIES = 2  # cells that a vector is in
_CONSIDERED = 10  # of the cells next to the nearest, for the second
_AT_ONCE = 512  # vectors whose second cell is chosen in one go
_NOWHERE = -1
_FARTHEST = 1e15  # of a center's coordinates: their squares are summed in float32
_LARGEST_SHARE = 8  # times the size of what is read, for one array of it
_LIMITED: Final = threading.Lock()  # the limit is of the process


def cell_count(vectors: int) -> int:
    """How many cells for so many vectors: of the order of the square root, by measurement at a million."""
    return max(1, round(1.5 * math.sqrt(vectors)))


def sample_size(vectors: int) -> int:
    """How many of the vectors training looks at."""
    return min(vectors, max(_USUAL_SAMPLE, _SAMPLE_A_CELL * cell_count(vectors)))


@lru_cache(maxsize=1024)
def _probing(probes: int) -> Any:
    return faiss.IVFSearchParameters(nprobe=probes)


# OpenBLAS ends its threads before a fork, and whoever computes with them just then waits for them for ever,
# in the parent. A fork waits for such a lock.
ALGEBRA: Final = ReadWriteLock()


class Cells:
    """Numbers of rows, found by an approximate inner product. Not locked: the owner sees to that."""

    def __init__(self, projection: NDArray[np.float32], ivf: Any, copies: int) -> None:
        self._projection = projection  # float32[dimension, projected]
        self._ivf = ivf
        self._copies = copies
        self._lists = Lists(ivf)
        self._centers: NDArray[np.float32] = ivf.quantizer.reconstruct_n(0, ivf.nlist)
        self._halves = (self._centers**2).sum(axis=1) / 2  # of the squared lengths of the centers
        self._homes = np.full((0, copies), _NOWHERE, dtype=np.int32)  # the cells of each row

    @classmethod
    def train(cls, sample: NDArray[np.float32], cells: int) -> Cells:
        """Empty cells, fitted to a sample float32[s, d] of the vectors that they will hold."""
        projected = min(PROJECTED, sample.shape[1])
        with ALGEBRA.reading():
            directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :projected]
            projection = np.ascontiguousarray(directions, dtype=np.float32)
            seen = sample @ projection
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
        with ALGEBRA.reading():
            ivf.train(seen)
        return cls(projection, ivf, min(_COPIES, cells))

    def __len__(self) -> int:
        return len(self._lists) // self._copies

    @property
    def count(self) -> int:
        """How many cells there are."""
        return int(self._ivf.nlist)

    @property
    def entries(self) -> int:
        """How many codes there are, in all cells."""
        return len(self._lists)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return len(self._projection)

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take in rows that are not there yet."""
        self.put(rows, *self.encode(vectors))

    def encode(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What is kept of each vector, uint8[n, code_size], and the cells for it, int64[n, copies]."""
        if not len(vectors):
            return np.empty((0, self._lists.code_size), np.uint8), np.empty((0, self._copies), np.int64)
        projected = vectors @ self._projection
        return self._ivf.pq.compute_codes(projected), self._choose(projected)

    def put(self, rows: NDArray[np.int64], codes: NDArray[np.uint8], homes: NDArray[np.int64]) -> None:
        """Take in rows that are not there yet, of vectors that have been encoded."""
        if not len(rows):
            return
        self._make_room(int(rows.max()) + 1)
        self._homes[rows] = homes
        of_cells = homes.ravel()
        order = np.argsort(of_cells, kind="stable")
        of_cells = of_cells[order]
        starts = [0, *((of_cells[1:] != of_cells[:-1]).nonzero()[0] + 1).tolist(), len(order)]
        for start, end in pairwise(starts):
            which = order[start:end] // self._copies
            self._lists.append(int(of_cells[start]), rows[which], codes[which])

    def _choose(self, projected: NDArray[np.float32]) -> NDArray[np.int64]:
        """The cells for each vector, int64[n, copies]."""
        _, nearest = self._ivf.quantizer.search(projected, min(1 + _CONSIDERED, self.count))
        chosen = np.ascontiguousarray(nearest[:, : self._copies])
        if nearest.shape[1] == self._copies:
            return chosen
        for start in range(0, len(projected), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            vectors, others = projected[some], nearest[some, 1:]
            away = vectors - self._centers[nearest[some, 0]]
            away /= np.sqrt((away**2).sum(axis=1, keepdims=True)) + np.float32(1e-12)
            second = vectors[:, None] - self._centers[others]
            # The loss of SOAR: the squared distance, with the part along the first residual counted twice.
            loss = (second**2).sum(axis=2) + np.matmul(second, away[:, :, None])[:, :, 0] ** 2
            chosen[some, 1] = others[np.arange(len(others)), loss.argmin(axis=1)]
        return chosen

    def _make_room(self, rows: int) -> None:
        if rows > len(self._homes):
            before = len(self._homes)
            self._homes.resize((rows + rows // 16, self._copies), refcheck=False)
            self._homes[before:] = _NOWHERE

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Take rows out, in place; those that are not there are passed over."""
        for row in rows[rows < len(self._homes)].tolist():
            for cell in self._homes[row].tolist():
                if cell != _NOWHERE:
                    self._lists.remove(cell, row)
            self._homes[row] = _NOWHERE

    def rename(self, row: int, new: int) -> None:
        """Give a row that is there another number, which is free."""
        for cell in self._homes[row].tolist():
            self._lists.rename(cell, row, new)
        self._homes[new], self._homes[row] = self._homes[row], _NOWHERE

    def candidates(
        self, queries: NDArray[np.float32], depth: int, probes: int, reach: float = math.inf
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The `depth` most promising rows for each query, int64[m, depth]; -1 where there are fewer.

        queries: float32[m, d]. Looked into are at most the `probes` nearest cells, and of these only the
        ones whose squared distance is up to `reach` times the mean of the ten nearest: a query amid others
        has many cells about as near, one apart has few. A row that is in two of them may come twice.
        Gives also how many cells these were, int64[m].
        """
        projected = np.ascontiguousarray(queries @ self._projection)
        near = [self._near(query, min(probes, self.count), reach) for query in projected]
        counts = np.array([len(cells) for cells in near], dtype=np.int64)
        cells = np.full((len(queries), int(counts.max(initial=1))), _NOWHERE, dtype=np.int64)
        for place, some in enumerate(near):
            cells[place, : len(some)] = some
        distances = np.zeros(cells.shape, dtype=np.float32)  # not looked at: codes are not of residuals
        found = np.empty((len(queries), depth), dtype=np.int64)
        scores = np.empty((len(queries), depth), dtype=np.float32)
        # Not faiss's Python wrapper of it, which takes the number of probes from the shared index alone.
        self._ivf.search_preassigned_c(
            len(queries), faiss.swig_ptr(projected), depth, faiss.swig_ptr(cells), faiss.swig_ptr(distances),
            faiss.swig_ptr(scores), faiss.swig_ptr(found), False,
            _probing(cells.shape[1]),
        )  # fmt: skip
        return found, counts

    def _near(self, query: NDArray[np.float32], probes: int, reach: float) -> NDArray[np.int64]:
        """The cells to look into for a projected query float32[p], the nearest first."""
        # Half the squared distances: many times as fast as faiss's search for some hundred cells of these.
        distances = self._halves - self._centers @ query + query @ query / 2
        ordered = np.sort(distances)
        count = probes
        if reach < math.inf:
            limit = reach * ordered[:_NEAREST].sum() / min(_NEAREST, len(ordered))
            count = max(1, min(probes, int(ordered.searchsorted(limit, "right"))))
        cells = (distances <= ordered[count - 1]).nonzero()[0][:count]
        in_order: NDArray[np.int64] = cells[distances[cells].argsort()]
        return in_order

    def rows(self) -> NDArray[np.int64]:
        """The rows of all cells, int64[n * copies], cell by cell."""
        return np.concatenate([self._lists.rows(cell) for cell in range(self.count)])

    def to_bytes(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """For a snapshot: the projection, and faiss's own form of the rest."""
        self._lists.tell_total()
        return self._projection, faiss.serialize_index(self._ivf)

    @classmethod
    def from_bytes(cls, projection: NDArray[np.float32], ivf: NDArray[np.uint8], rows: int) -> Cells:
        """Read the bytes of `to_bytes`, for this number of rows.

        Raises RuntimeError for what this faiss cannot read, and ValueError for other things than cells of
        these rows.
        """
        index = _deserialized(ivf)
        if not _is_ours(index) or projection.shape[1:] != (index.d,) or not _bounded(projection, 1.01):
            raise ValueError("cells of another form")
        entries = sum(index.invlists.list_size(cell) for cell in range(index.nlist))
        copies, rest = divmod(entries, max(1, rows))
        if rest or not 1 <= copies <= _COPIES:
            raise ValueError("cells of other rows than the ones that there are")
        cells = cls(projection, index, copies)
        cells._find_homes(rows)
        return cells

    def _find_homes(self, rows: int) -> None:
        """Learn from the lists in which cells each row is."""
        self._make_room(rows)
        taken = np.zeros(rows, dtype=np.int64)
        places = np.zeros(rows, dtype=np.int64)
        for cell in range(self.count):
            here = self._lists.rows(cell)
            if not len(here):
                continue
            if here.min() < 0 or here.max() >= rows:
                raise ValueError("a cell holds rows that are not there")
            places[here] = np.arange(len(here))
            if (places[here] != np.arange(len(here))).any():
                raise ValueError("a cell holds a row twice")
            if (taken[here] >= self._copies).any():
                raise ValueError("a row is in too many cells")
            self._homes[here, taken[here]] = cell
            taken[here] += 1
        self._lists.total = int(taken.sum())


def _deserialized(raw: NDArray[np.uint8]) -> Any:
    """faiss's own form of an index, read; it takes no more memory than some times its size."""
    limit = getattr(faiss, "set_deserialization_vector_byte_limit", None)
    try:
        if limit is None:  # faiss before 1.15: a size that is out of all proportion is a MemoryError
            return faiss.deserialize_index(raw)
        with _LIMITED:
            before = faiss.get_deserialization_vector_byte_limit()
            limit(_LARGEST_SHARE * len(raw))
            try:
                return faiss.deserialize_index(raw)
            finally:
                limit(before)
    except MemoryError as error:
        raise ValueError("cells for which there is no memory") from error


def _is_ours(index: Any) -> bool:
    """Whether it is what `Cells.train` makes: what searching and editing the lists rest on."""
    if not isinstance(index, faiss.IndexIVFPQFastScan):
        return False
    quantizer = faiss.downcast_index(index.quantizer)
    return (
        isinstance(quantizer, faiss.IndexFlatL2)
        and (quantizer.d, quantizer.ntotal) == (index.d, index.nlist)
        and index.invlists.nlist == index.nlist
        and (index.pq.d, index.pq.M, index.pq.nbits) == (index.d, index.d, 4)
        and index.pq.centroids.size() == index.d << 4
        and (index.metric_type, index.by_residual) == (faiss.METRIC_INNER_PRODUCT, False)
        and _bounded(quantizer.reconstruct_n(0, index.nlist), _FARTHEST)
    )


def _bounded(array: NDArray[np.float32], most: float) -> bool:
    return bool((np.abs(array) <= most).all())  # not "any above": NaN is neither
