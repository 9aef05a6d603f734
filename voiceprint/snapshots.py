"""The index's snapshot beside the store: where it lies, whether it may be used, and when it is written."""

from __future__ import annotations

import atexit
import hashlib
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from weakref import WeakSet

from voiceprint.storage.base import Position, Storage

if TYPE_CHECKING:
    from voiceprint.index import VectorIndex

logger = logging.getLogger(__name__)

OFF = "off"
"""The setting of `VOICE_INDEX_PATH` that keeps no snapshot."""

# Changes since the last snapshot after which another is written in the background: catching up with so
# many takes longer than is wanted. And those from which closing writes one: fewer are caught up with in
# less time than writing takes.
_BACKGROUND = 20_000
_BACKGROUND_SHARE = 10
_CLOSING = 1_000
_CLOSING_SHARE = 100
_AT_EXIT_S = 60.0


class IndexSettings(NamedTuple):
    """What the configuration says of the index: `VOICE_INDEX_PATH`, `_RECALL` and `_THREADS`."""

    path: str | None = OFF
    recall: float = 0.99
    threads: int = 1


NO_SNAPSHOT = IndexSettings()
"""The defaults, without a snapshot."""


class Stamp(NamedTuple):
    """What a snapshot is of: a store, an embedding space, and the position from which to catch up."""

    store: str
    encoder: str
    position: Position

    def as_text(self) -> dict[str, str]:
        """For the file."""
        revision, token = self.position
        return {"store": self.store, "encoder": self.encoder, "revision": str(revision), "token": token}


def snapshot_path(storage: Storage, setting: str | None) -> Path | None:
    """Where the snapshot of a store's index lies; None where none is kept.

    setting: a path, "off", or None for beside the store's file, or for Redis in the user's cache.
    """
    if setting == OFF or storage.location.startswith("memory:"):
        return None
    if setting is not None:
        return Path(setting).expanduser()
    beside = getattr(storage, "path", None)
    if isinstance(beside, Path):
        return beside.with_name(f"{beside.name}.index")
    if storage.location.partition(":")[0] in ("redis", "rediss", "unix"):
        import platformdirs

        name = hashlib.sha256(storage.location.encode()).hexdigest()[:32]
        return Path(platformdirs.user_cache_path("opusagent-voiceprint")) / f"{name}.index"
    return None


class SnapshotKeeper:
    """Loads the snapshot of one gallery's index, and writes it when enough has changed."""

    _writers: ClassVar[WeakSet[threading.Thread]] = WeakSet()

    def __init__(self, settings: IndexSettings, dimension: int) -> None:
        self.settings = settings
        self._dimension = dimension
        self._changes = 0
        self._writing = threading.Lock()
        self._writer: threading.Thread | None = None

    def load(self, storage: Storage, encoder: str) -> tuple[VectorIndex, Position] | None:
        """The index of the snapshot and its position, if there is one of this store and encoder."""
        path = snapshot_path(storage, self.settings.path)
        if path is None:
            return None
        from voiceprint.index import IndexCorruptError, VectorIndex, read_stamp

        self._changes = 0
        start = time.perf_counter()
        try:
            stamp = read_stamp(path)
            if (stamp.get("store"), stamp.get("encoder")) != (storage.identity(), encoder):
                logger.warning("%s is the index of another store or encoder; building it anew.", path)
                return None
            position = Position(int(stamp["revision"]), stamp["token"])
            index = VectorIndex.load(path, recall=self.settings.recall, threads=self.settings.threads)
        except FileNotFoundError:
            logger.debug("%s: there is no snapshot yet.", path)
            return None
        except (IndexCorruptError, OSError, KeyError, ValueError) as error:
            # A snapshot is only a cache: the store has it all, and building takes longer, no more.
            logger.warning("The index's snapshot cannot be used (%s); building it anew.", error)
            return None
        if index.dimension != self._dimension:
            logger.warning("%s holds vectors of another length; building the index anew.", path)
            return None
        if index.status().training:  # it was written before the cells were there
            self._changes = len(index)
        logger.info("Read %s, %d vectors, in %.1f s.", path, len(index), time.perf_counter() - start)
        return index, position

    def built(self, vectors: int) -> None:
        """The index was built from the store: all of it is news to the snapshot."""
        self._changes = vectors

    def changed(self, count: int) -> None:
        """So many vectors have changed."""
        self._changes += count

    def write_if_due(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write in the background, after much has changed."""
        due = self._changes >= max(_BACKGROUND, len(index) // _BACKGROUND_SHARE)
        path = snapshot_path(storage, self.settings.path)
        if not due or path is None or (self._writer is not None and self._writer.is_alive()):
            return

        def write() -> None:
            index.wait()  # with its cells, the next process need not train
            self.write(path, index, stamp)

        self._writer = threading.Thread(target=write, name="voiceprint-snapshot", daemon=True)
        self._writers.add(self._writer)
        self._writer.start()

    def close(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write, if that is worth it and not being done already."""
        path = snapshot_path(storage, self.settings.path)
        worthwhile = self._changes >= min(_CLOSING, max(1, len(index) // _CLOSING_SHARE))
        if path is not None and worthwhile and not (self._writer is not None and self._writer.is_alive()):
            self.write(path, index, stamp)

    def write(self, path: Path, index: VectorIndex, stamp: Stamp) -> bool:
        """Write now; False, and a line in the log, when that cannot be done."""
        with self._writing:
            known, start = self._changes, time.perf_counter()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                index.save(path, stamp=stamp.as_text())
            except OSError as error:  # it is only a cache, and the disk may be full
                logger.warning("The index's snapshot could not be written (%s).", error)
                return False
            self._changes -= known
            logger.info("Wrote %s, %d vectors, in %.1f s.", path, len(index), time.perf_counter() - start)
            return True

    @classmethod
    def _finish(cls) -> None:
        # The index gives up its training when the process ends, and the snapshot is then written as it is.
        for writer in list(cls._writers):
            writer.join(_AT_EXIT_S)


# Before faiss is loaded: what is registered last is called first, and the index is to end its training.
atexit.register(SnapshotKeeper._finish)
