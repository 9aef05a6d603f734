"""Databases of every revision are brought to the newest without loss, once, or are left as they are."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import dump, old_database, old_row, sql
from forked import ForkedPython
from sqlalchemy import create_engine
from stores import Follower, assert_augmented, assert_embedding, assert_life, ids_of, state, unit, voiceprint

from voiceprint import SQLiteStorage, StorageCorruptError, StorageError, Voiceprint, migrations
from voiceprint.storage.base import START
from voiceprint.storage.sql.tables import metadata
from voiceprint.storage.transfer import digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voiceprints.db"


def _schema(path: Path) -> dict[str, str]:
    rows = sql(path, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    # A renamed table is quoted.
    return {name: " ".join(text.replace('"', "").split()) for name, text in rows if name != "alembic_version"}


def test_the_migrated_schema_is_the_one_of_the_tables(tmp_path: Path, path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.create()
    made = tmp_path / "made.db"
    engine = create_engine(f"sqlite:///{made}")
    metadata.create_all(engine)
    engine.dispose()
    assert _schema(path) == _schema(made)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_head_is_the_newest_of_the_revisions() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [migrations.HEAD]
    assert [revision.revision for revision in migrations.history()] == [
        "0001",
        "0002",
        "0003",
        "0004",
        "0005",
        "0006",
        "0007",
        "0008",
    ]


def test_a_database_of_opusagent_is_taken_over_without_loss(golden: Path, path: Path) -> None:
    shutil.copy(golden / "opusagent.db", path)
    path.chmod(0o644)
    old = json.loads((golden / "opusagent.json").read_text())
    with SQLiteStorage(path) as storage:
        assert [caller.caller_id for caller in storage.callers()] == sorted(old)
        for name, record in old.items():
            caller = storage.get(name)
            assert caller.metadata == record["metadata"]
            assert_embedding(caller.voiceprints[0].embedding, np.array(record["embedding"]))
            assert (caller.voiceprints[0].encoder, len(caller.voiceprints)) == ("resemblyzer", 1)
        assert storage.get("alice").created_at == "2024-01-15T10:30:00.000000Z"
        assert storage.get("alice").last_seen == "2024-02-15T10:30:00.123456Z"
        assert storage.get("+1 555 0100").last_seen is None
        follower = Follower()
        follower.assert_in_step(storage)
        assert storage.save(voiceprint("new")).id == 4
        follower.assert_in_step(storage)
        assert storage.check() == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert sql(path, "SELECT version_num FROM alembic_version") == [(migrations.HEAD,)]


def test_a_database_of_revision_0002_opens_as_it_was_written(golden: Path, path: Path) -> None:
    shutil.copy(golden / "schema-0002.db", path)
    tables = "callers", "voiceprints"
    columns = [", ".join(row[1] for row in sql(path, f"PRAGMA table_info({name})")) for name in tables]
    # Of 0002: later ones are beside.
    looks = [f"SELECT {named} FROM {table}" for table, named in zip(tables, columns, strict=True)]
    before = [sql(path, look) for look in looks]
    with SQLiteStorage(path) as storage:
        assert storage.check() == []
        assert storage.revision() == 8
        assert [ids_of(caller.voiceprints) for caller in storage.callers()] == [[3, 5, 7], [2, 4]]
        assert storage.get("caller 0").metadata == {"n": 4, "name": "Zoë\0"}
        rng = np.random.default_rng(20250101)
        first, *_ = [rng.standard_normal(8) for _ in range(5)][1:]
        assert_embedding(storage.get("caller 1").voiceprints[0].embedding, first)
        assert storage.changes(START) is None  # the feed begins anew
        Follower().assert_in_step(storage)
        assert [sql(path, look) for look in looks] == before
        assert [print_.augmented for print_ in storage.get_all()] == [None] * 5
        assert storage.save(voiceprint("new")).id == 8


@pytest.mark.parametrize("revision", ["0003", "0004", "0006"])
def test_a_database_with_augmented_prints_opens_with_them(golden: Path, path: Path, revision: str) -> None:
    shutil.copy(golden / f"schema-{revision}.db", path)
    with SQLiteStorage(path) as storage:
        assert storage.check() == []
        assert_augmented(storage)


def test_a_database_with_consents_groups_and_refusals_opens_with_them(golden: Path, path: Path) -> None:
    shutil.copy(golden / "schema-0008.db", path)
    with SQLiteStorage(path) as storage:
        assert storage.check() == []
        assert_life(storage)


@pytest.mark.parametrize("revision", ["0002", "0003", "0004", "0005", "0006", "0008"])
def test_an_upgraded_database_has_the_schema_of_a_new_one(
    golden: Path, tmp_path: Path, path: Path, revision: str
) -> None:
    shutil.copy(golden / f"schema-{revision}.db", path)
    new = tmp_path / "new.db"
    for place in (path, new):
        with SQLiteStorage(place) as storage:
            storage.create()
    assert _schema(path) == _schema(new)


@pytest.mark.slow
def test_many_prints_in_a_column_are_all_moved_to_their_table(golden: Path, path: Path) -> None:
    shutil.copy(golden / "schema-0002.db", path)
    with SQLiteStorage(path) as storage:
        storage.save_many(
            voiceprint(f"c{n:04}", n, augmented=unit(n + 5000) if n % 3 else None) for n in range(3000)
        )
        before = state(storage)
    _as_revision_0003(path)
    with SQLiteStorage(path) as storage:
        assert state(storage) == before
        assert storage.check() == []


def test_a_damaged_augmented_print_is_moved_and_told_and_hinders_nothing(golden: Path, path: Path) -> None:
    shutil.copy(golden / "schema-0003.db", path)
    sql(path, "UPDATE voiceprints SET simulated = 'text' WHERE id = 2")
    with SQLiteStorage(path) as storage:
        assert [finding.code for finding in storage.check()] == ["corrupt"]
        assert storage.get("caller 0") is not None
        with pytest.raises(StorageCorruptError, match="voiceprint 2"):
            storage.get("caller 1")


@pytest.mark.slow
def test_a_process_killed_while_it_moves_them_leaves_the_old_database_or_the_new_one(
    tmp_path: Path, path: Path
) -> None:
    with SQLiteStorage(path) as storage:
        storage.save_many(voiceprint(f"c{n}", n, augmented=unit(n + 9000)) for n in range(1000))
        before = digest(storage)
    _as_revision_0003(path)
    found = set()
    for n in range(4):
        copy = tmp_path / f"{n}.db"
        shutil.copy(path, copy)
        opener = ForkedPython(OPEN, copy)
        log = copy.with_name(f"{copy.name}-wal")
        while opener.poll() is None and not (log.exists() and log.stat().st_size > n * 1_000_000):
            time.sleep(0.001)
        opener.kill()
        opener.communicate()
        found.add(sql(copy, "SELECT version_num FROM alembic_version")[0][0])
        with SQLiteStorage(copy) as storage:
            assert digest(storage) == before
            assert storage.check() == []
    assert "0003" in found


def _as_revision_0003(path: Path) -> None:
    """Put a database back to the revision that no released version wrote."""
    connection = sqlite3.connect(path)
    connection.executescript(
        "ALTER TABLE voiceprints ADD COLUMN simulated BLOB;"
        "UPDATE voiceprints SET simulated = "
        "(SELECT embedding FROM augmented_voiceprints WHERE voiceprint_id = id);"
        "DROP TABLE augmented_voiceprints; DROP TABLE commits; DROP TABLE deletions;"
        "DROP TABLE caller_groups; DROP TABLE audit_log;"
        "ALTER TABLE store DROP COLUMN encryption;"
        "ALTER TABLE callers DROP COLUMN details; ALTER TABLE callers DROP COLUMN data_key;"
        "ALTER TABLE callers DROP COLUMN sealed;"
        "ALTER TABLE voiceprints DROP COLUMN details; ALTER TABLE voiceprints DROP COLUMN seal;"
        "UPDATE alembic_version SET version_num = '0003';"
    )
    connection.close()


def test_a_voiceprint_replaced_by_an_older_version_loses_the_print_of_its_predecessor(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        saved = storage.save(voiceprint("alice", 1, augmented=unit(2)))
        storage.save(voiceprint("alice", 3, augmented=unit(4)))
        # As the code of revision 0002 does, in a process that had the database open during the upgrade.
        sql(path, "UPDATE voiceprints SET embedding = ?, revision = 3 WHERE id = 1", unit(5).tobytes())
        sql(path, "UPDATE store SET revision = 3")
        first, second = storage.get("alice").voiceprints
        assert np.array_equal(first.embedding, unit(5))
        assert first.augmented is None
        assert np.array_equal(second.augmented, unit(4))
        assert [(finding.code, finding.place) for finding in storage.check()] == [
            ("counter", "table store"),
            ("stale", "voiceprint 1"),
        ]
        assert storage.check(fix=True) == []
        assert sql(path, "SELECT voiceprint_id FROM augmented_voiceprints") == [(2,)]
        storage.save(voiceprint("alice", 6, id=saved.id, augmented=unit(7)))
        assert np.array_equal(storage.get("alice").voiceprints[0].augmented, unit(7))


def test_prints_of_an_upgraded_database_may_have_one_for_simulated_lines(golden: Path, path: Path) -> None:
    shutil.copy(golden / "schema-0002.db", path)
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint("new", 1, augmented=unit(2)))
    with SQLiteStorage(path) as storage:
        assert np.array_equal(storage.get("new").voiceprints[0].augmented, unit(2))
        assert storage.check() == []


def test_an_old_database_without_rows_is_an_empty_store(path: Path) -> None:
    with SQLiteStorage(old_database(path, [])) as storage:
        assert state(storage) == {}
        assert storage.revision() == 0


def test_many_old_rows_are_all_taken_over(path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((2500, 256)).astype(np.float32)
    rows = [old_row(f"c{n:04}", embedding=vector.tobytes()) for n, vector in enumerate(vectors)]
    with SQLiteStorage(old_database(path, rows)) as storage:
        ids, embeddings = next(storage.scan())
        assert ids.tolist() == list(range(1, 2501))
        assert np.allclose(embeddings, vectors / np.linalg.norm(vectors, axis=1)[:, None], atol=1e-6)
        assert storage.check() == []


SECRET = "born in 1970"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"embedding": None}, "'mallory'"),
        ({"embedding": b""}, "'mallory'"),
        ({"embedding": unit(1).tobytes()[:-1]}, "'mallory'"),
        ({"embedding": unit(1).tobytes()[:-4]}, "'mallory'"),
        ({"embedding": unit(1).tobytes() * 2}, "'mallory'"),
        ({"embedding": np.full(256, np.nan, dtype=np.float32).tobytes()}, "'mallory'"),
        ({"embedding": bytes(1024)}, "'mallory'"),
        ({"embedding": "text"}, "'mallory'"),
        ({"metadata": f'{{"{SECRET}"'}, "'mallory'"),
        ({"metadata": f'["{SECRET}"]'}, "'mallory'"),
        ({"created_at": "yesterday"}, "'mallory'"),
        ({"last_seen": 5}, "'mallory'"),
        ({"caller_id": None}, "not text"),
        ({"caller_id": b"mallory"}, "not text"),
        ({"caller_id": ""}, "''"),
    ],
)
def test_an_old_row_that_cannot_be_taken_over_leaves_the_database_as_it_was(
    path: Path, fields: dict[str, object], place: str
) -> None:
    row = old_row(fields.pop("caller_id", "mallory"), **fields)
    old_database(path, [old_row("alice"), row, old_row("zoe")])
    before = dump(path)
    for _ in range(2):
        with pytest.raises(StorageCorruptError) as caught:
            SQLiteStorage(path)
        assert str(path) in str(caught.value)
        assert place in str(caught.value)
        assert SECRET not in str(caught.value)
    assert dump(path) == before


def test_a_newer_database_is_refused_with_both_versions_named(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.create()
    sql(path, "UPDATE alembic_version SET version_num = '0099'")
    before = dump(path)
    with pytest.raises(StorageError, match=rf"'0099'.*'{migrations.HEAD}'.*newer"):
        SQLiteStorage(path)
    assert dump(path) == before


@pytest.mark.parametrize("table", ["callers (name TEXT)", "voiceprints (id INTEGER)", "store (x)"])
def test_the_database_of_another_program_is_refused_and_left_alone(path: Path, table: str) -> None:
    sql(path, f"CREATE TABLE {table}")
    before = dump(path)
    with pytest.raises(StorageError, match="another program"):
        SQLiteStorage(path)
    assert dump(path) == before


OPEN = """
import sys
from voiceprint import SQLiteStorage
with SQLiteStorage(sys.argv[1]) as storage:
    storage.create()
    print(storage.identity(), storage.count())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["old", "new"])
def test_ten_processes_that_open_a_database_at_once_upgrade_it_once(path: Path, kind: str) -> None:
    if kind == "old":
        old_database(path, [old_row(f"c{n}") for n in range(300)])
    openers = [ForkedPython(OPEN, path) for _ in range(10)]
    said = {opener.communicate(timeout=100)[0] for opener in openers}
    assert [opener.returncode for opener in openers] == [0] * 10
    assert len(said) == 1
    assert said.pop().split()[1] == ("300" if kind == "old" else "0")
    with SQLiteStorage(path) as storage:
        assert storage.check() == []


def test_a_process_that_had_the_old_database_open_does_not_disturb_the_upgrade(path: Path) -> None:
    old_database(path, [old_row("alice")])
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM voiceprints").fetchone() == (1,)
    with SQLiteStorage(path) as storage:
        storage.save(Voiceprint("bob", unit(2)))
        assert storage.count() == 2
    other.close()
