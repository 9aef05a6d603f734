"""How fast and how right is `VectorIndex` against comparing with every vector (faiss flat), as it grows?

    python -m benchmarks.index [--sizes 1000 10000 100000 1000000] [--one-recording]
    python -m benchmarks.index --vectors FILE.npy [--probes 1000]      your own vectors, float[n, d]

Without --vectors: galleries of tools/gallery_model.py, and new recordings of callers who are in them as
queries; with --one-recording, each print is there three times, with little noise. With --vectors, the queries
are vectors of the file, taken out of it at random, or those of --queries. Each size has a process of its own.
Searches are made one after the other, by one thread. Recall is the share of the exact answer that was found.
Then: searches beside a filled buffer, single writes while a thread searches, and searches while the index
grows to four times its size. Written to results/index-LARGEST.json.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.measure import exact, resident_bytes, spread_ms, timed

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BLOCK = 8_192  # vectors added at a time, as a gallery is read from its store
GROWTH = 1_000  # vectors added every tenth of a second while it grows: as fast as the stores take them
FLAT_SEARCHES = 100
BUFFERED = 2_000  # vectors; with the changes by the writes, nearly the most before a merge
WRITES = 500
PAUSE_S = 0.002  # between writes, which come from calls and not from a loop

Vectors = NDArray[np.float32]


class Job(NamedTuple):
    """One size. folder: holds vectors.npy, float32[n, d], and queries-SIZE.npy, float32[m, d]."""

    folder: Path
    size: int
    k: int
    recall: float


def main() -> int:
    """Measure, print the tables, and write the figures."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        sizes = _prepare(Path(name), options)
        rows, growth = [], []
        for size in sizes:
            job = Job(Path(name), size, options.k, options.recall)
            for work, results in ((measure, rows), (grow, growth)):
                # A process of its own, so that its memory is its own.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    results += pool.submit(work, job).result()
            for line in (*rows[-2:], growth[-1]):
                print(line, flush=True)
    figures = {"k": options.k, "recall_asked_for": options.recall, "rows": rows, "growth": growth}
    name = f"index-{sizes[-1]}" if options.vectors is None else f"index-{options.vectors.stem}"
    name += "-one-recording" * options.one_recording
    print("\n" + markdown(figures))
    report.write(name, figures, options.results)
    return 0


def _options() -> argparse.Namespace:
    parser = report.command_line(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="vectors of each index")
    parser.add_argument("--one-recording", action="store_true", help="have three prints of each recording")
    parser.add_argument("--vectors", type=Path, help="a .npy file of vectors to use")
    parser.add_argument("--queries", type=Path, help="a .npy file of queries; default: some of --vectors")
    parser.add_argument("--probes", type=int, default=2_000, help="number of queries")
    parser.add_argument("-k", type=int, default=5, help="answers of a search")
    parser.add_argument("--recall", type=float, default=0.99, help="recall to ask for")
    options = parser.parse_args()
    if options.vectors is not None and options.one_recording:
        parser.error("--one-recording is for generated vectors")
    return options


def _prepare(folder: Path, options: argparse.Namespace) -> list[int]:
    """Write the vectors and the queries; gives the sizes to measure."""
    if options.vectors is None:
        from tools.gallery_model import GalleryModel

        sizes = sorted(options.sizes or SIZES)
        model, of_each = GalleryModel.load(), 3 if options.one_recording else 1
        vectors = model.gallery(-(-sizes[-1] // of_each)).matrix()
        if of_each > 1:
            vectors = np.repeat(vectors, of_each, axis=0)[: sizes[-1]]
            vectors += 0.002 * np.random.default_rng(2).standard_normal(vectors.shape, dtype=np.float32)
        queries = {size: model.gallery(-(-size // of_each)).probes(options.probes)[1] for size in sizes}
    else:
        found = np.ascontiguousarray(np.load(options.vectors, mmap_mode="r"), dtype=np.float32)
        order = np.random.default_rng(1).permutation(len(found))
        if options.queries is None:
            held_out = min(options.probes, len(found) // 10)
            vectors, some = found[order[held_out:]], found[order[:held_out]]
        else:
            vectors, some = found[order], np.load(options.queries).astype(np.float32)[: options.probes]
        sizes = sorted(size for size in options.sizes or [len(vectors)] if size <= len(vectors))
        queries = dict.fromkeys(sizes, some)
    np.save(folder / "vectors.npy", vectors)
    for size in sizes:
        np.save(folder / f"queries-{size}.npy", queries[size])
    return sizes


def _mapped(job: Job) -> Vectors:
    vectors: Vectors = np.load(job.folder / "vectors.npy", mmap_mode="r")[: job.size]
    return vectors


def measure(job: Job) -> list[dict[str, Any]]:
    """The rows of the index and of flat search, of the same queries in one process."""
    import faiss

    from voiceprint.index import VectorIndex

    queries = np.load(job.folder / f"queries-{job.size}.npy")
    warm = VectorIndex(queries.shape[1], recall=job.recall)
    warm.fill(_blocks(job, min(BLOCK, job.size)))
    warm.search(queries, job.k)
    del warm
    index = VectorIndex(queries.shape[1], recall=job.recall)
    gc.collect()
    before = resident_bytes()
    build_s = timed(lambda: (index.fill(_blocks(job, job.size)), index.wait()))
    gc.collect()
    row: dict[str, Any] = {
        "size": job.size, "search": "VectorIndex", "build_s": round(build_s, 2),
        "bytes_per_vector": round((resident_bytes() - before) / job.size), "status": asdict(index.status()),
    }  # fmt: skip
    vectors = _mapped(job)
    faiss.omp_set_num_threads(2)
    _, answers = exact(vectors, queries, job.k)
    faiss.omp_set_num_threads(1)
    row |= _searches(lambda query: index.search(query, job.k)[1][0], queries, answers - 1)
    row["writes_ms"] = _writes(index, queries, job)
    index.wait()
    index.fill((2 * job.size + ids, block) for ids, block in _blocks(job, min(BUFFERED, job.size)))
    row["with_buffer_ms"] = _searches(lambda query: index.search(query, job.k)[1][0], queries, None)["ms"]
    row["buffered"] = index.status().buffered
    matrix = np.array(vectors)

    def flat(query: Vectors) -> NDArray[np.int64]:
        found: NDArray[np.int64] = faiss.knn(query[None], matrix, job.k, metric=faiss.METRIC_INNER_PRODUCT)[
            1
        ][0]
        return found

    flat_row = {
        "size": job.size,
        "search": "faiss flat",
        "build_s": 0.0,
        "bytes_per_vector": 4 * vectors.shape[1],
    }
    flat_row |= _searches(flat, queries[:FLAT_SEARCHES], answers - 1)
    return [row, flat_row]


def _blocks(job: Job, count: int) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    for start in range(0, count, BLOCK):
        # Mapped anew each time, as the pages of the file would count as memory of the index.
        block = np.array(_mapped(job)[start : min(count, start + BLOCK)])
        yield np.arange(start, start + len(block)), block


def _searches(
    search: Callable[[Vectors], NDArray[np.int64]], queries: Vectors, answers: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Latency of one search after the other, and recall. answers: rows, int64[m, k]."""
    for query in queries[:3]:
        search(query)
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query))
        times.append(time.perf_counter() - start)
    figures: dict[str, Any] = {"ms": spread_ms(times)}
    if answers is not None:
        shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, answers, strict=False)]
        first = [a[0] == b[0] for a, b in zip(found, answers, strict=False)]
        figures |= {
            "recall_at_1": round(float(np.mean(first)), 4),
            "recall_at_k": round(float(np.mean(shares)), 4),
        }
    return figures


def _writes(index: Any, queries: Vectors, job: Job) -> dict[str, Any]:
    """One write at a time, while a thread searches."""
    chance = np.random.default_rng(1)
    times: dict[str, list[float]] = {"add": [], "replace": [], "remove": []}
    with _searching(index, queries, job.k) as searches:
        for number in range(WRITES):
            new, known = np.array([job.size + number]), chance.integers(0, job.size, size=1)
            vector = queries[chance.integers(len(queries))][None]
            for name, write in (
                ("add", lambda new=new, vector=vector: index.add(new, vector)),
                ("replace", lambda known=known, vector=vector: index.add(known, vector)),
                ("remove", lambda new=new: index.remove(new)),
            ):
                times[name].append(timed(write))
                time.sleep(PAUSE_S)
    return {name: spread_ms(values) for name, values in (times | {"search": searches}).items()}


def grow(job: Job) -> list[dict[str, Any]]:
    """Add the last three quarters, `GROWTH` at a time, while a thread searches."""
    from voiceprint.index import VectorIndex

    vectors, queries = _mapped(job), np.load(job.folder / f"queries-{job.size}.npy")
    index, quarter = VectorIndex(vectors.shape[1], recall=job.recall), job.size // 4
    index.fill(_blocks(job, quarter))
    index.wait()
    trainings = set()
    with _searching(index, queries, job.k) as searches:
        start = time.perf_counter()
        for first in range(quarter, job.size, GROWTH):
            block = np.array(vectors[first : first + GROWTH])
            index.add(np.arange(first, first + len(block)), block)
            time.sleep(max(0.0, start + (first + GROWTH - quarter) / GROWTH * 0.1 - time.perf_counter()))
            trainings.add(index.status().trained_on)
        added_s = time.perf_counter() - start
        index.wait()
        seconds = time.perf_counter() - start
    trainings.add(index.status().trained_on)
    return [{
        "from": quarter, "to": len(index), "added_s": round(added_s, 2), "seconds": round(seconds, 2),
        "trained_on": sorted(trainings), "searches": len(searches), "ms": spread_ms(searches),
    }]  # fmt: skip


@contextmanager
def _searching(index: Any, queries: Vectors, k: int) -> Iterator[list[float]]:
    """A thread searches meanwhile; the list gets the seconds of each search."""
    times: list[float] = []
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            start = time.perf_counter()
            index.search(queries[len(times) % len(queries)], k)
            times.append(time.perf_counter() - start)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield times
    finally:
        while not times and thread.is_alive():  # a tiny index grows before the first search
            time.sleep(0.001)
        end.set()
        thread.join()


def markdown(figures: dict[str, Any]) -> str:
    """The table of the results."""
    head = [
        "Vectors",
        "Search",
        "p50",
        "p99",
        "recall@1",
        f"recall@{figures['k']}",
        "build",
        "bytes a vector",
    ]
    rows = []
    for row in figures["rows"]:
        # Of a small index, the memory that the process needs anyway is more than that of the vectors.
        memory = f"{row['bytes_per_vector']:,}" if row["size"] >= 10_000 else "-"
        times = [f"{row['ms'][name]:.3g} ms" for name in ("p50", "p99")]
        recalls = [f"{row[name]:.3f}" for name in ("recall_at_1", "recall_at_k")]
        rows.append([f"{row['size']:,}", row["search"], *times, *recalls, f"{row['build_s']:.1f} s", memory])
    return report.markdown(head, rows, 2)


if __name__ == "__main__":
    sys.exit(main())
