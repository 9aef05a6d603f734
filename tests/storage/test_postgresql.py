"""PostgreSQL alone: URLs and locations, what text it can hold, locks, transactions, and the schema."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest
from forked import ForkedPython
from postgres_server import PostgresServer, fresh_url, shared_server
from sqlalchemy import make_url
from stores import state, unit, voiceprint

from voiceprint import (
    ConfigurationError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    VoiceFingerprintConfig,
    open_storage,
)
from voiceprint.identification.snapshots import snapshot_path
from voiceprint.storage import SQLStorage, copy_callers
from voiceprint.storage.sql import writer
from voiceprint.storage.sql.dialect import dialect_of
from voiceprint.storage.sql.postgresql import PostgreSQL

PASSWORD = "hunter2"


@pytest.fixture
def url() -> str:
    return fresh_url()


@pytest.fixture
def storage(url: str) -> Iterator[SQLStorage]:
    with SQLStorage(url) as opened:
        yield opened


def schema_of(url: str) -> str:
    return url.rpartition("%3D")[2]


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    """Execute a statement on the schema of the store, past the store."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


# URLs


@pytest.mark.parametrize(
    "form", ["postgresql://", "postgresql+psycopg://", "postgres://"], ids=lambda form: form[:-3]
)
def test_a_url_of_each_form_opens_the_same_store(url: str, form: str) -> None:
    with open_storage(url) as one, open_storage(form + url.partition("://")[2]) as other:
        one.save(voiceprint())
        assert other.count() == 1
        assert (other.location, other.identity()) == (one.location, one.identity())


def test_a_url_of_sqlalchemy_opens_the_store(url: str) -> None:
    with SQLStorage(url) as one, SQLStorage(make_url(url)) as other:
        one.create()
        assert (other.location, other.identity()) == (one.location, one.identity())


def test_the_configuration_opens_the_store(url: str) -> None:
    config = VoiceFingerprintConfig(
        storage_backend="postgresql", database_url=url, max_voiceprints_per_caller=2, index_path="off"
    )
    with OpusAgentVoiceRecognizer(config=config) as recognizer, SQLStorage(url) as beside:
        for n in range(3):
            recognizer.storage.save(voiceprint(seed=n))
        assert beside.count() == 2


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (f"postgresql://me:{PASSWORD}@db.example:6000/calls", "postgresql://db.example:6000/calls"),
        (f"postgresql://db.example/calls?user=me&password={PASSWORD}", "postgresql://db.example:5432/calls"),
        (f"postgresql://h/d?sslpassword={PASSWORD}&sslmode=require", "postgresql://h:5432/d"),
        (
            f"postgresql://me:{PASSWORD}@a:1,b:2/d?target_session_attrs=read-write",
            "postgresql://a:1,b:2/d",
        ),
        ("postgresql://me@%2Frun%2Fpg/d", "postgresql://%2Frun%2Fpg:5432/d"),
        (
            "postgresql://h/d%2Fe?options=-csearch_path%3Dx",
            "postgresql://h:5432/d%2Fe?options=-csearch_path%3Dx",
        ),
    ],
)
def test_the_location_is_a_url_without_user_and_password(url: str, location: str) -> None:
    dialect = dialect_of(url)
    assert dialect.location == location
    assert dialect_of(dialect.location).location == dialect.location
    assert dialect_of(url.replace("postgresql://", "postgresql+psycopg://")).location == dialect.location
    assert PASSWORD not in dialect.location + dialect.name + repr(dialect)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@host:port/db",
        f"postgresql://me:a@{PASSWORD}@host/db",
        f"postgresql://me:%zz{PASSWORD}@host/db",
        f"postgresql://me:{PASSWORD}@host/db?no_such_setting={PASSWORD}",
        f"postgresql://me:{PASSWORD}@[host/db",
        f"postgresql://me:{PASSWORD}\0@host/db",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    for use in (lambda: open_storage(url), lambda: SQLStorage(url)):
        with pytest.raises(ConfigurationError, match=r"PostgreSQL database, as libpq takes it") as caught:
            use()
        assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_another_driver_is_refused(url: str) -> None:
    for other in ("postgresql+psycopg2", "postgresql+asyncpg"):
        with pytest.raises(ConfigurationError):
            open_storage(other + url.removeprefix("postgresql"))


def test_without_the_driver_the_error_names_the_extra(url: str) -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from voiceprint import ConfigurationError, open_storage\n"
        "try: open_storage(sys.argv[1])\n"
        "except ConfigurationError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True)
    assert "pip install 'opusagent-voiceprint[postgresql]'" in said.stdout


def test_a_password_is_shown_in_no_message_and_no_repr() -> None:
    server = PostgresServer()
    try:
        server.sql(f"CREATE ROLE me LOGIN PASSWORD '{PASSWORD}'")
        server.sql("CREATE DATABASE calls OWNER me")
        (server.data / "pg_hba.conf").write_text("local all postgres trust\nlocal all me scram-sha-256\n")
        server.sql("SELECT pg_reload_conf()")
        place = server.url("calls").partition("@")[2]
        for wrong in (f"me:{PASSWORD}x", "me"):
            with pytest.raises(StorageUnavailableError, match="Nothing was changed") as caught:
                SQLStorage(f"postgresql://{wrong}@{place}")
            assert PASSWORD not in str(caught.value)
        with SQLStorage(f"postgresql://me:{PASSWORD}@{place}") as storage:
            storage.save(voiceprint())
            server.stop()
            for use in (storage.count, lambda: storage.save(voiceprint())):
                with pytest.raises(StorageUnavailableError) as caught:
                    use()
                assert PASSWORD not in f"{caught.value} {storage!r} {storage.location}"
    finally:
        server.end()


def test_the_snapshot_of_the_index_lies_in_the_users_cache(
    storage: SQLStorage, url: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = snapshot_path(storage, None)
    assert path is not None
    assert path.parent.parent == tmp_path
    with SQLStorage(url) as again, SQLStorage(fresh_url()) as other:
        assert snapshot_path(again, None) == path != snapshot_path(other, None)


# What it can hold


def test_callers_whose_ids_hold_nul_come_over_from_another_store(storage: SQLStorage, url: str) -> None:
    names = sorted(
        ["a", "a\0", "a\0b", "a\1", "a\1b", "a\1\1", "a\1\2", "a\2", "\0", "\1", "\0\1", "\1\0", "b"]
    )
    with MemoryStorage() as source:
        source.save_many([voiceprint(name, n, metadata={name: name}) for n, name in enumerate(names)])
        assert copy_callers(source, storage).callers == len(names)
        assert [caller.caller_id for caller in storage.iter_callers(page=2)] == names
        assert state(storage) == state(source)
    assert all(storage.delete(name) == 1 for name in names)


def test_a_database_of_another_encoding_is_refused() -> None:
    server = shared_server()
    server.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StorageError, match=r"encoding LATIN1.*ENCODING 'UTF8'"):
        SQLStorage(server.url("latin"))


# Stores and schemas


def test_two_schemas_of_a_database_hold_two_stores() -> None:
    one_url, other_url = fresh_url(), fresh_url()
    with SQLStorage(one_url) as one, SQLStorage(other_url) as other:
        one.save(voiceprint("alice"))
        assert other.count() == 0
        assert one.identity() != other.identity()
        # And neither waits for the other's writers.
        with psycopg.connect(one_url) as busy:
            busy.execute(lock_statement())
            other.save(voiceprint("bob"))
            waiting = threading.Thread(target=lambda: one.save(voiceprint("carol")))
            waiting.start()
            waiting_for_lock(one_url)
            assert rows(one_url, "SELECT count(*) FROM callers") == [(1,)]
        waiting.join()
        assert one.count() == 2


def lock_statement() -> str:
    from voiceprint.storage.sql import postgresql

    return postgresql._LOCK_STORE


def waiting_for_lock(url: str, lock: str = "advisory") -> None:
    """Until a connection of this schema waits for a lock."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        f"AND wait_event = '{lock}' AND application_name = 'voiceprint'"
    )
    while rows(url, statement) == [(0,)]:
        pass


@pytest.mark.slow
def test_many_processes_that_open_a_new_database_make_its_schema_once(url: str) -> None:
    script = (
        "import sys\nfrom voiceprint import open_storage\nsys.stdin.readline()\n"
        "with open_storage(sys.argv[1]) as storage:\n"
        "    storage.create()\n    print(storage.identity(), storage.check())"
    )
    processes = [ForkedPython(script, url, stdin=subprocess.PIPE) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate(timeout=60)[0] for process in processes}
    with SQLStorage(url) as storage:
        assert said == {f"{storage.identity()} []\n"}


def test_a_user_who_may_not_create_tables_gets_an_error_that_says_so() -> None:
    server = shared_server()
    server.sql("CREATE ROLE guest LOGIN")
    with (
        SQLStorage(server.url("postgres").replace("postgres@", "guest@")) as storage,
        pytest.raises(StorageUnavailableError, match="grant it all rights"),
    ):
        storage.save(voiceprint())


def test_tables_that_are_gone_are_not_an_empty_store(
    storage: SQLStorage, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage.save(voiceprint())
    schema = schema_of(url)
    rows(url, f"ALTER SCHEMA {schema} RENAME TO away")
    rows(url, f"CREATE SCHEMA {schema}")
    for use in (
        storage.count,
        lambda: storage.get("alice"),
        lambda: storage.save(voiceprint()),
        storage.exists,
    ):
        with pytest.raises(StorageUnavailableError, match="Nothing was changed"):
            use()
    assert "holds no store any more" in caplog.text
    with pytest.raises(StorageUnavailableError, match="holds no store any more"):
        SQLStorage(url)
    rows(url, f"DROP SCHEMA {schema}")
    rows(url, f"ALTER SCHEMA away RENAME TO {schema}")
    assert storage.count() == 1
    assert "is there again" in caplog.text


def test_a_store_that_takes_the_place_of_another_is_refused(storage: SQLStorage, url: str) -> None:
    storage.save(voiceprint())
    rows(url, f"DROP SCHEMA {schema_of(url)} CASCADE")
    with pytest.raises(StorageUnavailableError):
        storage.count()
    other = fresh_url()
    with SQLStorage(other) as opened:
        opened.save(voiceprint("bob"))
    rows(other, f"ALTER SCHEMA {schema_of(other)} RENAME TO {schema_of(url)}")
    with pytest.raises(StorageUnavailableError, match="another store than before"):
        storage.count()
    with SQLStorage(url) as anew:
        assert anew.count() == 1


def test_opening_and_reading_a_store_that_is_not_there_creates_nothing(storage: SQLStorage, url: str) -> None:
    assert (storage.exists(), storage.count(), storage.get("alice"), storage.identity()) == (
        False,
        0,
        None,
        "",
    )
    assert not storage.touch("alice")
    assert rows(url, "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()") == [(0,)]
    storage.save(voiceprint())
    assert storage.exists()


def test_check_finds_what_was_changed_past_the_store(storage: SQLStorage, url: str) -> None:
    storage.save(voiceprint())
    rows(url, "UPDATE store SET next_id = 1")
    assert [found.code for found in storage.check()] == ["counter"]
    assert storage.check(fix=True) == []
    rows(url, r"UPDATE voiceprints SET embedding = decode(repeat('00', 1024), 'hex')")
    assert [found.code for found in storage.check()] == ["corrupt"]


# Transactions


def test_a_touch_waits_for_no_writer_of_other_callers(storage: SQLStorage, url: str) -> None:
    storage.save_many([voiceprint("alice", last_seen="2020-01-01"), voiceprint("bob")])
    with psycopg.connect(url) as busy:
        busy.execute(lock_statement())
        assert storage.touch("alice", "2021-01-01T00:00:00Z")
        assert not storage.touch("nobody")
    assert storage.get("alice").last_seen == "2021-01-01T00:00:00.000000Z"


def test_a_change_does_not_undo_a_touch_that_came_between(storage: SQLStorage, url: str) -> None:
    storage.save(voiceprint("alice", last_seen="2020-01-01"))
    with psycopg.connect(url) as other:
        other.execute("UPDATE callers SET last_seen = '2030-01-01T00:00:00.000000Z'")
        waiting = threading.Thread(target=lambda: storage.update_metadata("alice", {"a": 1}))
        gone: list[int] = []
        waiting.start()
        waiting_for_lock(url, "transactionid")
        deleting = threading.Thread(
            target=lambda: gone.append(storage.delete("alice", unless_seen_since="2025-01-01"))
        )
        deleting.start()
        waiting_for_lock(url)
        other.commit()
        waiting.join()
        deleting.join()
    assert gone == [0]
    caller = storage.get("alice")
    assert (caller.last_seen, caller.metadata) == ("2030-01-01T00:00:00.000000Z", {"a": 1})


def test_a_touch_waits_for_a_change_of_the_same_caller(storage: SQLStorage, url: str) -> None:
    storage.save_many(
        [voiceprint("alice", last_seen="2020-01-01"), voiceprint("bob", last_seen="2020-01-01")]
    )
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM callers WHERE caller_id = 'alice' FOR UPDATE")
        saving = threading.Thread(
            target=lambda: storage.save_many(
                [voiceprint("alice", 1, last_seen="2021-01-01"), voiceprint("bob", 1)]
            )
        )
        saving.start()
        waiting_for_lock(url, "transactionid")
    saving.join()
    assert storage.touch("alice", "2020-06-01")
    assert storage.get("alice").last_seen == "2021-01-01T00:00:00.000000Z"


def test_a_reader_sees_one_state_and_may_write_nothing(storage: SQLStorage) -> None:
    storage.save(voiceprint())

    def work(queries: object) -> tuple[int, int]:
        connection = queries.connection  # type: ignore[attr-defined]
        before = queries.count()  # type: ignore[attr-defined]
        storage.save(voiceprint("bob"))
        with pytest.raises(Exception, match="read-only transaction"), connection.begin_nested():
            connection.exec_driver_sql("DELETE FROM callers")
        return before, queries.count()  # type: ignore[attr-defined]

    assert storage._database.read(work, None) == (1, 1)
    assert storage.count() == 2


def test_a_writer_gives_up_when_another_holds_the_lock_for_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voiceprint.storage.sql import postgresql

    with SQLStorage(url) as storage, psycopg.connect(url) as busy:
        busy.execute(lock_statement())
        monkeypatch.setattr(
            postgresql, "_LOCK_STORE", postgresql._LOCK_STORE.replace("'30000'", "'50'"), raising=True
        )
        assert "'50'" in postgresql._LOCK_STORE
        with pytest.raises(
            StorageUnavailableError, match=r"another writer has been busy.*Nothing was changed"
        ):
            storage.save(voiceprint())
        busy.rollback()
        storage.save(voiceprint())
        assert storage.count() == 1


def test_the_dialect_is_the_one_of_postgresql(storage: SQLStorage) -> None:
    assert isinstance(storage._dialect, PostgreSQL)


# Bulk load


def filled_by(url: str, monkeypatch: pytest.MonkeyPatch, copied_rows: int) -> object:
    """The state of a store that was filled in large changes, of which COPY takes those of so many rows."""
    monkeypatch.setattr(writer, "COPIED_ROWS", copied_rows)
    names = [*(f"caller {n}" for n in range(12)), "\0nul\0", "\1one\1", "tab\t\\N", "Zoë 😀"]
    with SQLStorage(url) as storage:
        storage.save_many(
            voiceprint(name, n, augmented=unit(n + 100), groups=["vip"], metadata={"name": name, "n": n},
                       created_at="2025-01-01T00:00:00Z", last_seen="2025-01-01T00:00:00Z")
            for n, name in enumerate(names)
        )  # fmt: skip
        storage.delete("caller 3")
        kept = [caller for caller in storage.iter_callers() if caller.caller_id != "caller 4"]
    with SQLStorage(fresh_url()) as restored:
        assert restored.restore_many(kept) == len(kept) == 14
        assert restored.check() == []
        return state(restored)


def test_rows_that_copy_inserted_equal_those_of_insert(monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled_by(fresh_url(), monkeypatch, 2) == filled_by(fresh_url(), monkeypatch, 10_000)


def on_each_new_print(url: str, does: str) -> None:
    rows(url, f"CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does} END $$")
    rows(url, "CREATE TRIGGER act BEFORE INSERT ON voiceprints FOR EACH ROW EXECUTE FUNCTION act()")


@pytest.mark.parametrize(
    ("does", "error", "message"),
    [
        ("IF NEW.id = 18 THEN RETURN NULL; END IF; RETURN NEW;", StorageCorruptError, "has taken 39 of 40"),
        ("IF NEW.id = 18 THEN RAISE 'no'; END IF; RETURN NEW;", StorageError, "refused a statement"),
        ("PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW;", StorageUnavailableError, "Nothing"),
    ],
    ids=["drops a row", "refuses a row", "ends the connection"],
)
def test_a_bulk_load_that_fails_changes_nothing(
    storage: SQLStorage, url: str, does: str, error: type[StorageError], message: str
) -> None:
    storage.save(voiceprint("before"))
    before, position = state(storage), storage.position()
    on_each_new_print(url, does)
    many = [voiceprint(f"c{n}", n) for n in range(40)]
    with pytest.raises(error, match=message) as caught:
        storage.save_many(many)
    assert "c17" not in str(caught.value.__cause__)
    assert (state(storage), storage.position()) == (before, position)
    rows(url, "DROP TRIGGER act ON voiceprints")
    assert len(storage.save_many(many)) == 40
    assert storage.check() == []


def test_no_more_connections_are_opened_than_allowed(url: str) -> None:
    name = schema_of(url)
    named = f"{url}&application_name={name}"
    with SQLStorage(named, max_connections=2) as storage:
        counted: list[object] = []

        def save(n: int) -> None:
            storage.save(voiceprint(f"c{n}", n))
            sql = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
            counted.append(rows(url, sql)[0][0])

        threads = [threading.Thread(target=save, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert storage.count() == 12
        assert set(counted) <= {1, 2}
        assert len(counted) == 12
