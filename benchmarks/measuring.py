"""What the benchmarks measure with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def timed(work: Callable[[], object]) -> float:
    """The seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(times: list[float], *, unit_s: float = 1e-6, digits: int | None = None) -> dict[str, float]:
    """p50, p90, p99 and max of seconds, in microseconds or another unit."""
    points = {f"p{point}": float(np.percentile(times, point)) for point in (50, 90, 99)}
    return {name: round(value / unit_s, digits) for name, value in (points | {"max": max(times)}).items()}


def resident_bytes() -> int:
    """What this process holds in memory; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def exact(
    vectors: NDArray[np.float32], probes: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest inner products of each probe, and their ids (row plus one)."""
    import faiss  # not by the benchmarks that do without it, whose memory is measured

    scores = np.empty((len(probes), 0), dtype=np.float32)
    ids = np.empty((len(probes), 0), dtype=np.int64)
    for start in range(0, len(vectors), 100_000):
        block = np.array(vectors[start : start + 100_000])
        found, rows = faiss.knn(probes, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, ids = np.hstack([scores, found]), np.hstack([ids, rows + start + 1])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
    return scores, ids
