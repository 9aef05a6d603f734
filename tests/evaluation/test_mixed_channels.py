"""Evaluation and calibration refuse recordings that hold a different voice on each channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices import RATE, Audio, BandEncoder, Voices

from voiceprint import InvalidAudioError
from voiceprint.evaluation import Settings, evaluate

Run = Callable[..., tuple[int, str, str]]
Stereo = Callable[[Audio, Audio], np.ndarray]
QUICK = Settings(durations_s=(1.0,), splits=3, resamples=0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder is empty, and the user's cache is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return


def calls(voices: Voices, stereo: Stereo) -> Path:
    """Every recording with two channels, of the caller and of the agent, who is the next caller."""
    names = list(voices)
    for name, agent in zip(names, names[1:] + names[:1], strict=True):
        for number, (audio, other) in enumerate(zip(voices[name], voices[agent], strict=True)):
            length = min(len(audio), len(other))
            path = Path("calls", name, f"{number}.wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, stereo(audio[:length], other[:length]).T, RATE)
    return Path("calls")


def agent_and_caller(caller: Audio, agent: Audio) -> np.ndarray:
    return np.stack([agent, caller])


def test_agent_and_caller_are_not_mixed_unless_a_channel_is_chosen(voices: Voices) -> None:
    folder = calls(voices, agent_and_caller)
    with pytest.raises(
        InvalidAudioError,
        match=r"^36 of 36 recordings hold a different voice on each channel.*"
        r"amara/0.wav, .*amara/1.wav, .*amara/2.wav and 33 more.*\(--channel 0 or 1\)$",
    ):
        evaluate(folder, QUICK, encoder=BandEncoder())
    chosen = Settings(durations_s=(1.0,), splits=3, resamples=0, channel=1)
    assert evaluate(folder, chosen, encoder=BandEncoder()).sessions.speakers == 9


@pytest.mark.parametrize(
    "stereo",
    [
        lambda caller, _: np.stack([caller, caller]),
        lambda caller, _: np.stack([caller, -0.4 * caller]),
        lambda caller, _: np.stack([caller, np.roll(caller, 300) + 0.2 * np.roll(caller, 800)]),
        lambda caller, _: np.stack([caller, 0 * caller]),
    ],
    ids=["one channel twice", "another level and polarity", "a second microphone", "a silent channel"],
)
def test_stereo_recordings_of_one_voice_are_measured(voices: Voices, stereo: Stereo) -> None:
    assert evaluate(calls(voices, stereo), QUICK, encoder=BandEncoder()).sessions.speakers == 9


def test_a_single_call_among_mono_recordings_is_named(voices: Voices) -> None:
    folder = calls(voices, lambda caller, _: caller[None])
    length = min(len(voices["amara"][0]), len(voices["bruno"][0]))
    two = np.stack([voices["amara"][0][:length], voices["bruno"][0][:length]])
    soundfile.write(folder / "gil/2.wav", two.T, RATE)
    (folder / "gil/3.wav").write_bytes(b"no audio")
    with pytest.raises(InvalidAudioError, match=r"1 of 36 recordings .*: calls/gil/2\.wav\. Mixed"):
        evaluate(folder, QUICK, encoder=BandEncoder())


@pytest.mark.resemblyzer
def test_the_commands_end_with_exit_code_2_and_take_a_channel(run: Run, voices: Voices) -> None:
    folder = calls(voices, agent_and_caller)
    for command in ("evaluate", "calibrate"):
        code, out, err = run(command, folder, "--duration", "2")
        assert (code, out) == (2, "")
        assert err.startswith("Error: 36 of 36 recordings hold a different voice on each channel")
    assert not Path("calibration.json").exists()
    code, out, _ = run("calibrate", folder, "--duration", "2", "--channel", 1, "--json")
    assert (code, json.loads(out)["speakers"]) == (0, 9)
