"""Several processes on one database: no lost update, no lock told, and no loss when one is killed."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path

import pytest
from processes import finish, fork_while_threads_write, in_child, kill_writers, start
from stores import Follower, state, voiceprint

from voiceprint import SQLiteStorage

pytestmark = pytest.mark.slow

PROCESSES = 8
ROUNDS = 20
# Prints how many changes it made.
WORKER = f"""
me, changes, follower, chance = int(argument), 0, Follower(), random.Random(int(argument))
for n in range({ROUNDS}):
    storage.save(voiceprint(f"shared {{n % 3}}", 1000 * me + n, metadata={{f"{{me}} {{n}}": n}}))
    storage.save(voiceprint(f"own {{me}}", 1000 * me + n))
    changes += 2
    assert storage.touch(f"own {{me}}", f"2100-01-01T00:00:{{n:02}}Z")
    if n % 7 == 6:
        changes += storage.delete(f"own {{me}}") > 0
        changes += storage.delete(f"gone {{chance.randrange(3)}}") > 0
    storage.save(voiceprint(f"gone {{chance.randrange(3)}}", n))
    changes += 1
    follower.catch_up(storage)
    for caller in storage.callers():
        assert len(caller.voiceprints) <= 3
print(changes)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voiceprints.db"


def test_eight_busy_processes_lose_nothing_and_keep_the_limit(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        follower = Follower()
        follower.catch_up(storage)
        workers = [start(f"sqlite:{path}", WORKER, n) for n in range(PROCESSES)]
        while any(worker.poll() is None for worker in workers):
            follower.catch_up(storage)
        made = sum(int(finish(worker)) for worker in workers)
        follower.assert_in_step(storage)
        assert follower.rebuilds == 1
        assert storage.revision() == made
        kept: set[str] = set()
        for n in range(3):
            caller = storage.get(f"shared {n}")
            assert len(caller.voiceprints) == 3
            kept |= set(caller.metadata)
        assert kept == {f"{me} {n}" for me in range(PROCESSES) for n in range(ROUNDS)}
        assert max(len(caller["voiceprints"]) for caller in state(storage).values()) == 3
        assert storage.check() == []


def test_every_acknowledged_save_survives_kill_9(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    number = count()
    kill_writers(lambda: f"sqlite:{tmp_path / f'{next(number)}.db'}", request.config.getoption("--crashes"))


def test_a_process_killed_while_it_creates_the_database_leaves_none_or_a_whole_one(
    tmp_path: Path,
) -> None:
    for n in range(10):
        path = tmp_path / f"{n}.db"
        opener = start(f"sqlite:{path}", "print('made', flush=True); storage.save(voiceprint('a'))")
        killer = threading.Timer(0.02 * n, opener.kill)
        killer.start()
        opener.stdout.read()
        killer.join()
        opener.wait()
        opener.stdout.close()
        with SQLiteStorage(path) as storage:
            assert storage.check() == []
            assert set(state(storage)) <= {"a"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_other_threads_write_can_go_on(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        fork_while_threads_write(storage, threads=2)


def test_no_connection_crosses_a_fork(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint())
        database = storage._database
        held = database._engine
        in_child(lambda: _assert_anew(storage, held))
        assert database._engine is held
        assert storage.count() == 1


def _assert_anew(storage: SQLiteStorage, held: object) -> None:
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert storage.db_path not in links
    assert storage.count() == 1
    assert storage._database._engine is not held


def test_the_first_savers_of_many_processes_make_one_database(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "voiceprints.db"
    save = """
assert not storage.exists() or storage.count()
storage.save(voiceprint(f"c{argument}", int(argument)))
print(storage.identity())
"""
    workers = [start(f"sqlite:{path}", save, n) for n in range(PROCESSES)]
    assert len({finish(worker) for worker in workers}) == 1
    with SQLiteStorage(path) as storage:
        assert set(state(storage)) == {f"c{n}" for n in range(PROCESSES)}
        assert sorted(print_.id for print_ in storage.get_all()) == list(range(1, PROCESSES + 1))
        assert storage.check() == []
