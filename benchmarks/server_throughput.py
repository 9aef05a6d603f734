"""How many identifications a second does the service answer, beside the library in the same run?

    python -m benchmarks.server_throughput [--prints 10000] [--rounds 5] [--seconds 8] [--connections 16]

Clips of 6 s, 16-bit at 16 kHz, of the sample voices, among generated callers in a SQLite store. The library
is called by one thread a core; the service is `voiceprint serve` with a worker for each of the same cores,
asked over connections that stay open, by a program that sends the bytes and reads the answer: real callers
are on other machines. One worker, and `Client`, which checks arguments and builds models, are rows of their
own. Rounds take turns, and ratios are medians over rounds: other load falls on all. Processor time per clip
is that of the processes that answer, plus that of the program that asks. On cores that other programs share,
the ratio of processor times says more than that of rates, as the program with more threads gets more of the
cores.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One thread a product in both, as the service has: with numpy's own threads, the library takes twice as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.filled_store import fill_file
from benchmarks.measure import spread_ms
from benchmarks.report import VOICES, command_line, markdown, write
from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, load_audio
from voiceprint.client import Client
from voiceprint.encoder.workers import cores
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys

CLIP_S = 6
WAYS = ("library", "service", "service, one worker", "service, by Client")
RATE = 16_000
Clips = list[NDArray[np.int16]]
# The clips come again and again, which would be a warning each time.
SETTINGS = {"VOICE_SAME_RECORDING": "false", "VOICE_TARGET_FPIR": "0.01"}
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, print the table, write the raw figures."""
    os.environ.update(SETTINGS)
    parser = command_line(__doc__)
    parser.add_argument("--prints", type=int, default=10_000, help="generated voiceprints in the store")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a round")
    parser.add_argument(
        "--connections",
        type=int,
        default=8 * cores(),
        help="clients at once: the system's choice of a worker for each evens out",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill_file(folder / "voiceprints.db", options.prints)
        figures = {
            "prints": options.prints,
            "cores": cores(),
            "connections": options.connections,
            **measure(folder, options.rounds, options.seconds, options.connections),
        }
    print("\n" + table(figures))
    write("server_throughput", figures, options.results)
    return 0


def clips() -> Clips:
    """The sample voices in clips of `CLIP_S`: the utterances of each, one after the other."""
    found: Clips = []
    for voice in sorted(path for path in VOICES.iterdir() if path.is_dir()):
        audio = np.concatenate([load_audio(path)[0] for path in sorted(voice.glob("*.flac"))])
        samples = np.round(audio * 32767).astype(np.int16)
        size = CLIP_S * RATE
        found += [samples[start : start + size] for start in range(0, len(samples) - size + 1, size)]
    return found


def measure(folder: Path, rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Clips a second, latencies and processor time of both."""
    probes = clips()
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    latencies: dict[str, list[float]] = {way: [] for way in WAYS}
    with (
        SQLiteStorage(folder / "voiceprints.db") as storage,
        OpusAgentVoiceRecognizer(storage) as recognizer,
        served(folder, cores()) as (process, url),
        served(folder, 1) as (one, url_of_one),
        Client(url, api_key := key(folder), timeout_s=120, connections=connections) as client,
    ):
        recognizer.warm_up()
        ways: dict[str, tuple[Callable[[Any], object], int, tuple[int, ...]]] = {
            "library": (recognizer.identify, cores(), ()),
            "service": (Asker(url, api_key), connections, family(process.pid)),
            "service, one worker": (Asker(url_of_one, api_key), connections, family(one.pid)),
            "service, by Client": (client.identify, connections, family(process.pid)),
        }
        expected = [[match.caller_id for match in recognizer.identify(clip)] for clip in probes[:3]]
        assert [[match.caller_id for match in client.identify(clip)] for clip in probes[:3]] == expected
        for number in range(rounds + 1):
            for way, (identify, threads, others) in ways.items():
                row, taken = one_round(identify, probes, threads, seconds, others)
                if number:  # the first warms up
                    rows[way].append(row)
                    latencies[way] += taken
    return {
        "ratio": round(ratio(rows, "service", "per_s"), 3),
        "processor_ratio": round(1 / ratio(rows, "service", "cpu_ms"), 3),
        "ratio_of_one_worker": round(ratio(rows, "service, one worker", "per_s"), 3),
        **{
            way: {
                **{
                    name: round(statistics.median(row[name] for row in found), 2)
                    for name in ("per_s", "cpu_ms")
                },
                "latency_ms": spread_ms(latencies[way]),
            }
            for way, found in rows.items()
        },
    }


def ratio(rows: dict[str, list[dict[str, float]]], way: str, name: str) -> float:
    """The median over rounds of a figure, as a share of the library's in the same round."""
    pairs = zip(rows[way], rows["library"], strict=True)
    return statistics.median(own[name] / library[name] for own, library in pairs)


class Asker:
    """Sends clips to /identify, over a connection for each thread."""

    def __init__(self, url: str, api_key: str) -> None:
        self._place = url.removeprefix("http://")
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/octet-stream"}
        self._local = threading.local()

    def __call__(self, clip: NDArray[np.int16]) -> dict[str, Any]:
        """The answer of the service."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self._place, timeout=120)
        target = f"/v1/galleries/default/identify?encoding=pcm_s16le&rate={RATE}"
        connection.request("POST", target, clip.tobytes(), self._headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise SystemExit(content.decode())
        found: dict[str, Any] = json.loads(content)
        return found


def one_round(
    identify: Callable[[Any], object], probes: Clips, threads: int, seconds: float, others: tuple[int, ...]
) -> tuple[dict[str, float], list[float]]:
    """Clips a second and processor time per clip, and the seconds of each.

    others: processes whose processor time counts too.
    """
    taken: list[list[float]] = [[] for _ in range(threads)]
    begun = time.perf_counter()
    end = begun + seconds

    def work(number: int) -> None:
        turn = number
        while (start := time.perf_counter()) < end:
            identify(probes[turn % len(probes)])
            turn += threads
            taken[number].append(time.perf_counter() - start)

    used = time.process_time() + sum(map(processor_s, others))
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lasted = time.perf_counter() - begun
    used = time.process_time() + sum(map(processor_s, others)) - used
    found = [each for one in taken for each in one]
    return {"per_s": len(found) / lasted, "cpu_ms": 1e3 * used / len(found)}, found


def processor_s(pid: int) -> float:
    """Processor time of a process and all its threads in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def family(pid: int) -> tuple[int, ...]:
    """A process and its children: uvicorn's supervisor and its workers."""
    return (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def key(folder: Path) -> str:
    """A new API key without a limit of requests."""
    return ApiKeys(ServerDatabase(str(folder / "state.db"))).create(["admin"], rate_limit=0)[0]


@contextlib.contextmanager
def served(folder: Path, workers: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The service over the store of the folder, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "VOICE_STORAGE_BACKEND": "sqlite",
        "VOICE_STORAGE_PATH": str(folder / "voiceprints.db"),
        "VOICE_SERVER_STATE": str(folder / "state.db"),
        **SETTINGS,
    }
    command = [sys.executable, "-m", "voiceprint", "serve", "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(command, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            if process.poll() is not None:
                raise SystemExit(f"The service ended with {process.returncode}.")
            time.sleep(0.1)
        yield process, url
    finally:
        process.terminate()
        process.wait()


def ready(url: str) -> bool:
    """Whether the service answers."""
    try:
        return httpx.get(f"{url}/readyz", timeout=60).status_code == 200
    except httpx.TransportError:  # it does not listen yet
        return False


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    rows = [
        (
            way,
            f"{figures[way]['per_s']:.1f}",
            f"{figures[way]['cpu_ms']:.1f}",
            f"{figures[way]['latency_ms']['p50']:.0f}",
            f"{figures[way]['latency_ms']['p99']:.0f}",
        )
        for way in WAYS
    ]
    head = ("", "clips a second", "processor ms a clip", "p50, ms", "p99, ms")
    one = figures["ratio_of_one_worker"]
    processor = figures["processor_ratio"]
    ratios = f"{figures['ratio']:.2f} of the rate, {processor:.2f} by processor time; one worker {one:.2f}"
    return markdown(head, rows, 1) + f"\nService / library: {ratios}\n"


if __name__ == "__main__":
    sys.exit(main())
