"""Does the service keep its promises for half an hour of mixed load, while its workers are killed?

    python -m benchmarks.soak [--store sqlite:PATH|json:PATH|postgresql://...] [--minutes 30] [--workers 2]

`voiceprint serve` with several workers, and clients that identify, enroll, delete and hold live calls, all
with the sample voices. One worker after the other is killed with SIGKILL, every two minutes. Then, of the
store itself: no enrollment that was acknowledged is lost, no caller is there who was deleted, and `check`
finds nothing. Of the answers: none names a caller whose deletion had been acknowledged before the request,
and no request fails but by 429 or with the connection of a killed worker. The memory of the processes is
that of the time after the first fifth, and of the last fifth. Exit code 1 where one of these is not so.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import websockets

from benchmarks.report import VOICES, command_line, write
from voiceprint import load_audio, open_storage
from voiceprint.audio.io import g711
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys
from voiceprint.utils import preprocess_audio

CALLERS = 150  # enrolled at most, so that a flat memory is one that does not leak
FAILED = (httpx.TransportError, OSError, websockets.WebSocketException)


class ServedStore(NamedTuple):
    """A running service on a port of loopback. headers: with an API key for all."""

    process: subprocess.Popen[bytes]
    port: int
    headers: dict[str, str]


@contextmanager
def served_store(
    folder: Path, store: str, *, workers: int, state: str | None = None, **settings: str
) -> Iterator[ServedStore]:
    """`voiceprint serve` over a store, once it is ready. Its log is in the folder.

    state: as `VOICE_SERVER_STATE`; None is a file in the folder. settings: more variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    state = state or str(folder / "state.db")
    headers = {"X-API-Key": ApiKeys(ServerDatabase(state)).create(["admin"], rate_limit=0)[0]}
    kind, _, place = store.partition(":")
    environment = {"VOICE_SERVER_STATE": state, "VOICE_STORAGE_BACKEND": kind, **settings}
    environment["VOICE_DATABASE_URL" if kind == "postgresql" else "VOICE_STORAGE_PATH"] = (
        store if kind == "postgresql" else place
    )
    command = [sys.executable, "-m", "voiceprint", "serve", "--port", str(port), "--workers", str(workers)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log)
    try:
        while True:
            if server.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).is_success:
                    break
            except httpx.TransportError:  # it does not listen yet
                pass
            time.sleep(0.1)
        yield ServedStore(server, port, headers)
        server.terminate()
        server.wait(120)
    finally:
        server.kill()


class Soak:
    """The load of a service, and what was promised to its clients."""

    def __init__(self, folder: Path, store: str, workers: int, pause_s: float) -> None:
        self.folder, self.store, self.workers = folder, store, workers
        self.pause_s = pause_s
        self.port, self.url, self.headers = 0, "", dict[str, str]()
        self.sounds = sorted(VOICES.glob("*/*.flac"))
        self.samples = {sound: _samples(sound) for sound in self.sounds}
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.enrolled: dict[str, int] = {}  # acknowledged, by caller id
        self.deleted: dict[str, float] = {}  # acknowledged, with the time of the answer
        self.unknown: set[str] = set()  # requests that died with their connection
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.latencies: dict[str, list[float]] = {}

    # The load

    def identify(self, client: httpx.Client, chance: random.Random) -> None:
        """Identify a recording, and check that nobody is named who had been deleted."""
        sound, begun = chance.choice(self.sounds), time.monotonic()
        answer = self.ask("identify", client.post, f"{self.url}/identify", content=sound.read_bytes())
        if answer is None:
            return
        for match in answer.json()["matches"]:
            at = self.deleted.get(match["caller_id"])
            if at is not None and at < begun:
                self.faults.append(f"{match['caller_id']} was named after its deletion")

    def enroll(self, client: httpx.Client, chance: random.Random) -> None:
        """Enroll a new caller; where the connection dies, repeat with the same key until it is answered."""
        if len(self.enrolled) >= CALLERS:
            time.sleep(0.2)
            return
        sound = chance.choice(self.sounds)
        caller = f"{sound.parent.name}-{chance.randrange(10**9)}"
        # With other samples, and so another embedding: a receipt searches for that.
        samples = np.frombuffer(self.samples[sound], "<i2")[chance.randrange(8000) :]
        noise = np.random.default_rng(chance.randrange(10**9)).integers(-2, 3, len(samples))
        audio = np.clip(samples + noise, -32768, 32767).astype("<i2").tobytes()
        headers = {"Idempotency-Key": caller}
        for _ in range(60):
            answer = self.ask(
                "enroll",
                client.post,
                f"{self.url}/callers/{caller}/voiceprints?rate=16000",
                content=audio,
                headers=headers,
            )
            if answer is not None:
                with self.lock:
                    self.enrolled[caller] = answer.json()["id"]
                    self.unknown.discard(caller)
                return
            self.unknown.add(caller)
            time.sleep(1)

    def delete(self, client: httpx.Client, chance: random.Random) -> None:
        """Delete a caller with a receipt."""
        with self.lock:
            ready = len(self.enrolled) > CALLERS // 2
            caller = chance.choice([*self.enrolled]) if ready else None
            if caller is not None:
                del self.enrolled[caller]
                self.unknown.add(caller)
        if caller is None:
            time.sleep(0.2)
            return
        for _ in range(60):
            answer = self.ask(
                "delete",
                client.delete,
                f"{self.url}/callers/{caller}",
                headers={"Idempotency-Key": f"delete-{caller}"},
            )
            if answer is not None:
                if not answer.json()["complete"]:
                    states = {place["state"] for place in answer.json()["places"]} - {"erased"}
                    self.outcomes.update(f"receipt: {state}" for state in states)
                    if "remains" in states:
                        self.faults.append(f"{caller}: the receipt names remains")
                with self.lock:
                    self.deleted[caller] = time.monotonic()
                    self.unknown.discard(caller)
                return
            time.sleep(1)

    def ask(
        self, name: str, send: Callable[..., httpx.Response], *args: Any, **kwargs: Any
    ) -> httpx.Response | None:
        """The answer of status 2xx; None where the connection died or the service was busy."""
        begun = time.monotonic()
        try:
            answer = send(*args, **kwargs)
        except FAILED as error:
            self.outcomes[f"{name}: {type(error).__name__}"] += 1
            time.sleep(0.2)
            return None
        self.outcomes[f"{name}: {answer.status_code}"] += 1
        self.latencies.setdefault(name, []).append(time.monotonic() - begun)
        if answer.is_success:
            return answer
        error = answer.json().get("error")
        if answer.status_code != 429:
            self.faults.append(f"{name}: {answer.status_code} {error}: {answer.json().get('detail')}")
        time.sleep(min(1.0, float(answer.headers.get("retry-after", "0.2"))))
        return None

    def work(self, what: Callable[[httpx.Client, random.Random], None], seed: int) -> None:
        """Repeat one kind of request until the end."""
        chance = random.Random(seed)
        with httpx.Client(headers=self.headers, timeout=120) as client:
            while not self.ended.wait(self.pause_s):
                what(client, chance)

    def calls(self, count: int) -> None:
        """Hold live calls at real time, one after the other, `count` at once."""

        async def one(seed: int) -> None:
            chance = random.Random(seed)
            await asyncio.sleep(chance.random() * 5)
            while not self.ended.is_set():
                line = np.frombuffer(self.samples[chance.choice(self.sounds)], "<i2")[::2]
                codes = g711.encode(line, "mulaw").tobytes()
                try:
                    answer = await self._call(codes, f"call-{chance.randrange(10**9)}")
                except FAILED as error:
                    self.outcomes[f"call: {type(error).__name__}"] += 1
                    await asyncio.sleep(0.5)
                    continue
                self.outcomes[f"call: {'answered' if answer else 'without an answer'}"] += 1

        async def all_calls() -> None:
            await asyncio.gather(*(one(seed) for seed in range(count)))

        asyncio.run(all_calls())

    async def _call(self, codes: bytes, call_id: str) -> bool:
        address = f"ws://127.0.0.1:{self.port}/v1/galleries/default/calls/raw"
        async with websockets.connect(address, additional_headers=self.headers) as call:
            await call.send(
                json.dumps({"rate": 8000, "encoding": "mulaw", "call_id": call_id, "answers": True})
            )
            for start in range(0, len(codes), 160):
                await call.send(codes[start : start + 160])
                await asyncio.sleep(0.02)
            await call.send(json.dumps({"type": "stop"}))
            last = {}
            async for message in call:
                last = json.loads(message)
        return bool(last)

    # The processes

    def pids(self, server: subprocess.Popen[bytes]) -> list[int]:
        """The worker processes, the oldest first."""
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in _read(Path(f"/proc/{pid}/cmdline"))]

    def memory(self, server: subprocess.Popen[bytes]) -> dict[int, int]:
        """Bytes of each worker and of their supervisor, in which shared pages count in part."""
        found = {}
        for pid in (server.pid, *self.pids(server)):
            for line in _read(Path(f"/proc/{pid}/smaps_rollup")).decode().splitlines():
                if line.startswith("Pss:"):
                    found[pid] = int(line.split()[1]) * 1024
        return found

    def run(self, seconds: float, kill_every_s: float, calls: int) -> dict[str, Any]:
        """Serve and load for a time; the figures."""
        with served_store(self.folder, self.store, workers=self.workers) as service:
            self.port, self.headers = service.port, service.headers
            self.url = f"http://127.0.0.1:{self.port}/v1/galleries/default"
            kinds = [self.identify, self.identify, self.enroll, self.delete]
            threads = [
                threading.Thread(target=self.work, args=(kind, seed)) for seed, kind in enumerate(kinds)
            ]
            threads.append(threading.Thread(target=self.calls, args=(calls,)))
            for thread in threads:
                thread.start()
            try:
                memory = self._watch(service.process, seconds, kill_every_s)
            finally:
                self.ended.set()
            for thread in threads:
                thread.join(180)
                if thread.is_alive():
                    self.faults.append("a client still waits for its answer")
        return self._figures(memory, seconds)

    def _watch(
        self, server: subprocess.Popen[bytes], seconds: float, kill_every_s: float
    ) -> list[tuple[float, int]]:
        """Kill workers, and measure the memory: (seconds since the start, bytes of all processes)."""
        begun, kills, found = time.monotonic(), 0, []
        while (now := time.monotonic() - begun) < seconds:
            if kill_every_s and now > (kills + 1) * kill_every_s:
                kills += 1
                os.kill(self.pids(server)[0], signal.SIGKILL)
                self.outcomes["killed workers"] += 1
            # One that has just started is smaller: its index and its buffers are still to come.
            if not kill_every_s or now - kills * kill_every_s > kill_every_s / 2:
                found.append((now, sum(self.memory(server).values())))
            time.sleep(2)
        return found

    def _figures(self, memory: list[tuple[float, int]], seconds: float) -> dict[str, Any]:
        first = [size for at, size in memory if seconds / 5 <= at < 2 * seconds / 5]
        last = [size for at, size in memory if at >= 4 * seconds / 5]
        means = [sum(sizes) / max(1, len(sizes)) for sizes in (first, last)]
        storage = open_storage(self.store)
        with storage:
            stored = {caller.caller_id for caller in storage.iter_callers()}
            findings = [str(finding) for finding in storage.check()]
        lost = self.enrolled.keys() - stored
        undeleted = self.deleted.keys() & stored
        self.faults += [f"{caller} was acknowledged and is lost" for caller in sorted(lost)]
        self.faults += [f"{caller} was deleted and is there" for caller in sorted(undeleted)]
        self.faults += findings
        return {
            "store": self.store.partition(":")[0],
            "minutes": seconds / 60,
            "workers": self.workers,
            "outcomes": dict(sorted(self.outcomes.items())),
            "latency_ms": {name: percentiles(times) for name, times in sorted(self.latencies.items())},
            "enrolled": len(self.enrolled),
            "deleted": len(self.deleted),
            "unknown": len(self.unknown),
            "memory_mb": [round(mean / 1e6, 1) for mean in means],
            "memory_mb_each_minute": _each_minute(memory),
            "memory_growth": round(means[1] / max(1.0, means[0]) - 1, 4),
            "faults": [f"{count} x {fault}" for fault, count in Counter(self.faults).most_common(100)],
        }


def _each_minute(memory: list[tuple[float, int]]) -> list[float]:
    """The mean of each minute in MB."""
    minutes: dict[int, list[int]] = {}
    for at, size in memory:
        minutes.setdefault(int(at // 60), []).append(size)
    return [round(sum(sizes) / len(sizes) / 1e6, 1) for _, sizes in sorted(minutes.items())]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def _samples(sound: Path) -> bytes:
    """The audio as 16-bit PCM of 16 kHz."""
    audio, rate = load_audio(sound)
    return (preprocess_audio(audio, rate) * 32767).astype("<i2").tobytes()


def percentiles(times: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the maximum of seconds, in milliseconds."""
    ordered = sorted(times)
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }


def main() -> int:
    """Run, print the figures, write them."""
    parser = command_line(__doc__)
    parser.add_argument("--store", help="URL of an empty store; default: SQLite in a temporary folder")
    parser.add_argument("--minutes", type=float, default=30.0, help="time of the load")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of a client")
    parser.add_argument("--calls", type=int, default=5, help="live calls at once")
    parser.add_argument("--kill-every", type=float, default=120.0, help="seconds between kills; 0 for none")
    parser.add_argument("--most-growth", type=float, default=0.05, help="of the memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(
            Path(folder), arguments.store or f"sqlite:{folder}/callers.db", arguments.workers, arguments.pause
        )
        figures = soak.run(arguments.minutes * 60, arguments.kill_every, arguments.calls)
    print(json.dumps(figures, indent=1))
    write(f"soak-{figures['store']}", figures, arguments.results)
    grown = figures["memory_growth"] > arguments.most_growth
    if grown:
        print(f"The memory grew by {100 * figures['memory_growth']:.1f} %.")
    return 1 if figures["faults"] or grown else 0


if __name__ == "__main__":
    sys.exit(main())
