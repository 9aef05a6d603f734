"""`voiceprint audit`, and the events of commands."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from voices import SAMPLES

from voiceprint.privacy.audit import Event
from voiceprint.privacy.audit.event import new_event_id
from voiceprint.privacy.audit.files import AuditFile

Run = Callable[..., tuple[int, str, str]]


def event(number: int, action: str = "match", **facts: object) -> Event:
    time = f"2026-01-{number + 1:02}T12:00:00.000000Z"
    return Event(new_event_id(), time, action, caller=f"caller {number % 3}", **facts)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AuditFile:
    """Twelve events, in the folder of the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_AUDIT", "audit.jsonl")
    log = AuditFile(tmp_path / "audit.jsonl", fsync=False, rotate_bytes=1 << 30)
    log.append([event(n, verdict="accepted", similarity=0.9, limit=0.75, rule="threshold") for n in range(9)])
    log.append([event(9, "verify", error="CallerNotFoundError", actor="agent-1")])
    log.append([event(10, "identify", verdict="rejected", fpir=0.25, correlation_id="call 7")])
    log.append([event(11, "feedback", correct=False, about="f" * 32)])
    return log


def found(run: Run, *conditions: object) -> list[int]:
    code, out, _ = run("audit", "query", *conditions, "--json")
    lines = [entry["line"] for entry in json.loads(out)]
    assert code == (0 if lines else 1)
    return lines


def test_tail_shows_the_last_events(run: Run, log: AuditFile) -> None:
    code, out, err = run("audit", "tail", "-n", 3)
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split()[:4] == ["Line", "Time", "Action", "Caller"]
    assert [row.split()[0] for row in rows] == ["10", "11", "12"]
    assert "CallerNotFoundError" in rows[0]
    assert "wrong" in rows[2]
    assert [entry["line"] for entry in json.loads(run("audit", "tail", "--json")[1])] == [*range(1, 13)]


def test_query_selects_by_each_condition(run: Run, log: AuditFile) -> None:
    assert found(run, "--caller", "caller 1") == [2, 5, 8, 11]
    assert found(run, "--caller", "caller 1", "--verdict", "rejected") == [11]
    assert found(run, "--action", "verify", "--action", "feedback") == [10, 12]
    assert found(run, "--actor", "agent-1") == [10]
    assert found(run, "--correlation-id", "call 7") == [11]
    assert found(run, "--failed") == [10]
    assert found(run, "--event-id", "f" * 32) == [12]
    assert found(run, "--since", "2026-01-10", "--until", "2026-01-12T12:00:00+00:00") == [10, 11]
    assert found(run, "--since", "1d") == []
    assert found(run, "-n", 2) == [1, 2]
    assert run("audit", "query", "--caller", "nobody")[:2] == (1, "No event is like that.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("query", "--action", "look"), "There is no action 'look'"),
        (("query", "--since", "yesterday"), "--since is 'yesterday'"),
        (("verify", "--anchor", "12"), "The anchor is '12'"),
        (("tail", "--log", "nothing.jsonl"), "nothing.jsonl does not exist"),
        (("verify", "--log", "."), "is a directory"),
    ],
)
def test_bad_arguments_are_errors(run: Run, log: AuditFile, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("audit", *arguments)
    assert code == 2
    assert message in err


def test_without_a_log_the_commands_say_which_setting_is_missing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("tail", "query", "verify", "head"):
        code, _, err = run("audit", command)
        assert code == 2
        assert "VOICE_AUDIT" in err


def test_verify_and_head_agree_and_a_changed_line_is_named(run: Run, log: AuditFile) -> None:
    code, anchor, _ = run("audit", "head")
    assert (code, anchor.strip()) == (0, str(log.head()))
    code, out, _ = run("audit", "verify", "--anchor", anchor)
    assert code == 0
    assert "12 lines in one chain; 1 anchor held" in out
    log.path.write_bytes(log.path.read_bytes().replace(b"agent-1", b"agent-2"))
    code, out, _ = run("audit", "verify")
    assert code == 1
    assert "line 10 was changed" in out
    code, out, _ = run("audit", "verify", "--json")
    assert [(fault["code"], fault["first"]) for fault in json.loads(out)["faults"]] == [("changed", 10)]
    assert "1 line of the log cannot be read" in run("audit", "tail")[2]


def test_a_cut_log_is_found_by_the_anchor(run: Run, log: AuditFile) -> None:
    anchor = json.loads(run("audit", "head", "--json")[1])["anchor"]
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:10]) + lines[10][:40])
    code, out, _ = run("audit", "verify")
    assert (code, "a crash cut this line" in out) == (0, True)
    code, out, _ = run("audit", "verify", "--anchor", anchor)
    assert code == 1
    assert "lines 11 to 12 were cut off" in out


@pytest.mark.resemblyzer
def test_commands_are_recorded_with_the_user(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_AUDIT", "logs/audit.jsonl")
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "sqlite")
    run("enroll", "amara", SAMPLES / "amara/1.flac")
    run("identify", SAMPLES / "amara/2.flac")
    run("verify", "amara", SAMPLES / "amara/3.flac")
    run("export", "callers.jsonl")
    run("backup", "callers.backup")
    run("copy", "--from", "sqlite:voiceprints.db", "--to", "json:copy.json")
    run("import", "callers.jsonl", "--store", "json:other.json")
    run("restore", "callers.backup", "--store", "json:third.json")
    run("callers", "delete", "amara", "--yes", "--receipt")
    code, out, _ = run("audit", "query", "--json")
    assert code == 0
    events = [entry for entry in json.loads(out) if entry["action"] != "read"]
    assert [entry["action"] for entry in events] == [
        *("enroll", "identify", "verify", "export", "backup", "copy", "copy", "import", "restore", "delete"),
    ]
    assert {entry["actor"] for entry in events} == {pwd.getpwuid(os.getuid()).pw_name}
    assert events[0]["quality"] > 0.6
    assert run("audit", "verify")[0] == 0


@pytest.mark.resemblyzer
def test_the_search_for_remains_names_an_audit_log_in_the_store(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_AUDIT", "store")
    monkeypatch.setenv("VOICE_STORAGE_BACKEND", "sqlite")
    run("enroll", "amara", SAMPLES / "amara/1.flac")
    assert run("callers", "delete", "amara", "--yes", "--receipt")[0] == 0
    code, out, _ = run("check", "--erased", "amara", "--json")
    assert code == 1
    assert {finding["code"] for finding in json.loads(out)["findings"]} == {"audit_log"}
    assert [entry["action"] for entry in json.loads(run("audit", "tail", "--json")[1])][-1] == "delete"


@pytest.mark.resemblyzer
def test_changes_of_keys_are_recorded(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICE_AUDIT", "audit.jsonl")
    run("enroll", "amara", SAMPLES / "amara/1.flac")
    assert run("encryption", "init", "master.key")[0] == 0
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY_FILE", "master.key")
    assert run("encryption", "encrypt")[0] == 0
    assert run("encryption", "rotate")[0] == 0
    events = json.loads(run("audit", "query", "--action", "key_change", "--json")[1])
    assert [(entry["detail"], entry["count"]) for entry in events] == [("encryption", 1), ("rotation", 1)]
