"""Measures one structure at one size, in a process of its own, so that its memory is its own: see index.py.

python -m benchmarks.index_worker JOB.json      prints the figures as JSON
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import CONTENDERS, Contender, Indexed, Loop, Settings, Writable, status, wait
from benchmarks.measure import resident_bytes, spread, timed

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]

ENOUGH = 0.999  # recall beyond which nothing more is tried
GROWTH_BLOCK = 1_000
PAUSE_S = 0.002  # between writes, which come from calls and not from a loop


@dataclass(frozen=True)
class Job:
    """What to measure. `folder` holds vectors.npy, and probes-N.npy and answers-N.npy of this size.

    task: "search" or "grow". k: how many are searched for. recall: what VectorIndex is asked for.
    seconds: what one row of searches may take, from 30 searches on. writes: of each kind.
    """

    contender: str
    task: str
    folder: str
    size: int
    k: int
    threads: int
    build_threads: int
    recall: float
    seconds: float
    writes: int

    def load(self, name: str) -> NDArray[Any]:
        """An array of the folder, mapped and not read."""
        array: NDArray[Any] = np.load(Path(self.folder) / f"{name}.npy", mmap_mode="r")
        return array

    def vectors(self) -> Vectors:
        """The gallery of this size; the id of each row is its number plus one."""
        return self.load("vectors")[: self.size]

    def make(self, folder: Path, capacity: int) -> Contender:
        """The structure, empty."""
        dimension = self.load("vectors").shape[1]
        threads = {"threads": self.threads, "build_threads": self.build_threads}
        return CONTENDERS[self.contender](
            Settings(dimension, capacity, **threads, recall=self.recall, folder=folder)
        )

    def write(self, path: Path) -> None:
        """Keep it for `main`."""
        path.write_text(json.dumps(asdict(self)))


def main() -> int:
    """Do the job."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        print(json.dumps((search if job.task == "search" else grow)(job, Path(folder))))
    return 0


def search(job: Job, folder: Path) -> dict[str, Any]:
    """Build, search query by query, and write while a thread searches."""
    probes, answers = np.array(job.load(f"probes-{job.size}")), job.load(f"answers-{job.size}")
    warm_up(job, folder, probes)
    made = job.make(folder, job.size + 2 * job.writes)
    before = resident_bytes()
    seconds = timed(lambda: made.build(np.arange(1, job.size + 1), job.vectors()))
    faiss.omp_set_num_threads(job.threads)  # of searches in this thread; a `VectorIndex` sets its own
    rows = []
    for effort in made.efforts or (None,):
        if effort is not None:
            made.set_effort(effort)
        rows.append({"effort": effort} | searches(made, probes, answers, job))
        if min(rows[-1]["recall_at_1"], rows[-1][f"recall_at_{job.k}"]) >= ENOUGH:
            break
    gc.collect()
    figures: dict[str, Any] = {
        "build_s": round(seconds, 2),
        "bytes_per_vector": round((resident_bytes() - before) / job.size),
        "about": made.about(),
        "searches": rows,
    }
    if isinstance(made, Writable):
        figures["writes"] = writes(made, probes, job)
    return figures


def warm_up(job: Job, folder: Path, probes: Vectors) -> None:
    """What a library takes once, such as for threads, is not the structure's."""
    small = folder / "small"
    small.mkdir()
    made = job.make(small, 1_000)
    some = np.array(job.vectors()[:500])
    made.build(np.arange(1, 1 + len(some)), some)
    made.search(probes[0], 1)


def searches(made: Contender, probes: Vectors, answers: Ids, job: Job) -> dict[str, Any]:
    """Latency and recall of one search after the other."""
    for probe in probes[:3]:
        made.search(probe, job.k)
    times, first, all_k = [], 0.0, 0.0
    least = 3 if isinstance(made, Loop) else 30
    end = time.perf_counter() + job.seconds
    gc.collect()
    for number, (probe, answer) in enumerate(zip(probes, answers, strict=True)):
        start = time.perf_counter()
        found = made.search(probe, job.k)
        times.append(time.perf_counter() - start)
        first += found[0] == answer[0]
        all_k += len(np.intersect1d(found, answer)) / len(answer)
        if time.perf_counter() > end and number + 1 >= least:
            break
    count = len(times)
    return {
        "count": count,
        "recall_at_1": round(first / count, 4),
        f"recall_at_{job.k}": round(all_k / count, 4),
        "us": spread(times, digits=1),
    }


def writes(made: Writable, probes: Vectors, job: Job) -> dict[str, Any]:
    """One write at a time while a thread searches."""
    if made.efforts:
        made.set_effort(made.efforts[len(made.efforts) // 2])
    chance = np.random.default_rng(1)
    times: dict[str, list[float]] = {"add": [], "replace": [], "remove": []}
    with searching(made, probes, job.k) as taken:
        for number in range(job.writes):
            new = np.array([job.size + 1 + number])
            vector = probes[chance.integers(len(probes))][None]
            known = chance.integers(1, job.size + 1, size=1)
            for name, write in (
                ("add", lambda new=new, vector=vector: made.write(new, vector)),
                ("replace", lambda known=known, vector=vector: made.write(known, vector)),
                ("remove", lambda new=new: made.remove(new)),
            ):
                times[name].append(timed(alone(made, write)))
                time.sleep(PAUSE_S)
    times["search"] = taken
    return {f"{name}_us": spread(values, digits=1) for name, values in times.items()}


def grow(job: Job, folder: Path) -> dict[str, Any]:
    """Add the last three quarters of the gallery, 1,000 at a time, while a thread searches."""
    probes = np.array(job.load(f"probes-{job.size}"))
    vectors, quarter = job.vectors(), job.size // 4
    made = job.make(folder, job.size)
    assert isinstance(made, Indexed)
    made.build(np.arange(1, quarter + 1), vectors[:quarter])
    stages = [{"vectors": quarter} | status(made.index)]
    with searching(made, probes, job.k) as taken:
        start = time.perf_counter()
        for first in range(quarter, job.size, GROWTH_BLOCK):
            block = np.array(vectors[first : first + GROWTH_BLOCK])
            made.write(np.arange(first + 1, first + 1 + len(block)), block)
            stages.append({"vectors": first + len(block)} | status(made.index))
        wait(made.index)
        seconds = time.perf_counter() - start
    stages.append({"vectors": len(made.index)} | status(made.index))
    changed = [
        stage
        for before, stage in zip([{}, *stages], stages, strict=False)
        if any(stage.get(name) != before.get(name) for name in ("structure", "cells", "training"))
    ]
    return {"from": quarter, "to": len(made.index), "seconds": round(seconds, 2), "stages": changed,
            "searches": len(taken), "search_us": spread(taken, digits=1)}  # fmt: skip


@contextmanager
def searching(made: Writable, probes: Vectors, k: int) -> Iterator[list[float]]:
    """A thread searches meanwhile; the list gets the seconds that each search took."""
    taken: list[float] = []
    errors: list[Exception] = []
    end = threading.Event()

    def work() -> None:
        number = 0
        faiss.omp_set_num_threads(made.settings.threads)
        try:
            while not end.is_set():
                start = time.perf_counter()
                with made.searching():
                    made.search(probes[number % len(probes)], k)
                taken.append(time.perf_counter() - start)
                number += 1
        except Exception as error:  # noqa: BLE001  (told to the one who waits)
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while not taken and thread.is_alive():
            time.sleep(0.01)
        yield taken
    finally:
        end.set()
        thread.join()
    if errors:
        raise errors[0]


def alone(made: Writable, write: Callable[[], None]) -> Callable[[], None]:
    """The write as it is made beside a searcher."""

    def work() -> None:
        with made.writing():
            write()

    return work


if __name__ == "__main__":
    sys.exit(main())
