"""The one index of a process over the voiceprints of a store and embedding space."""

from __future__ import annotations

import threading
from typing import Any, ClassVar, Final, NamedTuple

from voiceprint import _fork
from voiceprint._keyed_cache import KeyedCache
from voiceprint.identification.cohort import CohortScorer
from voiceprint.identification.engine import Engine, GalleryIndex, engine_of
from voiceprint.identification.groups import GroupMap
from voiceprint.identification.snapshots import NO_SNAPSHOT, IndexSettings
from voiceprint.storage.base import Position

IDLE_INDEXES: Final = 4
"""Indexes that stay in memory without a recognizer, so that recognizers built per call need not build them.
Each takes about 0.7 KB a voiceprint of 256 values."""


class IndexState(NamedTuple):
    """An index, the identity of its store, the position of the last change in it, and the groups."""

    vectors: GalleryIndex
    store: str
    position: Position
    groups: GroupMap


class SharedIndex:
    """The index, its engine, and the scorer that all recognizers of a process over one store share.

    encoder: name of the embedding space; dimension: length of its embeddings.

    Has no handle of the store, because handles are closed at any time: each `Gallery` has its own.
    """

    _of_process: ClassVar[KeyedCache[tuple[str, str, IndexSettings], SharedIndex]] = KeyedCache(IDLE_INDEXES)

    def __init__(self, encoder: str, dimension: int, settings: IndexSettings = NO_SNAPSHOT) -> None:
        self.encoder = encoder
        self.dimension = dimension
        self.settings = settings
        self.warned_of_other_spaces = self.warned_of_rule = False
        self.warned_of_groups: set[str] = set()
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
        """Drop all indexes: the next recognizers build or load them again."""
        cls._of_process.forget_all()

    def reset(self) -> None:
        """Drop the index, which nothing may use at the moment."""
        self.engine: Engine[Any] = engine_of(self.encoder, self.dimension, self.settings)
        self.scorers = CohortScorer(self.encoder, self.dimension)
        # One attribute, so that its parts are always read together. Without the identity, another store
        # at the same location and revision would pass for the old one.
        self.state: IndexState | None = None
        self.lock = threading.Lock()  # held to change the state

    @classmethod
    def _reset_all(cls) -> None:
        # Another thread of the parent may have held a lock, or have been changing an index.
        for shared in cls._of_process.values():
            shared.reset()
        cls._of_process.renew_lock()


_fork.register(_fork.Step.INDEX, in_child=SharedIndex._reset_all)
