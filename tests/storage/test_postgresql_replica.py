"""Reads from a streaming replica: never older than the primary, which answers where the replica cannot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import QUICK, PostgresServer
from processes import in_child
from stores import state, unit, voiceprint

from voiceprint import (
    ConfigurationError,
    ExternalEncoder,
    OpusAgentVoiceRecognizer,
    VoiceFingerprintConfig,
    open_storage,
)
from voiceprint.storage import SQLStorage
from voiceprint.storage.sql import replica as replica_module
from voiceprint.storage.sql.replica import ReadReplica

DATABASES = iter(range(1_000))


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    server = PostgresServer(*QUICK)
    yield server
    server.end()


@pytest.fixture(scope="module")
def replica(primary: PostgresServer) -> Iterator[PostgresServer]:
    server = PostgresServer(*QUICK, copy_of=primary)
    yield server
    server.end()


@pytest.fixture
def database(primary: PostgresServer, replica: PostgresServer) -> str:
    """A new database on both servers."""
    name = f"calls{next(DATABASES)}"
    primary.sql(f"CREATE DATABASE {name}")
    catch_up(primary, replica)
    return name


@pytest.fixture
def storage(primary: PostgresServer, replica: PostgresServer, database: str) -> Iterator[SQLStorage]:
    with SQLStorage(primary.url(database), read_url=replica.url(database)) as opened:
        opened.save_many(voiceprint(f"c{n}", n, metadata={"n": n}) for n in range(8))
        catch_up(primary, replica)
        yield opened


@pytest.fixture
def paused(storage: SQLStorage, replica: PostgresServer) -> Iterator[SQLStorage]:
    """The store, whose replica is at its present state until the end of the test."""
    assert answers(storage)
    replica.sql("SELECT pg_wal_replay_pause()")
    while replica.sql("SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
        pass
    yield storage
    replica.sql("SELECT pg_wal_replay_resume()")


def catch_up(primary: PostgresServer, replica: PostgresServer) -> None:
    """Until the replica has all that was committed before this call."""
    ((position,),) = primary.sql("SELECT pg_current_wal_lsn()::text")
    while replica.sql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [(True,)]:
        pass


def replica_of(storage: SQLStorage) -> ReadReplica:
    assert storage._database.replica is not None
    return storage._database.replica


def answers(storage: SQLStorage) -> bool:
    """Whether the replica answers a read."""
    before = replica_of(storage).answered
    storage.count()
    return replica_of(storage).answered > before


def test_the_replica_answers_all_reads_of_many_records(
    storage: SQLStorage, primary: PostgresServer, database: str
) -> None:
    before = replica_of(storage).answered
    with SQLStorage(primary.url(database)) as direct:
        assert state(storage) == state(direct)
        assert storage.find_callers({"n": 1}) == direct.find_callers({"n": 1})
        assert storage.coverage() == direct.coverage()
    assert replica_of(storage).answered > before + 10


def test_a_search_reads_its_callers_from_the_replica(
    primary: PostgresServer, replica: PostgresServer, database: str, tmp_path: Path
) -> None:
    config = VoiceFingerprintConfig(
        storage_backend="postgresql",
        database_url=primary.url(database),
        storage_read_url=replica.url(database),
        index_path=str(tmp_path / "index"),
    )
    encoder = ExternalEncoder("made-up", 256)
    with OpusAgentVoiceRecognizer(config=config, encoder=encoder) as recognizer:
        storage = recognizer.storage
        assert isinstance(storage, SQLStorage)
        recognizer.enroll_embeddings([f"c{n}" for n in range(4)], [unit(n) for n in range(4)])
        catch_up(primary, replica)
        assert recognizer.identify(embedding=unit(2))[0].caller_id == "c2"
        before = replica_of(storage).answered
        assert recognizer.identify(embedding=unit(2))[0].caller_id == "c2"
        assert replica_of(storage).answered > before
        recognizer.delete_caller("c2")
        assert "c2" not in [match.caller_id for match in recognizer.identify(embedding=unit(2))]


def test_what_another_process_changes_is_seen_at_once(
    storage: SQLStorage, primary: PostgresServer, replica: PostgresServer, database: str
) -> None:
    with SQLStorage(primary.url(database)) as other:
        for n in range(100):
            saved = other.save(voiceprint("new", n))
            assert saved.id is not None
            assert list(storage.get_many([saved.id])) == [saved.id]
            assert storage.count() == 9
            other.update_metadata("new", {"n": n})
            assert storage.get_callers(["new"])["new"].metadata["n"] == n
            other.delete("new")
            assert storage.callers_of([saved.id]) == []
            assert storage.get_callers(["new"]) == {}
            if n % 10 == 0:
                catch_up(primary, replica)
                assert answers(storage)


def test_while_replay_is_paused_the_primary_answers(
    paused: SQLStorage, primary: PostgresServer, replica: PostgresServer, database: str
) -> None:
    with SQLStorage(primary.url(database)) as other:
        other.delete("c3")
        assert paused.callers_of([4]) == []
        other.opt_out("c4")
        assert paused.get_callers(["c4"])["c4"].voiceprints == ()
        assert not answers(paused)
        assert state(paused) == state(other)
    replica.sql("SELECT pg_wal_replay_resume()")
    catch_up(primary, replica)
    assert answers(paused)


def test_a_replica_without_the_latest_touches_is_left_after_a_while(
    paused: SQLStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "LAG_S", 0.0)
    assert answers(paused)
    paused.touch("c1", "2100-01-01T00:00:00Z")
    deadline = time.monotonic() + 60  # the server writes the commit of a touch within 0.6 s
    while not (paused.get_callers(["c1"])["c1"].last_seen or "").startswith("2100"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dead_replica_is_logged_once_and_used_again_once_it_answers(
    storage: SQLStorage,
    primary: PostgresServer,
    replica: PostgresServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica_module, "RETRY_S", 0.0)
    assert answers(storage)
    replica.stop()
    with caplog.at_level(logging.WARNING, logger="voiceprint"):
        for n in range(5):
            storage.save(voiceprint("new", n))
            assert (storage.count(), len(storage.callers_of([1, 2]))) == (9 + min(n, 2), 2)
    assert len(caplog.records) == 1
    assert "Reads go to the primary" in caplog.text
    replica.start()
    catch_up(primary, replica)
    assert answers(storage)
    assert "answers again" in caplog.text


def test_threads_that_read_while_the_replica_dies_all_get_their_answers(
    storage: SQLStorage, replica: PostgresServer
) -> None:
    wrong: list[object] = []
    end = threading.Event()

    def read() -> None:
        while not end.is_set():
            found = sorted(caller.caller_id for caller in storage.callers_of(range(1, 9)))
            if found != [f"c{n}" for n in range(8)]:
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    while replica_of(storage).answered < 50:
        pass
    replica.stop()
    for _ in range(50):
        storage.count()
    end.set()
    for thread in threads:
        thread.join()
    replica.start()
    assert wrong == []


def test_a_replica_of_another_store_is_refused(primary: PostgresServer, database: str) -> None:
    with PostgresServerOf(database) as other:
        for server in (primary, other):
            with SQLStorage(server.url(database)) as storage:
                storage.save(voiceprint())
        with pytest.raises(ConfigurationError, match="holds another store"):
            open_storage(primary.url(database), read_url=other.url(database))


class PostgresServerOf(PostgresServer):
    """A server of its own with one more database."""

    def __init__(self, database: str) -> None:
        super().__init__(*QUICK)
        self.sql(f"CREATE DATABASE {database}")

    def __enter__(self) -> PostgresServerOf:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def test_a_server_that_is_no_replica_answers_no_read(
    storage: SQLStorage, primary: PostgresServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = primary.url(database)
    with SQLStorage(url, read_url=url) as alone:
        assert "is no replica" in caplog.text
        assert not answers(alone)
        assert alone.count() == 8


def test_no_connection_to_the_replica_crosses_a_fork(storage: SQLStorage) -> None:
    assert answers(storage)
    engine = replica_of(storage)._engine
    in_child(lambda: _assert_anew(storage, engine))
    assert replica_of(storage)._engine is engine
    assert answers(storage)


def _assert_anew(storage: SQLStorage, engine: object) -> None:
    assert answers(storage)
    assert replica_of(storage)._engine is not engine


@pytest.mark.parametrize("url", ["sqlite:voiceprints.db", "memory:"])
def test_a_store_of_another_kind_has_no_replica(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not on PostgreSQL"):
        open_storage(url, read_url="postgresql://u:hunter2@host/d")


def test_a_read_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"not the URL of a PostgreSQL database"):
        SQLStorage("postgresql://host/d", read_url="sqlite:voiceprints.db")
