"""`voiceprint index`: what it shows, and the snapshot that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stores import voiceprint
from voices import SAMPLES

from voiceprint import JSONStorage, OpusAgentVoiceRecognizer, SQLiteStorage, VoiceFingerprintConfig
from voiceprint.index import VectorIndex


@pytest.fixture(autouse=True)
def _a_filled_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in VoiceFingerprintConfig.model_fields:
        monkeypatch.delenv(f"VOICE_{name.upper()}", raising=False)
    with SQLiteStorage("callers.db") as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(500)])


def test_status_of_a_small_store_says_that_every_voiceprint_is_compared(run):
    code, out, _ = run("index", "status", "--store", "sqlite:callers.db")
    assert code == 0
    assert "500" in out
    assert "every voiceprint is compared" in out
    assert "callers.db.index" in out


def test_status_says_why_every_voiceprint_is_compared_and_what_that_means(run, monkeypatch):
    with SQLiteStorage("callers.db") as storage:
        storage.save_many([voiceprint(f"c{n}", 0) for n in range(500, 2_000)])
    defaults = VectorIndex.__init__.__kwdefaults__
    monkeypatch.setattr(VectorIndex.__init__, "__kwdefaults__", defaults | {"exact_up_to": 100})
    _, out, _ = run("index", "rebuild", "--store", "sqlite:callers.db")
    assert "too many vectors are almost equal" in " ".join(out.split())
    _, out, _ = run("index", "rebuild", "--store", "sqlite:callers.db", "--json")
    shown = json.loads(out)
    assert shown["structure"] == "exact"
    assert "a search takes time in proportion to the number of vectors" in shown["reason"]


def test_rebuild_writes_the_snapshot_and_tells_of_it_as_json(run):
    code, out, _ = run("index", "rebuild", "--store", "sqlite:callers.db", "--json")
    assert code == 0
    shown = json.loads(out)
    assert (shown["vectors"], shown["structure"], shown["recall"]) == (500, "exact", 1.0)
    assert Path(shown["snapshot"]).stat().st_size == shown["snapshot_bytes"]


def test_no_snapshot_is_written_where_none_is_wanted(run, monkeypatch):
    monkeypatch.setenv("VOICE_INDEX_PATH", "off")
    code, out, _ = run("index", "rebuild", "--store", "sqlite:callers.db")
    assert code == 0
    assert "none" in out.split()
    assert list(Path().glob("*.index")) == []


def test_tune_shows_what_a_recall_takes(run, monkeypatch):
    monkeypatch.setattr("voiceprint.index.vector_index.EXACT_UP_TO", 100)
    code, out, _ = run("index", "tune", "--recall", "0.9", "--store", "sqlite:callers.db", "--json")
    assert code == 0
    assert json.loads(out)["recall_target"] == 0.9


@pytest.mark.parametrize("recall", ["0", "1.5", "much"])
def test_a_recall_that_cannot_be_is_refused(run, recall):
    assert run("index", "tune", "--recall", recall, "--store", "sqlite:callers.db")[0] == 2


def test_the_library_has_the_same_verbs(tmp_path):
    config = VoiceFingerprintConfig(index_path=tmp_path / "some.index")
    with OpusAgentVoiceRecognizer(SQLiteStorage("callers.db"), config=config) as recognizer:
        assert recognizer.index_status().vectors == 500
        assert recognizer.rebuild_index().vectors == 500
        assert recognizer.snapshot_path() == tmp_path / "some.index"
        with pytest.raises(ValueError, match="recall"):
            recognizer.tune_index(2.0)
        recognizer.storage.save(voiceprint("new", 9999))
        assert recognizer.index_status().vectors == 501
    assert (tmp_path / "some.index").exists()


@pytest.mark.parametrize("command", [["identify", SAMPLES / "gil/1.flac"], ["index", "rebuild"]])
def test_a_snapshot_in_the_place_of_the_store_is_refused_and_the_store_stays(run, monkeypatch, command):
    before = Path("callers.db").read_bytes()
    monkeypatch.setenv("VOICE_INDEX_PATH", "callers.db")
    code, out, err = run(*command, "--store", "sqlite:callers.db")
    assert (code, out) == (2, "")
    assert "belongs to the store" in err
    assert "VOICE_INDEX_PATH" in err
    assert Path("callers.db").read_bytes() == before


def test_a_rebuild_onto_the_file_of_another_program_is_refused_and_that_file_stays(run, monkeypatch):
    Path("letter").write_text("Dear reader")
    monkeypatch.setenv("VOICE_INDEX_PATH", "letter")
    code, _, err = run("index", "rebuild", "--store", "sqlite:callers.db")
    assert code == 2
    assert "is not an index snapshot" in err
    assert "VOICE_INDEX_PATH" in err
    assert Path("letter").read_text() == "Dear reader"


def test_voiceprints_of_other_encoders_are_told_of_and_what_to_do(run):
    with JSONStorage("voiceprints.json") as storage:
        storage.save_many([voiceprint("alice", n, encoder="another") for n in range(2)])
    for command in (["index", "status"], ["check"], ["identify", SAMPLES / "amara/1.flac"]):
        code, _, err = run(*command)
        assert code == (1 if command[0] == "identify" else 0)
        assert "1 of 1 callers have no voiceprint of the encoder 'resemblyzer' and are not found by it" in err
        assert "Set VOICE_ENCODER to the one that enrolled them, or enroll the callers anew" in err
    code, _, err = run("verify", "alice", SAMPLES / "amara/1.flac")
    assert (code, "but with 'another': set VOICE_ENCODER" in err) == (1, True)


def test_the_library_logs_once_that_others_are_not_compared(quick, voices, caplog):
    quick.storage.save(voiceprint("alice", 1, encoder="another"))
    for _ in range(3):
        assert quick.identify(voices["amara"][0], sample_rate=16_000) == []
    shown = [record.getMessage() for record in caplog.records if "other encoders" in record.getMessage()]
    assert len(shown) == 1
    assert "1 of 'another'" in shown[0]
