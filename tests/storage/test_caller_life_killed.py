"""A process that is killed amid the changes of a caller's life leaves each change whole, or not begun."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import postgres_server
import pytest
from caller_life import Replay, content
from processes import killed, opened_anew, start
from redis_server import fresh_database, shared_server
from stores import Follower, state

# Says each number once its change has returned.
CHANGING = """
from caller_life import change
print("ready", flush=True)
n = int(argument)
while True:
    change(storage, n)
    print(n, flush=True)
    n += 1
"""

URLS: dict[str, Callable[[Path], str]] = {
    "json": lambda folder: f"json:{folder / 'voiceprints.json'}",
    "sqlite": lambda folder: f"sqlite:///{folder / 'voiceprints.db'}",
    "postgresql": lambda _: postgres_server.fresh_url(),
    "redis": lambda _: f"{shared_server().url(fresh_database())}",
}


def kill_changing(url: str, crashes: int) -> None:
    """Kill a process again and again, at random moments: all changes that it printed are there."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, replay, done = random.Random(seed), Replay(), 0
    for _ in range(crashes):
        done = max(killed(start(url, CHANGING, done), chance), default=done - 1) + 1
        with opened_anew(url) as storage:
            assert storage.check() == []
            state(storage)
            found = content(storage)
            assert found in (replay.after(done), replay.after(done + 1))
            if found != replay.after(done):
                done += 1
            Follower().assert_in_step(storage)


@pytest.mark.parametrize("kind", list(URLS))
def test_a_killed_process_leaves_every_change_of_a_caller_whole(kind: str, tmp_path: Path) -> None:
    kill_changing(URLS[kind](tmp_path), crashes=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(URLS))
def test_many_killed_processes_leave_every_change_of_a_caller_whole(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kill_changing(URLS[kind](tmp_path), request.config.getoption("--crashes"))
