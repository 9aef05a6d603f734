"""What the tests share that put several processes on one store: starting, forking and killing them."""

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
from stores import state

from voiceprint import Storage

PRELUDE = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import random
import voiceprint as package
from stores import Follower, voiceprint
storage = getattr(package, sys.argv[1])(sys.argv[2])
argument = sys.argv[3]
"""
# Says each number once its save has returned.
ENDLESS = """
print("ready", flush=True)
n = int(argument)
while True:
    storage.save(voiceprint(f"c{n}", n))
    print(n, flush=True)
    n += 1
"""


def start(kind: type[Storage], path: Path, script: str, argument: object = "") -> subprocess.Popen[str]:
    """A process that runs `script` with a `storage` of that kind at `path`, and the `argument` as text."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, kind.__name__, str(path), str(argument)],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 60) -> str:
    """Wait for a process to end well; gives what it printed."""
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0
    return said


def kill_writers(opened: Callable[[], Storage], crashes: int) -> None:
    """Kill a writer again and again, at random moments: what it has told of is there, and at most one more.

    opened: gives a handle that knows only what is on the disk.
    """
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    acknowledged = 0
    with opened() as storage:
        kind, path = type(storage), storage.path
    for _ in range(crashes):
        writer = start(kind, path, ENDLESS, acknowledged)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        killer = threading.Timer(chance.uniform(0, 0.15), writer.kill)
        killer.start()
        said = [int(line) for line in writer.stdout.read().split("\n") if line.strip()]
        killer.join()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        with opened() as storage:
            names = set(state(storage))
            done = max(said, default=acknowledged - 1) + 1
            assert {f"c{n}" for n in range(done)} <= names <= {f"c{n}" for n in range(done + 1)}
            assert storage.check() == []
        acknowledged = done


def in_child(work: Callable[[], None]) -> None:
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
