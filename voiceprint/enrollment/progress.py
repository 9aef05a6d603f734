"""The rows of a manifest that are enrolled, in a file beside it, so that an interrupted run can go on.

The file has two tables. `enrolled` holds digests of rows with the id of their voiceprint, each for
one store and embedding space. `storing` holds the rows of the change of the store that is about to be made,
with the time of creation that their voiceprints get. Both are on the disk before the change begins, and after
a crash this time shows in the store whether the change was made. So after a crash at any moment, a row is
either in `enrolled`, or not in the store.

The digests are of the text of the rows. No audio, embedding or metadata is in the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from voiceprint._progress_file import ProgressFile, ProgressKind

if TYPE_CHECKING:
    from voiceprint.enrollment.manifest import ManifestRow
    from voiceprint.storage import Storage

_DIGEST_BYTES: Final = 16
"""128 bits: two of a million rows have the same by a chance of 1e-27. Doubled, the file grows by a third."""

_KIND: Final = ProgressKind(
    application_id=0x564F4350,  # "VOCP"
    version=1,
    tables="""
        CREATE TABLE IF NOT EXISTS enrolled (
            store TEXT NOT NULL, space TEXT NOT NULL, row BLOB NOT NULL, voiceprint_id INTEGER NOT NULL,
            PRIMARY KEY (store, space, row)
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS storing (
            location TEXT NOT NULL, space TEXT NOT NULL, row BLOB NOT NULL, caller_id TEXT NOT NULL,
            created_at TEXT NOT NULL
        );
    """,
    run="enrollment",
    user="enrolling from this manifest",
    redo="all rows are enrolled again; a recording is not stored twice",
)


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


class EnrollmentProgress(ProgressFile):
    """The enrolled rows of a manifest, in the file at `path`, for one store and embedding space.

    Raises as `ProgressFile`.
    """

    def __init__(self, path: Path, storage: Storage, space: str) -> None:
        super().__init__(path, _KIND, storage.files())
        self._storage, self._space = storage, space
        self._identity = ""
        self._folders: dict[Path, str] = {}
        with self._opening():
            self._resolve()

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
