"""How fast are the record stores, on the disk of a folder or on a server?

    python -m benchmarks.storage [--rows 100000] [--folder FOLDER] [--store URL ...] [--replica URL]

Each store gets `--rows` random voiceprints (JSON at most 10,000): a bulk import, a scan with its peak memory,
look-ups at 1,000 voiceprints and in the full store, durable single saves, the other operations of a call, and
a check. Baselines in the same run: for SQLite a bare durable insert of the same bytes, for JSON json.load and
json.dump of the whole file. Without --store: JSON, SQLite, and Redis where redis-server is installed (started
on a private socket, without persistence). A store given by --store must be empty, and keeps the voiceprints.
--replica: a replica of the PostgreSQL store; reads from it beside the same ones from the primary alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.measure import in_turns, spread_ms, timed
from benchmarks.report import command_line, write
from voiceprint import Storage, Voiceprint
from voiceprint.storage import open_storage

SMALL = 1_000
MOST_IN_JSON = 10_000
CALLS = 200  # calls of each operation
NAMES = {"json": "json", "sqlite": "sqlite", "redis": "redis", "rediss": "redis", "unix": "redis"}
TIME = "2025-01-01T00:00:00.000000Z"


def main() -> int:
    """Measure, print a table, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="voiceprints in each store")
    parser.add_argument(
        "--folder", type=Path, help="folder for the stores; default: the one for temporary files"
    )
    parser.add_argument(
        "--store", nargs="+", default=[], metavar="URL", help="as `voiceprint --store` takes it"
    )
    parser.add_argument("--replica", metavar="URL", help="a streaming replica of the PostgreSQL store")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"rows": arguments.rows}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, redis_server() as redis_url:
        urls = arguments.store or [
            f"json:{folder}/voiceprints.json",
            f"sqlite:{folder}/voiceprints.db",
            *([redis_url] if redis_url else []),
        ]
        for url in urls:
            kind = NAMES.get(url.partition(":")[0], "postgresql")
            rows = min(arguments.rows, MOST_IN_JSON) if kind == "json" else arguments.rows
            with open_storage(url) as storage:
                if storage.count():
                    sys.exit(f"The store {kind} holds voiceprints: give an empty one.")
                figures[kind] = measure(storage, rows)
                if kind in BASELINES:
                    figures[kind]["baseline"] = BASELINES[kind](storage, Path(folder), rows)
                if kind == "postgresql" and arguments.replica:
                    figures[kind] |= replica_reads(storage, url, arguments.replica)
    show(figures)
    write("storage", figures, arguments.results)
    return 0


@contextmanager
def redis_server() -> Iterator[str | None]:
    """The URL of a Redis server on a private socket, without persistence; None where none is installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="vp-redis-") as folder:
        socket = Path(folder) / "redis.sock"
        arguments = ["--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""]
        with subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL) as server:
            try:
                while not socket.exists():
                    time.sleep(0.01)
                yield f"unix://{socket}"
            finally:
                server.kill()


def measure(storage: Storage, rows: int) -> dict[str, Any]:
    """The figures of a store that is empty at first; times in milliseconds."""
    chance = np.random.default_rng(1)
    callers = [caller_id(number) for number in chance.integers(SMALL, size=CALLS)]
    storage.save_many(voiceprints(0, SMALL))
    figures: dict[str, Any] = {"rows": rows, f"get at {SMALL}": spread_calls(storage.get, callers)}
    seconds = sum(
        timed(lambda batch=batch: storage.save_many(batch))
        for batch in (voiceprints(n, min(20_000, rows - n)) for n in range(SMALL, rows, 20_000))
    )
    figures["save_many per s"] = round((rows - SMALL) / seconds) if seconds else None
    figures["scan per s"] = round(rows / timed(lambda: sum(len(ids) for ids, _ in storage.scan())))
    figures["scan peak mb"] = scan_peak_mb(storage)
    figures["get"] = spread_calls(storage.get, callers)
    ids = ids_of(storage)
    ten = [chance.choice(ids, 10).tolist() for _ in range(CALLS)]
    figures["get_many of 10"] = spread_calls(storage.get_many, ten)
    figures["touch"] = spread_calls(storage.touch, callers)
    figures["revision"] = spread_calls(lambda _: storage.revision(), callers)
    figures["save"] = spread_calls(storage.save, voiceprints(rows, CALLS))
    findings: list[Any] = []
    figures["check s"] = round(timed(lambda: findings.extend(storage.check())), 2)
    if findings:
        sys.exit(f"The store has damage: {findings[:3]}")
    return figures


def ids_of(storage: Storage) -> list[int]:
    """The ids of all voiceprints."""
    return [int(number) for ids, _ in storage.scan() for number in ids]


def voiceprints(start: int, count: int) -> list[Voiceprint]:
    """Random unit embeddings of the callers `start` and after."""
    vectors = np.random.default_rng(start).standard_normal((count, 256)).astype(np.float32)
    return [Voiceprint(caller_id(start + n), vector) for n, vector in enumerate(vectors)]


def caller_id(number: int) -> str:
    """The id of a generated caller."""
    return f"caller {number:08}"


def spread_calls(operation: Callable[[Any], object], arguments: list[Any]) -> dict[str, float]:
    """Milliseconds of one call for each argument."""
    return spread_ms([timed(lambda argument=argument: operation(argument)) for argument in arguments])


def scan_peak_mb(storage: Storage) -> float:
    """Peak of the memory that Python allocates during a scan."""
    tracemalloc.start()
    for _ in storage.scan(batch_size=1_000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 1e6, 1)


def bare_insert(storage: Storage, folder: Path, rows: int) -> dict[str, Any]:
    """A save beside an insert of the same bytes, as durable, into a table of its own."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, caller TEXT, e BLOB, m TEXT, c TEXT, l TEXT)")
    saved, inserted = iter(voiceprints(rows + CALLS, CALLS + 1)), iter(voiceprints(0, CALLS + 1))

    def insert() -> None:
        one = next(inserted)
        row = (one.caller_id, one.embedding.tobytes(), "{}", TIME, TIME)
        connection.execute("INSERT INTO t (caller, e, m, c, l) VALUES (?, ?, ?, ?, ?)", row)

    times = in_turns({"save": lambda: storage.save(next(saved)), "bare insert": insert}, CALLS)
    connection.close()
    return ratio(times)


def whole_file(storage: Storage, folder: Path, rows: int) -> dict[str, Any]:
    """A save beside reading and writing the whole file by the standard library."""
    saved = iter(voiceprints(rows + CALLS, 6))

    def rewrite() -> None:
        content = json.loads((folder / "voiceprints.json").read_text())
        with (folder / "copy.json").open("w") as stream:
            json.dump(content, stream)
            stream.flush()
            os.fsync(stream.fileno())

    return ratio(in_turns({"save": lambda: storage.save(next(saved)), "load and dump": rewrite}, 5))


def replica_reads(primary: Storage, url: str, replica: str) -> dict[str, Any]:
    """Milliseconds of reads without and with a replica, and the pages that the primary reads for one."""
    chance, ids = np.random.default_rng(2), ids_of(primary)
    figures: dict[str, Any] = {}
    with open_storage(url, read_url=replica) as storage:
        for count in (10, 100):
            asked = [chance.choice(ids, count).tolist() for _ in range(CALLS)]
            for name, one in (("primary", primary), ("replica", storage)):
                before = pages_read(url)
                times = spread_calls(one.callers_of, asked)
                pages = (pages_read(url) - before) / CALLS
                figures[f"callers_of {count}, {name}"] = times | {"pages of the primary": round(pages, 1)}
    return figures


def pages_read(url: str) -> int:
    """Pages of the database that its server has read so far."""
    time.sleep(1.5)  # connections tell of theirs a second later
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def ratio(times: dict[str, list[float]]) -> dict[str, Any]:
    """Both spreads, and the ratio of the medians."""
    save, other = (float(np.median(taken)) for taken in times.values())
    return {name: spread_ms(taken) for name, taken in times.items()} | {
        "save in times the baseline": round(save / other, 3)
    }


BASELINES: dict[str, Callable[[Storage, Path, int], dict[str, Any]]] = {
    "json": whole_file,
    "sqlite": bare_insert,
}


def show(figures: dict[str, Any]) -> None:
    """Print a row for each figure, a column for each store."""
    kinds = [name for name in figures if name != "rows"]
    table = Table("ms: p50 / p99", *kinds)
    for name in figures[kinds[0]]:
        values = [figures[kind].get(name, "-") for kind in kinds]
        table.add_row(name, *(_cell(value) for value in values))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _cell(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:,}" if isinstance(value, int | float) else str(value)
    if "p50" in value:
        pages = value.get("pages of the primary")
        return f"{value['p50']:.2f} / {value['p99']:.2f}" + ("" if pages is None else f", {pages:,} pages")
    return ", ".join(f"{name} {_cell(part)}" for name, part in value.items())


if __name__ == "__main__":
    sys.exit(main())
