from __future__ import annotations

import warnings

import numpy as np
import pytest
import signals

from voiceprint.audio.speech import vad


def _babble(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Bursts of harmonics and noise with pauses, which the VAD takes for speech in parts."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * signals.RATE:
        length = int(rng.integers(800, 9000))
        time = np.arange(length) / signals.RATE
        voice = sum(np.sin(2 * np.pi * rng.uniform(90, 220) * k * time) / k for k in range(1, 12))
        parts.append(np.asarray(voice) * np.hanning(length) * rng.choice([0.0, 0.02, 0.2]))
    return np.clip(np.concatenate(parts) + 1e-4 * rng.standard_normal(sum(map(len, parts))), -1, 1).astype(
        np.float32
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_the_mask_keeps_the_samples_that_resemblyzer_keeps(seed: int, gain: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resemblyzer = pytest.importorskip("resemblyzer.audio")
    audio = _babble(seed) * np.float32(gain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = resemblyzer.preprocess_wav(audio)
    mask = vad.speech_mask(audio)
    assert mask.sum() == len(expected)
    np.testing.assert_allclose((audio * vad.volume_gain(audio))[mask], expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 479, 480, 481, 959, 1500, 3360])
def test_any_length_gives_a_flag_for_each_whole_window(count: int) -> None:
    audio = np.random.default_rng(count).uniform(-0.3, 0.3, count).astype(np.float32)
    assert vad.voice_flags(audio).shape == (count // vad.WINDOW,)
    mask = vad.speech_mask(audio)
    assert mask.shape == (count,)
    assert not mask[count // vad.WINDOW * vad.WINDOW :].any()


def test_silence_holds_no_speech() -> None:
    assert not vad.speech_mask(np.zeros(16000, dtype=np.float32)).any()


def test_half_of_the_windows_around_is_not_enough() -> None:
    flags = np.zeros(40, dtype=bool)
    flags[20:24] = True
    assert not vad.speech_windows(flags).any()
    flags[24] = True
    assert vad.speech_windows(flags).sum() == 4 + 6  # four see all five voiced; three are added to each side


def test_only_quiet_audio_is_amplified() -> None:
    loud = np.full(1000, 0.5, dtype=np.float32)
    assert vad.volume_gain(loud) == 1
    quiet = loud * np.float32(1e-3)
    amplified = quiet * vad.volume_gain(quiet)
    assert abs(20 * np.log10(np.sqrt(np.mean(amplified**2))) + 30) < 0.01
    assert vad.volume_gain(np.zeros(10, dtype=np.float32)) == 1
    assert np.isfinite(vad.volume_gain(np.full(10, 1e-38, dtype=np.float32)))
