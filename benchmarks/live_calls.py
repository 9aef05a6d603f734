"""Live calls at real time: how many, at what cost, how late, and what happens beyond.

    python -m benchmarks.live_calls                     with an encoder that costs nothing
    python -m benchmarks.live_calls --encoder default   with the encoder of the settings

Two workers of a service take calls of each format at real time for some seconds. The table has, of both: the
share of a core, the lateness of answers (from the arrival of a block of audio to the answer with it) and the
memory a call, while all calls last. The calls play in another process, on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from argparse import Namespace
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import resident_bytes
from benchmarks.report import VOICES, command_line, write
from tools.call_simulator import (
    FORMATS,
    Ticker,
    play_tcp,
    play_websocket,
    script,
    telephone_line,
)
from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.server.live.session import LATE_S

PORT, AUDIOSOCKET_PORT = 8479, 9479
START_S: Final = 5.0  # in which all calls begin


def main() -> int:
    """Measure, print a table, and write the figures."""
    parser = command_line(__doc__)
    parser.add_argument("--encoder", choices=("free", "default"), default="free")
    parser.add_argument("--calls", type=int, nargs="+", default=[200], help="numbers of calls to try")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each call")
    parser.add_argument("--workers", type=int, default=2, help="processes of the service")
    parser.add_argument("--serve", type=int, help="be that worker of the service; of the benchmark itself")
    options = parser.parse_args()
    if options.serve is not None:
        serve(options)
        return 0
    rows = []
    for source in options.formats:
        for calls in options.calls:
            rows.append(measured(options, source, calls))
            print(f"{source}: {calls} calls measured", flush=True)
    heads = ("format", "calls", "core, %", "answers", "late p50, s", "p99", "late answers", "MB a call")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print(
            f"| {row['format']} | {row['calls']} | {row['core_percent']:.0f} | {row['answers']} "
            f"| {row['late_p50_s']:.3f} | {row['late_p99_s']:.3f} | {row['late_answers']} "
            f"| {row['mb_a_call']:.1f} |"
        )
    write(f"live_calls-{options.encoder}", {"rows": rows}, options.results)
    return 0


class FreeEncoder:
    """An encoder that costs nothing, so that the rest is measured."""

    name = "free"
    dimension = 256
    sample_rate = 16_000

    def warm_up(self) -> None:
        """As `Encoder.warm_up`."""

    def embed(self, _audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Encoder.embed`."""
        return np.full(self.dimension, 1 / 16, dtype=np.float32)

    def embed_batch(self, audios: Any) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`."""
        return np.stack([self.embed(audio) for audio in audios])


def serve(options: Namespace) -> None:
    """The service; lines on the standard input ask for its measures."""
    import threading

    import uvicorn

    from voiceprint.server import ServerSettings, Service, create_app
    from voiceprint.server.live.settings import LiveSettings
    from voiceprint.server.protocol import uvicorn_options

    encoder = FreeEncoder() if options.encoder == "free" else None
    config = VoiceFingerprintConfig(same_recording=False)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=encoder, config=config)
    for caller in sorted(path.name for path in VOICES.iterdir() if path.is_dir()):
        recognizer.enroll_caller(
            caller, telephone_line(VOICES / caller / "1.flac"), sample_rate=8000, encoding="mulaw"
        )
    folder = tempfile.mkdtemp(prefix="voiceprint-calls-")
    settings = ServerSettings(state=f"{folder}/state.db", rate_limit=0)
    live = LiveSettings(
        max_calls=5000,
        call_keep_s=0,
        audiosocket_port=AUDIOSOCKET_PORT + options.serve,
        audiosocket_gallery="default",
    )
    service = Service({"default": recognizer}, settings, live)
    lateness: list[float] = []
    ended: list[float] = []
    answered = service.live.metrics.answered

    def noting(call: Any) -> None:
        lateness.append(call.lateness_s)
        if call.state != "live":
            ended.append(call.answer.audio_s)
        answered(call)

    service.live.metrics.answered = noting  # type: ignore[method-assign]
    key, _ = service.keys.create(["identify"])
    config_of_server = uvicorn.Config(
        create_app(service), port=PORT + options.serve, **uvicorn_options(settings)
    )
    server = uvicorn.Server(config_of_server)
    print(json.dumps({"key": key}), flush=True)

    def answer() -> None:
        for line in sys.stdin:
            if line.strip() == "reset":
                lateness.clear()
            calls = [call for call in service.live if call.state == "live"]
            print(
                json.dumps(
                    {
                        "cpu_s": time.process_time(),
                        "bytes": resident_bytes(),
                        "lateness": list(lateness),
                        "waiting_s": sum(call.waiting_s for call in calls),
                        "calls": len(calls),
                        "ended": len(ended),
                        "audio_s": sum(ended),
                    }
                ),
                flush=True,
            )
        server.should_exit = True

    threading.Thread(target=answer, daemon=True).start()
    server.run()


class Worker:
    """A process of the service, as one of several workers. number: from 0."""

    def __init__(self, options: Namespace, number: int) -> None:
        self.port, self.audiosocket_port = PORT + number, AUDIOSOCKET_PORT + number
        command = [sys.executable, "-m", "benchmarks.live_calls", "--serve", str(number)]
        self._process = subprocess.Popen(
            [*command, "--encoder", options.encoder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # One thread each: the threads of the service run the encoder side by side.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.key = self._line()["key"]
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/healthz")
                break
            except httpx.TransportError:  # not yet
                time.sleep(0.1)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def report(self, line: str = "report") -> dict[str, Any]:
        """The measures; "reset" forgets the lateness so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._line()

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def measured(options: Namespace, source: str, calls: int) -> dict[str, Any]:
    """The measures of so many calls of a format."""
    lines = [
        (telephone_line(file) * 40)[: int(options.seconds * 8000)] for file in sorted(VOICES.glob("*/2.flac"))
    ]
    workers = [Worker(options, number) for number in range(options.workers)]
    before = [worker.report("reset") for worker in workers]

    async def one(number: int, ticker: Ticker) -> None:
        await asyncio.sleep(number * START_S / calls)  # calls do not begin at the same moment
        worker = workers[number % len(workers)]
        played = script(source, lines[number % len(lines)], str(uuid.uuid4()))
        if source == "audiosocket":
            await play_tcp(worker.audiosocket_port, played, ticker)
            return
        url = f"ws://127.0.0.1:{worker.port}/v1/galleries/default/calls/{source}"
        await play_websocket(url, {"Authorization": f"Bearer {worker.key}"}, played, ticker)

    async def reports() -> list[dict[str, Any]]:
        return await asyncio.gather(*(asyncio.to_thread(worker.report) for worker in workers))

    async def play() -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
        ticker = Ticker()
        playing = asyncio.gather(*(one(number, ticker) for number in range(calls)))
        await asyncio.sleep(START_S + 1.0)  # all have begun
        first, begun = await reports(), time.monotonic()
        await asyncio.sleep(max(1.0, options.seconds - START_S - 2.0))
        second, elapsed = await reports(), time.monotonic() - begun
        await playing
        return first, second, elapsed

    for line in lines:  # frames are made once, and not while the service is measured
        script(source, line, str(uuid.uuid4()))
    first, second, elapsed = asyncio.run(play())
    last = [worker.report() for worker in workers]
    while sum(one["ended"] for one in last) < calls:
        time.sleep(1.0)  # calls are over for the player before the service has worked off their audio
        last = [worker.report() for worker in workers]
    for worker in workers:
        worker.end()
    pairs = list(zip(first, second, strict=True))
    late = np.array([one for old, new in pairs for one in new["lateness"][len(old["lateness"]) :]])
    final = np.array(
        [
            one
            for old, new in zip(second, last, strict=True)
            for one in new["lateness"][len(old["lateness"]) :]
        ]
    )
    return {
        "format": source,
        "encoder": options.encoder,
        "workers": options.workers,
        "calls": calls,
        "calls_at_the_end": sum(one["calls"] for one in second),
        "seconds": options.seconds,
        "core_percent": 100 * sum(new["cpu_s"] - old["cpu_s"] for old, new in pairs) / elapsed,
        "answers": len(late),
        "late_p50_s": float(np.percentile(late, 50)),
        "late_p99_s": float(np.percentile(late, 99)),
        "late_answers": int((late > LATE_S).sum()),
        "final_p99_s": float(np.percentile(final, 99)),
        "ended": sum(one["ended"] for one in last),
        "lost_s": round(calls * options.seconds - sum(one["audio_s"] for one in last), 1),
        "waiting_s": round(sum(one["waiting_s"] for one in second), 1),
        "mb_a_call": sum(new["bytes"] - old["bytes"] for old, new in zip(before, second, strict=True))
        / calls
        / 1e6,
        "machine_load": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
