"""PostgreSQL that fails, and clients that are killed: no save is lost, and errors say what is known.

On real servers, which are stopped without a last word, started again, and replaced by their replica.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from forked import ForkedPython
from postgres_server import PostgresServer, fresh_url, shared_server, url_of
from processes import finish, fork_while_threads_write, in_child, kill_writers, start
from stores import Follower, state, voiceprint

from voiceprint import StorageUnavailableError, open_storage
from voiceprint.storage import SQLStorage

pytestmark = pytest.mark.slow

# Saves callers of its own until it is told to end, and says each once its save has returned. Where the
# server fails it goes on as the error says: it looks before it repeats what may have been done.
WRITER = """
import select, time
from voiceprint import StorageUnavailableError
n = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    name = f"{argument}-{n}"
    try:
        if storage.get(name) is None:
            storage.save(voiceprint(name, n))
        storage.touch(name)
    except StorageUnavailableError as error:
        assert "Nothing was changed" in str(error) or "may have been made" in str(error), error
        time.sleep(0.01)
        continue
    print(name, flush=True)
    n += 1
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of this test's own, which it may stop; what it has committed outlives the machine."""
    started = PostgresServer()
    yield started
    started.end()


class Writers:
    """Processes that write, and what they have said so far of what was acknowledged."""

    def __init__(self, url: str, count: int) -> None:
        self.said: list[str] = []
        self._processes = [start(url, WRITER, me, stdin=subprocess.PIPE) for me in range(count)]
        self._readers = [threading.Thread(target=self._read, args=(one,)) for one in self._processes]
        for reader in self._readers:
            reader.start()
        # Each has opened the store: what follows may stop the server.
        while len({name.partition("-")[0] for name in list(self.said)}) < count:
            self._assert_running()

    def _read(self, process: ForkedPython) -> None:
        for line in process.stdout:
            self.said.append(line.strip())

    def go_on(self, saves: int) -> None:
        """Until so many more saves are acknowledged."""
        goal = len(self.said) + saves
        while len(self.said) < goal:
            self._assert_running()

    def _assert_running(self) -> None:
        assert [process.poll() for process in self._processes] == [None] * len(self._processes)
        time.sleep(0.001)

    def end(self) -> set[str]:
        """All callers whose saves were acknowledged."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("end\n")
            process.stdin.flush()
        for reader in self._readers:
            reader.join()
        for process in self._processes:
            finish(process)
        return set(self.said)


def assert_all_there(url: str, acknowledged: set[str], writers: int) -> None:
    with open_storage(url) as storage:
        callers = state(storage)
        assert acknowledged <= set(callers)
        # Each writer may have ended between a save and its word of it.
        assert len(set(callers) - acknowledged) <= writers
        assert {len(caller["voiceprints"]) for caller in callers.values()} == {1}
        assert storage.check() == []


def test_every_acknowledged_save_survives_kill_9_of_the_client(request: pytest.FixtureRequest) -> None:
    kill_writers(fresh_url, request.config.getoption("--crashes"))


def test_no_acknowledged_save_is_lost_when_the_server_stops_at_once(server: PostgresServer) -> None:
    url = server.url()
    follower = Follower()
    with open_storage(url) as storage:
        writers = Writers(url, 3)
        try:
            for _ in range(3):
                writers.go_on(30)
                follower.catch_up(storage)
                server.stop()
                with pytest.raises(StorageUnavailableError, match="Nothing was changed"):
                    storage.save(voiceprint("never"))
                server.start()
                storage.save(voiceprint("never"))
                assert storage.delete("never") == 1
            writers.go_on(30)
        finally:
            acknowledged = writers.end()
        follower.assert_in_step(storage)
        assert follower.rebuilds == 1
    assert_all_there(url, acknowledged, 3)


def test_a_synchronous_replica_promoted_after_kill_9_has_every_acknowledged_save(
    server: PostgresServer,
) -> None:
    server.sql("ALTER SYSTEM SET wal_level = 'replica'")
    replica = PostgresServer("hot_standby=on", copy_of=server)
    try:
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
        server.sql("SELECT pg_reload_conf()")
        while server.sql("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            pass
        url = url_of(server, replica)
        follower = Follower()
        with open_storage(url) as storage, open_storage(replica.url()) as reader:
            writers = Writers(url, 4)
            try:
                writers.go_on(60)
                follower.catch_up(storage)
                assert reader.count() > 0
                assert reader.check() == []
                for use in (lambda: reader.save(voiceprint("x")), lambda: reader.touch("0-0", "2100-01-01")):
                    with pytest.raises(StorageUnavailableError, match=r"read-only.*connect to the primary"):
                        use()
                server.kill()
                with pytest.raises(StorageUnavailableError, match="Nothing was changed"):
                    storage.save(voiceprint("never"))
                replica.promote()
                writers.go_on(60)
            finally:
                acknowledged = writers.end()
            identity = storage.identity()
            assert storage.count() == reader.count()
            follower.assert_in_step(storage)
            assert follower.rebuilds == 1
        assert_all_there(url, acknowledged, 4)
        with open_storage(replica.url()) as promoted:
            assert promoted.identity() == identity
    finally:
        replica.end()
        server.start()  # so that it removes the shared memory of the killed one


def test_a_commit_whose_answer_is_lost_is_not_said_to_have_changed_nothing(server: PostgresServer) -> None:
    with open_storage(server.url()) as storage:
        storage.save(voiceprint("before"))
        # A commit waits for a replica that there is not: what is on disk already is not acknowledged.
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.sql("SELECT pg_reload_conf()")
        for name, end in (("terminated", "SELECT pg_terminate_backend({pid})"), ("stopped", None)):
            failed: list[StorageUnavailableError] = []

            def save(name: str = name, failed: list[StorageUnavailableError] = failed) -> None:
                with pytest.raises(StorageUnavailableError) as caught:
                    storage.save(voiceprint(name))
                failed.append(caught.value)

            saving = threading.Thread(target=save)
            saving.start()
            while not (pid := server.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")):
                pass
            if end is None:
                server.stop()
            else:
                server.sql(end.format(pid=pid[0][0]))
            saving.join()
            assert "may have been made" in str(failed[0])
            assert "Nothing was changed" not in str(failed[0])
            if end is None:
                with (server.data / "postgresql.auto.conf").open("a") as file:
                    file.write("synchronous_standby_names = ''\n")
                server.start()
        assert set(state(storage)) == {"before", "terminated", "stopped"}
        assert storage.check() == []


def test_a_touch_waits_for_no_replica(server: PostgresServer) -> None:
    with open_storage(server.url()) as storage:
        storage.save(voiceprint("alice", last_seen="2020-01-01"))
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'away'")
        server.sql("SELECT pg_reload_conf()")
        while server.sql("SHOW synchronous_standby_names") != [("away",)]:
            time.sleep(0.01)
        assert storage.touch("alice", "2021-01-01T00:00:00Z")
        assert storage.get("alice").last_seen == "2021-01-01T00:00:00.000000Z"


def test_connections_that_the_server_ends_are_replaced(server: PostgresServer) -> None:
    with open_storage(server.url()) as storage:
        for n in range(3):
            storage.save(voiceprint(f"c{n}"))
            server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'voiceprint'"
            )
            assert storage.count() == n + 1
            if n == 1:
                server.stop_in_order()
                server.start()


def test_a_connection_that_ends_within_a_change_leaves_nothing_of_it(server: PostgresServer) -> None:
    with open_storage(server.url()) as storage, psycopg.connect(server.url()) as busy:
        storage.save_many([voiceprint("alice"), voiceprint("bob")])
        before = state(storage)
        busy.execute("SELECT 1 FROM callers WHERE caller_id = 'bob' FOR UPDATE")
        failed: list[StorageUnavailableError] = []

        def save() -> None:
            with pytest.raises(StorageUnavailableError) as caught:
                storage.save_many([voiceprint("alice", 1), voiceprint("bob", 1)])
            failed.append(caught.value)

        saving = threading.Thread(target=save)
        saving.start()
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not (pid := server.sql(waiting)):
            pass
        server.sql(f"SELECT pg_terminate_backend({pid[0][0]})")
        saving.join()
        busy.rollback()
        assert "Nothing was changed" in str(failed[0])
        assert state(storage) == before
        assert storage.check() == []


def test_a_server_that_is_not_there_or_takes_no_more_connections_is_unavailable(
    server: PostgresServer,
) -> None:
    server.sql("CREATE ROLE guest LOGIN CONNECTION LIMIT 0")
    guest = server.url().replace("postgres@", "guest@")
    with pytest.raises(StorageUnavailableError, match=r"too many connections.*Nothing was changed"):
        SQLStorage(guest)
    with pytest.raises(StorageUnavailableError, match=r"cannot be reached.*Nothing was changed"):
        SQLStorage(server.url("nowhere"))
    server.stop()
    with pytest.raises(StorageUnavailableError, match=r"cannot be reached.*Nothing was changed"):
        SQLStorage(server.url())
    for place in ("127.0.0.1:1", "no.such.host.invalid"):
        with pytest.raises(StorageUnavailableError, match=r"cannot be reached.*Nothing was changed"):
            SQLStorage(f"postgresql://me@{place}/db")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_other_threads_write_can_go_on() -> None:
    with SQLStorage(fresh_url()) as storage:
        fork_while_threads_write(storage, threads=2)


def test_no_connection_crosses_a_fork() -> None:
    with SQLStorage(fresh_url()) as storage:
        storage.save(voiceprint())
        held = storage._database._engine
        in_child(lambda: _assert_anew(storage, held))
        assert storage._database._engine is held
        assert storage.count() == 1


def _assert_anew(storage: SQLStorage, held: object) -> None:
    assert storage.count() == 1
    assert storage._database._engine is not held


def test_more_threads_than_connections_take_turns() -> None:
    url = fresh_url()
    with SQLStorage(url) as storage:
        threads = [
            threading.Thread(target=lambda n=n: storage.save(voiceprint(f"c{n}", n))) for n in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert storage.count() == 40
        assert shared_server().sql("SELECT count(*) <= 10 FROM pg_stat_activity WHERE application_name = "
                                   "'voiceprint' AND state = 'idle'") == [(True,)]  # fmt: skip
