"""Eight processes enroll, delete, touch and match on one store at once, of every kind that is shared."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from busy_process import SHARED
from forked import ForkedPython
from postgres_server import fresh_url
from redis_server import fresh_database, shared_server
from stores import Follower, forget_json_files, state

from voiceprint import Storage, open_storage
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex

pytestmark = pytest.mark.slow

PROCESSES = 8
SCRIPT = (Path(__file__).parent.parent / "busy_process.py").read_text()


@pytest.fixture(params=["json", "sqlite", "postgresql", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of the store that the processes share."""
    if request.param == "postgresql":
        return fresh_url()
    if request.param == "redis":
        return f"unix://{shared_server().path}?db={fresh_database()}"
    return f"{request.param}:{tmp_path / 'store'}"


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    """This process's own handle on it."""
    with open_storage(url) as storage:
        yield storage


def test_eight_busy_processes_lose_nothing_and_find_each_other(
    url: str, storage: Storage, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--rounds")
    follower = Follower()
    follower.catch_up(storage)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ForkedPython(SCRIPT, url, me, PROCESSES, rounds, stdin=subprocess.PIPE))
            for me in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        reports = [json.loads(process.communicate(timeout=240)[0]) for process in processes]
        assert [process.returncode for process in processes] == [0] * PROCESSES
    follower.assert_in_step(storage)
    forget_json_files()
    with open_storage(url) as reopened:
        everyone = set(state(reopened))
        own = {name for report in reports for name in report["own"]}
        told = {name for report in reports for name in report["told"]}
        assert everyone == own | told | {f"hello {me}" for me in range(PROCESSES)}
        for name in SHARED:
            caller = reopened.get(name)
            assert caller is not None
            assert len(caller.voiceprints) == 3
            for me, report in enumerate(reports):
                assert caller.metadata.get(f"process {me}") == report["told"].get(name), "a lost update"
        assert reopened.check() == []
        assert Gallery(reopened, SharedIndex("resemblyzer", 256)).check() == []
