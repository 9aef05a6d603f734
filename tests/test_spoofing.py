"""Spoofing detectors of the application: what they get, and what becomes of their faults."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceprint import ConfigurationError, Recording, VoiceFingerprintConfig
from voiceprint.identification.spoofing import LONGEST_S, SpoofDetector

RATE = 16_000
SECRET = "of the caller alice"

MODULE = f"""
import sys

import numpy as np

def mean(samples, sample_rate):
    assert samples.dtype == np.float32 and samples.ndim == 1 and sample_rate == 16000
    return float(np.abs(samples).mean())

def length(samples, sample_rate):
    return np.float32(len(samples))

def nothing(samples, sample_rate):
    return None

def broken(samples, sample_rate):
    raise RuntimeError({SECRET!r})

def leaves(samples, sample_rate):
    sys.exit({SECRET!r})

def interrupted(samples, sample_rate):
    raise KeyboardInterrupt

def infinite(samples, sample_rate):
    return float("nan")

def words(samples, sample_rate):
    return "high"

def overwrites(samples, sample_rate):
    samples[:] = 0
    return 1

class Model:
    @staticmethod
    def score(samples, sample_rate):
        return 0.25

number = 3
"""


@pytest.fixture(autouse=True)
def detectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `detectors` of an application, and one that cannot be imported."""
    (tmp_path / "detectors.py").write_text(MODULE)
    (tmp_path / "faulty_detectors.py").write_text("import there_is_no_such_module")
    (tmp_path / "leaving_detectors.py").write_text("raise SystemExit(1)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "detectors", raising=False)


def recording(seconds: float = 2.0, sample_rate: int = RATE) -> Recording:
    noise = np.random.default_rng(0).standard_normal(round(seconds * sample_rate)) / 10
    return Recording.from_buffer(noise.astype(np.float32), sample_rate)


def score(name: str, audio: Recording | None = None) -> Any:
    return SpoofDetector.load(f"detectors:{name}").score(audio or recording())


def test_a_detector_gets_mono_samples_at_16_khz() -> None:
    call = recording(sample_rate=8000)
    samples: NDArray[np.float32] = call.mono[:]
    assert score("mean", call) == pytest.approx(float(np.abs(samples).mean()))
    assert score("length", call) == 2 * RATE


def test_a_detector_may_be_a_method_and_may_give_no_score() -> None:
    assert score("Model.score") == 0.25
    assert score("nothing") is None


def test_a_detector_gets_two_minutes_of_a_long_call() -> None:
    assert score("length", recording(300.0)) == LONGEST_S * RATE


def test_a_detector_cannot_change_the_recording() -> None:
    call = recording()
    before = call.mono[:].copy()
    assert score("overwrites", call) == 1.0
    assert np.array_equal(call.mono[:], before)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "RuntimeError"),
        ("leaves", "SystemExit"),
        ("words", "ValueError"),
        ("infinite", "not finite"),
    ],
)
def test_a_fault_of_a_detector_is_logged_by_name_and_gives_no_score(
    name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert score(name) is None
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert f"detectors:{name}" in record.getMessage()
    assert words in record.getMessage()
    assert SECRET not in caplog.text


def test_an_interrupt_by_the_user_ends_a_detector() -> None:
    with pytest.raises(KeyboardInterrupt):
        score("interrupted")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("leaving_detectors:score", "SystemExit"),
        ("no_such_module:score", "ModuleNotFoundError"),
        ("faulty_detectors:score", "there_is_no_such_module"),
        ("detectors:no_such_function", "AttributeError"),
        ("detectors:number", "is a int"),
    ],
)
def test_a_detector_that_cannot_be_loaded_is_a_configuration_error(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as error:
        SpoofDetector.load(name)
    assert f"VOICE_SPOOF_DETECTOR is {name!r}" in str(error.value)


@pytest.mark.parametrize("value", ["score", "module:", ":score", "a b:score", "module:score()", "a:b:c"])
def test_a_setting_that_names_no_callable_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"module:callable"):
        VoiceFingerprintConfig(spoof_detector=value)


def test_the_settings_of_the_environment_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_SPOOF_DETECTOR", "detectors:Model.score")
    monkeypatch.setenv("VOICE_SPOOF_THRESHOLD", "-1.5")
    monkeypatch.setenv("VOICE_SAME_RECORDING", "false")
    config = VoiceFingerprintConfig()
    assert (config.spoof_detector, config.spoof_threshold) == ("detectors:Model.score", -1.5)
    assert not config.same_recording
