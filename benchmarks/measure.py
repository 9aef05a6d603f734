"""Times, memory and exact answers, for the benchmarks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Clock = Callable[[], float]


def timed(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds that `work` takes."""
    start = clock()
    work()
    return clock() - start


def in_turns(
    works: dict[str, Callable[[], object]], rounds: int, pause_s: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each round of each work, in turns, so that other load falls on all; one round warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    for number in range(rounds + 1):
        for name, work in works.items():
            time.sleep(pause_s)
            seconds = timed(work)
            if number:
                times[name].append(seconds)
    return times


def spread(times: list[float], *, unit_s: float = 1e-6, digits: int | None = None) -> dict[str, float]:
    """p50, p90, p99 and max of seconds, in microseconds or another unit."""
    points = {f"p{point}": float(np.percentile(times, point)) for point in (50, 90, 99)}
    return {name: round(value / unit_s, digits) for name, value in (points | {"max": max(times)}).items()}


def spread_ms(times: list[float]) -> dict[str, float]:
    """`spread` in milliseconds."""
    return spread(times, unit_s=1e-3, digits=3)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc is absent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def exact(
    vectors: NDArray[np.float32], probes: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest inner products of each probe, float32[m, k], and their ids (row + 1), int64[m, k]."""
    import faiss  # here, so that benchmarks without it do not count it as memory

    scores = np.empty((len(probes), 0), dtype=np.float32)
    ids = np.empty((len(probes), 0), dtype=np.int64)
    for start in range(0, len(vectors), 100_000):
        block = np.array(vectors[start : start + 100_000])
        found, rows = faiss.knn(probes, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, ids = np.hstack([scores, found]), np.hstack([ids, rows + start + 1])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
    return scores, ids
