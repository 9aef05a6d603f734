"""The engines that hold the index of a gallery: `VOICE_INDEX=faiss`, in this process, and `pgvector`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import ConfigurationError
from voiceprint.identification.snapshots import IndexSettings, SnapshotKeeper, Stamp, snapshot_path
from voiceprint.storage.base import Changes, Position, Storage

if TYPE_CHECKING:
    from voiceprint.identification.followed import FollowedIndex
    from voiceprint.index import VectorIndex

GalleryIndex: TypeAlias = "VectorIndex | FollowedIndex"
IndexT = TypeVar("IndexT")

Blocks = Callable[[], Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]]
"""Reads the ids, int64[n], and embeddings, float32[n, dimension], of all voiceprints of the space."""


class Engine(ABC, Generic[IndexT]):
    """Loads, builds, changes and keeps the index of one store and embedding space.

    encoder: name of the space; dimension: length of its embeddings.
    """

    is_shared: ClassVar[bool] = False
    """Whether other processes have the same index."""

    def __init__(self, encoder: str, dimension: int, settings: IndexSettings) -> None:
        self.encoder = encoder
        self.dimension = dimension
        self.settings = settings

    @abstractmethod
    def load(self, storage: Storage) -> tuple[IndexT, Position] | None:
        """The index as it was left, and the position of the changes in it; None where it is to be built."""

    @abstractmethod
    def build(self, storage: Storage, blocks: Blocks, *, anew: bool) -> tuple[IndexT, Position]:
        """The index of all voiceprints, and a position of which it has all changes.

        anew: also where another process has built it meanwhile.
        """

    @abstractmethod
    def apply(self, storage: Storage, index: IndexT, changes: Changes) -> None:
        """Take a page of changes into the index."""

    def applied(self, position: Position) -> None:
        """Note that the index has all changes up to this position."""

    @abstractmethod
    def settle(self, storage: Storage, index: IndexT, stamp: Stamp) -> None:
        """Do what is due once the index is in step with the store."""

    @abstractmethod
    def is_lost(self, storage: Storage, index: IndexT) -> bool:
        """Whether the index has lost changes, or has others, so that it is to be loaded again."""

    # Keeping

    def path(self, storage: Storage) -> Path | None:
        """The file of the snapshot; None without one."""
        del storage
        return None

    @abstractmethod
    def keep(self, storage: Storage, index: IndexT, stamp: Stamp) -> None:
        """Keep the index for the next process, now. Raises `ConfigurationError` where that cannot be."""

    @abstractmethod
    def close(self, storage: Storage, index: IndexT, stamp: Stamp) -> None:
        """Leave the index in order for the next process, if that is worth it."""

    @abstractmethod
    def export(self, path: Path, index: IndexT, stamp: Stamp, storage: Storage) -> None:
        """Write the index to a file for another machine. Raises `InvalidArgumentError`."""

    @abstractmethod
    def import_(self, path: Path, storage: Storage) -> tuple[IndexT, Position]:
        """The index of an exported file, and its position. Raises `InvalidArgumentError`."""


class EmbeddedEngine(Engine["VectorIndex"]):
    """An index in the memory of this process, and its snapshot."""

    def __init__(self, encoder: str, dimension: int, settings: IndexSettings) -> None:
        super().__init__(encoder, dimension, settings)
        self._snapshots = SnapshotKeeper(settings, dimension)

    def load(self, storage: Storage) -> tuple[VectorIndex, Position] | None:
        """The index of the snapshot."""
        return self._snapshots.load(storage, self.encoder)

    def build(
        self,
        storage: Storage,
        blocks: Blocks,
        *,
        anew: bool,  # noqa: ARG002  no other process has a part in it
    ) -> tuple[VectorIndex, Position]:
        """As `Engine.build`. Raises RuntimeError and MemoryError where there is too little memory."""
        from voiceprint.index import VectorIndex  # faiss is loaded at the first search, not at import

        position = storage.position()
        index = VectorIndex(self.dimension, recall=self.settings.recall, threads=self.settings.threads)
        index.fill(blocks())
        self._snapshots.built(len(index))
        return index, position

    def apply(self, storage: Storage, index: VectorIndex, changes: Changes) -> None:
        """As `Engine.apply`; a snapshot that holds a removed embedding is removed."""
        replaced = added = np.zeros(0, dtype=np.bool_)
        if len(changes.ids):
            replaced, added = index.differences(changes.ids, changes.embeddings)
        if len(changes.removed) or replaced.any():
            self._snapshots.erase(storage, index)
        if len(changes.removed):
            index.remove(changes.removed)
        changed = replaced | added  # not where only groups, or an augmented embedding, have changed
        if changed.any():
            index.add(changes.ids[changed], changes.embeddings[changed])
        self._snapshots.changed(len(changes.removed) + int(changed.sum()))

    def applied(self, position: Position) -> None:
        """Note it for a snapshot that is being written."""
        self._snapshots.applied(position)

    def settle(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write the snapshot in the background, after many changes."""
        self._snapshots.write_if_due(storage, index, stamp)

    def is_lost(self, storage: Storage, index: VectorIndex) -> bool:
        """False: no other process changes it."""
        del storage, index
        return False

    def path(self, storage: Storage) -> Path | None:
        """The file of the snapshot; None without one."""
        return snapshot_path(storage, self.settings.path, self.encoder)

    def keep(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write the snapshot, if it has a path; failures other than a file in its place are logged."""
        path = self.path(storage)
        if path is not None:
            self._snapshots.write(path, index, stamp, storage, by_user=True)

    def close(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write the snapshot, if enough has changed."""
        self._snapshots.close(storage, index, stamp)

    def export(self, path: Path, index: VectorIndex, stamp: Stamp, storage: Storage) -> None:
        """Write a snapshot for another machine."""
        self._snapshots.export(path, index, stamp, storage)

    def import_(self, path: Path, storage: Storage) -> tuple[VectorIndex, Position]:
        """The index of an exported snapshot. Raises `ConfigurationError` where no snapshot is kept."""
        if self.path(storage) is None:
            raise ConfigurationError(
                "No snapshot of the index is kept, in which it could be: set VOICE_INDEX_PATH to a path."
            )
        return self._snapshots.import_(path, storage, self.encoder)


def engine_of(encoder: str, dimension: int, settings: IndexSettings) -> Engine[Any]:
    """The engine that the settings name."""
    if settings.urls:
        from voiceprint.identification.server_engine import ServerEngine  # needs packages that are an extra

        return ServerEngine(encoder, dimension, settings)
    return EmbeddedEngine(encoder, dimension, settings)
