"""`voiceprint evaluate`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from encryption_keys import text_key
from processes import unknown_user
from voices import SAMPLES

from voiceprint.evaluation import EmbeddingCache
from voiceprint.scoring import Calibration

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
BRIEF = ("--duration", "2", "--splits", "3")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for tests of something else: the first of them computes the embeddings."""
    return tmp_path_factory.mktemp("computed")


@pytest.fixture
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of few recordings, for tests that compute all embeddings and are of something else."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("amara", "bruno", "carlo"):
        (folder / name).mkdir()
        for number in (1, 2, 3):
            (folder / name / f"{number}.flac").symlink_to(SAMPLES / name / f"{number}.flac")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is empty, and the user's cache is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/opusagent-voiceprint/evaluation"


def test_the_sample_voices_are_measured_and_shown_and_their_embeddings_kept(run: Run, cache: Path) -> None:
    code, out, err = run("evaluate", SAMPLES, *BRIEF, "--probe", "as-is", "--probe", "telephone")
    assert (code, err) == (0, "")
    assert out.startswith("9 speakers with 36 recordings; encoder resemblyzer, scores by cosine and llr.\n")
    assert "\nSessions: 9 of 9 speakers are probed with another session" in out[:300]
    for title in ("Runs", "Verification", "Identification", "Thresholds", "Left out, and to know"):
        assert f"\n{title}\n" in out
    assert "telephone" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert len(kept) > 50
    again = run("evaluate", SAMPLES, *BRIEF, "--probe", "as-is", "--probe", "telephone")
    assert again == (code, out, err)
    assert [path for path in cache.rglob("*") if path.is_file()] == kept


def test_with_an_encryption_key_embeddings_are_kept_in_a_named_folder_alone(
    run: Run, few: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_ENCRYPTION_KEY", text_key())
    assert run("evaluate", few, *BRIEF, "--probe", "as-is")[0] == 0
    assert not cache.exists()
    assert run("evaluate", few, *BRIEF, "--probe", "as-is", "--cache", "named")[0] == 0
    assert [path for path in (tmp_path / "named").rglob("*") if path.is_file()]
    assert not cache.exists()


def test_json_is_the_report_and_all_that_is_printed(run: Run, cache: Path) -> None:
    code, out, err = run(
        "evaluate", SAMPLES, *BRIEF, "--json", "--no-cache", "--gallery", "4", "--fpir", "5,10", "--seed", 3,
        "--enroll", "as-is+telephone:snr=20", "--prints", "1,2", "--unknown-share", 0.4, "--threshold", 0.7,
        "--scorer", "cosine", "--no-noise-reduction",
    )  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert [run["name"] for run in report["runs"]] == [
        "as-is+telephone:snr=20 \u2192 as-is, 2 s, 1 print",
        "as-is+telephone:snr=20 \u2192 as-is, 2 s, 2 prints",
    ]
    (searched,) = report["runs"][0]["open_set"]
    assert searched["gallery"] == 4
    assert searched["at_threshold"]["threshold"] == 0.7
    assert [at["fpir"] for at in searched["at_fpir"]] == [0.05, 0.1]
    assert report["settings"]["seed"] == 3
    assert report["settings"]["noise_reduction"] is False
    assert report["scorers"] == ["cosine"]
    assert not cache.exists()


def test_the_llr_stands_beside_the_cosine_with_its_own_thresholds(run: Run, computed: Path) -> None:
    code, out, _ = run("evaluate", SAMPLES, *BRIEF, "--json", "--cache", computed, "--scorer", "calibrated")
    assert code == 0
    cosine, llr = json.loads(out)["runs"]
    assert [cosine["scorer"], llr["scorer"]] == ["cosine", "llr"]
    assert cosine["material"] == llr["material"]
    for one in cosine["open_set"]:
        assert one["at_target"] == []
    for one in llr["open_set"]:
        assert one["at_threshold"] is None
        assert [at["target"] for at in one["at_target"]] == [0.01, 0.05, 0.1]
    assert llr["verification"]["cllr_of"] == "the scores"


def test_the_recommendation_is_for_the_configured_setting(
    run: Run, computed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_TARGET_FPIR", "0.02")
    monkeypatch.setenv("VOICE_MAX_VOICEPRINTS_PER_CALLER", "2")
    code, out, _ = run("evaluate", SAMPLES, *BRIEF, "--json", "--cache", computed)
    (found,) = json.loads(out)["recommendations"]
    assert code == 0
    assert (found["current"]["variable"], found["current"]["value"]) == ("VOICE_TARGET_FPIR", 0.02)
    assert found["more_prints"]["prints"] == 2
    code, out, _ = run("evaluate", SAMPLES, *BRIEF, "--cache", computed)
    lines = " ".join(out[out.index("\nRecommendation\n") :].split())
    assert lines == "Recommendation - " + " - ".join(found["text"])


def test_a_threshold_of_a_probability_is_said_not_to_be_measured(
    run: Run, computed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_CALIBRATED_SIMILARITY", "true")
    code, _, err = run("evaluate", SAMPLES, *BRIEF, "--cache", computed, "--scorer", "cosine")
    assert code == 0
    assert err.startswith("VOICE_CALIBRATED_SIMILARITY compares the threshold with a probability")


def test_a_calibration_of_other_embeddings_is_refused(run: Run, tmp_path: Path) -> None:
    Calibration(space="toy").save(tmp_path / "toy.json")
    code, out, err = run("evaluate", SAMPLES, *BRIEF, "--no-cache", "--calibration", "toy.json")
    assert (code, out) == (2, "")
    assert err.startswith("Error: toy.json calibrates embeddings of 'toy', and the encoder's are of")


def test_a_folder_gets_the_page_the_json_and_the_plots(run: Run) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = run("evaluate", SAMPLES, *BRIEF, "--output", "report/new", "--cache", "kept")
    assert (code, err) == (0, "")
    names = ["report.json", "report.html", "det.png", "scores.png", "identification.png", "fpir.png"]
    assert out.endswith(f"Written to report/new: {', '.join(names)}\n")
    assert sorted(path.name for path in Path("report/new").iterdir()) == sorted(names)
    first = Path("report/new/report.json").read_bytes()
    assert run("evaluate", SAMPLES, *BRIEF, "--output", "again", "--no-cache")[0] == 0
    assert Path("again/report.json").read_bytes() == first, "the same with and without the cache"
    assert EmbeddingCache("kept").folder.is_dir()


def test_without_matplotlib_the_page_is_written_without_plots_and_that_is_said(
    run: Run, computed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _out, err = run("evaluate", SAMPLES, *BRIEF, "--output", "report", "--cache", computed)
    assert code == 0
    assert err == "No plots: matplotlib is not installed (pip install opusagent-voiceprint[plots]).\n"
    assert sorted(path.name for path in Path("report").iterdir()) == ["report.html", "report.json"]


def test_what_was_asked_for_and_not_measured_gives_exit_code_1(run: Run, computed: Path) -> None:
    code, out, _ = run("evaluate", SAMPLES, *BRIEF, "--cache", computed, "--gallery", "4,50")
    assert code == 1
    said = " ".join(out.split())
    assert "Not measured: closed-set search of 50 callers, as there are 9." in said
    assert "Not measured: open-set search of 50 callers, as 4 of 9 speakers are held out" in said


def test_a_recording_that_cannot_be_read_gives_exit_code_1_and_is_named(run: Run, few: Path) -> None:
    Path("in").symlink_to(few)
    Path("in/amara/9.wav").write_bytes(b"no audio")
    code, out, _ = run("evaluate", "in", *BRIEF, "--no-cache")
    assert code == 1
    assert "A recording could not be read: in/amara/9.wav" in " ".join(out.split())


def test_a_cache_that_cannot_be_written_is_said_and_nothing_is_lost(run: Run, few: Path) -> None:
    Path("file").write_bytes(b"")
    code, out, err = run("evaluate", few, *BRIEF, "--cache", "file")
    assert code == 0
    assert "Identification" in out
    assert err.count("\n") == 1
    assert err.startswith("Embeddings cannot be cached in file: ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("nowhere",), "Error: cannot read the folder nowhere: No such file or directory"),
        ((".",), "Error: No recording in .: each speaker needs a folder"),
        ((SAMPLES, "--duration", "30"), "Error: 0 of the speakers can be measured"),
        (
            (SAMPLES, "--duration", "2,five"),
            "Error: --duration needs numbers separated by commas, such as 2,3,5",
        ),
        ((SAMPLES, "--prints", "1.5"), "Error: --prints needs numbers separated by commas, such as 1,2,3"),
        ((SAMPLES, "--prints", "0"), "Error: prints must be from 1 to 10"),
        ((SAMPLES, "--gallery", "1"), "Error: a gallery must be of 2 callers or more"),
        ((SAMPLES, "--fpir", "100"), "Error: an FPIR must be between 0 and 1"),
        ((SAMPLES, "--probe", "phone"), "Error: 'phone' is not a condition: give as-is, telephone"),
        ((SAMPLES, "--enroll", "as-is+"), "Error: '' is not a condition"),
        ((SAMPLES, "--no-cache", "--cache", "x"), "Error: --cache and --no-cache are opposites"),
        ((SAMPLES, "--output", "/dev/null"), "Error: cannot make the folder /dev/null: File exists"),
        ((SAMPLES, "--unknown-share", "1"), "--unknown-share"),
        ((), "DIR..."),
    ],
)
def test_errors_are_one_line_and_exit_code_2(run: Run, options: tuple[object, ...], says: str) -> None:
    code, out, err = run("evaluate", *options)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_a_terminal_of_80_columns_shows_bars_and_no_line_is_broken(few: Path, tmp_path: Path) -> None:
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "voiceprint", "evaluate", str(few), *BRIEF, "--no-cache"]
    environment = os.environ | {"TERM": "xterm"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        command, stdin=other, stdout=subprocess.PIPE, stderr=other, env=environment, cwd=tmp_path
    ) as process:
        os.close(other)
        shown = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(main)
    assert process.returncode == 0, shown.decode()
    assert b"Embedding" in shown
    assert b"3/3" in shown
    assert "Identification" in out
    assert "Embedding" not in out


def test_without_a_home_folder_the_embeddings_are_not_kept_and_that_is_said(
    few: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*unknown_user(), sys.executable, "-m", "voiceprint", "evaluate", few, "--splits", "2",
         "--output", "report"],
        env={name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Embeddings are not cached: there is no home folder" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_a_cache_in_the_folder_of_an_unknown_user_is_refused(run: Run) -> None:
    code, _, err = run("evaluate", SAMPLES, "--cache", "~nobody-of-this-name/cache")
    assert code == 2
    assert "there is no home folder for ~nobody-of-this-name" in err
