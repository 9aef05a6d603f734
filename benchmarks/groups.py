"""How long does a match among a group take in a large gallery, and does it find whom a linear search finds?

    python -m benchmarks.groups [--prints 1000000] [--sizes 10 1000 10000] [--rounds 300] [--store FILE]

Generated callers in a SQLite store; of each size, a group of callers at random. `identify(groups=,
embedding=)` gets further recordings of the group's callers: no encoder. Beside it, in the same run: everyone,
all but a group, a watched group besides, and as the linear baseline the product of the embedding with all of
the group's, in memory. Recall is of the group's k most similar voiceprints in `VectorIndex.search`.
`--processor-time` leaves out the waiting for other processes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.filled_store import caller_id, fill_file
from benchmarks.measure import Clock, exact, spread_ms, timed
from tools.gallery_model import GalleryModel
from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage
from voiceprint.index import IdSet
from voiceprint.storage import Storage

SIZES = (10, 1_000, 10_000)
K = 5
Vectors = NDArray[np.float32]


def main() -> int:
    """Measure, print the table, write the raw figures."""
    parser = report.command_line(__doc__)
    parser.add_argument("--prints", type=int, default=100_000, help="generated voiceprints in the store")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="callers of each group")
    parser.add_argument("--rounds", type=int, default=300, help="matches that are measured")
    parser.add_argument("--store", type=Path, help="keep the store in this file; a filled one is used")
    parser.add_argument("--processor-time", action="store_true", help="time of this thread without waiting")
    options = parser.parse_args()
    clock = time.thread_time if options.processor_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "voiceprints.db"
        fill_file(path, options.prints)
        with SQLiteStorage(path) as storage:
            callers, probes = GalleryModel.load().gallery(options.prints).probes(options.prints // 2)
            members = {size: _fill_group(storage, size, callers, probes) for size in options.sizes}
            rows = measure(storage, members, probes, options.rounds, clock)
    figures = {"prints": options.prints, "k": K, "clock": clock.__name__, "rows": rows}
    print("\n" + markdown(figures))
    report.write(f"groups-{options.prints}", figures, options.results)
    return 0


def _name(size: int) -> str:
    return f"group of {size:,}"


def _fill_group(
    storage: Storage, size: int, callers: NDArray[np.int64], probes: Vectors
) -> tuple[list[str], Vectors]:
    """Put callers at random into a group, unless it is there; gives their ids and a further recording of
    each."""
    chosen = np.random.default_rng(size).permutation(len(np.unique(callers)))[:size]
    _, first = np.unique(callers, return_index=True)
    rows = first[chosen]
    names = [caller_id(number) for number in callers[rows].tolist()]
    found = storage.get_callers(names).values()
    new = [caller for caller in found if _name(size) not in caller.groups]
    prints = [
        one.model_copy(update={"groups": (_name(size),)}) for caller in new for one in caller.voiceprints
    ]
    storage.save_many(prints)
    return names, probes[rows]


def measure(
    storage: SQLiteStorage,
    members: dict[int, tuple[list[str], Vectors]],
    probes: Vectors,
    rounds: int,
    clock: Clock,
) -> list[dict[str, Any]]:
    """The rows of the table."""
    recognizer = OpusAgentVoiceRecognizer(storage)
    index = recognizer._gallery.refresh()
    index.wait()

    def timed_row(group: str, search: str, probes: Vectors, **filters: Any) -> dict[str, Any]:
        return _row(group, search, partial(_identify, recognizer, filters), probes, clock)

    rows = [timed_row("everyone", "all callers", probes[:rounds])]
    for size, (names, own) in members.items():
        name, some = _name(size), own[np.arange(rounds) % len(own)]
        ids = IdSet(storage.group_ids()[name])
        matrix = index.vectors_of(ids.ids)[1]
        row = timed_row(name, "groups", some, groups=[name])
        answers = [recognizer.identify(embedding=probe, groups=[name]) for probe in some]
        right = ids.ids[exact(matrix, some, min(K, len(ids)))[1] - 1]
        row |= {
            "voiceprints": len(ids),
            "found": min(len(answer) for answer in answers),
            "ranked_first": _share(
                answer[0].caller_id == names[n % size] for n, answer in enumerate(answers)
            ),
            "recall_at_k": _recall(index.search(some, K, allowed=ids)[1], right),
        }
        rows += [row, _row(name, "linear product", partial(_linear, matrix), some, clock)]
    largest = _name(max(members))
    rows.append(timed_row(largest, "not_groups", probes[:rounds], not_groups=[largest]))
    rows.append(timed_row(largest, "watch", probes[:rounds], watch=[largest]))
    for row in rows:
        print(row, flush=True)
    return rows


def _identify(recognizer: OpusAgentVoiceRecognizer, filters: dict[str, Any], probe: Vectors) -> object:
    return recognizer.identify(embedding=probe, k=K, **filters)


def _linear(matrix: Vectors, probe: Vectors) -> object:
    return np.argpartition(matrix @ probe, -min(K, len(matrix)))[-K:]


def _row(
    group: str, search: str, work: Callable[[Vectors], object], probes: Vectors, clock: Clock
) -> dict[str, Any]:
    """Times of a work for each probe; the first, which copies the group's vectors together, by itself."""
    first, *rest = (timed(partial(work, probe), clock) for probe in (probes[0], *probes))
    return {"group": group, "search": search, "first_ms": round(1e3 * first, 3), "ms": spread_ms(rest)}


def _share(right: Iterable[bool]) -> float:
    return round(float(np.mean([*right])), 4)


def _recall(found: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, right, strict=True)]
    return round(float(np.mean(shares)), 4)


def markdown(figures: dict[str, Any]) -> str:
    """The table of the results."""
    head = ["Group", "Search", "p50", "p99", "first", f"recall@{figures['k']}", "caller ranked first"]
    rows = [
        [
            row["group"],
            row["search"],
            *(f"{row['ms'][name]:.3g} ms" for name in ("p50", "p99")),
            f"{row['first_ms']:.3g} ms",
            f"{row['recall_at_k']:.3f}" if "recall_at_k" in row else "",
            f"{row['ranked_first']:.3f}" if "ranked_first" in row else "",
        ]
        for row in figures["rows"]
    ]
    return report.markdown(head, rows, 2)


if __name__ == "__main__":
    sys.exit(main())
