"""The databases of the tests of the SQLite store: a look at them past the store, and old ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stores import unit

OLD_TABLE = (
    "CREATE TABLE voiceprints (caller_id TEXT PRIMARY KEY, embedding BLOB, metadata TEXT, "
    "created_at TEXT, last_seen TEXT)"
)


def sql(path: Path, statement: str, *values: Any) -> list[Any]:
    """The rows that a statement gives, made on the file by a connection of its own."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def old_row(caller_id: object, **fields: Any) -> list[Any]:
    """A row of OpusAgent's table."""
    row = {"embedding": unit(1).tobytes(), "metadata": "{}", "created_at": None, "last_seen": None}
    return [caller_id, *(row | fields).values()]


def old_database(path: Path, rows: Iterable[list[Any]]) -> Path:
    """A database as OpusAgent made it."""
    connection = sqlite3.connect(path)
    connection.execute(OLD_TABLE)
    connection.executemany("INSERT INTO voiceprints VALUES (?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return path


def dump(path: Path) -> list[str]:
    """Everything that a database holds, as statements."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()
