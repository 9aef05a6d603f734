"""Requests with an `Idempotency-Key`: once, also repeated, at the same moment, or after a crash."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres_server import fresh_url
from pydantic import TypeAdapter
from serving import Running, serve
from sqlalchemy import insert, select, update
from sqlalchemy.schema import DropTable
from voices import SAMPLES, BandEncoder, by_cosine

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.errors import StorageUnavailableError
from voiceprint.server import ServerSettings, Service
from voiceprint.server.database import ServerDatabase
from voiceprint.server.database import idempotency as table
from voiceprint.server.idempotency import Idempotency, RequestKey
from voiceprint.server.problems import ProblemError
from voiceprint.server.worker_ids import has_ended, new_worker_id

FIRST, SECOND = ((SAMPLES / "amara" / name).read_bytes() for name in ("1.flac", "2.flac"))
KEY = RequestKey("key", "default", "a-1")
ADAPTER = TypeAdapter(dict[str, Any])


def _never(_: bool) -> dict[str, Any]:
    raise AssertionError("a request was carried out again")


def enroll(http: httpx.Client, key: str, caller: str = "ida", audio: bytes = FIRST) -> httpx.Response:
    """Enroll by a form, whose boundary differs from request to request."""
    return http.post(
        f"callers/{caller}/voiceprints",
        files={"audio": audio},
        data={"metadata": '{"account": "7"}'},
        headers={"Idempotency-Key": key},
    )


def test_a_repeated_enrollment_gets_the_first_answer(server: Running, http: httpx.Client) -> None:
    first, again = enroll(http, "e-1"), enroll(http, "e-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert first.json() == again.json()
    assert again.json()["metadata"] == {"account": "7"}
    with server.service.database.read() as connection:
        stored = connection.execute(select(table.c.answer)).scalars().all()
    assert stored
    assert not any("account" in (answer or "") for answer in stored)


def test_a_repeated_deletion_gets_the_first_receipt(http: httpx.Client) -> None:
    enroll(http, "d-0", "dan")
    headers = {"Idempotency-Key": "d-1"}
    first = http.delete("callers/dan", headers=headers)
    assert (first.status_code, first.json()["voiceprints"]) == (200, 1)
    assert http.delete("callers/dan", headers=headers).json() == first.json()
    assert http.delete("callers/dan").status_code == 404
    # The caller of a stored answer is gone: the answer comes without metadata.
    assert enroll(http, "d-0", "dan").json()["metadata"] is None


@pytest.mark.parametrize("other", [{"caller": "ivo"}, {"audio": SECOND}])
def test_a_key_of_another_request_is_refused(http: httpx.Client, other: dict[str, Any]) -> None:
    enroll(http, "o-1").raise_for_status()
    answer = enroll(http, "o-1", **other)
    assert (answer.status_code, answer.json()["error"]) == (422, "IdempotencyKeyReusedError")


def test_keys_of_different_holders_are_apart(server: Running, http: httpx.Client) -> None:
    body = {"groups": ["x"]}
    enroll(http, "h-0")
    for holder in {}, server.headers("admin"):
        answer = http.post("callers/ida/groups", json=body, headers={"Idempotency-Key": "h-1", **holder})
        assert "idempotency-replayed" not in answer.headers


def test_an_error_is_tried_again(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "t-1"}
    assert http.post("callers/late/groups", json={"groups": ["x"]}, headers=headers).status_code == 404
    enroll(http, "t-0", "late").raise_for_status()
    assert http.post("callers/late/groups", json={"groups": ["x"]}, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_key_that_is_none_is_refused(http: httpx.Client, key: str) -> None:
    assert http.delete("callers/nobody", headers={"Idempotency-Key": key}).status_code == 422


def test_of_many_at_the_same_moment_one_is_carried_out(server: Running, http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: enroll(http, "m-1", "mia"), range(8))]
    done = [answer for answer in answers if answer.status_code == 201]
    assert done
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert sum("idempotency-replayed" not in answer.headers for answer in done) == 1
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 409)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerDatabase]:
    """A database of its own."""
    database = ServerDatabase(str(tmp_path / "state.db") if request.param == "sqlite" else fresh_url())
    yield database
    database.close()


def test_a_request_in_progress_is_refused_until_its_worker_is_dead(database: ServerDatabase) -> None:
    first, second = (Idempotency(database, name) for name in ("one", "two"))
    begun, go = threading.Event(), threading.Event()

    def work(_: bool) -> dict[str, Any]:
        begun.set()
        assert go.wait(60)
        return {"n": 1}

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first.once, KEY, b"digest", work, ADAPTER)
        assert begun.wait(60)
        _let_pass(database, 60)
        first.beat()
        with pytest.raises(ProblemError, match="in progress"):
            second.once(KEY, b"digest", _never, ADAPTER)
        _let_pass(database, 60)  # and no sign of life, as after a kill
        assert second.once(KEY, b"digest", lambda _: {"n": 2}, ADAPTER) == ({"n": 2}, False)
        go.set()
        running.result(60)
    assert first.once(KEY, b"digest", _never, ADAPTER)[1]


ANOTHER_WORKER = """
from voiceprint.server.worker_ids import new_worker_id
print(new_worker_id(), flush=True)
input()
"""


def test_a_request_of_a_process_that_has_ended_is_taken_over_at_once(database: ServerDatabase) -> None:
    command = [sys.executable, "-c", ANOTHER_WORKER]
    own = new_worker_id()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = process.stdout.readline().strip()
        values = {"created": time.time(), "beat": time.time(), "worker": worker, "digest": b"digest"}
        with database.begin() as connection:
            connection.execute(
                insert(table).values(
                    key_id=KEY.key_id, gallery=KEY.gallery, idempotency_key=KEY.key, status=None, **values
                )
            )
        with pytest.raises(ProblemError, match="in progress"):
            Idempotency(database, own).once(KEY, b"digest", _never, ADAPTER)
        process.kill()
    answer, is_old = Idempotency(database, own).once(KEY, b"digest", lambda begun: {"begun": begun}, ADAPTER)
    assert (answer, is_old) == ({"begun": True}, False)


def test_a_worker_is_known_to_have_ended_only_on_this_machine() -> None:
    own = new_worker_id()
    assert not has_ended(own)
    machine, pid, start, token = own.split("-")
    assert has_ended(f"{machine}-{pid}-{int(start) + 1}-{token}")  # the process id was given again
    for unknown in (
        None,
        "",
        "one",
        f"00000000-{pid}-1-{token}",
        f"ffffffff-{pid}-1-{token}",
        f"{machine}-x-y",
    ):
        assert not has_ended(unknown)


def test_a_deletion_whose_receipt_was_lost_is_proven_to_its_repetition(
    server: Running, http: httpx.Client
) -> None:
    enroll(http, "l-0", "lea")
    assert http.delete("callers/lea", headers={"Idempotency-Key": "l-1"}).json()["voiceprints"] == 1
    with server.service.database.begin() as connection:  # as where the worker was killed before its answer
        lost = update(table).where(table.c.idempotency_key == "l-1")
        connection.execute(lost.values(status=None, answer=None, beat=0.0))
    again = http.delete("callers/lea", headers={"Idempotency-Key": "l-1"})
    assert again.status_code == 200
    assert again.json()["complete"]
    assert again.json()["voiceprints"] == 0
    assert http.delete("callers/lea", headers={"Idempotency-Key": "l-2"}).status_code == 404


def _let_pass(database: ServerDatabase, seconds: float) -> None:
    with database.begin() as connection:
        connection.execute(update(table).values(beat=table.c.beat - seconds))


def test_of_many_workers_at_the_same_moment_one_carries_out_a_request(database: ServerDatabase) -> None:
    done: list[int] = []

    def send(number: int) -> bool:
        def work(_: bool) -> dict[str, Any]:
            done.append(number)
            return {"n": number}

        try:
            Idempotency(database, f"worker-{number}").once(KEY, b"digest", work, ADAPTER)
        except ProblemError as error:
            return error.status == 409
        return True

    with ThreadPoolExecutor(8) as pool:
        answered = [*pool.map(send, range(8))]
    assert len(done) == 1
    assert all(answered)


def test_an_answer_is_kept_for_a_day(database: ServerDatabase) -> None:
    requests = Idempotency(database, "one")
    requests.once(KEY, b"digest", lambda _: {"n": 1}, ADAPTER)
    assert Idempotency(database, "two").once(KEY, b"digest", _never, ADAPTER) == ({"n": 1}, True)
    with database.begin() as connection:
        connection.execute(update(table).values(created=time.time() - 24 * 3600 - 1))
    assert requests.once(KEY, b"other", lambda _: {"n": 3}, ADAPTER) == ({"n": 3}, False)


def test_a_change_whose_answer_cannot_be_stored_is_answered(database: ServerDatabase) -> None:
    requests = Idempotency(database, "one")

    def work(_: bool) -> dict[str, Any]:
        with database.begin() as connection:
            connection.execute(DropTable(table))
        return {"n": 1}

    assert requests.once(KEY, b"digest", work, ADAPTER) == ({"n": 1}, False)

    def fails(_: bool) -> dict[str, Any]:
        raise ValueError

    with pytest.raises(StorageUnavailableError):  # before the work: nothing is done
        requests.once(KEY, b"digest", fails, ADAPTER)


class WaitingEncoder(BandEncoder):
    """An encoder that waits for `go`."""

    go = threading.Event()

    def embed(self, audio: Any) -> Any:
        """As `Encoder.embed`."""
        assert self.go.wait(60)
        return super().embed(audio)


def test_a_request_that_took_too_long_is_answered_to_its_repetition(tmp_path: Path) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=WaitingEncoder(), config=by_cosine())
    options = ServerSettings(state=str(tmp_path / "state.db"), timeout_s=0.2, threads=1, queue=8)
    with serve(Service({"default": recognizer}, options)) as running:
        url = f"{running.url}/v1/galleries/default/callers/ida/voiceprints"
        headers = {**running.headers("admin"), "Idempotency-Key": "slow-1"}

        def send(**more: str) -> httpx.Response:
            return httpx.post(url, content=FIRST, headers={**headers, **more}, timeout=60)

        late = send()
        assert (late.status_code, late.json()["error"]) == (504, "TimeoutError")
        # Another one that waits for the only thread is not begun, and can be sent again at once.
        waits = send(**{"Idempotency-Key": "slow-2"})
        assert (waits.status_code, waits.json()["error"]) == (503, "BusyError")
        WaitingEncoder.go.set()
        for _ in range(300):
            again = send()
            if again.status_code == 201:
                break
            assert again.status_code in (409, 503, 504)
            time.sleep(0.05)
        assert again.headers["idempotency-replayed"] == "true"
        assert recognizer.storage.count() == 1
