"""The rows of a manifest that are enrolled, in a file beside it, so that an interrupted run can go on.

A SQLite database of two tables. `enrolled` holds digests of rows with the id of their voiceprint, each for
one store and embedding space. `storing` holds the rows of the change of the store that is about to be made,
with the time of creation that their voiceprints get. Both are on the disk before the change begins, and after
a crash this time shows in the store whether the change was made. So after a crash at any moment, a row is
either in `enrolled`, or not in the store.

The digests are of the text of the rows. No audio, embedding or metadata is in the file.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from voiceprint._files import RefusedFileError, check_apart, open_regular
from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageUnavailableError

if TYPE_CHECKING:
    from voiceprint.enrollment.manifest import ManifestRow
    from voiceprint.storage import Storage

_APPLICATION_ID: Final = 0x564F4350  # "VOCP", by which the kind of the file is recognized
_VERSION: Final = 1
_HEADER: Final = b"SQLite format 3\0"
_DIGEST_BYTES: Final = 16
"""128 bits: two of a million rows have the same by a chance of 1e-27. Doubled, the file grows by a third."""

_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS enrolled (
    store TEXT NOT NULL, space TEXT NOT NULL, row BLOB NOT NULL, voiceprint_id INTEGER NOT NULL,
    PRIMARY KEY (store, space, row)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS storing (
    location TEXT NOT NULL, space TEXT NOT NULL, row BLOB NOT NULL, caller_id TEXT NOT NULL,
    created_at TEXT NOT NULL
);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


def default_progress_path(manifest: str | Path) -> Path:
    """The path of the progress of a manifest: beside it."""
    manifest = Path(manifest)
    return manifest.with_name(f"{manifest.name}.progress")


def row_digest(row: ManifestRow, folder: str = ".") -> bytes:
    """16 bytes that differ for rows that differ in any value, or in the folder; the line does not count.

    folder: of the manifest, from that of the progress. So a manifest may be moved with its progress, and in a
    progress of several folders' manifests, equal rows of different recordings differ.
    """
    path = row.path if folder == "." else os.path.join(folder, row.path)  # noqa: PTH118 - Path drops "./"
    values = [
        row.caller_id, path, row.channel, row.encoding, row.sample_rate, row.start_s, row.end_s,
        row.metadata,
    ]  # fmt: skip
    text = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


class EnrollmentProgress:
    """The enrolled rows of a manifest, in the file at `path`, for one store and embedding space.

    One process may have it open. Raises `InvalidArgumentError` for a file of another kind,
    `StorageCorruptError` for a damaged one, and `StorageUnavailableError` where it cannot be written, or
    another process has it open.
    """

    def __init__(self, path: Path, storage: Storage, space: str) -> None:
        self._path, self._storage, self._space = path, storage, space
        self._identity = ""
        self._folders: dict[Path, str] = {}
        self._check_kind()
        with self._translated():
            self._database = sqlite3.connect(path, timeout=0.0, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def _check_kind(self) -> None:
        try:
            check_apart(self._path, self._storage.files())
            with open_regular(self._path) as file:
                head = file.read(len(_HEADER))
        except FileNotFoundError:
            # Created here, readable by its owner alone: the ids of callers may be in it.
            with self._translated():
                self._path.touch(mode=0o600)
            return
        except RefusedFileError as error:  # a pipe, a device, or a file of the store
            raise InvalidArgumentError(f"The progress of the enrollment (--progress): {error}") from error
        except OSError as error:
            raise StorageUnavailableError(
                f"{self._path} cannot be read: {error.strerror or error}."
            ) from error
        if head not in (b"", _HEADER):
            raise self._other_kind()

    def _open(self) -> None:
        # The lock is held until the file is closed: two runs would enroll the same rows.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA synchronous = EXTRA")  # also the folder, after a journal is removed
        self._database.execute("PRAGMA secure_delete = ON")  # no caller id stays in a free page
        kind, version = (self._pragma(name) for name in ("application_id", "user_version"))
        empty = not self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and (kind, version) != (_APPLICATION_ID, _VERSION):
            raise self._other_kind()
        self._database.executescript(_TABLES)
        self._resolve()

    def _pragma(self, name: str) -> Any:
        return self._database.execute(f"PRAGMA {name}").fetchone()[0]

    def _other_kind(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self._path} is there already, and is not the progress of an enrollment: choose another file."
        )

    def _resolve(self) -> None:
        """Enter the rows of an interrupted change of the store that was made."""
        pending = self._database.execute(
            "SELECT row, caller_id, created_at FROM storing WHERE location = ? AND space = ?",
            (self._storage.location, self._space),
        ).fetchall()
        if not all(isinstance(text, str) for _, *texts in pending for text in texts):
            raise self._damaged("an entry of another type")
        times = {created_at for _, _, created_at in pending}
        made = []
        for digest, caller_id, created_at in pending:
            caller = self._storage.get(caller_id)
            # Also a later one of the same change: it may have replaced this one, as the caller's oldest.
            found = [
                (print_.created_at, print_.id)
                for print_ in (() if caller is None else caller.voiceprints)
                if print_.created_at is not None
                and print_.created_at in times
                and print_.created_at >= created_at
            ]
            if found:
                made.append((digest, min(found)[1]))
        self._enter(made)

    def get(self, row: ManifestRow) -> int | None:
        """The id of the voiceprint of an enrolled row; None for a row that is not enrolled."""
        with self._translated():
            found = self._database.execute(
                "SELECT voiceprint_id FROM enrolled WHERE store = ? AND space = ? AND row = ?",
                (self._store(), self._space, self._digest(row)),
            ).fetchone()
        if found is not None and not isinstance(found[0], int):
            raise self._damaged("an id that is no number")
        return None if found is None else found[0]

    def forget(self) -> None:
        """Forget all rows of this store and space, so that they are enrolled again."""
        with self._translated():
            self._database.execute(
                "DELETE FROM enrolled WHERE store = ? AND space = ?", (self._store(), self._space)
            )

    def begin(self, rows: Sequence[tuple[ManifestRow, str]]) -> None:
        """Note that a change of the store begins. rows: each with the `created_at` of its voiceprint."""
        # By its location: a new store has its identity only after the first change.
        store = self._storage.location, self._space
        entries = [(*store, self._digest(row), row.caller_id, created_at) for row, created_at in rows]
        with self._translated(), self._transaction():
            self._end_storing()
            self._database.executemany("INSERT INTO storing VALUES (?, ?, ?, ?, ?)", entries)

    def end(self, rows: Iterable[tuple[ManifestRow, int]]) -> None:
        """Note that the change was made, or failed. rows: the enrolled ones, with their voiceprints' ids."""
        with self._translated():
            self._enter([(self._digest(row), id_) for row, id_ in rows])

    def _enter(self, rows: Sequence[tuple[bytes, int | None]]) -> None:
        store = self._store()
        entries = [(store, self._space, digest, id_) for digest, id_ in rows]
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO enrolled VALUES (?, ?, ?, ?)", entries)
            self._end_storing()

    def _end_storing(self) -> None:
        store = self._storage.location, self._space
        self._database.execute("DELETE FROM storing WHERE location = ? AND space = ?", store)

    def _digest(self, row: ManifestRow) -> bytes:
        folder = self._folders.get(row.folder)
        if folder is None:
            relative = os.path.relpath(os.path.realpath(row.folder), os.path.realpath(self._path.parent))
            # A name that is not UTF-8 is no text of JSON.
            folder = self._folders[row.folder] = os.fsencode(relative).decode(errors="backslashreplace")
        return row_digest(row, folder)

    def _store(self) -> str:
        """The store's identity; "" before its first change."""
        self._identity = self._identity or self._storage.identity()
        return self._identity

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if "locked" in str(error):
                raise StorageUnavailableError(
                    f"{self._path} is in use: another process is enrolling from this manifest."
                ) from error
            if isinstance(error, sqlite3.DatabaseError) and (
                not isinstance(error, sqlite3.OperationalError)
                or "column" in str(error)  # other columns; Python 3.10 has no code of the error
            ):
                raise self._damaged(str(error)) from error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise StorageUnavailableError(
                f"{self._path}, the progress of the enrollment, cannot be written ({reason}): give it "
                "another path (--progress)."
            ) from error

    def _damaged(self, reason: str) -> StorageCorruptError:
        return StorageCorruptError(
            f"{self._path} is damaged ({reason}): remove it, and all rows are enrolled again; a recording is "
            "not stored twice."
        )

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def __enter__(self) -> EnrollmentProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
