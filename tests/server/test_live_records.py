"""The records of calls and the deliveries of webhooks in both databases, as several workers share them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import fresh_url
from pydantic import SecretStr
from sqlalchemy import select, update

from voiceprint.server.database import ServerDatabase, calls, deliveries
from voiceprint.server.live.records import CallRecord, CallRecords
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.live.webhooks import WebhookSender, delivery_of
from voiceprint.server.problems import ProblemError


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerDatabase]:
    place = fresh_url() if request.param == "postgresql" else str(tmp_path / "state.db")
    opened = ServerDatabase(place)
    yield opened
    opened.close()


def record(call_id: str, state: str = "live", created: float | None = None) -> CallRecord:
    return CallRecord(call_id, "default", state, None, time.time() if created is None else created, {"n": 1})


def test_an_announced_call_is_claimed_by_one_worker(database: ServerDatabase) -> None:
    one, other = CallRecords(database, "1-a"), CallRecords(database, "2-b")
    one.announce("default", "c", {"options": {}})
    with pytest.raises(ProblemError, match="announce it with another"):
        other.announce("default", "c", {})
    assert other.claim("another", "c") is None
    claimed = other.claim(None, "c")
    assert claimed is not None
    assert (claimed.gallery, claimed.details) == ("default", {"options": {}})
    other.save([record("c")])
    with pytest.raises(ProblemError, match="lasts already"):
        one.claim("default", "c")
    found = one.get(["default"], "c")
    assert found is not None
    assert (found.state, found.worker) == ("live", "2-b")
    assert one.get(["another"], "c") is None


def test_one_of_many_workers_claims_a_call(database: ServerDatabase) -> None:
    CallRecords(database, "0").announce("default", "c", {"options": {}})
    claimed, refused = [], []

    def claim(number: int) -> None:
        try:
            found = CallRecords(database, f"{number}").claim("default", "c")
        except ProblemError:
            refused.append(number)
        else:
            claimed.append(found)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(claimed), len(refused)) == (1, 7)
    assert claimed[0] is not None


def test_a_running_answer_does_not_undo_a_hang_up(database: ServerDatabase) -> None:
    one, other = CallRecords(database, "1-a"), CallRecords(database, "2-b")
    one.save([record("c")])
    other.hang_up("default", "c")
    one.save([record("c")])
    assert (one.hung_up(), other.hung_up()) == ([("default", "c")], [])
    assert one.beat() == [("default", "c")]
    one.save([record("c", "ended")])
    assert one.hung_up() == []
    other.announce("default", "d", {})
    other.hang_up("default", "d")
    assert other.get(["default"], "d") is None


def test_pages_of_calls_are_complete_where_times_are_equal(database: ServerDatabase) -> None:
    records = CallRecords(database, "1-a")
    records.save([record(f"c{number}", "ended", created=float(number // 3)) for number in range(10)])
    found: list[str] = []
    before = None
    while page := records.page("default", None, 4, before):
        found += [one.call_id for one in page]
        before = page[-1].created, page[-1].call_id
    assert found == [f"c{number}" for number in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]
    assert records.page("default", "live", 4) == []


def test_a_delivery_is_claimed_once_until_its_worker_is_gone(database: ServerDatabase) -> None:
    message = delivery_of("default", "call.ended", {"call_id": "c", "answer": None})
    CallRecords(database, "1-a").save([record("c", "ended")], [message])
    settings = LiveSettings(
        webhook_urls={"default": "http://127.0.0.1:9/none"},
        webhook_secrets={"default": SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")},
    )
    outcomes: list[str] = []

    def sender(worker: str) -> Any:
        return WebhookSender(
            database, settings, worker, lambda _, data: data, lambda _, one: outcomes.append(one)
        )

    one, other = sender("1-a"), sender("2-b")
    assert [claimed[0].delivery_id for claimed in one._claim()] == [message.delivery_id]
    assert other._claim() == []
    with database.begin() as connection:
        connection.execute(update(deliveries).values(beat=time.time() - 100))
    ((taken, attempts),) = other._claim()
    assert (taken, attempts) == (message, 0)
    one._settle(message, 1, None)  # too late: the delivery is the other worker's
    with database.read() as connection:
        assert connection.execute(select(deliveries.c.worker)).scalars().all() == ["2-b"]
    other._settle(message, 1, "status 500")
    with database.read() as connection:
        row = connection.execute(select(deliveries)).one()
    assert (row.attempts, row.worker) == (1, None)
    assert row.due > time.time() + 1
    with database.begin() as connection:
        connection.execute(update(deliveries).values(worker="2-b"))
    other._settle(message, 90, "ConnectError")  # after three days of failures
    with database.read() as connection:
        assert connection.execute(select(deliveries)).first() is None
    assert outcomes[:3] == ["delivered", "retried", "dropped"]


def test_a_worker_without_webhooks_sends_nothing(database: ServerDatabase) -> None:
    sender = WebhookSender(database, LiveSettings(), "1-a", lambda _, data: data, lambda *_: None)
    asyncio.run(asyncio.wait_for(sender.run(), 5))
    with database.read() as connection:
        assert connection.execute(select(calls)).first() is None
