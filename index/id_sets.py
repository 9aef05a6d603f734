"""`IdSet`: the ids that a search is among, or leaves out."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.index.rows import NO_ID, distinct

_LARGEST_ID = np.iinfo(np.int64).max


class IdSet:
    """A set of ids that does not change. Reuse one for many searches.

    An index that is searched among a large `IdSet` copies its vectors together, and searches the copy while
    the object lives. A list of ids is read, sorted and located again at every search.

    ids: integers, or an array of them, int[n]; others than 0 to 2^63 - 1, which no index has, are left out.
    Raises ValueError for anything else.
    """

    __slots__ = ("__weakref__", "ids")

    def __init__(self, ids: Iterable[int] | NDArray[np.integer] = ()) -> None:
        found = distinct(_as_array(ids))
        found.flags.writeable = False
        self.ids: NDArray[np.int64] = found
        """In order, each once, int64[n], read-only."""

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, int | np.integer) and bool(self.holds(np.array([id_]))[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} ids)"

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet(np.concatenate([self.ids, other.ids]))

    def __sub__(self, other: IdSet) -> IdSet:
        return IdSet(self.ids[~other.holds(self.ids)])

    def holds(self, ids: ArrayLike) -> NDArray[np.bool_]:
        """Which of these are in the set, bool of the shape of `ids`."""
        return np.asarray(places_of(np.asarray(ids), self.ids) >= 0)


class Filter(NamedTuple):
    """The ids that may be found: those of a set, or with `excluding` all others."""

    of: IdSet
    excluding: bool = False

    def passes(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which ids may be found, bool of their shape; `NO_ID` may not."""
        held = self.of.holds(ids)
        return (ids != NO_ID) & ~held if self.excluding else held

    def share(self, vectors: int) -> float:
        """The least share of this many vectors that may pass, 0 to 1, if the set is part of these."""
        held = min(1.0, len(self.of) / max(1, vectors))
        return 1.0 - held if self.excluding else held


def places_of(ids: NDArray[np.integer], in_order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each id in ids in order, int64 of the shape of `ids`; -1 for an id that is not there."""
    if not len(in_order):
        return np.full(ids.shape, -1, dtype=np.int64)
    places = np.minimum(in_order.searchsorted(ids), len(in_order) - 1)
    return np.where(in_order[places] == ids, places, -1)


def _as_array(ids: Iterable[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and ids.ndim == 1:
        return ids[(ids >= 0) & (ids <= _LARGEST_ID)].astype(np.int64)
    try:
        numbers = [operator.index(id_) for id_ in ids]
    except TypeError as error:
        raise ValueError("The ids of a set are integers.") from error
    return np.array([number for number in numbers if 0 <= number <= _LARGEST_ID], dtype=np.int64)
