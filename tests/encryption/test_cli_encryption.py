"""`voiceprint encryption`, and the encrypted files of export and backup, on the command line."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest
from encryption_keys import text_key
from stores import voiceprint

from voiceprint import JSONStorage, SQLiteStorage

SECRET = "Alice Liddell"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plain store of three callers in the working folder; no key is set."""
    monkeypatch.chdir(tmp_path)
    with SQLiteStorage("callers.db") as storage:
        storage.save_many([voiceprint("alice", 1, metadata={"name": SECRET}), voiceprint("bob", 2)])
        storage.save(voiceprint("carol", 3))
    return "sqlite:callers.db"


def in_files(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file() and text.encode() in path.read_bytes()]


def test_a_store_is_encrypted_rotated_backed_up_and_restored(
    store: str, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert in_files(tmp_path, SECRET)
    code, out, _ = run("encryption", "init", "master.key")
    assert (code, out.startswith("Wrote the key ")) == (0, True)
    assert run("encryption", "init", "master.key")[0] == 2
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY_FILE", "master.key")
    assert json.loads(run("encryption", "status", "--json", "--store", store)[1])["state"] == "plain"
    code, out, _ = run("encryption", "encrypt", "--store", store)
    assert code == 0
    assert "3 callers, 3 of them now. Every record was read again." in out
    assert "none holds plain data" in out
    assert in_files(tmp_path, SECRET) == []
    first = json.loads(run("encryption", "status", "--json", "--store", store)[1])
    assert (first["state"], first["keys"]) == ("encrypted", {first["current"]: 3})
    assert run("backup", "old.backup", "--store", store)[1].startswith("Backed up 3 callers with 3")
    code, out, _ = run("encryption", "rotate", "--store", store)
    assert (code, "3 new there" in out) == (0, True)
    second = json.loads(run("encryption", "status", "--json", "--store", store)[1])
    assert second["keys"] == {second["current"]: 3}
    assert second["current"] != first["current"]
    assert run("encryption", "rotate", "--no-new-key", "--store", store)[0] == 0
    code, out, _ = run("encryption", "status", "--store", store)
    assert f"3 callers under the key {second['current']} (the current key)." in out
    assert run("restore", "old.backup", "--store", "json:new.json")[0] == 0  # the old key is in the file yet
    assert json.loads(run("callers", "show", "alice", "--json", "--store", "json:new.json")[1])
    assert in_files(tmp_path, SECRET) == []
    assert SECRET not in caplog.text


def test_commands_without_the_key_are_refused_and_say_so(
    store: str, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", text_key())
    run("encryption", "encrypt", "--store", store)
    monkeypatch.delenv("VOICE_ENCRYPTION_KEY")
    for command in (("callers", "list"), ("encryption", "status"), ("export", "-"), ("check",)):
        code, out, err = run(*command, "--store", store)
        assert (code, out) == (2, "")
        assert "is encrypted, and no key is set" in err
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", text_key())
    code, _, err = run("callers", "delete", "alice", "--yes", "--store", store)
    assert code == 2
    assert "and the configured key is" in err


def test_a_variable_gets_no_new_key_and_a_store_without_a_key_no_encryption(
    store: str, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no master key" in run("encryption", "encrypt", "--store", store)[2]
    assert "There is no master key" in run("encryption", "rotate", "--store", store)[2]
    old, new = text_key(), text_key()
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", old)
    assert "is not encrypted" in run("encryption", "rotate", "--store", store)[2]
    run("encryption", "encrypt", "--store", store)
    assert "use --no-new-key" in run("encryption", "rotate", "--store", store)[2]
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", f"{new} {old}")
    assert "3 new there" in run("encryption", "rotate", "--no-new-key", "--store", store)[1]
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", new)
    assert run("check", "--store", store)[0] == 0


@pytest.mark.parametrize(("write", "read"), [("export", "import"), ("backup", "restore")])
def test_a_file_under_a_passphrase_is_read_with_it_alone(
    write: str, read: str, store: str, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pass").write_text("correct horse\nanother line\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    code, out, _ = run(write, "file", "--passphrase-file", "pass", "--store", store)
    assert (code, ", encrypted" in out) == (0, True)
    assert SECRET.encode() not in (tmp_path / "file").read_bytes()
    code, _, err = run(read, "file", "--passphrase-file", "wrong", "--store", "json:new.json")
    assert (code, "The passphrase is not that of the file" in err) == (2, True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = run(read, "file", "--store", "json:new.json")
    assert (code, "needs a passphrase" in err) == (2, True)
    assert not (tmp_path / "new.json").exists()
    monkeypatch.setenv("VOICE_PASSPHRASE", "correct horse")
    assert run(read, "file", "--store", "json:new.json")[0] == 0
    with JSONStorage("new.json") as storage:
        assert storage.count_callers() == 3
    code, out, _ = run(write, "file", "--encrypt", "--store", store)  # an encrypted file is replaced, too
    assert code == 0


@pytest.mark.parametrize("write", ["export", "backup"])
def test_an_encrypted_store_writes_encrypted_files_unless_told_otherwise(
    write: str, store: str, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", text_key())
    run("encryption", "encrypt", "--store", store)
    assert run(write, "file", "--store", store)[0] == 0
    assert SECRET.encode() not in (tmp_path / "file").read_bytes()
    assert run(write, "file", "--no-encrypt", "--store", store)[0] == 0
    assert SECRET.encode() in (tmp_path / "file").read_bytes()


def test_bad_passphrase_files_and_contradictions_are_named(store: str, run, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    for name, wanted in (("empty", "is empty"), ("binary", "not UTF-8"), ("none", "cannot be read")):
        code, _, err = run("export", "file", "--passphrase-file", name, "--store", store)
        assert (code, wanted in err) == (2, True)
    code, _, err = run("export", "file", "--no-encrypt", "--passphrase-file", "empty", "--store", store)
    assert (code, "contradict each other" in err) == (2, True)
    assert not (tmp_path / "file").exists()
