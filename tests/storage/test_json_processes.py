"""Several processes on one file: no lost update, no torn read, and no loss when one is killed."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from processes import PRELUDE, finish, fork_while_threads_write, in_child, kill_writers, start
from stores import Follower, forget_json_files, state, voiceprint

from voiceprint import JSONStorage

pytestmark = pytest.mark.slow

WRITER = """
me = argument
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


def test_four_writing_processes_lose_nothing_and_keep_the_limit(path: Path) -> None:
    follower, storage = Follower(), JSONStorage(path)
    writers = [start(f"json:{path}", WRITER, n) for n in range(4)]
    while any(writer.poll() is None for writer in writers):
        shared = storage.get("shared")
        assert shared is None or len(shared.voiceprints) <= 3
        follower.catch_up(storage)
    for writer in writers:
        finish(writer)
    follower.assert_in_step(storage)
    forget_json_files()
    storage = JSONStorage(path)
    assert set(state(storage)) == {f"{me}-{n}" for me in range(4) for n in range(1, 25, 2)} | {"shared"}
    assert storage.revision() == 100
    assert len(storage.get("shared").voiceprints) == 3
    assert storage.check() == []


def test_a_reading_process_sees_only_committed_states(path: Path) -> None:
    reader = start(f"json:{path}", READER)
    assert reader.stdout is not None
    reader.stdout.readline()
    storage = JSONStorage(path)
    for n in range(40):
        storage.save_many([voiceprint(name, n, metadata={"n": n}) for name in "abc"])
    storage.save(voiceprint("stop"))
    finish(reader)


def test_every_acknowledged_save_survives_kill_9(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    number = count()
    kill_writers(lambda: f"json:{tmp_path / f'{next(number)}.json'}", request.config.getoption("--crashes"))
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_other_threads_write_can_go_on(path: Path) -> None:
    fork_while_threads_write(JSONStorage(path), threads=1)


def test_a_forked_child_follows_its_parent_without_rebuilding(path: Path) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint())

    def work() -> None:
        follower = Follower()
        follower.assert_in_step(storage)
        assert storage.revision() == 1
        for n in range(3):
            script = PRELUDE + f"storage.save(voiceprint('b', {n}))"
            subprocess.run([sys.executable, "-c", script, f"json:{path}", ""], check=True)
            follower.assert_in_step(storage)
        assert follower.rebuilds == 1

    in_child(work)
