"""Indexes of metadata keys: which keys can have one, that searches use it, and that it is erased too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from harness import NEW_KEY
from sqlalchemy import event
from stores import voiceprint

from voiceprint import InvalidArgumentError, SQLiteStorage
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.privacy.erasure import delete_with_receipt
from voiceprint.storage.sql import SQLStorage


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStorage]:
    url = (
        postgres_server.fresh_url()
        if request.param == "postgresql"
        else f"sqlite:///{tmp_path}/voiceprints.db"
    )
    with SQLStorage(url) as opened:
        yield opened


def plan_of(storage: SQLStorage, metadata: dict[str, object]) -> str:
    """The plan by which the database runs the search."""
    engine = storage._database._engine
    seen = []

    def note(_connection, _cursor, statement, parameters, *_):
        if "metadata" in statement and "caller_id >" in statement:
            seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    storage.find_callers(metadata)
    event.remove(engine, "before_cursor_execute", note)
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        return "\n".join(
            str(tuple(row))
            for statement, parameters in seen
            for row in connection.exec_driver_sql(f"{word} {statement}", parameters)
        )


def test_a_search_of_an_indexed_key_reads_the_index(storage: SQLStorage) -> None:
    storage.save_many(
        [voiceprint(f"c{n}", n % 5, metadata={"account": n, "plan": n % 2}) for n in range(3_000)]
    )
    assert "ix_callers_metadata" not in plan_of(storage, {"account": 7})
    storage.index_metadata("account")
    assert "ix_callers_metadata:account" in plan_of(storage, {"account": 7})
    assert "ix_callers_metadata:account" in plan_of(storage, {"account": 7, "plan": 1})
    assert "ix_callers_metadata:account" not in plan_of(storage, {"account": None})
    assert [caller.caller_id for caller in storage.find_callers({"account": 7})] == ["c7"]


def test_indexes_are_listed_made_once_and_dropped(storage: SQLStorage) -> None:
    assert storage.metadata_indexes() == ()
    storage.drop_metadata_index("plan")
    assert not storage.exists()
    storage.index_metadata("plan")
    storage.index_metadata("plan")
    storage.index_metadata("ä b:c@d/e+1.5-_")
    assert storage.metadata_indexes() == ("plan", "ä b:c@d/e+1.5-_")
    storage.save(voiceprint(metadata={"plan": "gold"}))
    storage.drop_metadata_index("plan")
    storage.drop_metadata_index("plan")
    assert storage.metadata_indexes() == ("ä b:c@d/e+1.5-_",)
    assert len(storage.find_callers({"plan": "gold"})) == 1
    assert storage.check() == []


@pytest.mark.parametrize("key", ["", 'a"b', "a'b", "a\\b", "a%b", "a\0", "k" * 41, "ä" * 21, 5, None, "a\nb"])
def test_a_key_that_can_have_no_index_is_refused(storage: SQLStorage, key: object) -> None:
    for use in (storage.index_metadata, storage.drop_metadata_index):
        with pytest.raises(InvalidArgumentError, match="can have no index"):
            use(key)  # type: ignore[arg-type]
    assert not storage.exists()


@pytest.mark.parametrize("key", ["k" * 40, "ä" * 20, "metadata"])
def test_a_key_at_the_limits_can(storage: SQLStorage, key: str) -> None:
    storage.index_metadata(key)
    storage.save(voiceprint(metadata={key: "x"}))
    assert storage.metadata_indexes() == (key,)
    assert len(storage.find_callers({key: "x"})) == 1


def test_values_longer_than_an_index_takes_can_be_saved(storage: SQLStorage) -> None:
    storage.index_metadata("note")
    for n, note in enumerate(("x" * 100_000, "\0" * 50_000, ["y" * 100_000])):
        storage.save(voiceprint(f"c{n}", metadata={"note": note}))
        assert [caller.caller_id for caller in storage.find_callers({"note": note})] == [f"c{n}"]


def test_a_deleted_caller_s_values_are_gone_from_the_index_on_the_disk(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "voiceprints.db") as storage:
        storage.index_metadata("account")
        for n in range(300):
            storage.save(voiceprint(f"caller-{n:03}", n, metadata={"account": f"secret-{n:03}"}))
        receipt = delete_with_receipt(storage, "caller-007")
        assert receipt.complete, receipt
        storage.update_metadata("caller-008", {"account": "other"})
        assert storage.flush_removals()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret-009" in content
    assert b"secret-007" not in content
    assert b"secret-008" not in content
    with sqlite3.connect(tmp_path / "voiceprints.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_encrypted_store_finds_its_callers_and_has_no_index(tmp_path: Path) -> None:
    encryption = Encryption(KeyRing(VariableKeys(NEW_KEY)))
    with SQLiteStorage(tmp_path / "voiceprints.db", encryption=encryption) as storage:
        storage.save_many([voiceprint(f"c{n}", n, metadata={"account": f"secret-{n}"}) for n in range(3)])
        assert [caller.caller_id for caller in storage.find_callers({"account": "secret-1"})] == ["c1"]
        with pytest.raises(InvalidArgumentError, match="is encrypted, and its metadata can have no index"):
            storage.index_metadata("account")
        assert storage.metadata_indexes() == ()
    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
