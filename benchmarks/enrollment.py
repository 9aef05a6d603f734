"""How fast is a long list enrolled, on one core and on all?

    python -m benchmarks.enrollment [--voices FOLDER] [--rows 300] [--ways processes dask]
                                                                        FOLDER/**/*.flac

Each way enrolls the same manifest by `enroll_manifest`, with augmented voiceprints, into SQLite, in a fresh
process, from its start to its end; the ways take turns. "1 thread" is the baseline. Figures: recordings a
second, the share of all cores that was used, and the peak memory of the process with its workers. The last
rows enroll four times as many, to show that memory does not grow with the list.

"dask" is a scheduler with a worker of one thread a core, which run before the process starts, as on other
machines; their processor time and memory count too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
from distributed import LocalCluster

from benchmarks.report import ROOT, VOICES, command_line, write
from voiceprint import OpusAgentVoiceRecognizer, VoiceFingerprintConfig, open_storage

SAMPLED_S = 0.2  # between two looks at the memory

CORES = len(os.sched_getaffinity(0))
WAYS: dict[str, tuple[int, int | None]] = {
    "1 thread": (1, 0),
    "threads": (0, 0),
    "1 process": (0, 1),
    "processes": (0, CORES),
    "dask": (0, None),
}
"""Threads of the encoder (0 for one a core), and worker processes; None for those of a scheduler."""


def main() -> int:
    """Measure, print, write the raw figures; or be one of the processes that are measured."""
    parser = command_line(__doc__)
    parser.add_argument("--voices", type=Path, default=VOICES, help="recordings; default: the sample voices")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--work", nargs=2, metavar=("WAY", "MANIFEST"), help=argparse.SUPPRESS)
    parser.add_argument("--scheduler", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], Path(arguments.work[1]), arguments.scheduler)))
        return 0
    chosen = [way for way in WAYS if way in ("1 thread", *arguments.ways)]  # with the baseline
    figures: dict[str, Any] = {
        "rows": arguments.rows,
        "cores": CORES,
        "load_before": os.getloadavg()[0],
    }
    files = sorted(arguments.voices.rglob("*.flac"))
    with tempfile.TemporaryDirectory() as folder:
        once, long = Path(folder) / "once.csv", Path(folder) / "long.csv"
        for path, rows in ((once, arguments.rows), (long, 4 * arguments.rows)):
            lines = [f"caller {number},{files[number % len(files)].resolve()}" for number in range(rows)]
            path.write_text("\n".join(["caller_id,path", *lines]))
        found: dict[str, list[dict[str, float]]] = {way: [] for way in chosen}
        for _ in range(arguments.rounds):
            for way, runs in found.items():
                runs.append(measured(way, once))
        figures["ways"] = {way: summary(runs, arguments.rows) for way, runs in found.items()}
        figures["four_times_the_rows"] = {
            way: summary([measured(way, long)], 4 * arguments.rows)
            for way in ("threads", "processes", "dask")
            if way in chosen
        }
    baseline = figures["ways"]["1 thread"]["recordings_per_s"]
    for row in (*figures["ways"].values(), *figures["four_times_the_rows"].values()):
        row["times_one_thread"] = round(row["recordings_per_s"] / baseline, 2)
    for name in ("ways", "four_times_the_rows"):
        for way, row in figures[name].items():
            print(f"{name:20}{way:12}{json.dumps(row)}")
    write("enrollment", figures, arguments.results)
    return 0


def measured(way: str, manifest: Path) -> dict[str, float]:
    """The figures of one run in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.enrollment", "--work", way, str(manifest)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    used = {"cpu_s": 0.0, "mb": 0.0}
    with scheduler(used) if way == "dask" else nullcontext([]) as more:
        start = time.perf_counter()
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
        )
        seconds = time.perf_counter() - start
    figures = json.loads(done.stdout)
    return {"seconds": seconds, **{name: figures[name] + used[name] for name in used}}


@contextmanager
def scheduler(used: dict[str, float]) -> Iterator[list[str]]:
    """The arguments for the workers of a scheduler; `used` gets their processor time and peak memory."""
    with LocalCluster(CORES, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0") as made:
        workers = [psutil.Process(nanny.pid) for nanny in made.workers.values()]
        before = sum(sum(worker.cpu_times()[:2]) for worker in workers)
        with watched(lambda: sum(memory(worker.pid) for worker in workers)) as peak:
            yield ["--scheduler", made.scheduler_address]
        used["cpu_s"] = sum(sum(worker.cpu_times()[:2]) for worker in workers) - before
        used["mb"] = peak() / 1e6


@contextmanager
def watched(memory_now: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """A function that returns the most bytes so far."""
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, memory_now())
            ended.wait(SAMPLED_S)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: peak
    finally:
        ended.set()
        thread.join()


def work(way: str, manifest: Path, address: str | None) -> dict[str, float]:
    """Enroll the manifest in this process; CPU seconds and peak MB, with those of the workers."""
    threads, processes = WAYS[way]
    config = VoiceFingerprintConfig(encoder_threads=threads, min_audio_quality=0.0, enrollment_duration=1.0)
    with tempfile.TemporaryDirectory() as folder, watched(lambda: memory(os.getpid())) as peak:
        storage = open_storage(f"sqlite:{folder}/calls.db")
        with OpusAgentVoiceRecognizer(storage, config=config) as recognizer:
            counts = recognizer.enroll_manifest(
                manifest,
                processes=processes,
                scheduler=address,
                progress_path=Path(folder) / "progress",
                on_several_voices="store",
            )
    assert set(counts) == {"enrolled"}, counts
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"cpu_s": sum(one.ru_utime + one.ru_stime for one in used), "mb": peak() / 1e6}


def memory(process: int) -> int:
    """Bytes of memory of a process and its children; shared pages count by their share."""
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    except OSError:  # it ended meanwhile
        return total
    return total


def summary(runs: list[dict[str, float]], rows: int) -> dict[str, float]:
    """Medians of the runs."""
    seconds = statistics.median(run["seconds"] for run in runs)
    share = statistics.median(run["cpu_s"] / run["seconds"] for run in runs) / CORES
    return {
        "recordings_per_s": round(rows / seconds, 2),
        "share_of_cores": round(share, 2),
        "cpu_ms_per_recording": round(1e3 * statistics.median(run["cpu_s"] for run in runs) / rows, 1),
        "peak_mb": round(max(run["mb"] for run in runs)),
    }


if __name__ == "__main__":
    sys.exit(main())
