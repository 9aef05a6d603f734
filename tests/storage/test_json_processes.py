"""Several processes on one file: no lost update, no torn read, and no loss when one is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import Follower, forget_json_files, state, voiceprint

from voiceprint import JSONStorage

TESTS = str(Path(__file__).parent.parent)
PRELUDE = f"""
import sys; sys.path.insert(0, {TESTS!r})
from stores import Follower, voiceprint
from voiceprint import JSONStorage
storage = JSONStorage(sys.argv[1])
"""
WRITER = """
me = sys.argv[2]
for n in range(25):
    storage.save(voiceprint(f"{me}-{n}" if n % 2 else "shared", 1000 * int(me) + n))
"""
READER = """
seen = 0
print("ready", flush=True)
while storage.get("stop") is None:
    revision = storage.revision()
    assert revision >= seen
    seen = revision
    callers = [c for c in storage.callers() if c.caller_id in "abc"]
    assert len(callers) in (0, 3), callers
    assert len({c.metadata["n"] for c in callers}) <= 1, callers
"""
ENDLESS = """
print("ready", flush=True)
n = int(sys.argv[2])
while True:
    storage.save(voiceprint(f"c{n}", n))
    print(n, flush=True)
    n += 1
"""


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_four_writing_processes_lose_nothing_and_keep_the_limit(path: Path) -> None:
    follower, storage = Follower(), JSONStorage(path)
    writers = [_start(WRITER, path, n) for n in range(4)]
    while any(writer.poll() is None for writer in writers):
        shared = storage.get("shared")
        assert shared is None or len(shared.voiceprints) <= 3
        follower.catch_up(storage)
    for writer in writers:
        _finish(writer)
    follower.assert_in_step(storage)
    forget_json_files()
    storage = JSONStorage(path)
    assert set(state(storage)) == {f"{me}-{n}" for me in range(4) for n in range(1, 25, 2)} | {"shared"}
    assert storage.revision() == 100
    assert len(storage.get("shared").voiceprints) == 3
    assert storage.check() == []


def test_a_reading_process_sees_only_committed_states(path: Path) -> None:
    reader = _start(READER, path)
    assert reader.stdout is not None
    reader.stdout.readline()
    storage = JSONStorage(path)
    for n in range(40):
        storage.save_many([voiceprint(name, n, metadata={"n": n}) for name in "abc"])
    storage.save(voiceprint("stop"))
    _finish(reader)


def test_every_acknowledged_save_survives_kill_9(path: Path, request: pytest.FixtureRequest) -> None:
    crashes, seed = request.config.getoption("--crashes"), random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    acknowledged = 0
    for _ in range(crashes):
        writer = _start(ENDLESS, path, acknowledged)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        killer = threading.Timer(chance.uniform(0, 0.15), writer.kill)
        killer.start()
        said = [int(line) for line in writer.stdout.read().split("\n") if line.strip()]
        killer.join()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        forget_json_files()
        storage = JSONStorage(path)
        names = set(state(storage))
        done = max(said, default=acknowledged - 1) + 1
        assert {f"c{n}" for n in range(done)} <= names <= {f"c{n}" for n in range(done + 1)}
        assert storage.check() == []
        acknowledged = done
    JSONStorage(path).save(voiceprint("after"))
    assert not list(path.parent.glob(".*.tmp"))


def _in_child(work: Callable[[], None]) -> None:
    """Run `work` in a fork of this process, and fail if it fails or hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - told on stderr, as no exception leaves a child
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    deadline = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.005)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_other_threads_write_can_go_on(path: Path) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint())
    done = threading.Event()

    def busy() -> None:
        n = 0
        while not done.is_set():
            storage.save(voiceprint("parent", n))
            n += 1

    def work(number: int) -> None:
        assert storage.get("alice") is not None
        storage.save(voiceprint(f"child {number}"))
        assert storage.get(f"child {number}") is not None

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for number in range(8):
            _in_child(lambda number=number: work(number))
    finally:
        done.set()
        thread.join()
    assert {f"child {n}" for n in range(8)} <= set(state(storage))
    assert storage.check() == []


def test_a_forked_child_follows_its_parent_without_rebuilding(path: Path) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint())

    def work() -> None:
        follower = Follower()
        follower.assert_in_step(storage)
        assert storage.revision() == 1
        for n in range(3):
            subprocess.run(
                [sys.executable, "-c", PRELUDE + f"storage.save(voiceprint('b', {n}))", str(path)], check=True
            )
            follower.assert_in_step(storage)
        assert follower.rebuilds == 1

    _in_child(work)
