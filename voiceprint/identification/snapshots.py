"""The snapshot of the index: its path, its checks, and the times when it is written."""

from __future__ import annotations

import atexit
import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from weakref import WeakSet

from voiceprint._files import RefusedFileError, check_apart, expanded
from voiceprint.errors import ConfigurationError, InvalidArgumentError, StorageError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.base import Changes, Position, Storage
from voiceprint.storage.snapshot_files import erase_snapshots

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.index import Coding, VectorIndex

logger = logging.getLogger(__name__)

OFF = "off"
"""The setting of `VOICE_INDEX_PATH` that keeps no snapshot."""

# Changes since the last snapshot from which the next is written in the background, to bound the time to catch
# up; and from which closing writes one: to catch up with fewer is faster than to write.
_BACKGROUND = 20_000
_BACKGROUND_SHARE = 10
_CLOSING = 1_000
_CLOSING_SHARE = 100
_AT_EXIT_S = 60.0
_SPARING = 20


class IndexSettings(NamedTuple):
    """The settings of an index: `VOICE_INDEX_PATH`, `VOICE_INDEX_RECALL`, `VOICE_INDEX_THREADS`.

    urls: the servers of an index in PostgreSQL; none where it is in memory.
    """

    path: str | None = OFF
    recall: float = 0.99
    threads: int = 1
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: VoiceFingerprintConfig) -> IndexSettings:
        """The settings of a configuration."""
        urls = config.index_urls if config.index == "pgvector" else ()
        return cls(config.index_path, config.index_recall, config.index_threads, urls)

    def __repr__(self) -> str:
        # A URL may hold a password.
        return f"{type(self).__name__}(path={self.path!r}, servers={len(self.urls)})"


NO_SNAPSHOT = IndexSettings()
"""The defaults, without a snapshot."""


class Stamp(NamedTuple):
    """The store, embedding space and position of a snapshot, from which to catch up."""

    store: str
    encoder: str
    position: Position

    @classmethod
    def from_text(cls, text: Mapping[str, str]) -> Stamp:
        """Parse the stamp of a file. Raises KeyError and ValueError for an invalid one."""
        return cls(text["store"], text["encoder"], Position(int(text["revision"]), text["token"]))

    def as_text(self) -> dict[str, str]:
        """The stamp for a file."""
        revision, token = self.position
        return {"store": self.store, "encoder": self.encoder, "revision": str(revision), "token": token}


def snapshot_path(storage: Storage, setting: str | None, encoder: str = RESEMBLYZER_SPACE) -> Path | None:
    """The path of the snapshot of a store's index; None without one.

    setting: a path, "off", or None for beside the store's file, or for a server in the user's cache.
    encoder: each embedding space has a file of its own; all but Resemblyzer's have a digest in its name. A
    store whose data keys are kept apart has none: a copy of a snapshot would outlive a forgotten key.
    """
    if storage.sealing is not None and storage.sealing.keeps_keys_apart:
        return None
    try:
        path = _place(storage, setting)
    except OSError:  # no home folder: `SnapshotKeeper.load` logs it
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
        return  # a loop of links, or no permission: writing logs it


def check_index(storage: Storage, settings: IndexSettings) -> None:
    """Raise `ConfigurationError` where an index in PostgreSQL cannot be; note its servers at the store."""
    if not settings.urls or not storage.is_persistent:
        return
    if storage.sealing is not None:
        raise ConfigurationError(
            "VOICE_INDEX=pgvector keeps embeddings in PostgreSQL as they are, and the store is encrypted: "
            "use VOICE_INDEX=faiss, which encrypts its snapshot."
        )
    try:
        import pgvector  # noqa: F401  the engine needs it later

        from voiceprint.storage.sql.postgresql import PostgreSQL
    except ImportError as error:
        raise ConfigurationError(
            f"VOICE_INDEX=pgvector needs a package that cannot be loaded ({error}): "
            "pip install 'opusagent-voiceprint[pgvector]'."
        ) from error
    storage.index_servers.update(PostgreSQL(url).location for url in settings.urls)


def add_snapshot_place(storage: Storage, setting: str | None) -> None:
    """Have the store remove its snapshot with every embedding that it removes."""
    path = snapshot_path(storage, setting)
    if path is not None:
        storage.snapshot_places.add(path)


def snapshot_coding(storage: Storage) -> Coding | None:
    """The encryption of the snapshots of an encrypted store; None for a plain store."""
    if storage.sealing is None:
        return None
    from voiceprint.index import CODED_KIND, Coding

    files = storage.sealing.files()
    return Coding(partial(files.writing, kind=CODED_KIND), partial(files.reading, kind=CODED_KIND))


def _check_copies_allowed(storage: Storage) -> None:
    if storage.sealing is not None and storage.sealing.keeps_keys_apart:
        raise ConfigurationError(
            "The store keeps the data keys of its callers apart, and a copy of the index would outlive a "
            "forgotten key: let each node build its index."
        )


def _not_a_place(error: RefusedFileError) -> ConfigurationError:
    return ConfigurationError(
        f"The index's snapshot cannot be kept there: {error} Change VOICE_INDEX_PATH: a path, or off."
    )


def _of_space(path: Path, encoder: str) -> Path:
    digest = hashlib.sha256(encoder.encode()).hexdigest()[:16]
    return path.parent / f"{path.stem}.{digest}{path.suffix}"


def _place(storage: Storage, setting: str | None) -> Path | None:
    """The path of the snapshot of Resemblyzer's space. Raises OSError without a home folder."""
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
        self._erased = 0  # snapshots
        self._applied: Position | None = None  # of the last change in the index
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
        from voiceprint.index import IndexCorruptError

        if path != former:
            _remove_former(former, storage, encoder)
        self._changes = 0
        start = time.perf_counter()
        if storage.sealing is not None:
            _remove_plain(path)
        try:
            index, position = self.read(path, storage, encoder)
        except FileNotFoundError:
            logger.debug("%s: there is no snapshot yet.", path)
            return None
        except (IndexCorruptError, OSError, ValueError, MemoryError) as error:
            # A snapshot is only a cache: the index is built from the store instead.
            logger.warning(
                "The index's snapshot cannot be used (%s); building it anew.", error or type(error).__name__
            )
            return None
        if index.status().training:  # it was written before it was trained
            self._changes = len(index)
        logger.info("Read %s, %d vectors, in %.1f s.", path, len(index), time.perf_counter() - start)
        return index, position

    def read(self, path: Path, storage: Storage, encoder: str) -> tuple[VectorIndex, Position]:
        """The index of a snapshot file, and its position in the change feed.

        Raises OSError, `IndexCorruptError`, ValueError and MemoryError for a file that is not a whole index
        of this store, encoder and dimension.
        """
        from voiceprint.index import VectorIndex, read_stamp

        coding = snapshot_coding(storage)
        try:
            stamp = Stamp.from_text(read_stamp(path, coding))
        except KeyError as error:
            raise ValueError(f"{path} does not name its store") from error
        if stamp[:2] != (storage.identity(), encoder):
            raise ValueError(f"{path} is the index of another store or encoder")
        index = VectorIndex.load(
            path, recall=self.settings.recall, threads=self.settings.threads, unit=True, coding=coding
        )
        if index.dimension != self._dimension:
            raise ValueError(f"{path} holds vectors of another length")
        return index, stamp.position

    def export(self, path: Path, index: VectorIndex, stamp: Stamp, storage: Storage) -> None:
        """Write a snapshot for another machine. It replaces an index snapshot, and no other file.

        Raises `InvalidArgumentError`.
        """
        _check_copies_allowed(storage)
        try:
            index.save(
                path, stamp=stamp.as_text(), apart_from=storage.files(), coding=snapshot_coding(storage)
            )
        except RefusedFileError as error:
            raise InvalidArgumentError(str(error)) from error
        except OSError as error:
            raise InvalidArgumentError(f"{str(path)!r} cannot be written: {error.strerror}.") from error

    def import_(self, path: Path, storage: Storage, encoder: str) -> tuple[VectorIndex, Position]:
        """The index of an exported snapshot, and its position in the change feed.

        Raises `InvalidArgumentError` for a file that is not a whole index of this store and encoder, or is
        older than the change feed.
        """
        from voiceprint.index import IndexCorruptError

        _check_copies_allowed(storage)
        try:
            index, position = self.read(path, storage, encoder)
        except OSError as error:
            raise InvalidArgumentError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        except (IndexCorruptError, ValueError, MemoryError) as error:
            raise InvalidArgumentError(
                f"The index cannot be imported: {str(error).rstrip('.') or 'there is too little memory'}. "
                "Export it anew by `voiceprint index export`, from the same store and with the same encoder "
                "and version of this program."
            ) from error
        if storage.changes(position, encoder=encoder) is None:
            raise InvalidArgumentError(
                f"{str(path)!r} is older than the change feed of the store, or the store was rewound: export "
                "it again."
            )
        return index, position

    def built(self, vectors: int) -> None:
        """Note that the index was built from the store: none of its vectors are in a snapshot."""
        self._changes = vectors

    def changed(self, count: int) -> None:
        """Note that `count` vectors have changed."""
        self._changes += count

    def applied(self, position: Position) -> None:
        """Note that the index has all changes up to this position."""
        self._applied = position

    def erase(self, storage: Storage, index: VectorIndex) -> None:
        """Remove the snapshot, which holds a removed embedding; another is written later."""
        self._erased += 1
        path = snapshot_path(storage, self.settings.path)
        if path is not None:
            erase_snapshots([path])
            self.built(len(index))

    def write_if_due(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write in the background, after many changes.

        Writing takes at most a twentieth of the time, even if snapshots are erased often.
        """
        if self._changes < max(_BACKGROUND, len(index) // _BACKGROUND_SHARE):
            return
        if time.monotonic() < self._not_before:
            return
        path = snapshot_path(storage, self.settings.path, stamp.encoder)
        if path is None or (self._writer is not None and self._writer.is_alive()):
            return

        def write() -> None:
            index.wait()  # trained, so that the next process need not train
            self.write(path, index, stamp, storage)

        self._writer = threading.Thread(target=write, name="voiceprint-snapshot", daemon=True)
        self._writers.add(self._writer)
        self._writer.start()

    def close(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> None:
        """Write, after enough changes, and if no writer is at work."""
        path = snapshot_path(storage, self.settings.path, stamp.encoder)
        worthwhile = self._changes >= min(_CLOSING, max(1, len(index) // _CLOSING_SHARE))
        if path is not None and worthwhile and not (self._writer is not None and self._writer.is_alive()):
            self.write(path, index, stamp, storage)

    def write(
        self, path: Path, index: VectorIndex, stamp: Stamp, storage: Storage, *, by_user: bool = False
    ) -> bool:
        """Write now; False, and a line in the log, when that cannot be done.

        The files of the store are never overwritten. by_user: raise `ConfigurationError` where another file
        lies at the path.
        """
        with self._writing:
            changes, erased, start = self._changes, self._erased, time.perf_counter()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                index.save(
                    path,
                    stamp=stamp.as_text(),
                    apart_from=storage.files(),
                    coding=snapshot_coding(storage),
                )
            except RefusedFileError as error:
                if by_user:
                    raise _not_a_place(error) from error
                logger.warning("%s", _not_a_place(error))
                return False
            except OSError as error:  # it is only a cache, and the disk may be full
                logger.warning("The index's snapshot could not be written (%s).", error)
                return False
            took = time.perf_counter() - start
            self._not_before = time.monotonic() + _SPARING * took
            # Whoever removes an embedding erases the snapshot that is there then, so a removal during the
            # writing must be noticed here: by this process, or by another.
            if self._erased != erased or self._holds_removed(storage, index, stamp):
                erase_snapshots([path])
                return False
            self._changes -= changes
            logger.info("Wrote %s, %d vectors, in %.1f s.", path, len(index), took)
            return True

    def _holds_removed(self, storage: Storage, index: VectorIndex, stamp: Stamp) -> bool:
        """Whether another process has removed or replaced an embedding of the index since the stamp."""
        while True:
            # This process has erased the snapshot if one of the changes until here is a removal.
            applied = self._applied or stamp.position
            try:
                found = any(
                    changes is None
                    or any(id_ in index for id_ in changes.removed.tolist())
                    or (len(changes.ids) and index.differences(changes.ids, changes.embeddings)[0].any())
                    for changes in changes_since(storage, stamp._replace(position=applied))
                )
            except StorageError:
                # The handle was closed while this thread wrote, or the store is not there. The snapshot
                # stays, as the next process that loads it applies all removals.
                return False
            if applied == (self._applied or stamp.position):  # else the index has new ids of these changes
                return found

    @classmethod
    def _finish(cls) -> None:
        # At exit the index ends its training, and the snapshot is written without it.
        for writer in list(cls._writers):
            writer.join(_AT_EXIT_S)


def changes_since(storage: Storage, stamp: Stamp) -> Iterator[Changes | None]:
    """The changes since a snapshot, page by page; None where the feed does not reach back to it."""
    position, more = stamp.position, True
    while more:
        changes = storage.changes(position, encoder=stamp.encoder)
        yield changes
        if changes is None:
            return
        position, more = changes.position, changes.more


def _remove_former(path: Path, storage: Storage, encoder: str) -> None:
    """Remove a snapshot of this space from the path of Resemblyzer's, where earlier versions wrote it."""
    from voiceprint.index import IndexCorruptError, read_stamp

    with suppress(OSError, IndexCorruptError):  # no file, or another one
        stamp = read_stamp(path)  # earlier versions did not encrypt
        if (stamp.get("store"), stamp.get("encoder")) == (storage.identity(), encoder):
            path.unlink()


def _remove_plain(path: Path) -> None:
    """Remove a snapshot of an encrypted store that is not encrypted: it holds every embedding."""
    from voiceprint.index import IndexCorruptError, read_stamp

    with suppress(OSError, IndexCorruptError):  # no file, an encrypted one, or not a snapshot
        read_stamp(path)
        path.unlink()
        logger.warning("%s was not encrypted, as the store is: removed it.", path)


# Registered before faiss is loaded: exit handlers run in reverse order, and the index must end its training
# first.
atexit.register(SnapshotKeeper._finish)
