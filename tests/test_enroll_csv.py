"""`voiceprint enroll-csv`: each row once, whatever happens in between."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stores import voiceprint
from voices import SAMPLES, BandEncoder

from voiceprint import (
    InvalidArgumentError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    RowResult,
    StorageCorruptError,
    StorageUnavailableError,
    VoiceFingerprintConfig,
    open_storage,
    read_manifest,
)
from voiceprint.enrollment.progress import EnrollmentProgress
from voiceprint.storage.presence import StorePresence

STORES = ["sqlite:calls.db", "json:calls.json"]
# Enrolls a manifest with embeddings of random, so that a row enrolled twice is stored twice, and ends itself
# at a moment of the third change of the store.
KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from voices import BandEncoder
from voiceprint import OpusAgentVoiceRecognizer, VoiceFingerprintConfig, open_storage
from voiceprint.enrollment import results
from voiceprint.enrollment.progress import EnrollmentProgress
from voiceprint.enrollment.writer import VoiceprintWriter

class RandomEncoder(BandEncoder):
    name, dimension = "test-random", 32
    chance = np.random.default_rng()
    def embed(self, audio):
        vector = self.chance.standard_normal(32)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

url, moment, together = sys.argv[1], sys.argv[2], int(sys.argv[3])
results.STORED_TOGETHER = together
calls = 0

def deadly(method, before):
    def call(*arguments):
        global calls
        calls += 1
        if before and calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = method(*arguments)
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call

if moment == "noted":
    EnrollmentProgress.begin = deadly(EnrollmentProgress.begin, before=False)
elif moment == "stored":
    VoiceprintWriter.store = deadly(VoiceprintWriter.store, before=False)
elif moment == "taken":
    EnrollmentProgress.end = deadly(EnrollmentProgress.end, before=False)
config = VoiceFingerprintConfig(enrollment_duration=0.5, min_audio_quality=0, encoder_threads=1)
with OpusAgentVoiceRecognizer(open_storage(url), config=config, encoder=RandomEncoder()) as recognizer:
    recognizer.enroll_manifest("m.csv", on_row=lambda row: print(row.row.line, row.status, flush=True))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("voices").symlink_to(SAMPLES)


def write(*rows: str, header: str = "caller_id,path", name: str = "m.csv") -> Path:
    Path(name).write_text("\n".join([header, *rows]) + "\n")
    return Path(name)


def report(name: str = "out.csv") -> list[dict[str, str]]:
    with Path(name).open(newline="") as file:
        return [*csv.DictReader(file)]


def statuses(name: str = "out.csv") -> list[str]:
    return [row["status"] for row in report(name)]


def excerpts(count: int, seconds: float) -> Path:
    """A manifest of `count` callers, each with an excerpt of its own of the sample voices."""
    files = sorted(SAMPLES.glob("*/*.flac"))
    rows = []
    for number in range(count):
        file = files[number % len(files)].relative_to(SAMPLES)
        start = 0.02 * (number // len(files))
        rows.append(f"caller {number:04},voices/{file},{start:.2f},{start + seconds:.2f},{number}")
    return write(*rows, header="caller_id,path,start,end,metadata.number")


def assert_each_row_once(url: str, count: int, ids: bool = True) -> None:
    with open_storage(url) as store:
        assert store.check() == []
        callers = [*store.iter_callers()]
        assert [caller.caller_id for caller in callers] == [f"caller {number:04}" for number in range(count)]
        assert [caller.metadata for caller in callers] == [{"number": str(n)} for n in range(count)]
        assert {len(caller.voiceprints) for caller in callers} == {1}
        # None was stored and replaced meanwhile, as ids are not used again.
        assert sorted(caller.voiceprints[0].id or 0 for caller in callers) == [*range(1, count + 1)]


def test_a_run_reports_every_row_and_the_next_run_does_only_what_is_left(run) -> None:
    write(
        "amara,voices/amara/1.flac,,5,Amara",
        "amara,voices/amara/2.flac,0,,",
        "bruno,voices/bruno/9.flac,,,",
        "amara,voices/amara/1.flac,,5,Amara",
        "carlo,voices/carlo/1.flac,7,,",
        "dario,voices/dario/1.flac,x,,",
        header="caller_id,path,channel,end,metadata.name",
    )
    code, out, err = run("enroll-csv", "m.csv", "--report", "out.csv")
    assert (code, err) == (1, "")
    assert out.splitlines()[:4] == [
        "Enrolled 2 rows.",
        "Already enrolled with the same recording: 1 row.",
        "",
        "3 rows could not be enrolled:",
    ]
    assert statuses() == ["enrolled", "enrolled", "failed", "already_enrolled", "failed", "failed"]
    assert [row["voiceprint_id"] for row in report()] == ["1", "2", "", "1", "", ""]
    assert [row["error"] for row in report() if row["error"]] == [
        "InvalidAudioError", "InvalidAudioError", "InvalidArgumentError",
    ]  # fmt: skip
    assert report()[2] == {
        "line": "4", "caller_id": "bruno", "path": "voices/bruno/9.flac", "status": "failed",
        "voiceprint_id": "", "error": "InvalidAudioError",
        "message": "cannot read 'voices/bruno/9.flac': No such file or directory",
    }  # fmt: skip
    # Corrected and with other lines, the manifest has one row that is not enrolled yet.
    write(
        "bruno,voices/bruno/1.flac,,,",
        "amara,voices/amara/2.flac,0,,",
        "amara,voices/amara/1.flac,,5,Amara",
        header="caller_id,path,channel,end,metadata.name",
    )
    code, out, err = run("enroll-csv", "m.csv", "--report", "out.csv", "--json")
    assert (code, err) == (0, "")
    assert [(row["line"], row["status"], row["voiceprint_id"]) for row in json.loads(out)] == [
        (2, "enrolled", 3), (3, "done_before", 2), (4, "done_before", 1),
    ]  # fmt: skip
    assert statuses() == ["enrolled", "done_before", "done_before"]
    code, out, err = run("enroll-csv", "m.csv")
    assert (code, out, err) == (0, "Enrolled 0 rows.\nEnrolled by an earlier run (--again): 3 rows.\n", "")
    code, out, _ = run("enroll-csv", "m.csv", "--again")
    assert (code, out) == (0, "Enrolled 0 rows.\nAlready enrolled with the same recording: 3 rows.\n")
    with JSONStorage("voiceprints.json") as store:
        assert store.get("amara").metadata == {"name": "Amara"}
        assert store.count() == 3


def test_a_spreadsheet_runs_no_formula_of_the_report_and_json_has_the_exact_values(run) -> None:
    ids = ["=cmd|'/c calc'!A1", "@SUM(1)", "+1", "-1", "\uff1d1", "\t=1", "red\x1b[31m", "a=b"]
    rows = [json.dumps({"caller_id": name, "path": f"{name}.wav"}) for name in ids]
    Path("m.jsonl").write_text("\n".join(rows))
    code, out, _ = run("enroll-csv", "m.jsonl", "--dry-run", "--report", "out.csv", "--json")
    assert code == 1
    assert [row["caller_id"] for row in json.loads(out)] == ids
    written = ["'=cmd|'/c calc'!A1", "'@SUM(1)", "'+1", "'-1", "'\uff1d1", r"\x09=1", r"red\x1b[31m", "a=b"]
    assert [row["caller_id"] for row in report()] == written
    assert [row["path"] for row in report()] == [f"{name}.wav" for name in written]
    assert b"\x1b" not in Path("out.csv").read_bytes()


def test_an_excerpt_without_a_sample_fails_its_row_alone(run) -> None:
    write(
        "amara,voices/amara/1.flac,,",
        "bruno,voices/bruno/1.flac,5,5.00001",
        "carlo,voices/carlo/1.flac,0,1e-9",
        "dario,voices/dario/1.flac,,",
        header="caller_id,path,start,end",
    )
    code, out, _ = run("enroll-csv", "m.csv", "--dry-run", "--report", "out.csv", "--json")
    assert (code, len(json.loads(out))) == (1, 4)
    assert statuses() == ["checked", "failed", "failed", "checked"]
    code, out, err = run("enroll-csv", "m.csv", "--report", "out.csv", "--json")
    assert (code, err, len(json.loads(out))) == (1, "", 4)
    assert statuses() == ["enrolled", "failed", "failed", "enrolled"]
    assert [row["error"] for row in report()[1:3]] == ["InvalidAudioError"] * 2
    assert "has no sample at 16000 Hz between start (5.0 s) and end" in report()[1]["message"]


def test_a_refused_run_leaves_the_report_of_the_run_before(run, quick) -> None:
    write("amara,voices/amara/1.flac")
    Path("r.csv").write_text("caller_id,path\namara,voices/amara/1.flac\n")
    assert run("enroll-csv", "m.csv", "--report", "keep.csv")[0] == 0
    before = Path("keep.csv").read_bytes()
    with EnrollmentProgress(Path("r.csv.progress"), quick.storage, "another space"):
        code, out, err = run("enroll-csv", "r.csv", "--report", "keep.csv", "--json")
    assert (code, out) == (2, "")
    assert "another process is enrolling from this manifest" in err
    assert Path("keep.csv").read_bytes() == before
    assert not [*Path().glob(".keep.csv*")]


@pytest.mark.parametrize("option", ["--report", "--progress"])
@pytest.mark.parametrize("store", ["json:calls", "sqlite:calls"])
def test_no_file_of_the_store_is_taken_for_the_report_or_the_progress(run, option: str, store: str) -> None:
    write("amara,voices/amara/1.flac")
    code, out, err = run("enroll-csv", "m.csv", "--store", store, option, "./calls")
    assert (code, out) == (2, "")
    assert option in err
    assert "calls belongs to the store: choose another file." in err
    with open_storage(store) as storage:
        assert storage.count() == 0


@pytest.mark.parametrize("options", [[], ["--progress", "pipe"]])
def test_a_pipe_as_progress_is_refused_at_once(options: list[str]) -> None:
    write("amara,voices/amara/1.flac")
    os.mkfifo(options[1] if options else "m.csv.progress")
    program = Path(sys.executable).with_name("voiceprint")
    done = subprocess.run(
        [str(program), "enroll-csv", "m.csv", *options],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "is a pipe, not a file." in done.stderr


def test_no_metadata_is_in_the_report_or_the_progress_and_only_the_owner_reads_them(run) -> None:
    write("amara,voices/amara/1.flac,top secret", "bruno,voices/bruno/9.flac,top secret",
          header="caller_id,path,metadata.note")  # fmt: skip
    run("enroll-csv", "m.csv", "--report", "out.csv")
    for name in ("out.csv", "m.csv.progress"):
        assert b"top secret" not in Path(name).read_bytes()
        assert Path(name).stat().st_mode & 0o077 == 0
    assert b"amara" not in Path("m.csv.progress").read_bytes()


def test_a_dry_run_finds_every_fault_and_stores_nothing(run) -> None:
    write(
        "amara,voices/amara/1.flac,0,1",
        ",voices/amara/1.flac,,",
        "amara,voices/amara/1.flac,1,",
        "amara,voices/amara/1.flac,,60",
        *["amara,voices/amara/1.flac,,"] * 40,
        *["zoe,none.wav,,"] * 20,
        header="caller_id,path,channel,end",
    )
    code, out, err = run("enroll-csv", "m.csv", "--dry-run", "--report", "out.csv")
    assert (code, err) == (1, "")
    assert out.startswith("64 rows checked, 23 with errors; nothing is enrolled.\n\n23 rows have errors:\n")
    assert out.endswith("... and 13 more: --report OUT.csv lists all.\n")
    assert statuses() == ["checked", *["failed"] * 3, *["checked"] * 40, *["failed"] * 20]
    assert [row["line"] for row in report()] == [str(line) for line in range(2, 66)]
    assert {path.name for path in Path().iterdir()} == {"m.csv", "out.csv", "voices"}
    write("zoe,none.wav")
    assert "\n\n1 row has errors:\n" in run("enroll-csv", "m.csv", "--dry-run")[1]
    write("amara,voices/amara/1.flac")
    assert run("enroll-csv", "m.csv", "--dry-run")[:2] == (
        0,
        "1 row checked, 0 with errors; nothing is enrolled.\n",
    )


def test_a_dry_run_loads_no_encoder() -> None:
    write("amara,voices/amara/1.flac")
    script = """
import sys
sys.argv = ["voiceprint", "enroll-csv", "m.csv", "--dry-run"]
from voiceprint.cli import main
try:
    main()
finally:
    print(sorted({"onnxruntime", "torch", "faiss"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("caller,path\n", [], "There is no column 'caller': did you mean caller_id?"),
        ("caller_id,path\namara,voices/amara/1.flac\n\"x", [], "line 3 and those after it are not CSV"),
        ("caller_id,path\n", ["--report", "m.csv"], "--report: m.csv belongs to the store"),
        ("caller_id,path\n", ["--report", "other.txt"], "--report: other.txt is there already and is not a"),
        ("caller_id,path\n", ["--progress", "other.txt"], "is not the progress of an enrollment"),
        ("caller_id,path\n", ["--progress", "none/m.progress"], "No such file or directory"),
        ("caller_id,path\n", ["--on-mismatch", "maybe"], "maybe"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_two_and_stores_nothing(run, text: str, options: list[str], words: str) -> None:
    Path("m.csv").write_text(text)
    Path("other.txt").write_text("mine")
    code, out, err = run("enroll-csv", "m.csv", *options)
    assert (code, out) == (2, "")
    assert words in err
    assert not Path("voiceprints.json").exists()
    assert (Path("m.csv").read_text(), Path("other.txt").read_text()) == (text, "mine")


def test_an_empty_manifest_enrolls_nobody(run) -> None:
    write()
    assert run("enroll-csv", "m.csv") == (0, "Enrolled 0 rows.\n", "")
    assert run("enroll-csv", "m.csv", "--json")[:2] == (0, "[]\n")


def test_the_progress_is_of_one_store_and_one_space(run) -> None:
    write("amara,voices/amara/1.flac")
    assert run("enroll-csv", "m.csv", "--store", "json:a.json")[1] == "Enrolled 1 row.\n"
    assert run("enroll-csv", "m.csv", "--store", "json:b.json")[1] == "Enrolled 1 row.\n"
    config = VoiceFingerprintConfig(storage_path="a.json", min_audio_quality=0)
    with OpusAgentVoiceRecognizer(config=config, encoder=BandEncoder()) as recognizer:
        assert recognizer.enroll_manifest("m.csv") == {"enrolled": 1}
        assert recognizer.enroll_manifest("m.csv") == {"done_before": 1}
    assert run("enroll-csv", "m.csv", "--store", "json:a.json")[1].startswith("Enrolled 0 rows.\nEnrolled by")
    Path("a.json").unlink()
    StorePresence.forget_all()
    assert run("enroll-csv", "m.csv", "--store", "json:a.json")[1] == "Enrolled 1 row.\n"


def test_manifests_of_two_folders_share_a_progress_and_a_tree_may_be_moved(quick, monkeypatch) -> None:
    for month, name in (("jan", "amara"), ("feb", "bruno")):
        folder = Path("calls", month)
        folder.mkdir(parents=True)
        (folder / "1.flac").write_bytes((SAMPLES / name / "1.flac").read_bytes())
        (folder / "m.csv").write_text("caller_id,path\ncustomer,1.flac\n")
    notes = Path("calls/all.progress")
    for month in ("jan", "feb"):
        assert quick.enroll_manifest(f"calls/{month}/m.csv", progress_path=notes) == {"enrolled": 1}
    assert len(quick.get_caller("customer").voiceprints) == 2
    quick.enroll_manifest("calls/jan/m.csv")
    Path("calls").rename("moved")
    monkeypatch.chdir("moved/jan")
    for place in ("../all.progress", "m.csv.progress", None):
        assert quick.enroll_manifest("m.csv", progress_path=place) == {"done_before": 1}


def test_of_a_caller_with_more_rows_than_voiceprints_the_last_remain(quick, monkeypatch) -> None:
    monkeypatch.setattr(quick.config, "min_audio_quality", 0.0)
    write(*[f"amara,voices/{name}/1.flac" for name in ("amara", "bruno", "carlo", "dario", "elena")])
    done: list[RowResult] = []
    assert quick.enroll_manifest(Path("m.csv"), on_row=done.append) == {"enrolled": 5}
    assert [print_.id for print_ in quick.get_caller("amara").voiceprints] == [3, 4, 5]
    assert [(result.row.line, result.voiceprint_id) for result in done] == [(n + 1, n) for n in range(1, 6)]


def test_a_stop_leaves_the_rows_that_are_not_begun(quick, monkeypatch) -> None:
    monkeypatch.setattr(quick.config, "enrollment_duration", 0.5)
    monkeypatch.setattr(quick.config, "min_audio_quality", 0.0)
    quick.config.encoder_threads = 2
    excerpts(300, 0.6)
    done: list[RowResult] = []
    counts = quick.enroll_manifest("m.csv", on_row=done.append, stop=lambda: bool(done))
    assert 0 < counts["left"] < 300
    assert [result.row.line for result in done] == [*range(2, 302)]
    again = quick.enroll_manifest("m.csv")
    assert again == {"done_before": 300 - counts["left"], "enrolled": counts["left"]}


def test_a_store_that_fails_ends_the_run_after_the_report() -> None:
    class Failing(MemoryStorage):
        def save_many(self, voiceprints, **options):
            if self.count() >= 64:
                raise StorageUnavailableError("The disk is full.")
            return super().save_many(voiceprints, **options)

    excerpts(300, 0.6)
    config = VoiceFingerprintConfig(enrollment_duration=0.5, min_audio_quality=0, encoder_threads=2)
    with OpusAgentVoiceRecognizer(Failing(), config=config, encoder=BandEncoder()) as recognizer:
        done: list[RowResult] = []
        with pytest.raises(StorageUnavailableError, match="The disk is full"):
            recognizer.enroll_manifest("m.csv", on_row=done.append)
        assert [result.status for result in done[:128]] == ["enrolled"] * 64 + ["failed"] * 64
        assert "left" in {result.status for result in done[128:]}
        assert len(done) == 300


def test_a_progress_that_is_in_use_or_damaged_is_refused(quick) -> None:
    write("amara,voices/amara/1.flac")
    quick.enroll_manifest("m.csv")

    def run_again(result: RowResult) -> None:
        with pytest.raises(StorageUnavailableError, match="another process is enrolling from this manifest"):
            quick.enroll_manifest("m.csv")

    quick.enroll_manifest("m.csv", on_row=run_again)
    path = Path("m.csv.progress")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises((StorageCorruptError, InvalidArgumentError)):
        quick.enroll_manifest("m.csv")
    path.write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(StorageCorruptError, match="is damaged"):
        quick.enroll_manifest("m.csv")
    path.unlink()
    assert quick.enroll_manifest("m.csv") == {"already_enrolled": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE enrolled SET voiceprint_id = 'zzz'", "an id that is no number"),
        ("ALTER TABLE enrolled RENAME COLUMN voiceprint_id TO id", "no such column"),
        ("ALTER TABLE storing RENAME COLUMN location TO place", "no such column"),
        ("INSERT INTO storing SELECT '{location}', space, row, x'00', 'now' FROM enrolled", "another type"),
    ],
)
def test_a_progress_that_was_changed_by_others_is_damaged(quick, change: str, words: str) -> None:
    write("amara,voices/amara/1.flac")
    quick.enroll_manifest("m.csv")
    with contextlib.closing(sqlite3.connect("m.csv.progress")) as database, database:
        database.execute(change.format(location=quick.storage.location))
    with pytest.raises(StorageCorruptError, match=rf"m\.csv\.progress is damaged \(.*{words}.*\): remove it"):
        quick.enroll_manifest("m.csv")


def test_a_change_that_was_interrupted_is_found_in_the_store_or_not() -> None:
    write(*[f"amara,{number}.wav" for number in range(5)], "bruno,b.wav")
    rows = [*read_manifest("m.csv")]
    times = [f"2026-01-01T00:00:00.00000{number}Z" for number in range(6)]
    prints = [
        voiceprint(row.caller_id, number, created_at=time)
        for number, (row, time) in enumerate(zip(rows, times, strict=True))
    ]
    path, space = Path("m.csv.progress"), "resemblyzer"
    with JSONStorage("calls.json") as store:
        with EnrollmentProgress(path, store, space) as progress:
            progress.begin([*zip(rows, times, strict=True)])
        with EnrollmentProgress(path, store, space) as progress:
            assert [progress.get(row) for row in rows] == [None] * 6
            progress.begin([*zip(rows, times, strict=True)])
        store.save_many(prints[:5], max_voiceprints=3)  # and not that of bruno
        with EnrollmentProgress(path, store, "another space") as progress:
            assert [progress.get(row) for row in rows] == [None] * 6
        with EnrollmentProgress(path, store, space) as progress:
            # Those that were replaced at once, as the caller's oldest, were stored too.
            assert [progress.get(row) for row in rows] == [3, 3, 3, 4, 5, None]
            progress.forget()
            assert progress.get(rows[0]) is None


@pytest.mark.parametrize("moment", ["noted", "stored", pytest.param("taken", marks=pytest.mark.slow)])
@pytest.mark.parametrize("url", [STORES[0], pytest.param(STORES[1], marks=pytest.mark.slow)])
def test_killed_at_any_step_of_a_change_each_row_is_enrolled_once(url: str, moment: str) -> None:
    excerpts(40, 0.6)

    def enroll(moment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, url, moment, "10"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    killed = enroll(moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.count(" enrolled\n") == 20
    done = enroll("never")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" done_before\n") == (20 if moment == "noted" else 30)
    assert done.stdout.count(" enrolled\n") == (20 if moment == "noted" else 10)
    assert_each_row_once(url, 40)


def kill_at_random(command: list[str], longest_s: float) -> int:
    """Run a command until it ends by itself, killed each time at a moment of chance; gives the kills."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, kills = random.Random(seed), 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not Path("m.csv.progress").exists():
            time.sleep(0.01)
        killer = threading.Timer(chance.uniform(0.0, longest_s), process.kill)
        killer.start()
        _, said = process.communicate()
        killer.cancel()
        if process.returncode == 0:
            print(f"{kills} kills")
            return kills
        assert process.returncode == -signal.SIGKILL, said
        kills += 1
        longest_s *= 1.3  # so that the run ends, however slow the machine


def test_killed_at_random_each_row_is_enrolled_once() -> None:
    excerpts(100, 0.6)
    assert kill_at_random([sys.executable, "-c", KILLED, STORES[0], "never", "10"], 0.4) > 0
    assert_each_row_once(STORES[0], 100)


@pytest.mark.slow
def test_a_thousand_rows_killed_at_random_and_resumed_are_enrolled_once(monkeypatch) -> None:
    url = STORES[1]  # with the other one: `test_killed_at_random_each_row_is_enrolled_once`
    monkeypatch.setenv("VOICE_ENROLLMENT_DURATION", "0.5")
    monkeypatch.setenv("VOICE_MIN_AUDIO_QUALITY", "0")
    monkeypatch.setenv("VOICE_ENROLL_SIMULATED_LINES", "false")
    excerpts(1000, 1.5)
    program = Path(sys.executable).with_name("voiceprint")
    command = [str(program), "enroll-csv", "m.csv", "--store", url, "--report", "out.csv"]
    assert kill_at_random(command, 4.0) > 0
    assert_each_row_once(url, 1000)
    # No row of an interrupted change was embedded again to find that it is stored.
    assert set(statuses()) <= {"enrolled", "done_before"}
    assert len(report()) == 1000


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_finishes_the_rows_in_progress_and_the_same_command_goes_on() -> None:
    excerpts(300, 1.5)
    environment = os.environ | {"VOICE_ENROLLMENT_DURATION": "0.5", "VOICE_MIN_AUDIO_QUALITY": "0"}
    program = Path(sys.executable).with_name("voiceprint")
    command = [str(program), "enroll-csv", "m.csv", "--report", "out.csv"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    while process.poll() is None and not Path("voiceprints.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopping after the rows in progress. Ctrl-C once more stops at once." in err
    assert "To go on, run the same command again." in err
    left = statuses().count("left")
    assert 0 < left < 300
    assert out == f"Enrolled {300 - left} rows.\n"
    assert f"{left} rows are left" in err
    with JSONStorage("voiceprints.json") as store:
        assert store.count() == 300 - left
        assert store.check() == []
