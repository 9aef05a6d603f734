"""The types of the storage contract: positions, changes, noted deletions, consistent views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.models import Caller

# Called with the number of finished items.
Progress = Callable[[int], None]

# Ids int64[n] and embeddings float32[n, dimension] of voiceprints.
Batch = tuple[NDArray[np.int64], NDArray[np.float32]]


class LineTable(ABC):
    """A table of numbered lines beside the records of a store, for its audit log.

    location: URL of the store, without secrets.
    """

    location: str

    @abstractmethod
    def append(self, make: Callable[[tuple[int, bytes] | None], list[tuple[int, bytes]]]) -> None:
        """Append the rows, (number, line), that `make` returns for the last row, None without one.

        One transaction, in which no other process appends.
        """

    @abstractmethod
    def rows(self, *, newest_first: bool = False) -> Iterator[tuple[int, bytes]]:
        """All rows in the order of their numbers, read a page at a time."""


class Position(NamedTuple):
    """A point in the history of a store's voiceprints, up to which a follower has read.

    revision: of the last commit that changed a voiceprint; 0 before the first. It repeats once a store was
        rewound (a restored backup, a failover).
    token: random for each commit, so that no other history has this position; "" before the first. Opaque.
    """

    revision: int
    token: str


START = Position(0, "")
"""Before the first change: the position of an empty follower."""


class Deletion(NamedTuple):
    """The deletion of a caller, without the caller's id.

    key: identity of the store that deleted the caller; digest: 32 hexadecimal digits, the first 128 bits of
    HMAC-SHA256 of the caller id with that key; deleted_at: ISO 8601 UTC with a `Z`.
    """

    key: str
    digest: str
    deleted_at: str


class SpaceCounts(NamedTuple):
    """The voiceprints of one embedding space in a store.

    dimension: values of an embedding. callers: who have such a voiceprint; only: those of them who have no
    voiceprint of another space.
    """

    dimension: int
    voiceprints: int
    callers: int
    only: int


class ConsistentView(NamedTuple):
    """A whole store as of one moment; callers: in the order of their ids, to be iterated once."""

    identity: str
    position: Position
    deletions: list[Deletion]
    callers: Iterator[Caller]


@dataclass(frozen=True)
class Changes:
    """Changes that a derived index applies to catch up: the removals first, then the additions.

    position: of the index once these are applied.
    removed: int64[m], ids of removed voiceprints.
    ids, embeddings: int64[n] and float32[n, dimension] of new or replaced voiceprints, and of all of a caller
        whose groups have changed.
    groups: id of each of these voiceprints whose caller is in groups, to the names of the groups.
    more: whether further changes follow; ask again with `position`.
    """

    position: Position
    removed: NDArray[np.int64] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)
    embeddings: NDArray[np.float32] = field(repr=False)
    more: bool = False
    groups: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
