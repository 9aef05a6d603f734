"""Ctrl-C in `enroll-dir`: what is stored stays, is said, and is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from voiceprint import JSONStorage

VOICES = Path(__file__).resolve().parents[1] / "examples/voices"
# Sends this very process a SIGINT when the file of the given number is read, so that no time counts.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from voiceprint.cli import enrollment, main
times, at, original = int(sys.argv[1]), int(sys.argv[2]), enrollment.read
count = 0
def read(*arguments, **options):
    global count
    count += sys._getframe(1).f_code.co_name == "_recordings"  # and not to look for prompts
    for _ in range(times if count == at else 0):
        os.kill(os.getpid(), signal.SIGINT)
    return original(*arguments, **options)
enrollment.read = read
sys.argv = ["voiceprint", "enroll-dir", "in", *sys.argv[3:]]
main()
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for caller in ("amara", "bruno", "carlo", "dario"):
        Path("in", caller).mkdir(parents=True)
        for number in (1, 2):
            Path("in", caller, f"{number}.flac").symlink_to(VOICES / caller / f"{number}.flac")


def enroll(*options: str, times: int = 0, at: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(times), str(at), *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def enrolled() -> dict[str, int]:
    with JSONStorage("voiceprints.json") as storage:
        return {caller.caller_id: len(caller.voiceprints) for caller in storage.iter_callers()}


@pytest.mark.slow
def test_ctrl_c_finishes_the_caller_and_the_same_command_goes_on():
    done = enroll(times=1, at=3)
    assert done.returncode == 130
    assert done.stdout == "Enrolled 4 files for 2 callers.\n"
    assert "2 callers are left. To go on, run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert enrolled() == {"amara": 2, "bruno": 2}
    done = enroll()
    assert done.returncode == 0
    assert done.stdout == "Enrolled 4 files for 2 callers.\n"
    assert done.stderr == "Skipped, as they have voiceprints already (--again): 2 callers.\n"
    assert enrolled() == dict.fromkeys(["amara", "bruno", "carlo", "dario"], 2)
    done = enroll("--json")
    assert (done.returncode, [row["skipped"] for row in json.loads(done.stdout)]) == (0, [True] * 8)


def test_a_second_ctrl_c_stops_at_once_and_what_is_stored_is_whole():
    done = enroll(times=2, at=3)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    with JSONStorage("voiceprints.json") as storage:
        assert storage.check() == []


@pytest.mark.slow
def test_again_enrolls_callers_anew_and_fewer_voiceprints_than_files_are_told_of():
    Path("in/amara/2.flac").rename("kept.flac")
    assert enroll().returncode == 0
    Path("kept.flac").rename("in/amara/2.flac")
    done = enroll()
    assert "Of these, with fewer voiceprints than files: amara." in done.stderr
    assert enrolled()["amara"] == 1
    done = enroll("--again")
    assert done.returncode == 0
    assert done.stdout.startswith("Enrolled 1 file for 1 caller.\n")
    assert done.stdout.count("is already enrolled with this recording.") == 7
    assert enrolled()["amara"] == 2
