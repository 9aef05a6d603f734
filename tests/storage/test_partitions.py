"""Partitioned tables in PostgreSQL: they hold what others do, and are made where nothing can be lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import NEW_KEY
from postgres_server import binaries, fresh_url, shared_server
from stores import Follower, state, unit, voiceprint

from voiceprint import (
    ConfigurationError,
    InvalidArgumentError,
    SQLiteStorage,
    Storage,
    StorageError,
)
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.storage import SQLStorage
from voiceprint.storage.transfer import copy_callers

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


def records(storage: Storage) -> dict[str, Any]:
    """The content of all callers without ids and times; `state` asserts that all ways to read it agree."""
    state(storage)
    return {
        caller.caller_id: (
            caller.metadata,
            caller.groups,
            [
                (one.encoder, one.embedding.tolist(), [] if one.augmented is None else one.augmented.tolist())
                for one in caller.voiceprints
            ],
        )
        for caller in storage.callers(limit=1_000)
    }


def opened(url: str, *, encrypted: bool) -> SQLStorage:
    encryption = Encryption(KeyRing(VariableKeys(NEW_KEY))) if encrypted else None
    return SQLStorage(url, encryption=encryption)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_partitioned_store_holds_what_another_one_does(
    url: str, tmp_path: Path, *, encrypted: bool
) -> None:
    with opened(url, encrypted=encrypted) as storage, SQLiteStorage(tmp_path / "callers.db") as other:
        with opened(plain_url := fresh_url(), encrypted=encrypted) as plain:
            plain.save(voiceprint())
            if not encrypted:
                plain.index_metadata("name")
                storage.index_metadata("name")
        assert (storage.partition(4), storage.partition(3), storage.partition(3)) == (0, 4, 3)
        assert partitions(url) == dict.fromkeys(PARTITIONED, 3)
        changed = {row[1] for row in objects(plain_url) ^ objects(url) if "pkey" not in str(row[1])}
        assert changed == {"uq_voiceprints_caller_id_slot"}
        assert storage.metadata_indexes() == (() if encrypted else ("name",))
        followers = {space: Follower(space) for space in ("resemblyzer", "other")}
        for follower in followers.values():
            follower.catch_up(storage)
        rebuilt = {space: follower.rebuilds for space, follower in followers.items()}
        for each in (storage, other):
            fill(each)
        assert records(storage) == records(other)
        assert storage.check() == []
        for space, follower in followers.items():
            follower.assert_in_step(storage)
            assert follower.rebuilds == rebuilt[space]
        with opened(url, encrypted=encrypted) as beside:
            assert (records(beside), beside.partitions()) == (records(other), 3)


def test_a_store_of_callers_is_refused_and_copied(storage: SQLStorage, url: str) -> None:
    fill(storage)
    before = contents(url)
    with pytest.raises(StorageError, match=r"callers are enrolled. Partition a new store.*voiceprint copy"):
        storage.partition(4)
    assert (contents(url), storage.partitions()) == (before, 0)
    with SQLStorage(fresh_url()) as other:
        other.partition(4)
        copy_callers(storage, other)
        assert records(other) == records(storage)
        assert other.check() == []


def test_a_deletion_leaves_no_row_in_any_partition(storage: SQLStorage, url: str) -> None:
    storage.partition(4)
    fill(storage)
    assert storage.delete_voiceprints(["caller 1"], encoder="other") == 1
    # Past the library too: by the cascade from the caller, and voiceprint by voiceprint.
    rows(url, "DELETE FROM callers WHERE caller_id = 'caller 11'")
    rows(url, "DELETE FROM voiceprints WHERE caller_id = 'caller 13'")
    with pytest.raises(psycopg.errors.UniqueViolation):
        rows(url, "INSERT INTO voiceprints SELECT * FROM voiceprints WHERE caller_id = 'caller 9'")
    for caller in storage.callers(limit=1_000):
        storage.delete(caller.caller_id)
    for table in (*PARTITIONED, "caller_groups"):
        assert rows(url, f"SELECT count(*) FROM {table}") == [(0,)]
    assert storage.partition(2) == 4


def test_a_later_revision_alters_partitioned_tables(storage: SQLStorage, url: str) -> None:
    storage.partition(3)
    fill(storage)
    before = records(storage)
    for table in PARTITIONED:
        rows(url, f"ALTER TABLE {table} ADD COLUMN later text")
        rows(url, f"CREATE INDEX ix_{table}_later ON {table} (later)")
    storage.save_many(voiceprint(f"new {n}", n) for n in range(9))
    for n in range(9):
        storage.delete(f"new {n}")
    assert records(storage) == before
    assert storage.check() == []


def test_a_dump_restores_a_partitioned_store(storage: SQLStorage, url: str) -> None:
    storage.partition(3)
    fill(storage)
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


def test_tables_that_could_not_be_made_again_as_they_are_stay(storage: SQLStorage, url: str) -> None:
    storage.index_metadata("name")  # makes the store
    schema = url.rpartition("%3D")[2]
    server, owner, other = shared_server(), f"owner_{schema}", f"other_{schema}"
    for name in (owner, other):
        server.sql(f"CREATE ROLE {name} LOGIN")
        server.sql(
            f"GRANT ALL ON SCHEMA {schema} TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {name}"
        )
    server.sql(f"CREATE SCHEMA {owner} AUTHORIZATION {owner}")
    before = objects(url)

    def refuses(url: str, match: str) -> None:
        with SQLStorage(url) as opened, pytest.raises(StorageError, match=match):
            opened.partition(4)
        assert objects(url) == before

    refuses(url.replace("postgres@", f"{other}@"), "they belong to postgres. Use the URL of that user")
    for table in (*TABLES, "voiceprint_schema_version"):
        rows(url, f"ALTER TABLE IF EXISTS {table} OWNER TO {owner}")
    rows(url, "ALTER TABLE callers ENABLE ROW LEVEL SECURITY")
    refuses(url.replace("postgres@", f"{owner}@"), "row-level security")
    rows(url, "ALTER TABLE callers DISABLE ROW LEVEL SECURITY")
    elsewhere = server.url(options=f'-csearch_path="$user",{schema}').replace("postgres@", f"{owner}@")
    with SQLStorage(elsewhere) as opened, pytest.raises(StorageError, match="another schema"):
        opened.partition(4)
    assert objects(url) == before
    with SQLStorage(url.replace("postgres@", f"{owner}@")) as opened:
        assert opened.partition(4) == 0
        opened.save(voiceprint())
        assert opened.check() == []
