"""The file of a calibration: what is written is read again, and what is something else is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint import ConfigurationError
from voiceprint._files import RefusedFileError
from voiceprint.scoring import Calibration, ImpostorStatistics, calibration_for

MADE = Calibration(
    scale=4.0, offset=1.2, stranger_shift=-0.4, stranger_spread=1.1, space="toy", about={"calls": 40}
)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    MADE.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == MADE
    text = json.loads((tmp_path / "c.json").read_text())
    assert [*text][:2] == ["format", "version"], "a reader sees first what it is"
    MADE.save(tmp_path / "d.json")
    assert (tmp_path / "c.json").read_bytes() == (tmp_path / "d.json").read_bytes()


@given(st.floats(0.1, 10), st.floats(-5, 5), st.floats(-3, 3), st.floats(0.1, 5), st.floats(-90, 90))
def test_expected_is_the_inverse_of_observed(
    scale: float, offset: float, shift: float, spread: float, score: float
) -> None:
    made = Calibration(scale=scale, offset=offset, stranger_shift=shift, stranger_spread=spread)
    known = ImpostorStatistics(20, 19, -40.0, 20.0, 3.0, 9.0)
    assert made.to_traffic_score(made.to_gallery_score(score, known), known) == pytest.approx(score, abs=1e-6)
    middle = known.best_mean + shift * known.best_std
    assert made.to_gallery_score(middle, known) == pytest.approx(known.best_mean)
    assert Calibration().to_gallery_score(score, known) == pytest.approx(score)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    MADE.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigurationError, match=r"VOICE_CALIBRATION_PATH: .* is no calibration"):
            Calibration.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "something"},
        {"scale": 0.0},
        {"scale": "NaN"},
        {"offset": None},
        {"stranger_spread": -1.0},
        {"stranger_shift": 1e999},
        {"scale": 1e308},
        {"scale": 1e-308},
        {"offset": -1e308},
        {"stranger_spread": 1e-308},
        {"more": 1},
    ],
    ids=str,
)
def test_damaged_values_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "c.json"
    MADE.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigurationError, match="is no calibration of this version"):
        Calibration.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff\xfe", b"[]", b"{" * 3_000_000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no calibration"):
        Calibration.load(tmp_path / "c")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file") as raised:
        Calibration.load(tmp_path / "nothing")
    assert isinstance(raised.value.__cause__, OSError)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Calibration.load(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read: embedded null byte"):
        calibration_for("toy", "a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Calibration.load(tmp_path / "pipe")


def test_a_calibration_of_another_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    MADE.save(path)
    assert calibration_for("toy", str(path)) == MADE
    with pytest.raises(ConfigurationError, match="of 'toy', and the encoder's are of 'other'"):
        calibration_for("other", str(path))
    Calibration().save(path)
    assert calibration_for("other", str(path)) == Calibration(), "no space: any"


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    MADE.save(path)
    first = calibration_for("toy", str(path))
    assert calibration_for("toy", str(path)) is first
    Calibration(scale=2.0).save(path)
    assert calibration_for("toy", str(path)).scale == 2.0
    assert calibration_for("toy", None) == Calibration()


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("mine")
    with pytest.raises(RefusedFileError, match="calibration"):
        MADE.save(path)
    assert path.read_text() == "mine"
    path.unlink()
    Calibration().save(path)
    MADE.save(path)
    assert Calibration.load(path) == MADE
