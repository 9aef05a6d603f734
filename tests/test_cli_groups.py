"""`voiceprint groups`, and `identify` and `verify` among groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from voices import SAMPLES

from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, VoiceFingerprintConfig, load_audio

STORE = ("--store", "sqlite:callers.db")
AMARA = str(SAMPLES / "amara" / "3.flac")


@pytest.fixture(autouse=True)
def _a_filled_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in VoiceFingerprintConfig.model_fields:
        monkeypatch.delenv(f"VOICE_{name.upper()}", raising=False)
    with OpusAgentVoiceRecognizer(SQLiteStorage("callers.db")) as recognizer:
        for name in ("amara", "bruno", "carlo", "dario", "elena", "farid"):
            audio, rate = load_audio(SAMPLES / name / "1.flac")
            recognizer.enroll_caller(name, audio, sample_rate=rate)


def test_groups_are_filled_listed_and_emptied(run):
    code, out, _ = run("groups", "list", *STORE)
    assert (code, "groups add" in " ".join(out.split())) == (0, True)
    code, out, _ = run("groups", "add", "vip", "bruno", "carlo", "carlo", *STORE)
    assert (code, out.strip()) == (0, "Added 2 callers to the group 'vip'.")
    run("groups", "add", "fraud", "amara", *STORE)
    assert json.loads(run("groups", "list", "--json", *STORE)[1]) == {"fraud": 1, "vip": 2}
    assert run("groups", "list", *STORE)[1].split() == ["Group", "Callers", "fraud", "1", "vip", "2"]
    assert run("groups", "members", "vip", *STORE)[1].split() == ["bruno", "carlo"]
    assert json.loads(run("groups", "members", "vip", "--json", *STORE)[1]) == ["bruno", "carlo"]
    code, out, _ = run("groups", "remove", "vip", "bruno", *STORE)
    assert (code, out.strip()) == (0, "Removed 1 caller from the group 'vip'.")
    assert run("groups", "members", "vip", *STORE)[1].split() == ["carlo"]


def test_a_caller_who_is_not_there_is_named_and_the_others_are_added(run):
    code, out, err = run("groups", "add", "vip", "nobody", "bruno", *STORE)
    assert code == 1
    assert "'nobody'" in err
    assert "Added 1 caller" in out
    code, out, err = run("groups", "add", "vip", "nobody", *STORE)
    assert (code, out) == (1, "")


def test_an_empty_group_and_wrong_names_are_errors(run):
    code, _, err = run("groups", "members", "vpi", *STORE)
    assert code == 1
    assert "'vpi'" in err
    assert run("groups", "add", "", "amara", *STORE)[0] == 2
    assert run("groups", "list", "--store", "sqlite:missing.db")[0] == 2
    assert not Path("missing.db").exists()


def test_identify_searches_groups_and_lists_the_hits_of_a_watched_one(run):
    run("groups", "add", "vip", "bruno", "carlo", *STORE)
    run("groups", "add", "fraud", "amara", *STORE)
    code, out, _ = run("identify", AMARA, "--group", "vip", "--watch", "fraud", *STORE)
    assert code == 1  # nobody of the group is accepted
    answer, hits = out.split("Watched group")
    assert "carlo" in answer
    assert "bruno" in answer
    assert "amara " not in answer
    assert "fraud" in hits
    assert " amara " in hits
    code, out, _ = run("identify", AMARA, "--not-group", "vip", "--watch", "fraud", "--json", *STORE)
    (shown,) = json.loads(out)
    assert code == 0
    assert {"bruno", "carlo"}.isdisjoint(match["caller_id"] for match in shown["matches"])
    assert [(hit["group"], hit["caller_id"]) for hit in shown["watch_hits"]] == [("fraud", "amara")]
    code, out, _ = run("identify", AMARA, "--separate", "--watch", "fraud", *STORE)
    assert "Watched group" in out


def test_verify_lists_hits_of_a_false_claim(run):
    run("groups", "add", "fraud", "amara", *STORE)
    code, out, _ = run("verify", "bruno", AMARA, "--watch", "fraud", *STORE)
    assert code == 1
    assert " amara " in out.split("Watched group")[1]
    assert "Watched group" not in run("verify", "amara", AMARA, *STORE)[1]
