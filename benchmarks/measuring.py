"""What the benchmarks measure with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


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
