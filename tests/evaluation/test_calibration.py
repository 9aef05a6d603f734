"""Fitting the scores to a user's own calls: from recordings to a file that is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scoring_models import fitted
from voices import SAMPLES, BandEncoder

from voiceprint import ConfigurationError, InvalidArgumentError
from voiceprint.encoder import OnnxEncoder
from voiceprint.evaluation import EmbeddingCache, calibrate
from voiceprint.scoring import Backend, default_backend

Run = Callable[..., tuple[int, str, str]]
BRIEF = ("--duration", "2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def some_callers(count: int, folder: Path) -> Path:
    for caller in sorted(path for path in SAMPLES.iterdir() if path.is_dir())[:count]:
        shutil.copytree(caller, folder / caller.name)
    return folder


def test_the_sample_voices_are_calibrated_shown_and_written(
    run: Run, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.npz"
    code, out, err = run("calibrate", SAMPLES, *BRIEF, "--output", file, "--cache", cache)
    assert (code, err) == (0, "")
    assert out.startswith("9 speakers, ")
    rows = {
        line.split()[0]: line.split() for line in out.splitlines() if line.startswith(("before", "after"))
    }
    assert float(rows["after"][3]) < float(rows["before"][3]), "Cllr"
    assert rows["after"][1:3] == rows["before"][1:3], "a calibration moves no EER"
    assert f"VOICE_CALIBRATION_PATH={file}" in out
    assert max(len(line.rstrip()) for line in out.splitlines()[:-1]) <= 80
    made = Backend.load(file)
    assert (made.plda.between == default_backend().plda.between).all()
    assert made.calibration != default_backend().calibration
    assert made.about["recalibrated_on_speakers"] == 9
    # The evaluation takes it from the settings.
    monkeypatch.setenv("VOICE_CALIBRATION_PATH", str(file))
    brief = (*BRIEF, "--splits", "2", "--cache", cache, "--json")
    mine = run("evaluate", SAMPLES, *brief)
    monkeypatch.delenv("VOICE_CALIBRATION_PATH")
    assert mine == run("evaluate", SAMPLES, *brief, "--calibration", file)
    assert mine != run("evaluate", SAMPLES, *brief)


def test_the_same_recordings_give_the_same_file(cache: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        found = calibrate(SAMPLES, encoder=OnnxEncoder(1), duration_s=2.0, cache=EmbeddingCache(cache))
        found.backend.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert found.one_recording == 0
    assert found.gallery == 3


def test_json_has_both_sides_and_the_file(run: Run, cache: Path, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "c.npz", "--cache", cache, "--json")
    code, out, _ = run("calibrate", SAMPLES, *BRIEF, *options)
    shown = json.loads(out)
    assert code == 0
    assert shown["before"].keys() == shown["after"].keys()
    assert (shown["speakers"], shown["file"]) == (9, str(tmp_path / "c.npz"))


def test_too_few_speakers_are_told_how_many_it_takes_and_nothing_is_written(
    run: Run, cache: Path, tmp_path: Path
) -> None:
    folder = some_callers(5, tmp_path / "in")
    code, out, err = run("calibrate", folder, "--output", tmp_path / "c.npz", "--cache", cache, *BRIEF)
    assert (code, out) == (2, "")
    assert "Error: A calibration takes 8 speakers or more" in err
    assert "there are 5" in err
    assert not (tmp_path / "c.npz").exists()


def test_a_recording_that_cannot_be_read_is_named_and_the_file_written(
    run: Run, cache: Path, tmp_path: Path
) -> None:
    folder = some_callers(9, tmp_path / "in")
    next(folder.iterdir()).joinpath("9.wav").write_bytes(b"no audio")
    code, out, _ = run("calibrate", folder, "--output", tmp_path / "c.npz", "--cache", cache, *BRIEF)
    assert code == 1
    assert "A recording could not be read" in out
    assert (tmp_path / "c.npz").exists()


def test_speakers_with_one_recording_are_said_to_be_easier(cache: Path, tmp_path: Path) -> None:
    for caller in (path for path in SAMPLES.iterdir() if path.is_dir()):
        (tmp_path / caller.name).mkdir()
        shutil.copy(caller / "1.flac", tmp_path / caller.name)
    found = calibrate(tmp_path, encoder=OnnxEncoder(1), duration_s=1.0, cache=EmbeddingCache(cache))
    assert found.one_recording == found.speakers


@pytest.mark.parametrize("given", [{"duration_s": 0.0}, {"duration_s": 61.0}, {"most_pieces": 1}])
def test_options_out_of_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        calibrate(SAMPLES, **given)  # type: ignore[arg-type]


def test_another_encoder_than_the_calibration_is_of_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="test-bands"):
        calibrate(SAMPLES, encoder=BandEncoder())
    with pytest.raises(ConfigurationError, match="toy"):
        calibrate(SAMPLES, base=fitted())


def test_a_place_that_cannot_be_written_is_refused_before_the_work(run: Run, tmp_path: Path) -> None:
    code, _, err = run("calibrate", SAMPLES, "--output", tmp_path / "nowhere/c.npz")
    assert code == 2
    assert "there is no folder" in err
