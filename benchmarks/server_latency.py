"""Does the service answer at once while all of its threads embed?

    python -m benchmarks.server_latency [--seconds 20] [--clients 4]

`GET /healthz`, 50 times a second: of an idle service, and while clients identify recordings without a pause,
more of them than the service has threads. The clients run on the same cores, in a process of their own.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.report import VOICES, command_line, write
from benchmarks.soak import percentiles, served_store
from voiceprint import OpusAgentVoiceRecognizer, Recording, open_storage


def main() -> int:
    """Measure, print, write."""
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="time of each measurement")
    parser.add_argument("--clients", type=int, default=4, help="clients that identify without a pause")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:{folder}/callers.db"
        with OpusAgentVoiceRecognizer(open_storage(store)) as recognizer:
            for path in sorted(VOICES.glob("*/1.flac")):
                recognizer.enroll_caller(path.parent.name, Recording.open(path))
        with served_store(Path(folder), store, workers=1) as service:
            idle = health(service.port, arguments.seconds)
            key = service.headers["X-API-Key"]
            context = multiprocessing.get_context("spawn")
            counted = context.Value("i", 0)
            clients = [
                context.Process(target=identify, args=(service.port, key, counted, number), daemon=True)
                for number in range(arguments.clients)
            ]
            for client in clients:
                client.start()
            while counted.value < arguments.clients:  # all of them work
                time.sleep(0.1)
            before, begun = counted.value, time.monotonic()
            busy = health(service.port, arguments.seconds)
            rate = (counted.value - before) / (time.monotonic() - begun)
            for client in clients:
                client.terminate()
    figures = {
        "clients": arguments.clients,
        "identified_per_s": round(rate, 1),
        "idle_ms": percentiles(idle),
        "busy_ms": percentiles(busy),
    }
    print(f"{rate:.1f} identifications a second")
    for name, times in (("idle", idle), ("busy", busy)):
        print(name, *(f"{share} {value} ms" for share, value in percentiles(times).items()))
    print(f"median, busy against idle: {statistics.median(busy) / statistics.median(idle):.1f}")
    write("server_latency", figures, arguments.results)
    return 0


def health(port: int, seconds: float) -> list[float]:
    """The seconds of each request for the health, on one connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    times, end = [], time.monotonic() + seconds
    while (begun := time.perf_counter()) and time.monotonic() < end:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        times.append(time.perf_counter() - begun)
        time.sleep(0.02)
    return times


def identify(port: int, key: str, counted: object, number: int) -> None:
    """Identify recordings until the process is ended."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    sounds = [path.read_bytes() for path in sorted(VOICES.glob("*/2.flac"))]
    while True:
        connection.request(
            "POST", "/v1/galleries/default/identify", sounds[number % len(sounds)], {"X-API-Key": key}
        )
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}")
        number += 1
        with counted.get_lock():  # type: ignore[attr-defined]
            counted.value += 1  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
