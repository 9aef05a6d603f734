"""The file that notes the progress of a long run, so that an interrupted run can go on.

A SQLite database, readable by its owner alone, with an application id and a version of its tables, by which
its kind is recognized. It is locked as long as it is open: two runs would do the same work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from voiceprint._files import RefusedFileError, check_apart, open_regular
from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageUnavailableError

if TYPE_CHECKING:
    from typing_extensions import Self

_HEADER: Final = b"SQLite format 3\0"


class ProgressKind(NamedTuple):
    """A kind of progress files.

    application_id, version: 32-bit integers in the header of the file. tables: SQL that creates the tables
    where they are missing. run: the kind of the run, such as "enrollment". user: the work of a process that
    has the file open. redo: the work of a run that has lost the file.
    """

    application_id: int
    version: int
    tables: str
    run: str
    user: str
    redo: str


def default_progress_path(path: str | Path) -> Path:
    """The path of the progress of a run: beside its manifest or output `path`."""
    path = Path(path)
    return path.with_name(f"{path.name}.progress")


class ProgressFile:
    """The progress file at `path`, created if it is missing. One process may have it open.

    Raises `InvalidArgumentError` for a file of another kind or of `apart_from`, `StorageCorruptError` for a
    damaged one, and `StorageUnavailableError` where it cannot be written, or another process has it open;
    so do the methods of subclasses, which use the database within `_opening`, `_translated` and
    `_transaction`.
    """

    def __init__(self, path: Path, kind: ProgressKind, apart_from: Iterable[Path]) -> None:
        self._path, self._kind = path, kind
        self._check_header(apart_from)
        with self._translated():
            self._database = sqlite3.connect(path, timeout=0.0, isolation_level=None)
        with self._opening():
            self._create_tables()

    def _check_header(self, apart_from: Iterable[Path]) -> None:
        try:
            check_apart(self._path, apart_from)
            with open_regular(self._path) as file:
                head = file.read(len(_HEADER))
        except FileNotFoundError:
            # Created here, readable by its owner alone: the ids of callers may be in it.
            with self._translated():
                self._path.touch(mode=0o600)
            return
        except RefusedFileError as error:  # a pipe, a device, or a file of the store
            raise InvalidArgumentError(
                f"The progress of the {self._kind.run} (--progress): {error}"
            ) from error
        except OSError as error:  # no permission, or a folder
            raise StorageUnavailableError(
                f"{self._path} cannot be read: {error.strerror or error}."
            ) from error
        if head not in (b"", _HEADER):
            raise self._other_kind()

    def _create_tables(self) -> None:
        kind, database = self._kind, self._database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # until the file is closed
        database.execute("PRAGMA synchronous = EXTRA")  # also the folder, after a journal is removed
        database.execute("PRAGMA secure_delete = ON")  # no caller id stays in a free page
        found = tuple(self._value(f"PRAGMA {name}") for name in ("application_id", "user_version"))
        if self._value("SELECT count(*) FROM sqlite_master") and found != (kind.application_id, kind.version):
            raise self._other_kind()
        database.executescript(
            f"BEGIN IMMEDIATE; {kind.tables} PRAGMA application_id = {kind.application_id}; "
            f"PRAGMA user_version = {kind.version}; COMMIT;"
        )

    def _value(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def _other_kind(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self._path} is there already, and is not the progress of an {self._kind.run}: choose another "
            "file."
        )

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Translates the errors of the block as `_translated`, and closes the file after an error."""
        try:
            with self._translated():
                yield
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commits the changes of the block together; rolls them back after an error."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raises the errors of SQLite and of the operating system as the library's."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:  # each says by its class whether the file is damaged
            if "locked" in str(error):
                raise StorageUnavailableError(
                    f"{self._path} is in use: another process is {self._kind.user}."
                ) from error
            if isinstance(error, sqlite3.DatabaseError) and (
                not isinstance(error, sqlite3.OperationalError)
                or "column" in str(error)  # other columns; Python 3.10 has no code of the error
            ):
                raise self._damaged(str(error)) from error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise StorageUnavailableError(
                f"{self._path}, the progress of the {self._kind.run}, cannot be written ({reason}): give it "
                "another path (--progress)."
            ) from error

    def _damaged(self, reason: str) -> StorageCorruptError:
        return StorageCorruptError(f"{self._path} is damaged ({reason}): remove it, and {self._kind.redo}.")

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
