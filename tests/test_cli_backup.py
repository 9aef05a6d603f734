"""The commands backup, restore, import and copy: nothing is lost, and nobody comes back who was deleted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stores import voiceprint

from voiceprint import JSONStorage, SQLiteStorage


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    with SQLiteStorage("callers.db") as storage:
        storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2), voiceprint("carol", 3)])
    return "sqlite:callers.db"


def test_a_store_is_backed_up_and_restored_into_a_new_one_of_another_kind(store: str, run) -> None:
    code, out, _ = run("backup", "callers.backup", "--store", store)
    assert (code, out.startswith("Backed up 3 callers with 3 voiceprints to callers.backup. Verified")) == (
        0,
        True,
    )
    code, out, _ = run("restore", "callers.backup", "--store", "json:new.json")
    assert (code, out) == (
        0,
        "Restored 3 callers with 3 voiceprints; all written. Verified.\n",
    )
    with JSONStorage("new.json") as storage:
        assert [caller.caller_id for caller in storage.callers()] == ["alice", "bob", "carol"]
    assert json.loads(run("restore", "callers.backup", "--json", "--store", "json:new.json")[1]) == {
        "callers": 3,
        "voiceprints": 3,
        "changed": 0,
        "left_out": 0,
        "kept": 0,
    }


def test_restore_refuses_a_store_with_callers_and_leaves_the_deleted_out(store: str, run) -> None:
    run("backup", "callers.backup", "--store", store)
    with SQLiteStorage("callers.db") as storage:
        storage.delete("alice")
        storage.save(voiceprint("dave", 4))
    code, _, err = run("restore", "callers.backup", "--store", store)
    assert code == 2
    assert "holds 3 callers" in err
    code, out, _ = run("restore", "callers.backup", "--overwrite", "--store", store)
    assert code == 0
    assert "1 caller was deleted after these copies were made: left out (--include-deleted)." in out
    assert "1 caller of the store is not in the backup, and stayed." in out
    run("restore", "callers.backup", "--overwrite", "--include-deleted", "--store", store)
    with SQLiteStorage("callers.db") as storage:
        assert storage.get("alice") is not None


def test_import_and_copy_leave_the_deleted_out_and_say_so(store: str, run) -> None:
    run("export", "callers.jsonl", "--store", store)
    run("copy", "--from", store, "--to", "json:copy.json")
    run("callers", "delete", "alice", "--yes", "--store", store)
    said = "1 caller was deleted after these copies were made: left out (--include-deleted)."
    code, out, _ = run("import", "callers.jsonl", "--store", store)
    assert (code, said in out) == (0, True)
    code, out, _ = run("copy", "--from", "json:copy.json", "--to", store)
    assert (code, said in out) == (0, True)
    code, out, _ = run("import", "callers.jsonl", "--include-deleted", "--store", store)
    assert (code, said in out) == (0, False)
    with SQLiteStorage("callers.db") as storage:
        assert storage.get("alice") is not None


def test_a_deletion_that_nobody_can_confirm_is_an_error_and_deletes_nothing(store: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voiceprint", "callers", "delete", "alice", "--receipt", "--store", store],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "nothing was changed. Give --yes" in done.stderr
    with SQLiteStorage("callers.db") as storage:
        assert storage.get("alice") is not None


def test_a_file_that_is_no_backup_is_an_error_and_creates_no_store(store: str, run, tmp_path: Path) -> None:
    run("export", "callers.jsonl", "--store", store)
    for file in ("callers.jsonl", "callers.db", "missing"):
        code, _, err = run("restore", file, "--store", "json:new.json")
        assert (code, "Traceback" in err) == (2, False)
    assert not (tmp_path / "new.json").exists()
    assert run("backup", "callers.db", "--store", store)[0] == 2
    assert run("backup", "-", "--store", store)[0] == 2
    assert not (tmp_path / "-").exists()
    assert run("backup", "callers.backup", "--store", "json:none.json")[0] == 2
