"""`enroll` and `enroll-dir` with copies, with another person's recording, and with more than are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from voices import SAMPLES

from voiceprint import JSONStorage


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(caller: str, name: str, source: str) -> Path:
    path = Path("in", caller, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SAMPLES / source, path)
    return path


def prints(caller: str) -> list[int]:
    with JSONStorage("voiceprints.json") as store:
        found = store.get(caller)
    return [] if found is None else [print_.id for print_ in found.voiceprints]


def test_a_recording_is_enrolled_once(run):
    first, copy = put("amara", "1.flac", "amara/1.flac"), put("amara", "copy.flac", "amara/1.flac")
    code, out, _ = run("enroll", "amara", first, copy)
    assert (code, out) == (
        0,
        f"Enrolled 1 file for 1 caller.\n{copy}: amara is already enrolled with this recording.\n",
    )
    code, out, _ = run("enroll", "amara", copy, "--metadata", "plan=gold", "--json")
    (row,) = json.loads(out)
    assert (code, row["voiceprint_id"], row["already_enrolled"]) == (0, 1, True)
    with JSONStorage("voiceprints.json") as store:
        assert store.get("amara").metadata == {"plan": "gold"}
    assert prints("amara") == [1]


@pytest.mark.resemblyzer
def test_another_persons_recording_is_stored_with_a_warning_or_refused(run):
    assert run("enroll", "amara", SAMPLES / "amara/1.flac", SAMPLES / "amara/2.flac")[0] == 0
    code, out, err = run("enroll", "amara", SAMPLES / "hakan/1.flac", "--on-mismatch", "refuse")
    assert (code, err) == (1, "")
    assert "VoiceMismatchError" in out
    assert "--on-mismatch store" in out
    assert prints("amara") == [1, 2]
    code, out, err = run("enroll", "amara", SAMPLES / "hakan/1.flac")
    assert (code, out) == (0, "Enrolled 1 file for 1 caller.\n")
    assert err.startswith("The new voiceprint of the caller 'amara' does not sound like the caller's others")
    assert prints("amara") == [1, 2, 3]


def test_a_folder_keeps_the_recordings_that_agree_and_names_those_not_used(run):
    for number in (1, 2, 4):
        put("amara", f"{number}.flac", f"amara/{number}.flac")
    other = put("amara", "3.flac", "hakan/1.flac")
    copy = put("amara", "5.flac", "amara/1.flac")
    for number in (1, 2):
        put("bruno", f"{number}.flac", f"bruno/{number}.flac")
    code, out, err = run("enroll-dir", "in")
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == [
        "Enrolled 5 files for 2 callers.",
        f"{copy}: amara is already enrolled with this recording.",
        "",
        "1 file not used, as others of the caller agree better:",
    ]
    assert out.splitlines()[-1].split() == ["amara", str(other)]
    assert (len(prints("amara")), len(prints("bruno"))) == (3, 2)
    code, out, _ = run("enroll-dir", "in", "--again", "--json")
    rows = {Path(row["file"]): row for row in json.loads(out)}
    assert code == 0
    assert "not_used" in rows.pop(other)
    assert all(row["already_enrolled"] for row in rows.values())


def test_many_copies_are_counted_instead_of_listed(run):
    files = [put("amara", f"{number}.flac", "amara/1.flac") for number in range(12)]
    code, out, _ = run("enroll", "amara", *files)
    assert (code, out) == (
        0,
        "Enrolled 1 file for 1 caller.\nAlready enrolled with this recording: 11 files.\n",
    )
