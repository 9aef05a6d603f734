"""The inverted file: which vectors are worth an exact comparison with a query.

Three approximations, each of which only chooses candidates; scores are computed from the stored vectors:

1. Vectors are projected on their leading principal directions, the eigenvectors of the second moment, not
   centered: the inner product is the quantity to preserve.
2. K-means splits the projected vectors into lists; a query scans the `nprobe` nearest ones (Sivic and
   Zisserman, "Video Google", ICCV 2003; Jégou et al., "Product quantization", TPAMI 2011).
3. In a list, 4 bits a dimension are compared, 32 vectors at a time in registers (André et al., "Cache
   locality is not enough", VLDB 2015): faiss's `IndexIVFPQFastScan`.

research/index-structures.md has the figures of other structures.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint.index.locks import COMPUTING

PROJECTED = 64
"""Principal directions. 48 lower recall@5 at a million from 0.976 to 0.961 for 3/4 of the scan."""

MIN_SAMPLE = 16
"""Vectors that training needs at least: as many as 4 bits have values."""

_SAMPLE_PER_LIST = 100
_MIN_FULL_SAMPLE = 20_000
_ITERATIONS = 10
_POINTS_PER_LEVEL = 1_000
_SEED = 1234
_BLOCK = 16_384  # vectors projected at a time: 4 MB
_MAX_CENTER = 1e15  # of a center's coordinates: their squares are summed in float32
_MAX_SHARE = 8  # times the size of the bytes that are read, for one array in them
_LIMITED: Final = threading.Lock()  # faiss's limit is one for the process


def list_count(vectors: int) -> int:
    """Lists for this many vectors: the square root, measured at a million (research/index-structures.md)."""
    return max(1, round(math.sqrt(vectors)))


def sample_size(vectors: int) -> int:
    """Vectors that training uses, of this many."""
    return min(vectors, max(_MIN_FULL_SAMPLE, _SAMPLE_PER_LIST * list_count(vectors)))


def rerank_k(k: int) -> int:
    """Candidates that are compared exactly for k answers.

    At a million, 64 and 128 more than four times k give a recall@5 of 0.95 and 0.98, in 0.03 and 0.05 ms.
    """
    return 128 + 4 * k


def pool_size(count: int) -> int:
    """Candidates for `count` answers that a better score than the inner product chooses from.

    Its best answers are far fewer than `count`. At a million, the pool for 200 has 97 % of the 18 nearest,
    and `rerank_k`, of which twice as many vectors are read, 98 %.
    """
    return 128 + 2 * count


@lru_cache(maxsize=1024)
def _parameters(nprobe: int) -> Any:
    return faiss.IVFSearchParameters(nprobe=nprobe)


class IVFIndex:
    """Numbers of rows, found by an approximate inner product. Immutable once it is shared."""

    def __init__(self, projection: NDArray[np.float32], ivf: Any) -> None:
        self.projection = projection  # float32[dimension, projected]
        self._ivf = ivf
        self._centers: NDArray[np.float32] = ivf.quantizer.reconstruct_n(0, ivf.nlist)
        self._half_sq_norms = (self._centers**2).sum(axis=1) / 2

    @classmethod
    def train(cls, sample: NDArray[np.float32], lists: int) -> IVFIndex:
        """An empty index for vectors like the sample, float32[s, d]."""
        projected = min(PROJECTED, sample.shape[1])
        with COMPUTING.reading():
            directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :projected]
            projection = np.ascontiguousarray(directions, dtype=np.float32)
            points = sample @ projection
        quantizer = faiss.IndexFlatL2(projected)
        ivf = faiss.IndexIVFPQFastScan(quantizer, projected, lists, projected, 4, faiss.METRIC_INNER_PRODUCT)
        quantizer.this.disown()
        ivf.own_fields = True
        ivf.by_residual = False
        ivf.cp.niter = _ITERATIONS
        ivf.cp.max_points_per_centroid = _SAMPLE_PER_LIST
        ivf.pq.cp.max_points_per_centroid = _POINTS_PER_LEVEL
        for clustering in (ivf.cp, ivf.pq.cp):
            clustering.seed = _SEED
            clustering.min_points_per_centroid = 1  # a small sample is the caller's choice, not an error
        with COMPUTING.reading():
            ivf.train(points)
        return cls(projection, ivf)

    def __len__(self) -> int:
        return int(self._ivf.ntotal)

    @property
    def nlist(self) -> int:
        """Number of lists."""
        return int(self._ivf.nlist)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return len(self.projection)

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add numbers of rows that are not there, with their vectors. Only before the index is shared."""
        for start in range(0, len(rows), _BLOCK):
            some = slice(start, start + _BLOCK)
            with COMPUTING.reading():
                self._ivf.add_with_ids(vectors[some] @ self.projection, rows[some])

    def without(self, rows: NDArray[np.int64]) -> IVFIndex:
        """A copy that lacks these rows and can be added to. It takes 20 ms a million."""
        ivf = faiss.clone_index(self._ivf)
        if len(rows):
            ivf.remove_ids(faiss.IDSelectorBatch(rows))
            _clear_free_places(ivf)
        return IVFIndex(self.projection, ivf)

    def candidates(self, queries: NDArray[np.float32], nprobe: int, count: int) -> NDArray[np.int64]:
        """The `count` most promising rows for each query, int64[m, count]; -1 where there are fewer.

        queries: float32[m, d].
        """
        points = np.ascontiguousarray(queries @ self.projection)
        nprobe = min(nprobe, self.nlist)
        # Half the squared distances, but for the query's own part. For a hundred lists and more this takes a
        # fraction of the time of faiss's search of the centers, which also sorts them.
        distances = self._half_sq_norms - points @ self._centers.T
        lists = np.argpartition(distances, nprobe - 1, axis=1)[:, :nprobe].astype(np.int64)
        unused = np.zeros(lists.shape, dtype=np.float32)  # distances matter to codes of residuals only
        found = np.empty((len(queries), count), dtype=np.int64)
        scores = np.empty((len(queries), count), dtype=np.float32)
        # The C++ method: its Python wrapper takes the number of lists from the shared index alone.
        self._ivf.search_preassigned_c(
            len(queries), faiss.swig_ptr(points), count, faiss.swig_ptr(lists), faiss.swig_ptr(unused),
            faiss.swig_ptr(scores), faiss.swig_ptr(found), False, _parameters(nprobe),
        )  # fmt: skip
        return found

    def rows(self) -> NDArray[np.int64]:
        """The rows of all lists, int64[n], list by list."""
        lists = self._ivf.invlists
        sizes = [lists.list_size(number) for number in range(self.nlist)]
        parts = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def to_bytes(self) -> NDArray[np.uint8]:
        """faiss's own form of all but the projection."""
        raw: NDArray[np.uint8] = faiss.serialize_index(self._ivf)
        return raw

    @classmethod
    def from_bytes(cls, projection: NDArray[np.float32], raw: NDArray[np.uint8]) -> IVFIndex:
        """The inverse of `to_bytes`.

        Raises ValueError for bytes that this faiss cannot read, and for another kind of index.
        """
        ivf = _deserialized(raw)
        if not _is_ours(ivf) or projection.shape[1:] != (ivf.d,) or not _within(projection, 1.01):
            raise ValueError("an inverted file of another form")
        found = cls(projection, ivf)
        if len(found) != sum(ivf.invlists.list_size(number) for number in range(ivf.nlist)):
            raise ValueError("an inverted file of another length than its lists")
        return found


def _clear_free_places(ivf: Any) -> None:
    """Clear the codes behind the last row of each list.

    faiss leaves those of removed rows there, and adds a row by setting bits alone (1.15): a third of the rows
    that were added after a removal were not found.
    """
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    packer = lists.packer
    nothing = np.zeros(packer.code_size, dtype=np.uint8)
    for number in range(ivf.nlist):
        size, codes = lists.list_size(number), lists.get_codes(number)
        for place in range(size, -(-size // lists.n_per_block) * lists.n_per_block):
            packer.pack_1_c(faiss.swig_ptr(nothing), place, codes)


def _deserialized(raw: NDArray[np.uint8]) -> Any:
    """faiss's own form of an index, read in memory of a few times its size at most."""
    limit = getattr(faiss, "set_deserialization_vector_byte_limit", None)
    try:
        if limit is None:  # faiss before 1.15: a size that is out of all proportion is a MemoryError
            return faiss.deserialize_index(raw)
        with _LIMITED:
            before = faiss.get_deserialization_vector_byte_limit()
            limit(_MAX_SHARE * len(raw))
            try:
                return faiss.deserialize_index(raw)
            finally:
                limit(before)
    except MemoryError as error:
        raise ValueError("an inverted file that does not fit in memory") from error
    except RuntimeError as error:  # faiss's, of any damage and of a newer form
        raise ValueError("an inverted file that this faiss cannot read") from error


def _is_ours(index: Any) -> bool:
    """Whether `IVFIndex.train` creates an index of this form: searching relies on all of these."""
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
        and _within(quantizer.reconstruct_n(0, index.nlist), _MAX_CENTER)
    )


def _within(array: NDArray[np.float32], most: float) -> bool:
    return bool((np.abs(array) <= most).all())  # not "any above": no comparison holds for NaN
