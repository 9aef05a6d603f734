"""The gallery: the enrolled voiceprints of one store and one embedding space, ready to be searched.

It holds a `VectorIndex` and keeps it in step with the store: before each search it compares the
store's revision with its own, and when behind it applies the store's changes, or rebuilds.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import StorageCorruptError, VoiceprintError
from voiceprint.models import Finding, Voiceprint
from voiceprint.shared import Shared
from voiceprint.storage.base import Changes, Storage

if TYPE_CHECKING:
    from voiceprint.index import VectorIndex

logger = logging.getLogger(__name__)

# Galleries that stay in memory when no recogniser uses them, so that one built per call finds its
# index ready. Each holds about 1 KB a voiceprint.
KEPT_GALLERIES = 4


class Scored(NamedTuple):
    """A voiceprint and its cosine similarity with the probe."""

    similarity: float
    voiceprint: Voiceprint


class Gallery:
    """Searches the voiceprints of a store. Shared by all recognisers over that store, see `shared`.

    encoder: name of the embedding space; dimension: length of its embeddings. The store is passed to
    each call rather than kept, because the handle of one recogniser may be closed before another's.
    """

    _shared: ClassVar[Shared[tuple[str, str], Gallery]] = Shared(kept=KEPT_GALLERIES)

    @classmethod
    def shared(cls, storage: Storage, encoder: str, dimension: int) -> Gallery:
        """The process's one gallery over this store and embedding space."""
        return cls._shared.get((storage.location, encoder), lambda: cls(encoder, dimension))

    @classmethod
    def forget_all(cls) -> None:
        """Drop every shared gallery; the next recogniser builds its index anew."""
        cls._shared.forget_all()

    def __init__(self, encoder: str, dimension: int) -> None:
        self.encoder = encoder
        self.dimension = dimension
        # The index, the identity of the store that it is of, and the revision that it stands at; one
        # attribute, so that they are always read together. Without the identity, another store that was
        # put in the same place and has come to the same revision would be taken for the old one.
        self._state: tuple[VectorIndex, str, int] | None = None
        self._sync_lock = threading.Lock()

    def best(self, storage: Storage, probe: NDArray[np.float32], callers: int) -> list[Scored]:
        """The best voiceprint of each of the `callers` most similar callers, the best first.

        probe: float32[dimension], of length 1. Fewer come back only where there are fewer callers.
        """
        index = self.synchronised(storage)
        # A caller may have several prints among the nearest: ask for more until there are enough callers.
        wanted = callers * storage.max_voiceprints_per_caller
        while True:
            with _told(storage):
                _, ids = index.search(probe, max(1, min(wanted, len(index))))
            found = storage.get_many(ids[ids >= 0].tolist()).values()
            # One that was saved anew in another space since the search is not to be compared.
            ranked = rank(probe, [voiceprint for voiceprint in found if voiceprint.encoder == self.encoder])
            if len(ranked) >= callers or wanted >= len(index):
                return ranked[:callers]
            wanted *= 2

    def synchronised(self, storage: Storage) -> VectorIndex:
        """The index, holding every change that was committed before this call."""
        state = self._state
        if state is not None and (storage.identity(), storage.revision()) == state[1:]:
            return state[0]
        with self._sync_lock:
            more = True
            while more:
                identity = storage.identity()
                if self._state is not None and self._state[1] != identity:
                    self._state = None
                index, _, revision = self._state or self._build(storage, identity)
                changes = storage.changes(revision, encoder=self.encoder)
                if changes is None:
                    logger.warning(
                        "%s: the change feed does not reach back; building the index anew.", storage
                    )
                    self._state = None
                    continue
                self._apply(changes, index, storage)
                self._state = index, identity, changes.revision
                more = changes.more
            return index

    def _build(self, storage: Storage, identity: str) -> tuple[VectorIndex, str, int]:
        from voiceprint.index import VectorIndex  # faiss is loaded at the first search, not at import

        revision = storage.revision()
        index = VectorIndex(self.dimension)
        for ids, embeddings in storage.scan(encoder=self.encoder):
            self._check(embeddings, storage)
            with _told(storage):
                index.add(ids, embeddings)
        return index, identity, revision

    def _apply(self, changes: Changes, index: VectorIndex, storage: Storage) -> None:
        if len(changes.ids):
            self._check(changes.embeddings, storage)
        state, self._state = self._state, None  # half done, it is of no use: it would be built anew
        with _told(storage):
            if len(changes.removed):
                index.remove(changes.removed)
            if len(changes.ids):
                index.add(changes.ids, changes.embeddings)
        self._state = state

    def _check(self, embeddings: NDArray[np.float32], storage: Storage) -> None:
        if embeddings.shape[1] != self.dimension:
            raise StorageCorruptError(
                f"{storage.location}: embeddings of the space {self.encoder!r} have {embeddings.shape[1]} "
                f"values, and the encoder's have {self.dimension}. Use the encoder that enrolled the callers."
            )

    def check(self, storage: Storage) -> list[Finding]:
        """Compare the index with the store, both ways."""
        index = self.synchronised(storage)
        stored: set[int] = set()
        for ids, _ in storage.scan(encoder=self.encoder):
            stored.update(ids.tolist())
        indexed = set(index.ids().tolist())
        return [
            Finding(code=code, place=f"voiceprint {id_}", message=message)
            for code, ids_, message in (
                (
                    "not_indexed",
                    stored - indexed,
                    "It is in the store and not in the index: it cannot be found.",
                ),
                ("not_stored", indexed - stored, "It is in the index and not in the store."),
            )
            for id_ in sorted(ids_)
        ]


@contextmanager
def _told(storage: Storage) -> Iterator[None]:
    """What faiss raises, for want of memory above all, becomes one of our errors."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise VoiceprintError(
            f"The index over {storage.location} failed ({type(error).__name__}). The callers are safe in the "
            "store, and the index is built anew from them. Is there memory left, about 1 KB a voiceprint?"
        ) from error


def rank(probe: NDArray[np.float32], voiceprints: Iterable[Voiceprint]) -> list[Scored]:
    """Each caller's best voiceprint, the best first; equal similarities in the order of caller ids.

    The similarity is computed from the record and not taken from an index, so that whatever an index
    may hold, no caller gets the score of another.
    """
    best: dict[str, Scored] = {}
    for voiceprint in voiceprints:
        similarity = float(np.clip(np.dot(probe, voiceprint.embedding), -1.0, 1.0))
        known = best.get(voiceprint.caller_id)
        if known is None or similarity > known.similarity:
            best[voiceprint.caller_id] = Scored(similarity, voiceprint)
    return sorted(best.values(), key=lambda scored: (-scored.similarity, scored.voiceprint.caller_id))


# After a fork, a lock that another thread of the parent held would never be released in the child.
os.register_at_fork(after_in_child=Gallery.forget_all)
