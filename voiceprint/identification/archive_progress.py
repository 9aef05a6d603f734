"""The answers on an archive so far: of each recording its path, size and time, and its row.

No audio, embedding or metadata is in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from voiceprint._progress_file import ProgressFile, ProgressKind
from voiceprint.answers import Verdict
from voiceprint.errors import InvalidArgumentError

_KIND: Final = ProgressKind(
    application_id=0x564F4341,  # "VOCA"
    version=0,
    tables="""
        CREATE TABLE IF NOT EXISTS run (key TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS answered (
            path BLOB PRIMARY KEY, stamp TEXT NOT NULL, verdict TEXT NOT NULL, caller_id TEXT,
            similarity REAL, fpir REAL, reasons TEXT NOT NULL
        ) WITHOUT ROWID;
    """,
    run="archive",
    user="identifying this archive",
    redo="all recordings are identified again",
)

Noted = tuple[str, str | None, float | None, float | None, str]
"""Verdict, caller id, similarity, FPIR, and reasons, separated by spaces."""

_TYPES: Final = (str, str | None, float | None, float | None, str)


class ArchiveProgress(ProgressFile):
    """The recordings of an archive that are answered, in the file at `path`.

    key: of the run, its store and options. Raises as `ProgressFile`, and `InvalidArgumentError` for a file of
    another run.
    """

    def __init__(self, path: Path, key: str, *, again: bool, apart_from: Iterable[Path]) -> None:
        """again: forget what is noted. apart_from: the files of the store."""
        super().__init__(path, _KIND, apart_from)
        with self._opening():
            self._begin(key, again=again)

    def _begin(self, key: str, *, again: bool) -> None:
        database = self._database
        with self._transaction():
            if again:
                database.execute("DELETE FROM answered")
            if not self._value("SELECT EXISTS (SELECT * FROM answered)"):
                database.execute("DELETE FROM run")
                database.execute("INSERT INTO run VALUES (?)", (key,))
            noted = database.execute("SELECT key FROM run").fetchone()
        if noted != (key,):
            raise InvalidArgumentError(
                f"{self._path} holds the answers of an interrupted run with another store, encoder or other "
                "options: go on with those, or begin anew with again=True (--again)."
            )

    def get(self, path: str, stamp: str) -> Noted | None:
        """The answer on a recording; None for one without an answer, or that has changed since."""
        with self._translated():
            found: Noted | None = self._database.execute(
                "SELECT verdict, caller_id, similarity, fpir, reasons FROM answered"
                " WHERE path = ? AND stamp = ?",
                (os.fsencode(path), stamp),
            ).fetchone()
        if found is not None and not _is_answer(found):
            raise self._damaged("an answer of another form")
        return found

    def add(self, rows: Sequence[tuple[str, str, Noted]]) -> None:
        """Note answers, in one transaction. rows: path, stamp and answer of each."""
        entries = [(os.fsencode(path), stamp, *answer) for path, stamp, answer in rows]
        with self._translated(), self._transaction():
            self._database.executemany(
                "INSERT OR REPLACE INTO answered VALUES (?, ?, ?, ?, ?, ?, ?)", entries
            )


def _is_answer(values: tuple[object, ...]) -> bool:
    """Whether values of the file have the form of `Noted`: SQLite takes any type in any column."""
    typed = all(isinstance(value, type_) for value, type_ in zip(values, _TYPES, strict=True))
    return typed and values[0] in [verdict.value for verdict in Verdict]
