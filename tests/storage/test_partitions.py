"""Partitioned tables in PostgreSQL: the conversion keeps everything or changes nothing, and nothing stays
behind in a partition."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from harness import NEW_KEY
from postgres_server import binaries, fresh_url, shared_server
from sqlalchemy import create_engine
from stores import Follower, state, unit, voiceprint

from voiceprint import (
    ConfigurationError,
    InvalidArgumentError,
    SQLiteStorage,
    StorageError,
    StorageUnavailableError,
    migrations,
)
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.storage import SQLStorage
from voiceprint.storage.sql import partitioning

PARTITIONED = ("callers", "voiceprints", "augmented_voiceprints")
TABLES = (*PARTITIONED, "caller_groups", "store", "commits", "tombstones", "deletions", "audit_log")


@pytest.fixture
def url() -> str:
    return fresh_url()


@pytest.fixture
def storage(url: str) -> Iterator[SQLStorage]:
    with SQLStorage(url) as opened:
        yield opened


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    """Execute a statement on the schema of the store, past the store."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def contents(url: str) -> dict[str, list[str]]:
    """Every row of the store's tables, as the server shows it."""
    return {
        table: sorted(str(row[0]) for row in rows(url, f"SELECT {table}::text FROM {table}"))
        for table in TABLES
    }


def objects(url: str) -> set[tuple[object, ...]]:
    """The columns, constraints and indexes of the schema, without those of partitions."""
    of = (
        "JOIN pg_class owner ON owner.oid = {} WHERE relnamespace = current_schema()::regnamespace AND "
        "NOT relispartition AND relkind IN ('r', 'p')"
    )
    columns = "SELECT relname, attname, atttypid::regtype::text, attnotnull, attcollation FROM pg_attribute "
    constraints = "SELECT relname, conname, pg_get_constraintdef(own.oid) FROM pg_constraint own "
    indexes = (
        "SELECT relname, indexrelid::regclass::text, split_part(pg_get_indexdef(indexrelid), ' btree ', 2) "
        "FROM pg_index "
    )
    return {
        *rows(url, columns + of.format("attrelid") + " AND attnum > 0 AND NOT attisdropped"),
        *rows(url, constraints + of.format("conrelid") + " AND conparentid = 0"),
        *rows(url, indexes + of.format("indrelid")),
    }


def partitions(url: str) -> dict[object, object]:
    """Number of partitions of each partitioned table."""
    statement = (
        "SELECT relname, count(*) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhparent "
        "WHERE relkind = 'p' AND relnamespace = current_schema()::regnamespace GROUP BY 1"
    )
    return dict(rows(url, statement))


def fill(storage: SQLStorage, callers: int = 60) -> None:
    """Callers with all that a record may have, some of them changed and deleted again."""
    names = [f"caller {n}" for n in range(callers - 4)] + ["tab\t\\N", "\0nul\1", "line\n\\.", "Zoë 😀"]
    storage.save_many(
        voiceprint(name, n, augmented=unit(n + 100) if n % 2 else None, groups=["vip"] if n % 3 else [],
                   metadata={"name": name}, created_at="2025-01-01", last_seen="2025-01-02")
        for n, name in enumerate(names)
    )  # fmt: skip
    storage.save_many(voiceprint(name, n, encoder="other") for n, name in enumerate(names[:9]))
    storage.delete("caller 3")
    storage.delete("caller 5")
    storage.save(voiceprint("caller 5", 77, augmented=unit(78)))
    storage.opt_out("caller 7", reason="asked", by="agent")


def opened(url: str, *, encrypted: bool) -> SQLStorage:
    encryption = Encryption(KeyRing(VariableKeys(NEW_KEY))) if encrypted else None
    return SQLStorage(url, encryption=encryption)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_the_conversion_keeps_every_byte_and_the_change_feed(
    url: str, monkeypatch: pytest.MonkeyPatch, *, encrypted: bool
) -> None:
    monkeypatch.setattr(partitioning, "_READ_BYTES", 20_000)  # the rows are read in several parts
    with opened(url, encrypted=encrypted) as storage:
        fill(storage)
        followers = {space: Follower(space) for space in ("resemblyzer", "other")}
        for follower in followers.values():
            follower.catch_up(storage)
        rebuilt = {space: follower.rebuilds for space, follower in followers.items()}
        before, position, content = state(storage), storage.position(), contents(url)
        for number, former in ((4, 0), (7, 4), (7, 7)):
            assert storage.partition(number) == former
            assert storage.partitions() == number
            assert partitions(url) == dict.fromkeys(PARTITIONED, number)
            assert contents(url) == content
            with opened(url, encrypted=encrypted) as beside:
                for each in (storage, beside):
                    assert (state(each), each.position()) == (before, position)
                    assert each.check() == []
        storage.save_many(voiceprint(f"new {n}", n, augmented=unit(n)) for n in range(20))
        assert storage.delete("caller 9") == 1
        for space, follower in followers.items():
            follower.assert_in_step(storage)
            assert follower.rebuilds == rebuilt[space]


def test_columns_constraints_and_indexes_keep_their_names(storage: SQLStorage, url: str) -> None:
    fill(storage)
    storage.index_metadata("a USING b")
    storage.index_metadata("k" * 40)
    rows(url, 'CREATE INDEX "mine ON x" ON voiceprints (created_at) WHERE slot > 0')
    rows(url, "ALTER TABLE callers ADD COLUMN gone text")
    rows(url, "ALTER TABLE callers DROP COLUMN gone")
    before = objects(url)
    storage.partition(3)
    (key,) = rows(
        url, "SELECT conname FROM pg_constraint WHERE conrelid = 'voiceprints'::regclass AND contype = 'p'"
    )
    after = objects(url)
    changed = {row[:2] for row in before ^ after}
    augmented_key = ("augmented_voiceprints", "fk_simulated_voiceprints_voiceprint_id")
    assert changed == {("voiceprints", key[0]), augmented_key}
    assert ("voiceprints", key[0], "PRIMARY KEY (id, caller_id)") in after
    assert storage.metadata_indexes() == ("a USING b", "k" * 40)
    storage.partition(4)
    assert objects(url) == after


def test_a_new_store_is_made_partitioned(storage: SQLStorage, url: str) -> None:
    assert (storage.partitions(), storage.exists()) == (0, False)
    assert storage.partition(2) == 0
    assert partitions(url) == dict.fromkeys(PARTITIONED, 2)
    storage.save(voiceprint())
    assert storage.check() == []


def test_a_deletion_leaves_no_row_in_any_partition(storage: SQLStorage, url: str) -> None:
    fill(storage)
    storage.partition(4)
    assert storage.delete_voiceprints(["caller 1"], encoder="other") == 1
    # Past the library too: by the cascade from the caller, and voiceprint by voiceprint.
    rows(url, "DELETE FROM callers WHERE caller_id = 'caller 11'")
    rows(url, "DELETE FROM voiceprints WHERE caller_id = 'caller 13'")
    joined = "augmented_voiceprints LEFT JOIN voiceprints ON id = voiceprint_id"
    orphans = f"SELECT count(*) FROM {joined} WHERE id IS NULL"
    assert rows(url, orphans) == [(0,)]
    for caller in list(storage.iter_callers()):
        storage.delete(caller.caller_id)
    remaining = [row[0] for row in rows(url, "SELECT tableoid::regclass::text FROM callers UNION ALL SELECT "
                 "tableoid::regclass::text FROM voiceprints UNION ALL SELECT tableoid::regclass::text FROM "
                 "augmented_voiceprints UNION ALL SELECT caller_id FROM caller_groups")]  # fmt: skip
    assert remaining == []


def test_a_voiceprint_moves_to_a_caller_of_another_partition_with_its_augmented_one(
    storage: SQLStorage, url: str
) -> None:
    storage.partition(4)
    storage.save_many(voiceprint("alice", n, augmented=unit(n + 10)) for n in range(3))
    alice = storage.get("alice")
    for n, print_ in enumerate(alice.voiceprints):
        moved = print_.model_copy(update={"caller_id": f"bob {n}"})
        to = alice.model_copy(update={"caller_id": f"bob {n}", "voiceprints": (moved,)})
        rest = alice.model_copy(update={"voiceprints": alice.voiceprints[n + 1 :]})
        storage.restore_many([rest, to])
        assert storage.get(f"bob {n}").voiceprints[0].augmented.tobytes() == print_.augmented.tobytes()
    assert storage.get("alice").voiceprints == ()
    kept = len(alice.voiceprints)
    assert rows(url, "SELECT count(*) FROM augmented_voiceprints") == [(kept,)]
    assert storage.check() == []


def test_check_finds_and_removes_what_a_deletion_without_the_trigger_left(
    storage: SQLStorage, url: str
) -> None:
    saved = storage.save(voiceprint("alice", 1, augmented=unit(2)))
    storage.save(voiceprint("bob", 3, augmented=unit(4)))
    storage.partition(2)
    rows(url, "ALTER TABLE voiceprints DISABLE TRIGGER USER")
    storage.delete("alice")
    rows(url, "ALTER TABLE voiceprints ENABLE TRIGGER USER")
    assert [(found.code, found.place) for found in storage.check()] == [("stale", f"voiceprint {saved.id}")]
    assert storage.check(fix=True) == []
    assert rows(url, "SELECT count(*) FROM augmented_voiceprints") == [(1,)]


def test_a_reader_that_began_before_the_conversion_still_finds_everybody(storage: SQLStorage) -> None:
    fill(storage)
    number = storage.count()

    def work(queries: object) -> tuple[int, int, int]:
        queries.header()  # type: ignore[attr-defined]  the snapshot is taken, and no table is locked
        storage.partition(3)
        found = queries.callers_of(range(1, 100))  # type: ignore[attr-defined]
        return queries.count(), queries.count_callers(), sum(len(found.voiceprints) for found in found)  # type: ignore[attr-defined]

    assert storage._database.read(work, None) == (number, storage.count_callers(), number)


def conversion_behind_a_reader(
    storage: SQLStorage, url: str
) -> tuple[psycopg.Connection, threading.Thread, list]:
    """A conversion in a thread that waits for a reader of the tables to end."""
    reader = psycopg.connect(url)
    reader.execute("SELECT count(*) FROM voiceprints")
    results: list[object] = []

    def convert() -> None:
        try:
            results.append(storage.partition(3))
        except Exception as error:  # noqa: BLE001  it is looked at
            results.append(error)

    thread = threading.Thread(target=convert)
    thread.start()
    while not rows(url, "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"):
        time.sleep(0.01)
    return reader, thread, results


def test_a_conversion_that_is_killed_changes_nothing(storage: SQLStorage, url: str) -> None:
    fill(storage)
    before, content, kept = state(storage), contents(url), objects(url)
    reader, thread, results = conversion_behind_a_reader(storage, url)
    with reader:
        rows(url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted "
                  "AND mode = 'AccessExclusiveLock'")  # fmt: skip
        thread.join()
    assert isinstance(results[0], StorageUnavailableError)
    assert "Nothing was changed" in str(results[0])
    assert (state(storage), contents(url), objects(url)) == (before, content, kept)
    assert partitions(url) == {}
    assert storage.partition(3) == 0


def test_readers_go_on_while_a_conversion_waits_for_one_of_them(
    storage: SQLStorage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(storage)
    monkeypatch.setattr(partitioning, "_LOCK_S", 0.05)
    number = storage.count()
    reader, thread, results = conversion_behind_a_reader(storage, url)
    with reader:
        assert [storage.count() for _ in range(5)] == [number] * 5
        # The tables are read in the other order too, in which each would wait for the other for ever.
        reader.execute("SELECT count(*) FROM callers")
    thread.join()
    assert results == [0]
    assert storage.count() == number


def test_a_conversion_gives_up_behind_a_reader_that_does_not_end(
    storage: SQLStorage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(storage)
    monkeypatch.setattr(partitioning, "_LOCK_S", 0.05)
    monkeypatch.setattr(partitioning, "_LOCKED_WITHIN_S", 0.2)
    before = contents(url)
    reader, thread, results = conversion_behind_a_reader(storage, url)
    with reader:
        thread.join()
    assert isinstance(results[0], StorageUnavailableError)
    assert (contents(url), partitions(url)) == (before, {})


def test_rows_that_do_not_arrive_undo_the_conversion(
    storage: SQLStorage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(storage)
    before = contents(url)
    monkeypatch.setattr(partitioning, "_LEAVES", partitioning._LEAVES + " AND oid <> 'voiceprints'::regclass")
    with pytest.raises(StorageError, match=r"rows of the table voiceprints, 0 arrived. Nothing was changed"):
        storage.partition(3)
    assert (contents(url), partitions(url)) == (before, {})


def test_an_old_schema_is_upgraded_and_partitioned(url: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), "0005")
    engine.dispose()
    with psycopg.connect(url) as old:
        old.execute("INSERT INTO callers VALUES ('alice', '{}', NULL, NULL)")
        old.execute(
            "INSERT INTO voiceprints VALUES (1, 'alice', 0, 0, 'resemblyzer', %s, NULL, 1)",
            [unit(1).tobytes()],
        )
        old.execute("INSERT INTO simulated_voiceprints VALUES (1, 1, %s)", [unit(2).tobytes()])
        old.execute("UPDATE store SET revision = 1, next_id = 2, feed_floor = 1")
        old.execute("INSERT INTO commits VALUES (1, 'token')")
    with SQLStorage(url) as storage:
        before = state(storage)
        assert storage.partition(2) == 0
        assert state(storage) == before
        assert before["alice"]["voiceprints"][0][5] == unit(2).tobytes()
        assert storage.check() == []


def test_a_later_revision_alters_partitioned_tables(storage: SQLStorage, url: str) -> None:
    fill(storage)
    storage.partition(3)
    before = state(storage)
    for table in PARTITIONED:
        rows(url, f"ALTER TABLE {table} ADD COLUMN later text")
        rows(url, f"CREATE INDEX ix_{table}_later ON {table} (later)")
    assert state(storage) == before
    assert storage.partition(2) == 3
    assert state(storage) == before
    storage.save_many(voiceprint(f"new {n}", n) for n in range(9))
    assert storage.check() == []


def test_a_dump_restores_a_partitioned_store(storage: SQLStorage, url: str) -> None:
    fill(storage)
    storage.partition(3)
    before = contents(url)
    schema = url.rpartition("%3D")[2]
    server = shared_server()
    server.sql(f"CREATE DATABASE restored_{schema}")
    program = str(binaries() / "pg_dump")
    dumped = subprocess.run(
        [program, "-n", schema, "-Fc", server.url()], capture_output=True, check=True, cwd="/"
    )
    subprocess.run(
        [str(binaries() / "pg_restore"), "-d", server.url(f"restored_{schema}"), "--exit-on-error"],
        input=dumped.stdout, check=True, cwd="/",
    )  # fmt: skip
    restored_url = server.url(f"restored_{schema}", options=f"-csearch_path={schema}")
    assert contents(restored_url) == before
    with SQLStorage(restored_url) as restored:
        assert (state(restored), restored.check()) == (state(storage), [])
        assert restored.partitions() == 3
        restored.delete("caller 1")
    assert rows(restored_url, "SELECT count(*) FROM augmented_voiceprints") < rows(
        url, "SELECT count(*) FROM augmented_voiceprints"
    )


# What is refused


def test_a_database_without_partitions_is_refused(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "voiceprints.db") as storage:
        with pytest.raises(ConfigurationError, match=r"SQLite keeps a table in one file.*PostgreSQL has"):
            storage.partition(4)
        assert not storage.exists()
        assert storage.partitions() == 0


@pytest.mark.parametrize("number", [0, 1, 129, True, "4", 4.0])
def test_a_number_that_is_not_allowed_is_refused(storage: SQLStorage, number: object) -> None:
    with pytest.raises(InvalidArgumentError, match="partitions must be 2 to 128"):
        storage.partition(number)  # type: ignore[arg-type]
    assert not storage.exists()


def role(name: str, schema: str, rights: str) -> None:
    server = shared_server()
    server.sql(f"CREATE ROLE {name} LOGIN")
    server.sql(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
    server.sql(f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO {name}")


def test_a_user_who_does_not_own_the_tables_gets_an_error_that_says_what_to_do(
    storage: SQLStorage, url: str
) -> None:
    fill(storage)
    schema = url.rpartition("%3D")[2]
    role("clerk", schema, "SELECT, INSERT, UPDATE, DELETE")
    before = contents(url)
    clerk_url = url.replace("postgres@", "clerk@")
    with SQLStorage(clerk_url) as clerk:
        with pytest.raises(
            StorageUnavailableError, match=r"belong to postgres.*--store the URL of that user.*Nothing"
        ):
            clerk.partition(4)
        assert contents(url) == before
        # Their rights are kept: on the partitions too, from which a dump reads.
        storage.partition(2)
        clerk.save_many(voiceprint(f"new {n}", n, augmented=unit(n)) for n in range(9))
        assert clerk.delete("new 1") == 1
        assert clerk.check() == []
        assert rows(clerk_url, "SELECT count(*) FROM callers_0_of_2") != [(0,)]


def test_a_superuser_partitions_the_tables_of_their_owner(url: str) -> None:
    schema = url.rpartition("%3D")[2]
    role("owner", schema, "SELECT")
    shared_server().sql(f"GRANT CREATE ON SCHEMA {schema} TO owner")
    with SQLStorage(url.replace("postgres@", "owner@")) as storage:
        fill(storage)
        shared_server().sql(f"REVOKE CREATE ON SCHEMA {schema} FROM owner")
        with pytest.raises(StorageUnavailableError, match=f"GRANT CREATE ON SCHEMA {schema} TO owner"):
            storage.partition(2)
        shared_server().sql(f"GRANT CREATE ON SCHEMA {schema} TO owner")
        with SQLStorage(url) as of_superuser:
            assert of_superuser.partition(2) == 0
        assert storage.partition(3) == 2
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = current_schema()"
        assert rows(url, owners) == [("owner",)]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW mine AS SELECT caller_id FROM callers", "view mine"),
        ("CREATE TABLE mine (caller text REFERENCES callers)", "foreign key mine_caller_fkey"),
        ("CREATE TRIGGER mine BEFORE DELETE ON callers EXECUTE FUNCTION suppress_redundant_updates_trigger()",
         "trigger mine"),
        ("CREATE UNIQUE INDEX mine ON voiceprints (revision)", "unique index mine"),
        ("CREATE PUBLICATION mine FOR TABLE callers", "publication mine"),
        ("GRANT SELECT (caller_id) ON callers TO PUBLIC", "rights on the column caller_id"),
        ("CREATE POLICY mine ON voiceprints USING (true)", "policy mine"),
    ],
)  # fmt: skip
def test_what_depends_on_the_tables_is_not_lost(
    storage: SQLStorage, url: str, statement: str, named: str
) -> None:
    storage.save(voiceprint())
    rows(url, statement)
    with pytest.raises(StorageError, match=named):
        storage.partition(2)
    assert partitions(url) == {}
    assert storage.count() == 1
