"""The index's snapshot beside the store: where it lies, whether it may be used, and when it is written."""

from __future__ import annotations

import atexit
import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from weakref import WeakSet

from voiceprint._files import RefusedFileError, check_apart, expanded
from voiceprint.errors import ConfigurationError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.base import Position, Storage
from voiceprint.storage.snapshot_files import erase_snapshots

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
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
_SPARING = 20


class IndexSettings(NamedTuple):
    """The settings of an index: `VOICE_INDEX_PATH`, `VOICE_INDEX_RECALL` and `VOICE_INDEX_THREADS`."""

    path: str | None = OFF
    recall: float = 0.99
    threads: int = 1

    @classmethod
    def of(cls, config: VoiceFingerprintConfig) -> IndexSettings:
        """Those of a configuration."""
        return cls(config.index_path, config.index_recall, config.index_threads)


NO_SNAPSHOT = IndexSettings()
"""The defaults, without a snapshot."""


class Stamp(NamedTuple):
    """The store, the embedding space and the position from which to catch up, of a snapshot."""

    store: str
    encoder: str
    position: Position

    @classmethod
    def from_text(cls, text: Mapping[str, str]) -> Stamp:
        """The stamp in a file. Raises KeyError and ValueError for something else."""
        return cls(text["store"], text["encoder"], Position(int(text["revision"]), text["token"]))

    def as_text(self) -> dict[str, str]:
        """For the file."""
        revision, token = self.position
        return {"store": self.store, "encoder": self.encoder, "revision": str(revision), "token": token}


def snapshot_path(storage: Storage, setting: str | None, encoder: str = RESEMBLYZER_SPACE) -> Path | None:
    """Where the snapshot of a store's index lies; None where none is kept, or none can be.

    setting: a path, "off", or None for beside the store's file, or for a server in the user's cache.
    encoder: each embedding space has a file of its own; all but the usual one have a digest in its name.
    """
    try:
        path = _place(storage, setting)
    except OSError:  # there is no home folder: `SnapshotKeeper.load` tells of it
        return None
    return path if path is None or encoder == RESEMBLYZER_SPACE else _of_space(path, encoder)


def check_snapshot_path(storage: Storage, setting: str | None) -> None:
    """Raise `ConfigurationError` where the setting names a file of the store itself."""
    path = snapshot_path(storage, setting)
    if path is None:
        return
    try:
        check_apart(path, storage.files())
    except RefusedFileError as error:
        raise _not_a_place(error) from error
    except OSError:
        return  # a loop of links, or no right to look: writing tells of it


def add_snapshot_place(storage: Storage, setting: str | None) -> None:
    """Have the store remove its snapshot with every embedding that it removes."""
    path = snapshot_path(storage, setting)
    if path is not None:
        storage.snapshot_places.add(path)


def _not_a_place(error: RefusedFileError) -> ConfigurationError:
    return ConfigurationError(
        f"The index's snapshot cannot be kept there: {error} Change VOICE_INDEX_PATH: a path, or off."
    )


def _of_space(path: Path, encoder: str) -> Path:
    digest = hashlib.sha256(encoder.encode()).hexdigest()[:16]
    return path.parent / f"{path.stem}.{digest}{path.suffix}"


def _place(storage: Storage, setting: str | None) -> Path | None:
    """Where the snapshot of the usual space lies. Raises OSError where there is no home folder."""
    if setting == OFF or not storage.is_persistent:
        return None
    return storage.default_snapshot_path() if setting is None else expanded(setting)


class SnapshotKeeper:
    """Loads the snapshot of one gallery's index, and writes it when enough has changed."""

    _writers: ClassVar[WeakSet[threading.Thread]] = WeakSet()

    def __init__(self, settings: IndexSettings, dimension: int) -> None:
        self.settings = settings
        self._dimension = dimension
        self._changes = 0
        self._writing = threading.Lock()
        self._writer: threading.Thread | None = None
        self._erased = 0  # how often a snapshot was
        self._not_before = 0.0  # by the monotonic clock

    def load(self, storage: Storage, encoder: str) -> tuple[VectorIndex, Position] | None:
        """The index of the snapshot and its position, if there is one of this store and encoder."""
        try:
            former = _place(storage, self.settings.path)
        except OSError as error:
            logger.warning("No snapshot of the index is kept (%s).", error.strerror or error)
            return None
        path = snapshot_path(storage, self.settings.path, encoder)
        if path is None or former is None:
            return None
        from voiceprint.index import IndexCorruptError, VectorIndex, read_stamp

        if path != former:
            _remove_former(former, storage.identity(), encoder)
        self._changes = 0
        start = time.perf_counter()
        try:
            stamp = Stamp.from_text(read_stamp(path))
            if stamp[:2] != (storage.identity(), encoder):
                logger.warning("%s is the index of another store or encoder; building it anew.", path)
                return None
            index = VectorIndex.load(
                path, recall=self.settings.recall, threads=self.settings.threads, unit=True
            )
        except FileNotFoundError:
            logger.debug("%s: there is no snapshot yet.", path)
            return None
        except (IndexCorruptError, OSError, KeyError, ValueError, MemoryError) as error:
            # A snapshot is only a cache: the store has it all, and building takes longer, no more.
            logger.warning(
                "The index's snapshot cannot be used (%s); building it anew.", error or type(error).__name__
            )
            return None
        if index.dimension != self._dimension:
            logger.warning("%s holds vectors of another length; building the index anew.", path)
            return None
        if index.status().training:  # it was written before it was trained
            self._changes = len(index)
        logger.info("Read %s, %d vectors, in %.1f s.", path, len(index), time.perf_counter() - start)
        return index, stamp.position

    def built(self, vectors: int) -> None:
        """The index was built from the store: all of it is news to the snapshot."""
        self._changes = vectors

    def changed(self, count: int) -> None:
        """So many vectors have changed."""
        self._changes += count

    def erase(self, storage: Storage, index: VectorIndex) -> None:
        """Remove the snapshot, as it holds an embedding that the store has not; another is written later."""
        self._erased += 1
        path = snapshot_path(storage, self.settings.path)
        if path is not None:
            erase_snapshots([path])
            self.built(len(index))

    def write_if_due(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write in the background, after much has changed.

        No more than a twentieth of the time goes into writing, however often a snapshot has to be erased.
        """
        if self._changes < max(_BACKGROUND, len(index) // _BACKGROUND_SHARE):
            return
        if time.monotonic() < self._not_before:
            return
        path = snapshot_path(storage, self.settings.path, stamp.encoder)
        if path is None or (self._writer is not None and self._writer.is_alive()):
            return
        files = storage.files()

        def write() -> None:
            index.wait()  # trained, so that the next process need not train
            self.write(path, index, stamp, files)

        self._writer = threading.Thread(target=write, name="voiceprint-snapshot", daemon=True)
        self._writers.add(self._writer)
        self._writer.start()

    def close(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write, if that is worth it and not being done already."""
        path = snapshot_path(storage, self.settings.path, stamp.encoder)
        worthwhile = self._changes >= min(_CLOSING, max(1, len(index) // _CLOSING_SHARE))
        if path is not None and worthwhile and not (self._writer is not None and self._writer.is_alive()):
            self.write(path, index, stamp, storage.files())

    def write(
        self, path: Path, index: VectorIndex, stamp: Stamp, files: Iterable[Path], *, asked: bool = False
    ) -> bool:
        """Write now; False, and a line in the log, when that cannot be done.

        files: those of the store, which are not written to. asked: whether the user asked for it; then a
        path where something else lies is a `ConfigurationError`.
        """
        with self._writing:
            known, erased, start = self._changes, self._erased, time.perf_counter()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                index.save(path, stamp=stamp.as_text(), apart_from=files)
            except RefusedFileError as error:
                if asked:
                    raise _not_a_place(error) from error
                logger.warning("%s", _not_a_place(error))
                return False
            except OSError as error:  # it is only a cache, and the disk may be full
                logger.warning("The index's snapshot could not be written (%s).", error)
                return False
            took = time.perf_counter() - start
            self._not_before = time.monotonic() + _SPARING * took
            if self._erased != erased:  # it was erased while it was written, and has what was removed
                erase_snapshots([path])
                return False
            self._changes -= known
            logger.info("Wrote %s, %d vectors, in %.1f s.", path, len(index), took)
            return True

    @classmethod
    def _finish(cls) -> None:
        # The index gives up its training when the process ends, and the snapshot is then written as it is.
        for writer in list(cls._writers):
            writer.join(_AT_EXIT_S)


def _remove_former(path: Path, store: str, encoder: str) -> None:
    """Remove a snapshot of this space from the file of the usual one, where earlier versions kept all."""
    from voiceprint.index import IndexCorruptError, read_stamp

    with suppress(OSError, IndexCorruptError):  # there is none, or something else
        stamp = read_stamp(path)
        if (stamp.get("store"), stamp.get("encoder")) == (store, encoder):
            path.unlink()


# Before faiss is loaded: what is registered last is called first, and the index is to end its training.
atexit.register(SnapshotKeeper._finish)
