"""The engine that holds the index of a gallery in PostgreSQL, one index for all processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError, StorageUnavailableError
from voiceprint.identification.engine import Blocks, Engine
from voiceprint.identification.followed import FollowedIndex, on_server
from voiceprint.identification.snapshots import IndexSettings, Stamp
from voiceprint.index import IndexMovedError
from voiceprint.index.pgvector import EXACT_UP_TO, PgVectorIndex
from voiceprint.storage.base import Changes, Position, Storage

_CLOSING_S: Final = 5.0
"""Seconds to bring the servers up when a recognizer is closed: some thousand changes. Others do the rest."""

_BUILDS: Final = 5  # in a row that other processes may have overtaken: one is rare


class ServerEngine(Engine[FollowedIndex]):
    """An index of one part on each server of `VOICE_INDEX_URL`."""

    is_shared: ClassVar[bool] = True

    def __init__(self, encoder: str, dimension: int, settings: IndexSettings) -> None:
        super().__init__(encoder, dimension, settings)
        self._parts: tuple[str, list[PgVectorIndex]] = "", []

    def _parts_of(self, store: str) -> list[PgVectorIndex]:
        """The parts of the index of a store; none for a store that has no identity, so nothing, yet."""
        if self._parts[0] != store:
            urls = self.settings.urls
            names = [f"{store} {self.encoder} {number + 1}/{len(urls)}" for number in range(len(urls))]
            made = on_server(
                lambda: [
                    PgVectorIndex(
                        re.sub(r"^\w+(\+psycopg)?:", "postgresql:", url),
                        name,
                        self.dimension,
                        exact_up_to=EXACT_UP_TO,
                    )
                    for url, name in zip(urls, names, strict=True)
                ]
            )
            self._parts = store, made
        return self._parts[1] if store else []

    def load(self, storage: Storage) -> tuple[FollowedIndex, Position] | None:
        """The index as the servers have it."""
        store = storage.identity()
        if not store:
            return None
        parts = self._parts_of(store)
        try:
            stamps = [Stamp.from_text(text) for text in on_server(lambda: [part.stamp for part in parts])]
        except (KeyError, ValueError):  # new, or filled by nobody yet
            return None
        if any(stamp[:2] != (store, self.encoder) for stamp in stamps):
            return None
        least = min(stamp.position for stamp in stamps)  # which the gallery looks at itself
        others = {stamp.position for stamp in stamps} - {least}
        if not all(self._is_known(storage, position) for position in others):
            return None
        return self._followed(store, stamps)

    def _followed(self, store: str, stamps: list[Stamp]) -> tuple[FollowedIndex, Position]:
        index = FollowedIndex(self._parts_of(store), stamps, self.dimension, self.settings.recall)
        return index, min(stamp.position for stamp in stamps)

    def build(self, storage: Storage, blocks: Blocks, *, anew: bool) -> tuple[FollowedIndex, Position]:
        """As `Engine.build`; searches of other processes go on meanwhile."""
        store = storage.identity()
        if not store:
            position, index = storage.position(), FollowedIndex([], [], self.dimension, self.settings.recall)
            for ids, embeddings in blocks():
                index.apply(Changes(position, np.empty(0, dtype=np.int64), ids, embeddings))
            return index, position
        for _ in range(_BUILDS):
            try:
                stamps = [
                    self._fill(storage, store, number, blocks, anew)
                    for number in range(len(self.settings.urls))
                ]
            except IndexMovedError:  # another process has built it, or is about to
                loaded = self.load(storage)
                if loaded is not None:
                    return loaded
            else:
                return self._followed(store, stamps)
        raise StorageUnavailableError(
            "Other processes build the index in PostgreSQL all the time: try again."
        )

    def _fill(self, storage: Storage, store: str, number: int, blocks: Blocks, anew: bool) -> Stamp:
        part, parts = self._parts_of(store)[number], len(self.settings.urls)
        expected = None if anew else on_server(lambda: part.stamp)
        stamps = list[Stamp]()

        def stamp() -> dict[str, str]:
            # Only now does no other process change the index: the position is behind no earlier stamp.
            stamps.append(Stamp(store, self.encoder, storage.position()))
            return stamps[0].as_text()

        def mine() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
            for ids, embeddings in blocks():
                is_mine = ids % parts == number
                yield ids[is_mine], embeddings[is_mine]

        on_server(lambda: part.fill(mine(), stamp=stamp, expected=expected))
        return stamps[0]

    def apply(self, storage: Storage, index: FollowedIndex, changes: Changes) -> None:
        """As `Engine.apply`."""
        del storage
        index.apply(changes)

    def settle(self, storage: Storage, index: FollowedIndex, stamp: Stamp) -> None:
        """Have the thread bring the servers up to the position."""
        del storage
        index.settle(stamp.position)

    def is_lost(self, storage: Storage, index: FollowedIndex) -> bool:
        """True where a server was put back to an earlier state, or has changes of another history."""
        index.vouch(lambda position: self._is_known(storage, position))
        return index.is_lost

    def _is_known(self, storage: Storage, position: Position) -> bool:
        return storage.changes(position, encoder=self.encoder) is not None

    def keep(self, storage: Storage, index: FollowedIndex, stamp: Stamp) -> None:
        """Nothing: the servers keep it."""

    def close(self, storage: Storage, index: FollowedIndex, stamp: Stamp) -> None:
        """Bring the servers up for some seconds: no other process may be there to remove a vector."""
        del storage
        index.settle(stamp.position)
        with suppress(StorageUnavailableError):  # other processes bring it up, once it is there
            index.wait(_CLOSING_S, tuned=False)

    def export(self, path: Path, index: FollowedIndex, stamp: Stamp, storage: Storage) -> NoReturn:
        """Raises `InvalidArgumentError`."""
        del path, index, stamp, storage
        self._refuse()

    def import_(self, path: Path, storage: Storage) -> NoReturn:
        """Raises `InvalidArgumentError`."""
        del path, storage
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise InvalidArgumentError(
            "The index is in PostgreSQL, where every machine finds it (VOICE_INDEX=pgvector): there is "
            "nothing to export or import."
        )
