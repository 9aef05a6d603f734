"""How fast does `enroll_embeddings` fill a SQLite store, and with how much memory? And a PostgreSQL store?

    python -m benchmarks.own_embeddings [--rows 1000000] [--folder FOLDER] [--postgresql URL]

Random embeddings of 256 values, one a caller, with caller ids that grow with the rows, and with random ones.
The baseline in the same run, for each: a bare `executemany` of the same caller ids and bytes into two tables
with the same keys, as durable, in changes of as many rows. On PostgreSQL, instead: the same enrollment by
INSERT in place of COPY. --postgresql: a database, in which schemas are created and dropped.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from rich.console import Console
from rich.table import Table

from benchmarks.measure import resident_bytes, timed
from benchmarks.report import command_line, write
from voiceprint import ExternalEncoder, OpusAgentVoiceRecognizer, SQLiteStorage
from voiceprint.enrollment.own_embeddings import ROWS_TOGETHER
from voiceprint.storage import SQLStorage
from voiceprint.storage.sql import writer

DIMENSION = 256
BLOCK = 100_000  # rows that are generated at a time


def main() -> int:
    """Measure, print a table, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="embeddings to enroll")
    parser.add_argument("--folder", type=Path, help="folder for the stores; default: for temporary files")
    parser.add_argument("--postgresql", metavar="URL", help="measure a PostgreSQL store instead")
    arguments = parser.parse_args()
    rows = arguments.rows
    chance = np.random.default_rng(1)
    ids = {
        "in order": [f"caller {number:08}" for number in range(rows)],
        "random": [str(uuid.UUID(bytes=chance.bytes(16), version=4)) for _ in range(rows)],
    }
    kind = "PostgreSQL" if arguments.postgresql else "SQLite"
    figures: dict[str, Any] = {"store": kind, "rows": rows, "dimension": DIMENSION, "ids": {}}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        matrix = generated(Path(folder) / "embeddings.npy", rows)
        for name, caller_ids in ids.items():
            if arguments.postgresql:
                figures["ids"][name] = measure_postgresql(arguments.postgresql, caller_ids, matrix)
            else:
                figures["ids"][name] = measure(Path(folder) / f"{name}.db", caller_ids, matrix)
    show(figures)
    write(f"own_embeddings-{'' if kind == 'SQLite' else 'postgresql-'}{rows}", figures, arguments.results)
    return 0


def generated(path: Path, rows: int) -> NDArray[np.float32]:
    """Random unit vectors in a file, float32[rows, 256], mapped into memory."""
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIMENSION))
    chance = np.random.default_rng(2)
    for start in range(0, rows, BLOCK):
        block = chance.standard_normal((min(BLOCK, rows - start), DIMENSION), dtype=np.float32)
        matrix[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    matrix.flush()
    del matrix
    mapped: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return mapped


def measure_postgresql(url: str, caller_ids: list[str], matrix: NDArray[np.float32]) -> dict[str, Any]:
    """Enroll all rows by COPY, and by INSERT, each into a store of its own."""
    figures: dict[str, Any] = {}
    copied_rows = writer.COPIED_ROWS
    for name, least in (("copy", copied_rows), ("insert", len(caller_ids) + 1)):
        writer.COPIED_ROWS = least
        with psycopg.connect(url, autocommit=True) as connection:
            schema = f"own_embeddings_{uuid.uuid4().hex}"  # no process takes an emptied store for a new one
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            try:
                mark = "&" if "?" in url else "?"
                with SQLStorage(f"{url}{mark}options=-csearch_path%3D{schema}") as storage:
                    recognizer = OpusAgentVoiceRecognizer(
                        storage, encoder=ExternalEncoder("random", DIMENSION)
                    )
                    processor = time.process_time()
                    seconds = timed(partial(recognizer.enroll_embeddings, caller_ids, matrix))
                    processor = time.process_time() - processor
                    figures |= {
                        "stored": storage.count(),
                        f"{name} per s": round(len(caller_ids) / seconds),
                        f"{name} per processor s": round(len(caller_ids) / processor),
                        f"{name} seconds": round(seconds, 1),
                    }
            finally:
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    writer.COPIED_ROWS = copied_rows
    return figures


def measure(path: Path, caller_ids: list[str], matrix: NDArray[np.float32]) -> dict[str, Any]:
    """Enroll all rows, and insert them in the baseline."""
    rows = len(caller_ids)
    most = before = anonymous_bytes()

    def note_memory(_: int) -> None:
        nonlocal most
        most = max(most, anonymous_bytes())

    with SQLiteStorage(path) as storage:
        recognizer = OpusAgentVoiceRecognizer(storage, encoder=ExternalEncoder("random", DIMENSION))
        processor = time.process_time()
        seconds = timed(lambda: recognizer.enroll_embeddings(caller_ids, matrix, progress=note_memory))
        processor = time.process_time() - processor
        stored = storage.count()
    size = path.stat().st_size
    path.unlink()
    bare = timed(lambda: insert(path, caller_ids, matrix))
    path.unlink()
    return {
        "stored": stored,
        "per s": round(rows / seconds),
        "per processor s": round(rows / processor),
        "seconds": round(seconds, 1),
        "grew mb": round((most - before) / 1e6, 1),
        "file mb": round(size / 1e6, 1),
        "bare per s": round(rows / bare),
        "times the bare insert": round(seconds / bare, 2),
    }


def insert(path: Path, caller_ids: list[str], matrix: NDArray[np.float32]) -> None:
    """The baseline: the same keys and bytes by sqlite3 alone, in the order of the rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE c (id TEXT PRIMARY KEY); "
            "CREATE TABLE v (id INTEGER PRIMARY KEY, c TEXT, slot INTEGER, e BLOB, UNIQUE (c, slot));"
        )
        for start in range(0, len(caller_ids), ROWS_TOGETHER):
            numbers = range(start, min(start + ROWS_TOGETHER, len(caller_ids)))
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO c VALUES (?)", [(caller_ids[number],) for number in numbers])
            connection.executemany(
                "INSERT INTO v VALUES (?, ?, 0, ?)",
                [(number, caller_ids[number], matrix[number].tobytes()) for number in numbers],
            )
            connection.execute("COMMIT")


def anonymous_bytes() -> int:
    """Memory of this process without the pages of mapped files; all of it where /proc is absent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return resident_bytes()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("Caller ids", title=f"{figures['rows']:,} embeddings into {figures['store']}")
    names = [name for name in next(iter(figures["ids"].values())) if name != "stored"]
    for name in names:
        table.add_column(name, justify="right")
    for kind, measured in figures["ids"].items():
        table.add_row(kind, *(f"{measured[name]:,}" for name in names))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
