"""The index over the voiceprints of one store and embedding space, of which a process has one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from voiceprint import _fork
from voiceprint._keyed_cache import KeyedCache
from voiceprint.identification.cohort import CohortScorer
from voiceprint.identification.snapshots import NO_SNAPSHOT, IndexSettings, SnapshotKeeper
from voiceprint.storage.base import Position

if TYPE_CHECKING:
    from voiceprint.index import VectorIndex

IDLE_INDEXES: Final = 4
"""Indexes that stay in memory when no recognizer uses them, so that one built per call finds its index ready.
Each takes about 1 KB a voiceprint."""


class IndexState(NamedTuple):
    """An index, the identity of the store that it is of, and the position of the changes that it holds."""

    vectors: VectorIndex
    store: str
    position: Position


class SharedIndex:
    """What all recognizers of a process over one store share: the index, its scorer, and its snapshot.

    encoder: name of the embedding space; dimension: length of its embeddings.

    Handles of the store come and go, so this object has none: each `Gallery` brings its own.
    """

    _of_process: ClassVar[KeyedCache[tuple[str, str, IndexSettings], SharedIndex]] = KeyedCache(IDLE_INDEXES)

    def __init__(self, encoder: str, dimension: int, settings: IndexSettings = NO_SNAPSHOT) -> None:
        self.encoder = encoder
        self.dimension = dimension
        self.settings = settings
        self.warned_of_other_spaces = self.warned_of_strangers = False
        self.counted = (0, 0)  # voiceprints, and callers, when these were last counted
        self.reset()

    @classmethod
    def of_process(
        cls, location: str, encoder: str, dimension: int, settings: IndexSettings = NO_SNAPSHOT
    ) -> SharedIndex:
        """The process's one index over the store at this location and this embedding space."""
        return cls._of_process.get((location, encoder, settings), lambda: cls(encoder, dimension, settings))

    @classmethod
    def forget_all(cls) -> None:
        """Let the next recognizers build or read their indexes anew."""
        cls._of_process.forget_all()

    def reset(self) -> None:
        """Drop the index. Nothing may use it at the moment."""
        self.snapshots = SnapshotKeeper(self.settings, self.dimension)
        self.scorers = CohortScorer(self.encoder, self.dimension)
        # One attribute, so that its parts are always read together. Without the identity, another store
        # that was put in the same place and has come to the same revision would be taken for the old one.
        self.state: IndexState | None = None
        self.lock = threading.Lock()  # held to change the state

    @classmethod
    def _reset_all(cls) -> None:
        # Another thread of the parent may have held a lock, or have been changing an index.
        for shared in cls._of_process.values():
            shared.reset()
        cls._of_process.renew_lock()


_fork.register(_fork.Step.INDEX, in_child=SharedIndex._reset_all)
