"""The cost of partitions of a PostgreSQL store: to a look-up, an enrollment and a deletion.

    python -m benchmarks.partitions URL [--callers 100000] [--partitions 16]

Two stores with the same callers, each with a random voiceprint of 256 values, every second with an augmented
one; the second store is partitioned. The rounds go to both in turns, each to callers chosen at random. URL: a
database, in which schemas are created and dropped.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.measure import in_turns, spread_ms
from benchmarks.report import command_line, write
from voiceprint import Voiceprint
from voiceprint.storage import SQLStorage

BLOCK = 10_000  # callers of one save
IDS = 50  # of a look-up: about as many as an identification reads


def main() -> int:
    """Measure, print the figures, write them."""
    parser = command_line(__doc__)
    parser.add_argument("url", help="of a PostgreSQL database")
    parser.add_argument("--callers", type=int, default=100_000, help="callers in each store")
    parser.add_argument("--partitions", type=int, default=16, help="of each table of the second store")
    parser.add_argument("--rounds", type=int, default=400, help="of each measurement")
    arguments = parser.parse_args()
    callers: int = arguments.callers
    with ExitStack() as opened:
        stores = {
            name: opened.enter_context(store(arguments.url, f"benchmark_{name}"))
            for name in ("whole", "partitioned")
        }
        stores["partitioned"].partition(arguments.partitions)
        for storage in stores.values():
            fill(storage, callers)
        for name in stores:
            with psycopg.connect(schema_url(arguments.url, f"benchmark_{name}"), autocommit=True) as own:
                own.execute("VACUUM ANALYZE")
        figures: dict[str, Any] = {"callers": callers, "partitions": arguments.partitions}
        for name, work in works(callers).items():
            times = in_turns({kind: partial(work, kept) for kind, kept in stores.items()}, arguments.rounds)
            ratio = float(np.median(times["partitioned"]) / np.median(times["whole"]))
            figures[name] = {kind: spread_ms(seconds) for kind, seconds in times.items()} | {"ratio": ratio}
            print(f"{name:24} {figures[name]}")
    write(f"partitions-{callers}", figures, arguments.results)
    return 0


def works(callers: int) -> dict[str, Callable[[SQLStorage], object]]:
    """The measured operations, on callers chosen at random."""
    chance = np.random.default_rng(7)
    vector = chance.standard_normal(256).astype(np.float32)
    numbers = itertools.count()
    order = iter(chance.permutation(callers).tolist())
    return {
        f"callers_of {IDS} ids": lambda storage: storage.callers_of(
            chance.integers(1, callers + 1, IDS).tolist()
        ),
        "page of 500 callers": lambda storage: storage.callers(
            after=caller_id(int(chance.integers(callers))), limit=500
        ),
        "get a caller": lambda storage: storage.get(caller_id(int(chance.integers(callers)))),
        "enroll": lambda storage: storage.save(Voiceprint(f"new {next(numbers)}", vector)),
        "delete": lambda storage: storage.delete(caller_id(next(order))),
    }


def fill(storage: SQLStorage, callers: int) -> None:
    """Save the callers, a block in one transaction."""
    chance = np.random.default_rng(1)
    for start in range(0, callers, BLOCK):
        vectors = chance.standard_normal((min(BLOCK, callers - start), 256)).astype(np.float32)
        storage.save_many(
            Voiceprint(caller_id(number), vector, augmented=vector if number % 2 else None)
            for number, vector in enumerate(vectors, start)
        )


def caller_id(number: int) -> str:
    """In no order of enrollment, as account numbers are."""
    return f"{number * 7_919 % 1_000_003:07} of {number}"


@contextmanager
def store(url: str, schema: str) -> Iterator[SQLStorage]:
    """A new store in a schema of its own, which is dropped at the end."""
    name = sql.Identifier(schema)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        try:
            with SQLStorage(schema_url(url, schema)) as storage:
                yield storage
        finally:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))


def schema_url(url: str, schema: str) -> str:
    """The URL of a schema of the database."""
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"


if __name__ == "__main__":
    sys.exit(main())
