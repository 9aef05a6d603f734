"""Several processes on one Redis store: no lost update, no torn record, no loss when one is killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import fresh_database, shared_server
from stores import Follower, state, voiceprint

from voiceprint import RedisStorage

TESTS = str(Path(__file__).parent.parent)
PRELUDE = f"""
import sys; sys.path.insert(0, {TESTS!r})
from stores import Follower, voiceprint
from voiceprint import open_storage
storage = open_storage(sys.argv[1])
"""
WORKER = """
me = int(sys.argv[2])
follower = Follower()
for n in range(12):
    storage.save(voiceprint(f"{me}-{n}" if n % 2 else "shared", 1000 * me + n))
    storage.update_metadata("counter", {f"{me}.{n}": n})
    storage.touch("shared")
    assert len(storage.get("shared").voiceprints) <= 3
    if n % 4 == 3:
        assert storage.delete(f"{me}-{n}") == 1
    follower.catch_up(storage)
"""
ENDLESS = """
print("ready", flush=True)
n = int(sys.argv[2])
while True:
    storage.save_many([voiceprint(f"c{n}", n), voiceprint(f"d{n}", n), voiceprint("shared", n)])
    print(n, flush=True)
    n += 1
"""


@pytest.fixture
def url() -> str:
    return shared_server().url(fresh_database())


@pytest.fixture
def storage(url: str) -> Iterator[RedisStorage]:
    with RedisStorage.from_url(url) as opened:
        yield opened


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_eight_processes_lose_nothing_and_keep_the_limit(storage: RedisStorage, url: str) -> None:
    storage.save(voiceprint("counter"))
    follower = Follower()
    workers = [_start(WORKER, url, me) for me in range(8)]
    while any(worker.poll() is None for worker in workers):
        follower.catch_up(storage)
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    follower.assert_in_step(storage)
    assert follower.rebuilds == 1
    kept = {f"{me}-{n}" for me in range(8) for n in range(1, 12, 2) if n % 4 != 3}
    assert set(state(storage)) == kept | {"shared", "counter"}
    assert len(storage.get("counter").metadata) == 96
    assert len(storage.get("shared").voiceprints) == 3
    assert storage.check() == []


def test_every_acknowledged_save_survives_kill_9(
    storage: RedisStorage, url: str, request: pytest.FixtureRequest
) -> None:
    crashes, seed = request.config.getoption("--crashes"), random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    done = 0
    for _ in range(crashes):
        writer = _start(ENDLESS, url, done)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        killer = threading.Timer(chance.uniform(0, 0.15), writer.kill)
        killer.start()
        said = [int(line) for line in writer.stdout.read().split("\n") if line.strip()]
        killer.join()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        done = max(said, default=done - 1) + 1
        names = set(state(storage))
        wanted = {f"{letter}{n}" for letter in "cd" for n in range(done)} | ({"shared"} if done else set())
        assert names in (wanted, wanted | {f"c{done}", f"d{done}", "shared"})
        assert storage.check() == []
