"""How quickly does a Redis store take in, give back and look up voiceprints?

python benchmarks/storage_redis.py [--count 100000] [--socket PATH]

Starts a redis-server of its own on a private socket (without a disk: this is the store's own cost), or
uses the one at PATH, in the database 15, which must be empty.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import redis
from results_file import keep

from voiceprint import RedisStorage, Voiceprint


def _prints(count: int, start: int = 0) -> list[Voiceprint]:
    vectors = np.random.default_rng(1).standard_normal((count, 256)).astype(np.float32)
    return [
        Voiceprint(f"caller {start + n}", vector, {"name": f"Caller {start + n}"})
        for n, vector in enumerate(vectors)
    ]


def _percentiles(times: list[float]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    return {"p50_ms": p50 * 1e3, "p90_ms": p90 * 1e3, "p99_ms": p99 * 1e3, "max_ms": max(times) * 1e3}


def _timed(action: Any, arguments: list[Any]) -> dict[str, float]:
    for argument in arguments[:20]:  # warmed up
        action(argument)
    times = []
    for argument in arguments:
        started = time.perf_counter()
        action(argument)
        times.append(time.perf_counter() - started)
    return {name: round(float(value), 4) for name, value in _percentiles(times).items()}


def _rate(count: int, action: Any) -> float:
    started = time.perf_counter()
    action()
    return round(count / (time.perf_counter() - started))


def _scan_peak_mb(storage: RedisStorage) -> float:
    tracemalloc.start()
    for _ in storage.scan(batch_size=1_000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 1e6, 1)


def measure(client: redis.Redis, count: int) -> dict[str, Any]:
    """All figures, on an empty database."""
    storage = RedisStorage(client, timeout_s=30)
    small = 1_000
    names = [f"caller {n}" for n in np.random.default_rng(2).integers(0, small, 500)]
    storage.save_many(_prints(small))
    figures: dict[str, Any] = {"count": count, f"get_at_{small}": _timed(storage.get, names)}
    figures[f"scan_peak_mb_at_{small}"] = _scan_peak_mb(storage)
    many = _prints(count, start=small)
    figures["save_many_per_s"] = _rate(count, lambda: storage.save_many(many))
    figures[f"get_at_{count}"] = _timed(storage.get, names)
    figures[f"scan_peak_mb_at_{count}"] = _scan_peak_mb(storage)
    figures["scan_per_s"] = _rate(storage.count(), lambda: sum(len(ids) for ids, _ in storage.scan()))
    figures["save"] = _timed(storage.save, _prints(300, start=10**7))
    figures["touch"] = _timed(storage.touch, names)
    figures["revision"] = _timed(lambda _: storage.revision(), names)
    ids = [int(id_) for id_ in next(storage.scan())[0][:1_000]]
    figures["get_many_of_10"] = _timed(storage.get_many, [ids[n : n + 10] for n in range(500)])
    started = time.perf_counter()
    findings = storage.check()
    figures["check_s"] = round(time.perf_counter() - started, 2)
    if findings:
        sys.exit(f"The store is not well: {findings[:3]}")
    return figures


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--socket", help="of a running server; its database 15 must be empty")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="vp-redis-")
    path = options.socket or f"{folder}/redis.sock"
    server = None
    if options.socket is None:
        arguments = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        server = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        while not Path(path).exists():
            time.sleep(0.01)
    try:
        with redis.Redis(unix_socket_path=path, db=15) as client:
            if client.dbsize():
                sys.exit("The database 15 is not empty.")
            version = client.info("server")["redis_version"]
            figures = measure(client, options.count) | {"redis": version}
            client.flushdb()
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in figures.items():
        print(f"{name:24} {value}")
    print(keep("storage_redis", figures))


if __name__ == "__main__":
    main()
