"""How long does it take to find callers by their metadata, with an index of the key and without one?

    python -m benchmarks.finding [--callers 1000000] [--folder FOLDER] [--store URL ...]

Each store gets `--callers` callers with one voiceprint of 8 values, which a search does not read, and four
metadata keys: an account of their own, one of three plans, a flag that is null, and a note. Without --store:
SQLite. A store given by --store must be empty, and keeps the callers.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import in_turns, spread_ms, timed
from benchmarks.report import command_line, write
from voiceprint import Storage, Voiceprint
from voiceprint.storage import SQLStorage, open_storage

PLANS = ("gold", "silver", "tin")
BLOCK = 20_000  # callers of one save
ROUNDS = 3  # of a search that reads every caller: seconds each
ROUNDS_BY_INDEX = 30
PAGE = 100


def main() -> int:
    """Measure, print the figures, write them."""
    parser = command_line(__doc__)
    parser.add_argument("--callers", type=int, default=1_000_000, help="callers in each store")
    parser.add_argument("--folder", type=Path, help="folder of the SQLite file; default: for temporary files")
    parser.add_argument(
        "--store", nargs="+", default=[], metavar="URL", help="as `voiceprint --store` takes it"
    )
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"callers": arguments.callers}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for url in arguments.store or [f"sqlite:{folder}/voiceprints.db"]:
            kind = url.partition(":")[0]
            with open_storage(url) as storage:
                if storage.count():
                    sys.exit(f"The store {kind} holds voiceprints: give an empty one.")
                fill(storage, arguments.callers)
                figures[kind] = measure(storage, arguments.callers)
            print(kind)
            for name, value in figures[kind].items():
                print(f"  {name:32} {value}")
    write("finding", figures, arguments.results)
    return 0


def fill(storage: Storage, callers: int) -> None:
    """Save the callers, a block in one transaction."""
    vectors = np.random.default_rng(1).standard_normal((BLOCK, 8)).astype(np.float32)
    for start in range(0, callers, BLOCK):
        storage.save_many(
            Voiceprint(f"caller {n:08}", vectors[n - start], encoder="tiny", metadata=metadata(n))
            for n in range(start, min(start + BLOCK, callers))
        )


def metadata(number: int) -> dict[str, Any]:
    """The metadata of a generated caller."""
    return {"account": f"A{number:08}", "plan": PLANS[number % len(PLANS)], "flag": None, "note": "x" * 80}


def measure(storage: Storage, callers: int) -> dict[str, Any]:
    """Milliseconds of each search, without an index and with one, and seconds to build the indexes."""
    middle = f"A{callers // 2:08}"
    asked: dict[str, tuple[dict[str, Any], int]] = {
        "one account": ({"account": middle}, 1),
        "no account": ({"account": "none"}, 0),
        "an account and its plan": ({"account": middle, "plan": PLANS[callers // 2 % 3]}, 1),
        f"a page of {PAGE} of a plan": ({"plan": "tin"}, PAGE),
        "no null": ({"flag": 1}, 0),
    }

    def search(wanted: dict[str, Any], found: int) -> Callable[[], None]:
        def run() -> None:
            if len(storage.find_callers(wanted, limit=PAGE)) != found:
                sys.exit(f"A search for {list(wanted)} did not find {found}.")

        return run

    works = {name: search(*pair) for name, pair in asked.items()}
    figures: dict[str, Any] = {name: spread_ms(times) for name, times in in_turns(works, ROUNDS).items()}
    if isinstance(storage, SQLStorage):
        figures["seconds to index two keys"] = round(
            timed(lambda: [storage.index_metadata(key) for key in ("account", "plan")]), 1
        )
        works.pop("no null")
        figures |= {
            f"{name}, indexed": spread_ms(times) for name, times in in_turns(works, ROUNDS_BY_INDEX).items()
        }
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
