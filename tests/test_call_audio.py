"""Calls as they are: beside tones, music, hiss and minutes of silence, the caller is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import signals
from voices import Audio, Voices, real_speech

from voiceprint.audio import Recording, assess, load_audio
from voiceprint.encoder import OnnxEncoder

RATE = signals.RATE
ACCEPTED = 0.6

ENCODER = OnnxEncoder()
Make = Callable[[signals.Signal, np.random.Generator], signals.Signal]


def _silence(seconds: float) -> signals.Signal:
    return np.zeros(round(seconds * RATE))


def _turns(speech: signals.Signal, between: signals.Signal) -> signals.Signal:
    parts = []
    for turn in np.array_split(speech[: 16 * RATE], 4):
        parts += [turn, between]
    return np.concatenate(parts[:-1])


CONDITIONS: dict[str, Make] = {
    "beep": lambda x, _: np.concatenate((signals.beep(1, 1000), x[: 5 * RATE])),
    "loud beep": lambda x, _: np.concatenate((signals.beep(1, 1400, amplitude=0.99), 0.3 * x[: 5 * RATE])),
    "ring-back": lambda x, _: np.concatenate((signals.beep(2, 440, 480), x[: 5 * RATE])),
    "ring-back of 425 Hz": lambda x, _: np.concatenate((signals.cadence(1, 4, 2, 425), x[: 5 * RATE])),
    "busy": lambda x, _: np.concatenate((signals.cadence(0.5, 0.5, 5, 480, 620), x[: 5 * RATE])),
    "keys": lambda x, _: np.concatenate((signals.keys("0621559800", 0.08, 0.08), x[: 5 * RATE])),
    "music": lambda x, r: np.concatenate((signals.hold_music(r, 10), x[: 10 * RATE])),
    "hiss before": lambda x, r: np.concatenate((signals.hiss(r, 180, -70), x[: 10 * RATE])),
    "hiss after": lambda x, r: np.concatenate((x[: 10 * RATE], signals.hiss(r, 60, -70))),
    "turns": lambda x, _: _turns(x, _silence(60)),
    "turns and hiss": lambda x, r: _turns(x, signals.hiss(r, 60, -70)),
    "quiet turns": lambda x, _: _turns(signals.at_level(x, -60), _silence(60)),
}


def _augmented_audio(audio: signals.Signal, rate: int = RATE) -> tuple[np.ndarray, float]:
    recording = Recording.from_buffer(np.clip(audio, -1, 1).astype(np.float32), rate)
    return ENCODER.embed_speech(recording.trimmed)[0], recording.quality.score


def _right(speakers: list[tuple[signals.Signal, signals.Signal]], make: Make) -> int:
    """The number of (enrolled, probe) that pass the quality and are nearest to themselves."""
    prints = np.stack([_augmented_audio(enrolled)[0] for enrolled, _ in speakers])
    right = 0
    for place, (_, probe) in enumerate(speakers):
        vector, score = _augmented_audio(make(probe, np.random.default_rng((14, place))))
        right += score >= ACCEPTED and int((prints @ vector).argmax()) == place
    return right


@pytest.mark.slow
@pytest.mark.parametrize("name", CONDITIONS)
def test_the_caller_is_found(voices: Voices, name: str) -> None:
    speakers = [
        (np.float64(one[0]), np.concatenate([np.float64(each) for each in one[1:]]))
        for one in voices.values()
    ]
    assert _right(speakers, CONDITIONS[name]) >= len(speakers) - 1


needs_speech = pytest.mark.skipif(
    not (real_speech() / "speechocean762").is_dir(), reason="the recordings of VOICE_TEST_DATA are absent"
)


@pytest.mark.slow
@pytest.mark.speech
@needs_speech
@pytest.mark.parametrize("name", CONDITIONS)
def test_callers_on_mobile_phones_are_found(name: str) -> None:
    """Half of them children; 18 s each."""
    speakers = []
    for folder in sorted((real_speech() / "speechocean762").iterdir())[::12]:
        if folder.is_dir():
            audio = np.concatenate(
                [np.float64(load_audio(path)[0]) for path in sorted(folder.glob("*.flac"))]
            )
            speakers.append((audio[: 10 * RATE], audio[10 * RATE :]))
    assert len(speakers) >= 10
    assert _right(speakers, CONDITIONS[name]) >= 0.9 * len(speakers)


def _said(audio: np.ndarray) -> str:
    return " ".join(assess(audio.astype(np.float32)).advice)


@pytest.fixture
def speech(voices: Voices) -> Audio:
    return np.concatenate(voices["bruno"][:2])


def test_what_was_left_out_is_said(speech: Audio) -> None:
    quality = assess(np.concatenate((signals.beep(1, 1000), speech)).astype(np.float32))
    assert quality.feedback == ("tones",)
    assert quality.tones_s == pytest.approx(1.0, abs=0.1)
    assert quality.advice == ("A tone of 1000 Hz (1.0 s) was left out.",)
    said = _said(np.concatenate((signals.keys("12", 0.3, 0.3), speech)))
    assert "were left out" in said
    rng = np.random.default_rng(8)
    said = _said(np.concatenate((signals.hold_music(rng, 20), speech[: 5 * RATE])))
    assert said.startswith("Most of this is music (")
    assert " of 25 s)" in said
    assert "Noise without speech (" in _said(np.concatenate((signals.hiss(rng, 20, -60), speech)))


def test_a_recording_without_speech_says_what_it_holds_instead() -> None:
    rng = np.random.default_rng(9)
    assert "most of this is a tone of 1000 Hz (5 of 5 s)" in _said(signals.beep(5, 1000))
    assert "most of this is silence (5 of 5 s)" in _said(_silence(5))
    assert "most of this is noise (5 of 5 s)" in _said(signals.hiss(rng, 5, -30))
    assert "most of this is music" in _said(signals.held_chord(rng))


@pytest.mark.parametrize("shape", ["loud", "square", "clipped"])
def test_a_tone_is_not_clipped_speech(speech: Audio, shape: str) -> None:
    wave = signals.beep(1, 1000, amplitude=0.99)
    tone = {"loud": wave, "square": np.sign(wave), "clipped": np.clip(3 * wave, -1, 1)}[shape]
    with_tone, alone = (assess(x.astype(np.float32)) for x in (np.concatenate((tone, 0.2 * speech)), speech))
    assert with_tone.clipping == pytest.approx(alone.clipping, abs=0.001)
    assert "clipped" not in with_tone.feedback
    hard = signals.hard_clipped(speech.astype(np.float64), 10) * 0.3
    assert "clipped" in assess(np.concatenate((tone, hard)).astype(np.float32)).feedback


def test_the_level_is_that_of_the_speech(speech: Audio) -> None:
    alone = assess(speech).level_dbfs
    for beside in (_silence(60), signals.hiss(np.random.default_rng(1), 60, -70), signals.beep(5, 1000)):
        assert assess(np.concatenate((beside, speech)).astype(np.float32)).level_dbfs == pytest.approx(
            alone, abs=0.5
        )
