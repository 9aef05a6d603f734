"""Erases removed records from the files of an SQLite database.

`secure_delete` overwrites freed space, but two places need more. The write-ahead log holds former pages: it
is written back and truncated. And when SQLite splits or joins pages, the unallocated gap of a page may keep a
copy of a record that has moved to another page, where a removal does not overwrite it (18 of 8,864 removals
left such a copy). These gaps are filled with zeros in the file itself, while no other connection can write
and the log is empty, so that none can write back either. A last commit then makes all connections read the
pages anew.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["CLEAN", "OLD", "PENDING", "erase_remains", "pinned"]

# States of a database, in its `user_version`: created without `secure_delete`; nothing left to erase; and a
# commit has removed data, so that the next opening after a crash erases it.
OLD, CLEAN, PENDING = 0, 1, 2

# Pages read at once.
_PAGES = 256
# The first byte of a b-tree page, and the length of its header. Any other page begins with a page number,
# whose first byte is 0 or 1 in a database of less than 2**25 pages.
_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
_MOST_PAGES = 2**25
# How long each attempt blocks other writers while it waits for readers of the log.
_TURN_MS = 100

# Descriptors of databases opened past SQLite, by device and inode. Never closed: closing one would release
# all locks that SQLite has on the file in this process.
_pinned: dict[tuple[int, int], int] = {}


def erase_remains(path: Path, connect: Callable[[], sqlite3.Connection], timeout_s: float) -> bool:
    """Erase removed records from the log and the file; False if other connections held it up for `timeout_s`.

    connect: makes a new connection, without pages in memory. A database created without `secure_delete` is
    first rewritten, once.
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
        # Always: this commit makes all others discard the pages in their memory.
        connection.execute(f"PRAGMA user_version={CLEAN}")
        connection.execute("COMMIT")
        return True
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def pinned(path: Path) -> int:
    """A file descriptor of a database for `os.pread`, never to be closed."""
    status = path.stat()
    place = status.st_dev, status.st_ino
    if place not in _pinned:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        status = os.fstat(file)
        place = status.st_dev, status.st_ino
        _pinned.setdefault(place, file)
    return _pinned[place]


def _unclean(file: int) -> Iterator[tuple[int, int]]:
    """(offset, size) of the pages whose gap is not all zeros, without the first, which has no records."""
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
    """Start and end of the unallocated gap of a b-tree page; None if it is all zeros, or uncertain."""
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
