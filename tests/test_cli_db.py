"""`voiceprint db`: what it prints, how it exits, and that looking changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from databases import dump, sql
from postgres_server import fresh_url

from voiceprint import SQLiteStorage
from voiceprint.migrations import HEAD
from voiceprint.storage.sql.dialect import dialect_of

GOLDEN = Path(__file__).parent / "golden"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `voiceprint db` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(run, "db")


def test_an_old_database_is_shown_untouched_and_then_upgraded(run: Run) -> None:
    shutil.copy(GOLDEN / "opusagent.db", "old.db")
    before = dump(Path("old.db"))
    assert run("current", "--store", "sqlite:old.db")[:2] == (1, f"0001; the newest is {HEAD}\n")
    assert dump(Path("old.db")) == before
    code, out, _ = run("upgrade", "--store", "sqlite:old.db")
    assert code == 0
    assert f"from 0001 to revision {HEAD}" in out
    assert run("current", "--store", "sqlite:old.db")[:2] == (0, f"{HEAD} (newest)\n")
    assert "the newest" in run("upgrade", "--store", "sqlite:old.db")[1]


def test_the_same_as_json(run: Run) -> None:
    shutil.copy(GOLDEN / "opusagent.db", "old.db")
    store = ("--store", "sqlite:old.db", "--json")
    assert json.loads(run("current", *store)[1]) == {"revision": "0001", "head": HEAD, "newest": False}
    answer = json.loads(run("upgrade", *store)[1])
    assert (answer["before"], answer["revision"]) == ("0001", HEAD)
    assert json.loads(run("check", *store)[1]) == []
    assert [entry["revision"] for entry in json.loads(run("history", "--json")[1])] == [
        "0001",
        "0002",
        "0003",
        "0004",
        "0005",
        "0006",
        "0007",
        HEAD,
    ]


def test_the_store_of_the_environment_is_used_and_a_missing_one_is_not_made_by_looking(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "sqlite")
    code, out, _ = run("current")
    assert (code, out) == (1, f"There is no schema yet; the newest is {HEAD}\n")
    assert list(Path.cwd().iterdir()) == []
    assert run("upgrade")[0] == 0
    assert Path("voiceprints.db").exists()


def test_the_history_is_a_line_for_each_revision(run: Run) -> None:
    code, out, _ = run("history")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "Revision",
        "0001",
        "0002",
        "0003",
        "0004",
        "0005",
        "0006",
        "0007",
        HEAD,
    ]


def test_check_exits_with_1_and_names_the_place(run: Run) -> None:
    shutil.copy(GOLDEN / "schema-0002.db", "x.db")
    assert run("check", "--store", "sqlite:x.db")[0] == 0
    sql(Path("x.db"), "UPDATE store SET next_id = 1")
    code, out, _ = run("check", "--store", "sqlite:x.db")
    assert code == 1
    assert "table store" in out
    with SQLiteStorage("x.db") as storage:
        assert storage.count() == 5


@pytest.mark.parametrize("command", ["upgrade", "current", "check"])
def test_a_store_that_is_no_database_is_an_error(run: Run, command: str) -> None:
    for store in ("json:x.json", "memory:", "nonsense"):
        code, _, err = run(command, "--store", store)
        assert code == 2
        assert "SQL" in err
    Path("text.db").write_text("text " * 1000)
    code, _, err = run(command, "--store", "sqlite:text.db")
    assert code == 2
    assert "not a database" in err


def test_a_newer_database_is_refused_with_both_versions_named(run: Run) -> None:
    shutil.copy(GOLDEN / "schema-0002.db", "new.db")
    sql(Path("new.db"), "UPDATE alembic_version SET version_num = '0099'")
    code, _, err = run("upgrade", "--store", "sqlite:new.db")
    assert code == 2
    assert "0099" in err
    assert HEAD in err


@pytest.mark.postgres
def test_a_database_on_a_server_is_made_and_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = fresh_url()
    assert run("current", "--store", url)[:2] == (1, f"There is no schema yet; the newest is {HEAD}\n")
    assert f"from nothing to revision {HEAD}" in run("upgrade", "--store", url)[1]
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "postgresql")
    monkeypatch.setenv("VOICE_DATABASE_URL", url)
    assert run("current")[:2] == (0, f"{HEAD} (newest)\n")
    code, out, _ = run("check")
    assert code == 0
    assert out.startswith("All is well in postgresql://")


@pytest.mark.postgres
def test_a_database_on_a_server_is_partitioned_once(run: Run) -> None:
    url = fresh_url()
    store = ("partition", "--store", url)
    assert run(*store)[1].endswith(" is not partitioned.\n")
    assert run(*store, "--partitions", "4")[:2] == (
        0,
        f"{dialect_of(url).location} now has 4 partitions, and had none.\n",
    )
    assert run(*store, "--partitions", "4")[1].endswith(" has 4 partitions.\n")
    answer = json.loads(run(*store, "--partitions", "2", "--json")[1])
    assert (answer["before"], answer["partitions"]) == (4, 2)
    assert json.loads(run(*store, "--json")[1])["partitions"] == 2
    assert run("check", "--store", url)[0] == 0
    assert "the newest" in run("upgrade", "--store", url)[1]
    code, _, err = run(*store, "--partitions", "1")
    assert (code, "2 to 128" in err) == (2, True)


def test_other_stores_are_not_partitioned(run: Run) -> None:
    code, _, err = run("partition", "--store", "sqlite:x.db", "--partitions", "4")
    assert code == 2
    assert "SQLite keeps a table in one file" in " ".join(err.split())
    code, _, err = run("partition", "--store", "json:x.json", "--partitions", "4")
    assert code == 2
    assert "for SQL stores" in " ".join(err.split())
    assert list(Path.cwd().iterdir()) == []
