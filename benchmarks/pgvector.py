"""How right and how fast is `PgVectorIndex` against comparing with every vector (faiss flat)?

    python -m benchmarks.pgvector postgresql://... [--prints 300000] [--probes 1000] [--ef 40 100 200 400]

A server with the extension pgvector and an empty database. The vectors are a gallery of
tools/gallery_model.py, and the queries new recordings of callers who are in it. Searches are made one after
the other, through the library, and beside them, by the same queries, flat ones of faiss with one thread.
Then: the time from a change to the search that sees it, and from a removal to the search that does not.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.measure import spread_ms, timed
from tools.gallery_model import GalleryModel
from voiceprint.index.pgvector import PgVectorIndex

K = 5
BLOCK = 10_000
FLAT_SEARCHES = 100
CHANGES = 200


def main() -> int:
    """Measure, print the table, write the figures."""
    parser = report.command_line(__doc__)
    parser.add_argument("url", help="of an empty database with pgvector")
    parser.add_argument("--prints", type=int, default=300_000, help="vectors of the index")
    parser.add_argument("--probes", type=int, default=1_000, help="number of queries")
    parser.add_argument("--ef", type=int, nargs="+", default=[40, 100, 200, 400], help="values of ef_search")
    options = parser.parse_args()
    import faiss

    faiss.omp_set_num_threads(1)
    gallery = GalleryModel.load().gallery(options.prints)
    vectors, queries = gallery.matrix(), gallery.probes(options.probes)[1]
    index = PgVectorIndex(options.url, "benchmark", vectors.shape[1], build_memory_mb=2048)
    ids = np.arange(len(vectors))
    blocks = [(ids[start : start + BLOCK], vectors[start : start + BLOCK]) for start in ids[::BLOCK]]
    figures: dict[str, Any] = {"prints": len(vectors), "build_s": round(timed(lambda: index.fill(blocks)), 1)}
    print(f"{len(vectors):,} vectors: built in {figures['build_s']} s", flush=True)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    _, answers = flat.search(queries, K)
    some = queries[:FLAT_SEARCHES]
    figures["flat_ms"] = spread_ms([timed(lambda query=query: flat.search(query[None], K)) for query in some])
    figures["graph"] = [searches(index, queries, answers, ef) for ef in options.ef]
    figures["changes_ms"] = changes(index, len(vectors), gallery.model.gallery(CHANGES, seed=2).matrix())
    index.drop()
    index.close()
    print(table(figures))
    report.write("pgvector", figures, options.results)
    return 0


def searches(index: PgVectorIndex, queries: Any, answers: Any, ef: int) -> dict[str, Any]:
    """Recall and times at one width of the search."""
    index.ef_search = ef
    found, times = [], []
    for query in queries:
        begun = time.perf_counter()
        found.append(index.search(query, K)[1][0])
        times.append(time.perf_counter() - begun)
    rows = np.array(found)
    at_k = [len({*a} & {*b}) / K for a, b in zip(rows.tolist(), answers.tolist(), strict=True)]
    return {
        "ef_search": ef,
        "recall_at_1": round(float((rows[:, 0] == answers[:, 0]).mean()), 4),
        "recall_at_5": round(float(np.mean(at_k)), 4),
        "ms": spread_ms(times),
    }


def changes(index: PgVectorIndex, first: int, vectors: Any) -> dict[str, Any]:
    """The times from `add` to the search that finds a vector, and from `remove` to one that does not.

    missed: vectors that the search after `add` did not find, as the graph did not lead there. wrong: that the
    search after `remove` found.
    """
    added, removed, missed, wrong = [], [], 0, 0
    for number, vector in enumerate(vectors):
        begun = time.perf_counter()
        index.add([first + number], vector)
        missed += index.search(vector, 1)[1][0, 0] != first + number
        added.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        index.remove([first + number])
        wrong += index.search(vector, 1)[1][0, 0] == first + number
        removed.append(time.perf_counter() - begun)
    return {
        "added": spread_ms(added),
        "removed": spread_ms(removed),
        "missed": int(missed),
        "wrong": int(wrong),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    rows = [("flat, faiss", "1.000", "1.000", *_times(figures["flat_ms"]))]
    rows += [
        (
            f"graph, ef {row['ef_search']}",
            f"{row['recall_at_1']:.3f}",
            f"{row['recall_at_5']:.3f}",
            *_times(row["ms"]),
        )
        for row in figures["graph"]
    ]
    changed = figures["changes_ms"]
    text = report.markdown(("", "recall@1", "recall@5", "p50, ms", "p99, ms"), rows, 1)
    return text + (
        f"\nAdd and find: p50 {changed['added']['p50']:.1f} ms, p99 {changed['added']['p99']:.1f}, missed: "
        f"{changed['missed']} of {CHANGES}; remove and not find: p50 {changed['removed']['p50']:.1f} ms, p99 "
        f"{changed['removed']['p99']:.1f}, found: {changed['wrong']}\n"
    )


def _times(spread: dict[str, float]) -> tuple[str, str]:
    return f"{spread['p50']:.1f}", f"{spread['p99']:.1f}"


if __name__ == "__main__":
    sys.exit(main())
