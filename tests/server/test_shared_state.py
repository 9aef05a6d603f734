"""Decisions of several nodes at the same moment, over the shared database, in SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from postgres_server import fresh_url
from pydantic import TypeAdapter
from sqlalchemy import select, update

from voiceprint.server.database import ServerDatabase, gallery_settings
from voiceprint.server.database import idempotency as requests
from voiceprint.server.database import jobs as jobs_table
from voiceprint.server.idempotency import Idempotency, RequestKey
from voiceprint.server.jobs import Jobs
from voiceprint.server.overrides import Overrides
from voiceprint.server.problems import ProblemError

NODES = 8
ADAPTER = TypeAdapter(dict[str, Any])


@pytest.fixture(params=["sqlite", "postgresql"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[ServerDatabase]]:
    """The same database, as each node has opened it."""
    place = fresh_url() if request.param == "postgresql" else str(tmp_path / "state.db")
    opened = [ServerDatabase(place) for _ in range(NODES)]
    for database in opened:
        database.check()
    yield opened
    for database in opened:
        database.close()


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """The results of all, or their errors of the service."""
    barrier = threading.Barrier(len(works))

    def work(one: Callable[[], object]) -> object:
        barrier.wait(60)
        try:
            return one()
        except ProblemError as error:
            return error.error

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(work, works))


def test_of_nodes_that_are_asked_for_the_same_job_at_once_one_queues_it(
    nodes: list[ServerDatabase], tmp_path: Path
) -> None:
    (tmp_path / "default").mkdir()
    for turn in range(5):
        (tmp_path / "default" / f"{turn}.csv").touch()
        arguments = {"manifest": f"{turn}.csv"}

        def queue(node: ServerDatabase, arguments: dict[str, str] = arguments) -> str:
            jobs = Jobs(node, tmp_path, "worker", ["default"], lambda _: pytest.fail("it was carried out"))
            return jobs.create("default", "enroll", arguments, "actor").state

        outcomes = at_once([lambda node=node: queue(node) for node in nodes])  # type: ignore[misc]
        assert sorted(map(str, outcomes)) == ["JobInProgressError"] * (NODES - 1) + ["queued"]
    with nodes[0].read() as connection:
        assert len(connection.execute(select(jobs_table)).all()) == 5


def test_of_targets_that_nodes_set_at_once_one_is_in_effect_at_all(nodes: list[ServerDatabase]) -> None:
    targets = [(number + 1) / 100 for number in range(NODES)]
    for _ in range(5):
        at_once(
            [
                lambda node=node, target=target: Overrides(node).set_target("default", target)  # type: ignore[misc]
                for node, target in zip(nodes, targets, strict=True)
            ]
        )
        found = {Overrides(node).target("default") for node in nodes}
        assert len(found) == 1
        assert found < {*targets}
        Overrides(nodes[0]).set_target("default", None)
    with nodes[0].read() as connection:
        assert connection.execute(select(gallery_settings)).all() == []


def test_a_node_that_stood_still_does_not_release_a_request_that_another_has_taken_over(
    nodes: list[ServerDatabase],
) -> None:
    key = RequestKey("key", "default", "a-1")
    one, other = Idempotency(nodes[0], "1-a"), Idempotency(nodes[1], "2-b")

    def fail_late(_: bool) -> dict[str, Any]:
        with nodes[0].begin() as connection:  # as if it had stood still
            connection.execute(update(requests).values(beat=0.0))

        def meanwhile(was_begun: bool) -> dict[str, Any]:
            assert was_begun
            started.set()
            assert failed.wait(60)
            return {"by": "other"}

        thread = threads.submit(other.once, key, b"digest", meanwhile, ADAPTER)
        assert started.wait(60)
        answers.append(thread)
        raise ProblemError(503, "FailedError", "It failed.")

    started, failed = threading.Event(), threading.Event()
    answers: list[Any] = []
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ProblemError, match="It failed"):
            one.once(key, b"digest", fail_late, ADAPTER)
        with pytest.raises(ProblemError, match="is in progress"):
            one.once(key, b"digest", lambda _: pytest.fail("it was carried out twice"), ADAPTER)
        failed.set()
        assert answers[0].result(60) == ({"by": "other"}, False)
    assert one.once(key, b"digest", lambda _: pytest.fail("again"), ADAPTER) == ({"by": "other"}, True)
