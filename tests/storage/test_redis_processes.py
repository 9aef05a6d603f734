"""Several processes on one Redis store: no lost update, no torn record, no loss when one is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from processes import finish, kill_writers, start
from redis_server import fresh_database, shared_server
from stores import Follower, state, voiceprint

from voiceprint import RedisStorage

pytestmark = pytest.mark.slow

WORKER = """
me = int(argument)
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


@pytest.fixture
def url() -> str:
    return shared_server().url(fresh_database())


@pytest.fixture
def storage(url: str) -> Iterator[RedisStorage]:
    with RedisStorage.from_url(url) as opened:
        yield opened


def test_eight_processes_lose_nothing_and_keep_the_limit(storage: RedisStorage, url: str) -> None:
    storage.save(voiceprint("counter"))
    follower = Follower()
    workers = [start(url, WORKER, me) for me in range(8)]
    while any(worker.poll() is None for worker in workers):
        follower.catch_up(storage)
    for worker in workers:
        finish(worker)
    follower.assert_in_step(storage)
    assert follower.rebuilds == 1
    kept = {f"{me}-{n}" for me in range(8) for n in range(1, 12, 2) if n % 4 != 3}
    assert set(state(storage)) == kept | {"shared", "counter"}
    assert len(storage.get("counter").metadata) == 96
    assert len(storage.get("shared").voiceprints) == 3
    assert storage.check() == []


def test_every_acknowledged_save_survives_kill_9(request: pytest.FixtureRequest) -> None:
    kill_writers(lambda: shared_server().url(fresh_database()), request.config.getoption("--crashes"))
