"""Files of Amazon Connect Voice ID: jobs that enroll, and lists of speakers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from voices import SAMPLES

from voiceprint import InvalidArgumentError, ManifestRow, read_manifest

KEY = "2026/05/amara.flac"


def job(folder: Path, *requests: dict[str, Any], key: str = "SpeakerEnrollmentRequests") -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps({"Version": "1.0", key: [*requests]}, indent=2))
    return path


def request(name: str, *keys: str, channel: Any = 0, kind: str = "SpeakerId") -> dict[str, Any]:
    recordings = [{"S3Uri": f"s3://calls/{key}", "ChannelId": channel} for key in keys]
    return {"RequestId": f"r-{name}", kind: name, "AudioSpecifications": recordings}


def fault(row: ManifestRow) -> str:
    assert isinstance(row.error, InvalidArgumentError)
    return str(row.error)


@pytest.fixture
def buckets(tmp_path: Path) -> Path:
    """A folder with a copy of the bucket `calls`, which holds one recording."""
    copy = tmp_path / "buckets" / "calls" / KEY
    copy.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "amara" / "1.flac", copy)
    return tmp_path / "buckets"


def test_a_job_has_a_row_for_each_recording_of_each_speaker(tmp_path: Path) -> None:
    path = job(tmp_path, request("amara", "a.wav", "b.wav", channel=1), request("bruno", "c d.wav"))
    rows = [*read_manifest(path, s3_folder=tmp_path)]
    assert [(row.line, row.caller_id, row.file, row.channel) for row in rows] == [
        (1, "amara", tmp_path / "calls/a.wav", 1),
        (2, "amara", tmp_path / "calls/b.wav", 1),
        (3, "bruno", tmp_path / "calls/c d.wav", 0),
    ]
    assert not any(row.error for row in rows)


def test_a_fraudster_is_named_by_the_request(tmp_path: Path) -> None:
    fraudster = request("f-7", "a.wav", kind="RequestId")
    path = job(tmp_path, fraudster, key="FraudsterRegistrationRequests")
    (row,) = read_manifest(path, s3_folder=tmp_path)
    assert (row.caller_id, row.file) == ("f-7", tmp_path / "calls/a.wav")


def test_a_recording_in_s3_needs_the_folder_of_its_copy(tmp_path: Path) -> None:
    (row,) = read_manifest(job(tmp_path, request("amara", "a.wav")))
    assert "s3_folder" in fault(row)
    csv = tmp_path / "calls.csv"
    csv.write_text("caller_id,path\namara,s3://calls/a.wav\nbruno,b.wav\n")
    first, second = read_manifest(csv, s3_folder=tmp_path / "copies")
    assert (first.file, second.file) == (tmp_path / "copies/calls/a.wav", tmp_path / "b.wav")


@pytest.mark.parametrize("key", ["", "../other/a.wav", "a/../../../etc/passwd", "a//b.wav", "./a.wav"])
def test_no_path_leads_out_of_the_folder_of_the_copies(tmp_path: Path, key: str) -> None:
    (row,) = read_manifest(job(tmp_path, request("amara", key)), s3_folder=tmp_path)
    assert "give s3://BUCKET/KEY" in fault(row)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (request("amara"), "has no AudioSpecifications"),
        (request("amara") | {"AudioSpecifications": "s3://calls/a.wav"}, "has no AudioSpecifications"),
        (request("amara", "a.wav", channel="0"), "channel is '0'"),
        (request("amara", "a.wav", channel=9), "channel is 9"),
        (request("", "a.wav"), "The caller id is empty"),
        ({"AudioSpecifications": [{"ChannelId": 0}]}, "path is empty"),
    ],
)
def test_a_request_that_cannot_be_used_says_why_and_the_others_go_on(
    tmp_path: Path, broken: dict[str, Any], words: str
) -> None:
    bad, good = read_manifest(job(tmp_path, broken, request("bruno", "b.wav")), s3_folder=tmp_path)
    assert words in fault(bad)
    assert (good.caller_id, good.error) == ("bruno", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ('{"SpeakerEnrollmentRequests": [', "is not JSON"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[]", "no job of Voice ID"),
        ('{"SpeakerEnrollmentRequests": {}}', "no job of Voice ID"),
        ('{"SpeakerEnrollmentRequests": [], "FraudsterRegistrationRequests": []}', "no job of Voice ID"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=words):
        list(read_manifest(path))


def test_a_job_is_enrolled_once_from_the_copy_of_its_bucket(tmp_path: Path, buckets: Path, run) -> None:
    path = job(tmp_path, request("amara", KEY), request("bruno", "lost.wav"))
    command = ["enroll-csv", str(path), "--s3-folder", str(buckets)]
    code, out, _ = run(*command, "--store", f"json:{tmp_path / 'v.json'}")
    assert code == 1
    assert "Enrolled 1 row." in out
    assert "lost.wav" in out
    _, out, _ = run(*command, "--store", f"json:{tmp_path / 'v.json'}")
    assert "Enrolled by an earlier run (--again): 1 row." in out
    _, out, _ = run(*command, "--dry-run")
    assert "2 rows checked, 1 with errors" in out
