"""How fast and how right is the index, against a linear search and other libraries, as the gallery grows?

    python -m benchmarks.index [--sizes 1000 10000 100000 1000000] [--threads 1] [--only index flat]

Galleries of gallery_model.py; probes are new recordings of callers who are in them. Searches are made one
after the other. Recall is the share of the exact answer (of the same gallery) that was found. Graphs, whose
effort is set by hand, are measured at rising efforts; the table shows the first at which they find as much
as VectorIndex did. Written to results/index-LARGEST.json, with plots beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CONTENDERS
from benchmarks.index_table import milliseconds, table
from benchmarks.index_worker import Job
from benchmarks.measure import exact
from benchmarks.plots import PLOTS
from benchmarks.report import RESULTS, draw, write
from tools.gallery_model import Gallery, GalleryModel

SIZES = (1_000, 10_000, 100_000, 1_000_000)
NOT_RUN = "not run"
NOT_INSTALLED = "not installed"


def main() -> int:
    """Measure, print a table, keep the raw figures, draw."""
    arguments = _arguments()
    sizes = sorted(arguments.sizes)
    gallery = GalleryModel.load().gallery(sizes[-1], arguments.seed)
    rows: list[dict[str, Any]] = []
    growth: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        galleries = prepare(Path(folder), gallery, sizes, arguments.probes, arguments.k)
        for size in sizes:
            for name in arguments.only:
                for threads in arguments.threads:
                    row = run(arguments, folder, size, name, "search", threads)
                    rows.append({"size": size, "contender": name, "threads": threads} | row)
            if "index" in arguments.only:
                grown = run(arguments, folder, size, "index", "grow", arguments.threads[0])
                growth.append({"size": size} | grown)
    figures = {
        "sizes": sizes,
        "k": arguments.k,
        "probes": arguments.probes,
        "recall_asked_for": arguments.recall,
        "build_threads": arguments.build_threads,
        "loop_up_to": arguments.loop_up_to,
        "galleries": galleries,
        "rows": rows,
        "growth": growth,
    }
    show(figures)
    path = write(f"index-{sizes[-1]}", figures, arguments.results, packages=("hnswlib", "usearch"))
    if arguments.plots:
        draw(path, PLOTS)
    return 1 if any(row["state"].startswith("failed") for row in rows + growth) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="prints; more than a million too")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME",
                        help=f"what to measure: {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of one search: 1, or 1 2")
    parser.add_argument("--build-threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--probes", type=int, default=2_000)
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--recall", type=float, default=0.99, help="what VectorIndex is asked for")
    parser.add_argument("--loop-up-to", type=int, default=10_000, help="largest gallery for the loops")
    parser.add_argument("--seconds", type=float, default=60, help="limit of one row of searches")
    parser.add_argument("--writes", type=int, default=500, help="of each kind, while a thread searches")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to put the galleries; default: temporary files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to put the raw figures")
    parser.add_argument("--no-plots", dest="plots", action="store_false")
    return parser.parse_args()


def prepare(folder: Path, gallery: Gallery, sizes: list[int], probes: int, k: int) -> list[dict[str, Any]]:
    """Write the gallery, and probes with their exact answers for each size; gives what is to know of them."""
    start = time.perf_counter()
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(len(gallery), len(gallery.model.mean))
    )
    for block in gallery.blocks():
        vectors[block.ids[0] - 1 : block.ids[-1]] = block.vectors
    told = []
    for size in sizes:
        smaller = gallery.model.gallery(size, gallery.seed)
        callers, wanted = smaller.probes(probes)
        scores, answers = exact(vectors[:size], wanted, k)
        np.save(folder / f"probes-{size}.npy", wanted)
        np.save(folder / f"answers-{size}.npy", answers)
        own = smaller.callers()[answers[:, 0] - 1] == callers
        told.append(
            {
                "size": size,
                "callers": int(smaller.callers()[-1]) + 1,
                # What an exact search gives: the best an index can do.
                "named_right": round(float(own.mean()), 4),
                "mean_best_score": round(float(scores[:, 0].mean()), 4),
            }
        )
    print(
        f"{len(gallery):,} prints and their answers made in {time.perf_counter() - start:.0f} s", flush=True
    )
    return told


def run(
    arguments: argparse.Namespace, folder: str, size: int, name: str, task: str, threads: int
) -> dict[str, Any]:
    """The figures of one worker, or why there are none."""
    if not CONTENDERS[name].installed():
        return {"state": NOT_INSTALLED}
    if name.startswith("loop") and size > arguments.loop_up_to:
        return {"state": NOT_RUN}
    job = Job(
        contender=name, task=task, folder=folder, size=size, k=arguments.k, threads=threads,
        build_threads=arguments.build_threads, recall=arguments.recall, seconds=arguments.seconds,
        writes=arguments.writes,
    )  # fmt: skip
    job.write(Path(folder) / "job.json")
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.build_threads)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.index_worker", Path(folder) / "job.json"],
        stdout=subprocess.PIPE, text=True, check=False, env=environment,
    )  # fmt: skip
    print(f"{size:>9,}  {name:12}{task:8}{time.perf_counter() - start:7.1f} s", flush=True)
    if done.returncode:
        return {"state": f"failed with {done.returncode}"}
    return {"state": "ran"} | json.loads(done.stdout.splitlines()[-1])


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    head, lines = table(figures)
    shown = Table(*head, title="One search at a time; writes while a thread searches")
    size = ""
    for line in lines:
        if line[0] != size and size:
            shown.add_section()
        size = line[0]
        shown.add_row(*line)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(shown)
    for row in figures["growth"]:
        if row["state"] == "ran":
            console.print(
                f"VectorIndex from {row['from']:,} to {row['to']:,} in {row['seconds']:.1f} s while a thread "
                f"searches: p50 {milliseconds(row['search_us']['p50'])}, "
                f"the longest {milliseconds(row['search_us']['max'])}"
            )


if __name__ == "__main__":
    sys.exit(main())
