"""The commands on folders and files as they come: odd names, formats and headers, and standard input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import field_files as field
import pytest
from voices import SAMPLES

from voiceprint import JSONStorage

Run = Callable[..., tuple[int, str, str]]
BRIEF = ("--duration", "2", "--splits", "3", "--no-cache")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(path: str, data: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def sample(name: str, number: int) -> bytes:
    return (SAMPLES / name / f"{number}.flac").read_bytes()


def test_a_folder_is_enrolled_by_content_and_all_that_is_left_out_is_listed(run: Run) -> None:
    put("in/anna/1.flac", sample("amara", 1))
    put("in/anna/._1.flac", b"resource fork")
    put("in/anna/.DS_Store", b"x")
    put("in/cleo/call", field.written("OGG", "OPUS"))  # without a suffix
    put("in/ben/2.dat", field.wav(0x7FFFF000))
    put("in/ben/3.opus", sample("bruno", 1)[:9000])
    put("in/ben/notes.txt", b"he called on Monday")
    put("in/ben/old/4.wav", field.wav())
    put("in/top.wav", field.wav())
    put("in/README.md", b"no recording, and not where one is looked for")
    put("in/.git/config", b"x")
    code, out, err = run("enroll-dir", "in")
    assert code == 1
    assert out.startswith("Enrolled 3 files for 3 callers.\n\n1 file could not be enrolled:\n")
    assert "in/ben/3.opus is truncated" in " ".join(out.split())
    said = err.splitlines()
    assert [line for line in said if line.startswith("Skipped")] == [
        "Skipped: in/top.wav is in no caller's folder, DIR/CALLER.",
        "Skipped: in/ben/notes.txt is not an audio file: move it elsewhere, or convert it, such as by ffmpeg "
        "-i IN OUT.wav.",
        "Skipped: in/ben/old is a folder in a caller's: move its recordings up.",
    ]
    assert any(line.startswith("in/ben/2.dat: the header does not say how long") for line in said)
    with JSONStorage("voiceprints.json") as store:
        assert [caller.caller_id for caller in store.callers()] == ["anna", "ben", "cleo"]


def test_a_folder_that_is_enrolled_but_for_a_file_that_is_none_ends_with_1(run: Run) -> None:
    put("in/anna/1.flac", sample("amara", 1))
    assert run("enroll-dir", "in")[0] == 0
    put("in/anna/notes.txt", b"x")
    code, _, err = run("enroll-dir", "in", "--again")
    assert code == 1
    assert "in/anna/notes.txt is not an audio file" in err


def test_a_format_of_the_extra_is_a_failure_that_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    put("in/anna/1.m4a", field.encoded("ipod", "aac", 16_000))
    code, out, _ = run("enroll-dir", "in", "--json")
    assert (code, json.loads(out)[0]["voiceprint_id"]) == (0, 1)
    monkeypatch.setitem(sys.modules, "av", None)
    code, out, _ = run("enroll-dir", "in", "--json", "--again")
    assert code == 1
    assert "is MP4/AAC: install opusagent-voiceprint[formats]" in json.loads(out)[0]["message"]


@pytest.mark.slow
def test_evaluate_reads_every_format_and_names_what_it_left_out(run: Run) -> None:
    for name in ("amara", "bruno", "carlo"):
        for number in (1, 2, 3):
            put(f"in/{name}/{number}.bin", sample(name, number))
    put("in/amara/._1.bin", b"x")
    code, out, _ = run("evaluate", "in", *BRIEF)
    assert code == 0
    assert out.startswith("3 speakers with 9 recordings;")
    put("in/amara/notes.txt", b"x")
    put("in/top.flac", sample("amara", 4))
    code, out, _ = run("evaluate", "in", *BRIEF)
    assert code == 1
    said = " ".join(out.split())
    assert out.startswith("3 speakers with 9 recordings;")
    assert "in/amara/notes.txt is not an audio file" in said
    assert "in/top.flac is in no speaker's folder" in said


@pytest.mark.resemblyzer
def test_standard_input_is_a_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, sample("amara", 1))
    assert run("enroll", "amara", "-")[:2] == (0, "Enrolled 1 file for 1 caller.\n")
    feed(monkeypatch, sample("amara", 2))
    code, out, _ = run("identify", "-", "--json")
    answer = json.loads(out)[0]
    assert (code, answer["file"], answer["matches"][0]["caller_id"]) == (0, "-", "amara")
    feed(monkeypatch, field.wav(0xFFFFFFFF))
    code, _, err = run("verify", "amara", "-")
    assert code == 0
    assert "standard input: the header does not say how long" in err
    feed(monkeypatch, field.voice().tobytes())
    assert run("quality", "-", "--encoding", "pcm", "--rate", 8000)[0] == 0
    feed(monkeypatch, b"")
    code, out, _ = run("quality", "-")
    assert code == 1
    assert "standard input is empty" in out


def test_more_on_standard_input_than_is_kept_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.cli.audio._MOST_BYTES", 1000)
    feed(monkeypatch, bytes(1001))
    code, out, _ = run("quality", "-")
    assert code == 1
    assert "standard input is longer than 1,000 bytes: give a file" in out
