"""Erases removed records from the files of an SQLite database.

`secure_delete` overwrites what is freed, but two places keep more. The write-ahead log holds the pages as
they were before and after: it is written back and cut to nothing. And where SQLite divides or joins pages,
the unallocated gap of a page may keep a copy of a record that has moved to another page, and that nothing
overwrites when the record is removed there (of 8,864 removals 18 left something so): these gaps are filled
with zeros in the file itself, while no other connection can write, and while the log is empty, so that none
can write back either. A last commit then has all connections read the pages anew.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["CLEAN", "OLD", "PENDING", "erase_remains", "pinned"]

# The states of a database, as its `user_version`: of before there was `secure_delete`; with nothing left to
# erase; and since a commit that removed something, so that whoever opens it after a crash makes it good.
OLD, CLEAN, PENDING = 0, 1, 2

# Pages that are read at once.
_PAGES = 256
# The first byte of a page of a b-tree, and the length of its header. Any other page begins with the number
# of a page, whose first byte is 0 or 1 in a database of less than 2**25 pages.
_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
_MOST_PAGES = 2**25
# How long to keep others from writing, at a time, while readers of the log are waited for.
_TURN_MS = 100

# Files of databases that were opened past SQLite, by device and inode. Never closed: with it, the system
# would take back all locks that SQLite has on the file in this process.
_pinned: dict[tuple[int, int], int] = {}


def erase_remains(path: Path, connect: Callable[[], sqlite3.Connection], timeout_s: float) -> bool:
    """Remove from the log and the file what was removed from the database; False if others kept it up.

    connect: gives a new connection, which has no page in memory yet. Databases of before there was
    `secure_delete` are written anew first, once (`user_version` 0).
    """
    deadline = time.monotonic() + timeout_s
    before = path.stat()
    connection = connect()
    try:
        connection.execute(f"PRAGMA busy_timeout={_TURN_MS}")
        while True:
            try:
                if _state(connection) == OLD:
                    connection.execute("VACUUM")
                    connection.execute(f"PRAGMA user_version={CLEAN}")
                if _empty_log(connection) and _fill_gaps(connection, path, before):
                    return True
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  not for secrets
    finally:
        connection.close()


def _state(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _empty_log(connection: sqlite3.Connection) -> bool:
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _fill_gaps(connection: sqlite3.Connection, path: Path, opened: os.stat_result) -> bool:
    file = pinned(path)
    if not os.path.samestat(os.fstat(file), opened):  # replaced since: the lock would be on another file
        return False
    found = list(_unclean(file))
    if not found and _state(connection) == CLEAN:
        return True
    connection.execute("BEGIN IMMEDIATE")
    try:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:  # others have committed since, and may be writing it back
            return False
        for start, size in found:
            gap = _gap(os.pread(file, size, start))
            if gap is not None:
                os.pwrite(file, bytes(gap[1] - gap[0]), start + gap[0])
        os.fsync(file)
        # Also if it is so already: by this commit all others know that the pages in their memory are old.
        connection.execute(f"PRAGMA user_version={CLEAN}")
        connection.execute("COMMIT")
        return True
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def pinned(path: Path) -> int:
    """A file descriptor of a database, to be read by `os.pread` and never closed."""
    status = path.stat()
    place = status.st_dev, status.st_ino
    if place not in _pinned:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        status = os.fstat(file)
        place = status.st_dev, status.st_ino
        _pinned.setdefault(place, file)
    return _pinned[place]


def _unclean(file: int) -> Iterator[tuple[int, int]]:
    """Where the pages are whose gap is not all zeros, but for the first page, which has no records."""
    size = int.from_bytes(os.pread(file, 2, 16), "big")
    size = 65536 if size == 1 else size
    if os.fstat(file).st_size > size * _MOST_PAGES:
        return
    if int.from_bytes(os.pread(file, 4, 52), "big"):  # auto_vacuum: pointer maps begin like pages of b-trees
        return
    start = size
    while pages := os.pread(file, size * _PAGES, start):
        for at in range(0, len(pages) - size + 1, size):
            if pages[at] in _HEADERS and _gap(pages[at : at + size]) is not None:
                yield start + at, size
        start += len(pages)


def _gap(page: bytes) -> tuple[int, int] | None:
    """From where to where a page of a b-tree is unallocated; None if that is all zeros, or not sure."""
    if page[0] not in _HEADERS:
        return None
    cells = int.from_bytes(page[3:5], "big")
    pointers = _HEADERS[page[0]]
    start, end = pointers + 2 * cells, int.from_bytes(page[5:7], "big") or 65536
    if not start < end <= len(page) or not page[start:end].strip(b"\0"):
        return None
    places = [int.from_bytes(page[at : at + 2], "big") for at in range(pointers, start, 2)]
    freed = int.from_bytes(page[1:3], "big")
    # A page that is damaged is left as it is.
    return (start, end) if all(end <= place < len(page) for place in places + [freed] * (freed > 0)) else None
