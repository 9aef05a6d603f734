"""How fast are the record stores? Ratios to a baseline of the same run, on the disk of this folder.

    python benchmarks/storage.py [--rows 100000] [--folder FOLDER]

SQLite: a bulk import, a scan with its memory, single durable saves against a bare insert of the same
bytes, and a look-up in a large store against one in a small store; all of it again where each voiceprint
has a print for simulated lines. JSON: a save against json.load and json.dump of the whole.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import spread, timed
from numpy.typing import NDArray
from results_file import keep

from voiceprint import JSONStorage, SQLiteStorage, Storage, Voiceprint

SEED = 1
SMALL = 1_000
SINGLE = 200
TIME = "2025-01-01T00:00:00.000000Z"
JSON_PRINTS = 10_000

# The memory of a scan, in a process of its own.
SCAN = """
import re, sys
from pathlib import Path
from voiceprint import SQLiteStorage

def peak():  # not that of getrusage, which a process takes over from its parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

with SQLiteStorage(sys.argv[1]) as storage:
    count = 0
    for n, (ids, _) in enumerate(storage.scan(batch_size=int(sys.argv[2]) // 10)):
        count += len(ids)
        before = peak() if n == 2 else before if n > 2 else 0  # three batches in, buffers have their size
    print(count, (peak() - before) / 1024)
"""


def main() -> int:
    """Measure, print, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="voiceprints of the large SQLite store")
    parser.add_argument(
        "--folder", type=Path, help="where to put the stores; default: the one for temporary files"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = {"sqlite": sqlite(Path(folder), arguments.rows)}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures["sqlite_simulated"] = sqlite(Path(folder), arguments.rows, augmented=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures["json"] = json_file(Path(folder))
    for store, rows in figures.items():
        print(f"\n{store}")
        for name, value in rows.items():
            print(f"  {name:32}{json.dumps(value)}")
    print(f"\nRaw figures: benchmarks/results/{keep('storage', figures).name}")
    return 0


def sqlite(folder: Path, rows: int, *, simulated: bool = False) -> dict[str, Any]:
    """The figures of SQLite; simulated: with a print for simulated lines beside each."""
    figures: dict[str, Any] = {"rows": rows}
    small, large = folder / "small.db", folder / "large.db"
    with SQLiteStorage(small) as storage:
        fill(storage, SMALL, simulated)
    with SQLiteStorage(large) as storage:
        seconds = fill(storage, rows, simulated)
        figures["save_many_per_s"] = round(rows / seconds)
        list(storage.scan())
        seconds = timed(lambda: sum(len(ids) for ids, _ in storage.scan()))
        figures["scan_per_s"] = round(rows / seconds)
    figures["bytes_each"] = round(large.stat().st_size / rows)  # closed, so that all is in this file
    count, growth = scan_memory(large, rows)
    figures["scan_growth_mb"] = {"voiceprints": count, "from_30_to_100_percent": growth}
    with SQLiteStorage(small) as one, SQLiteStorage(large) as other:
        # In turn, so that what else the machine does falls on both.
        times = interleaved(
            [
                getter(one, SMALL, np.random.default_rng(SEED)),
                getter(other, rows, np.random.default_rng(SEED)),
            ],
            2_000,
        )
    figures["get_us"] = {str(SMALL): spread(times[0]), str(rows): spread(times[1])}
    figures["get_ratio"] = round(float(np.median(times[1]) / np.median(times[0])), 2)
    with SQLiteStorage(folder / "saves.db") as storage:
        given = prints(0, SINGLE, simulated)
        times = interleaved([saver(storage, given), inserter(folder / "bare.db", given)], SINGLE)
    figures["save_us"], figures["bare_insert_us"] = spread(times[0]), spread(times[1])
    figures["save_ratio"] = round(float(np.median(times[0]) / np.median(times[1])), 2)
    return figures


def fill(storage: Storage, rows: int, simulated: bool) -> float:
    """Save so many voiceprints of as many callers, 20,000 a batch; gives the seconds that saving took."""
    seconds = 0.0
    for start in range(0, rows, 20_000):
        batch = prints(start, min(20_000, rows - start), simulated)
        seconds += timed(lambda batch=batch: storage.save_many(batch))
    return seconds


def prints(start: int, count: int, simulated: bool = False) -> list[Voiceprint]:
    """Made-up voiceprints of the callers `start` and on."""
    first = vectors(count, start)
    second = vectors(count, 2**32 + start) if simulated else [None] * count
    return [
        Voiceprint(f"caller {start + n:08}", vector, augmented=second[n]) for n, vector in enumerate(first)
    ]


def vectors(count: int, seed: int = SEED) -> NDArray[np.float32]:
    """Random unit vectors, float32[count, 256]."""
    made = np.random.default_rng(seed).standard_normal((count, 256))
    return (made / np.linalg.norm(made, axis=1)[:, None]).astype(np.float32)


def getter(storage: Storage, rows: int, chance: np.random.Generator) -> Callable[[int], object]:
    """Reads a random caller."""
    return lambda _: storage.get(f"caller {chance.integers(rows):08}")


def saver(storage: Storage, given: list[Voiceprint]) -> Callable[[int], object]:
    """Saves a new caller."""
    return lambda n: storage.save(given[n])


def inserter(path: Path, given: list[Voiceprint]) -> Callable[[int], object]:
    """Inserts the same bytes into a table of one database, as durably."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, caller TEXT, e BLOB, s BLOB, m TEXT, c TEXT, l TEXT)"
    )
    statement = "INSERT INTO t (caller, e, s, m, c, l) VALUES (?, ?, ?, ?, ?, ?)"
    rows = [
        (print_.caller_id, _bytes(print_.embedding), _bytes(print_.augmented), "{}", TIME, TIME)
        for print_ in given
    ]
    return lambda n: connection.execute(statement, rows[n])


def _bytes(vector: NDArray[np.float32] | None) -> bytes | None:
    return None if vector is None else vector.tobytes()


def scan_memory(path: Path, rows: int) -> tuple[int, float]:
    """How many voiceprints a scan gives, and the MB that its last seven tenths add to the peak."""
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(path), str(rows)], capture_output=True, text=True, check=True
    )
    count, mb = done.stdout.split()
    return int(count), round(float(mb), 1)


def json_file(folder: Path) -> dict[str, Any]:
    """The figures of JSON."""
    path = folder / "store.json"
    with JSONStorage(path) as storage:
        storage.save_many(prints(0, JSON_PRINTS))
        more = prints(JSON_PRINTS, 10)

        def rewrite(_: int) -> None:
            content = json.loads(path.read_text())
            with (folder / "copy.json").open("w") as stream:
                json.dump(content, stream)
                stream.flush()
                os.fsync(stream.fileno())

        times = interleaved([lambda n: storage.save(more[n]), rewrite], 5)
    ratio = float(np.median(times[1]) / np.median(times[0]))
    return {
        "voiceprints": JSON_PRINTS,
        "save_ms": round(1e3 * float(np.median(times[0])), 1),
        "load_and_dump_ms": round(1e3 * float(np.median(times[1])), 1),
        "times_as_fast": round(ratio, 1),
    }


def interleaved(works: list[Callable[[int], object]], rounds: int) -> list[list[float]]:
    """The seconds of each round of each work, taken in turns."""
    gc.collect()
    times: list[list[float]] = [[] for _ in works]
    for n in range(rounds):
        for work, taken in zip(works, times, strict=True):
            taken.append(timed(lambda work=work, n=n: work(n)))
    return times


if __name__ == "__main__":
    sys.exit(main())
