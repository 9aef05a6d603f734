"""The SQLite store: an SQL store in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from voiceprint.errors import InvalidArgumentError
from voiceprint.storage.base import DEFAULT_MAX_VOICEPRINTS
from voiceprint.storage.sql import SQLStorage

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["SQLiteStorage"]


class SQLiteStorage(SQLStorage):
    """Callers in an SQLite database, shared by threads and processes of one machine.

    Made for up to millions of voiceprints: a change writes what it changes. Writers take turns, and
    readers go on meanwhile, each with the state that was committed last. The database is created by
    the first save, with the folders above it, readable for its owner alone; the table of OpusAgent is
    taken over when it is opened. Not for a network file system, on which SQLite's locks do not hold.

    db_path: the file. A damaged one raises `StorageCorruptError` and is left as it is.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "voiceprints.db",
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
    ) -> None:
        super().__init__(_url(db_path), max_voiceprints_per_caller=max_voiceprints_per_caller)
        self.snapshot_places = {self.path.with_name(f"{self.path.name}.index")}

    @classmethod
    def schema_revision(cls, db_path: str | os.PathLike[str]) -> str | None:
        """The schema revision of a database, None where there is none; nothing is created or upgraded."""
        from voiceprint.storage.sql.database import schema_revision
        from voiceprint.storage.sql.dialects import dialect_of

        return schema_revision(dialect_of(_url(db_path)))

    @property
    def path(self) -> Path:
        """The file, absolute and with symbolic links resolved."""
        return Path(self.location.removeprefix("sqlite:"))

    def files(self) -> list[Path]:
        path = self.path
        others = [path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal", ".lock")]
        return [path, *others]


def _url(db_path: str | os.PathLike[str]) -> URL:
    path = os.fspath(db_path)
    if not isinstance(path, str) or not path or "\0" in path or path == ":memory:":
        raise InvalidArgumentError(
            f"The path of the SQLite store is {path!r}: give the path of a file, or use MemoryStorage."
        )
    from sqlalchemy import URL

    # Absolute, so that no name of a file is taken for one of SQLite's own, such as file:.
    return URL.create("sqlite", database=str(Path(os.path.expanduser(path)).absolute()))  # noqa: PTH111
