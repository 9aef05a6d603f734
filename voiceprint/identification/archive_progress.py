"""The answers on an archive so far, in a file, so that an interrupted run can go on.

A SQLite database, readable by its owner alone: of each recording its path, size and time, and its row. No
audio, embedding or metadata is in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from voiceprint._files import RefusedFileError, check_apart, open_regular
from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageUnavailableError

_APPLICATION_ID: Final = 0x564F4341  # "VOCA", by which the kind of the file is recognized
_HEADER: Final = b"SQLite format 3\0"
_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS run (key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answered (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, verdict TEXT NOT NULL, caller_id TEXT, similarity REAL,
    fpir REAL, reasons TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""

Noted = tuple[str, str | None, float | None, float | None, str]
"""Verdict, caller id, similarity, FPIR, and reasons, separated by spaces."""


class ArchiveProgress:
    """The recordings of an archive that are answered, in the file at `path`.

    key: of the run, its store and options. One process may have the file open. Raises `InvalidArgumentError`
    for a file of another kind or run, `StorageCorruptError` for a damaged one, and `StorageUnavailableError`
    where it cannot be written, or another process has it open.
    """

    def __init__(self, path: Path, key: str, *, again: bool, apart_from: Iterable[Path]) -> None:
        """again: forget what is noted. apart_from: the files of the store."""
        self._path = path
        self._check_kind(apart_from)
        with self._translated():
            self._database = sqlite3.connect(path, timeout=0.0, isolation_level=None)
        try:
            with self._translated():
                self._open(key, again=again)
        except BaseException:
            self._database.close()
            raise

    def _check_kind(self, apart_from: Iterable[Path]) -> None:
        try:
            check_apart(self._path, apart_from)
            with open_regular(self._path) as file:
                head = file.read(len(_HEADER))
        except FileNotFoundError:
            with self._translated():
                self._path.touch(mode=0o600)  # the ids of callers are in it
            return
        except RefusedFileError as error:  # a pipe, a device, or a file of the store
            raise InvalidArgumentError(f"The progress of the archive (--progress): {error}") from error
        except OSError as error:
            raise StorageUnavailableError(
                f"{self._path} cannot be read: {error.strerror or error}."
            ) from error
        if head not in (b"", _HEADER):
            raise self._other_kind()

    def _open(self, key: str, *, again: bool) -> None:
        database = self._database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # two runs would answer the same recordings
        database.execute("PRAGMA secure_delete = ON")  # no caller id stays in a free page
        kind = database.execute("PRAGMA application_id").fetchone()[0]
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and kind != _APPLICATION_ID:
            raise self._other_kind()
        database.executescript(_TABLES)
        with self._transaction():
            if again:
                database.execute("DELETE FROM answered")
            if not database.execute("SELECT EXISTS (SELECT * FROM answered)").fetchone()[0]:
                database.execute("DELETE FROM run")
                database.execute("INSERT INTO run VALUES (?)", (key,))
            noted = database.execute("SELECT key FROM run").fetchone()
        if noted != (key,):
            raise InvalidArgumentError(
                f"{self._path} holds the answers of an interrupted run with another store, encoder or other "
                "options: go on with those, or begin anew with again=True (--again)."
            )

    def _other_kind(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self._path} is there already, and is not the progress of an archive: choose another file."
        )

    def get(self, path: str, stamp: str) -> Noted | None:
        """The answer on a recording; None for one without an answer, or that has changed since."""
        with self._translated():
            found: Noted | None = self._database.execute(
                "SELECT verdict, caller_id, similarity, fpir, reasons FROM answered"
                " WHERE path = ? AND stamp = ?",
                (os.fsencode(path), stamp),
            ).fetchone()
        return found

    def add(self, rows: Sequence[tuple[str, str, Noted]]) -> None:
        """Note answers, in one transaction. rows: path, stamp and answer of each."""
        entries = [(os.fsencode(path), stamp, *answer) for path, stamp, answer in rows]
        with self._translated(), self._transaction():
            self._database.executemany(
                "INSERT OR REPLACE INTO answered VALUES (?, ?, ?, ?, ?, ?, ?)", entries
            )

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
                    f"{self._path} is in use: another process is identifying this archive."
                ) from error
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                raise StorageCorruptError(
                    f"{self._path} is damaged ({error}): remove it, and all recordings are identified again."
                ) from error
            raise StorageUnavailableError(
                f"{self._path}, the progress of the archive, cannot be written ({error}): give it another "
                "path (--progress)."
            ) from error

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def __enter__(self) -> ArchiveProgress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
