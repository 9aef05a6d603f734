from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydantic
import pytest
import signals

from voiceprint.audio import AudioQuality, assess, load_audio, to_mono

ACCEPTED = 0.6


def _speechlike(seed: int = 0, seconds: float = 5.0) -> signals.Signal:
    """A crude formant synthesis: syllables of a gliding voice, alternating with hisses, and short pauses."""
    import scipy.signal

    rng = np.random.default_rng(seed)
    parts: list[signals.Signal] = []
    while sum(map(len, parts)) < seconds * signals.RATE:
        length = int(signals.RATE * rng.uniform(0.12, 0.28))
        glide = rng.uniform(95, 180) * np.linspace(1, rng.choice([0.75, 0.8, 1.25]), length)
        source = np.diff(np.floor(np.cumsum(glide) / signals.RATE), prepend=0.0)
        voice = np.zeros(length)
        for low, high in ((250, 850), (900, 2200), (2300, 3300)):
            formant, width = rng.uniform(low, high), 90.0
            b, a = scipy.signal.iirpeak(formant, formant / width, fs=signals.RATE)
            voice += scipy.signal.lfilter(b, a, source)
        parts.append(voice / np.abs(voice).max() * np.hanning(length))
        hiss = signals.colored_noise(rng, -2, rng.uniform(0.05, 0.12))
        parts.append(0.15 * hiss * np.hanning(len(hiss)))
        parts.append(np.zeros(int(signals.RATE * rng.choice([0.02, 0.02, 0.2]))))
    speech = np.concatenate(parts)[: round(seconds * signals.RATE)]
    return 0.8 * speech / np.abs(speech).max() + 1e-4 * rng.standard_normal(len(speech))


SPEECH = _speechlike()


def _recordings() -> list[Path]:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "data").is_dir():
            default = parent / "shared" / "data"
            break
    return sorted(Path(os.environ.get("VOICE_TEST_DATA", default)).glob("librispeech/*/*/*.flac"))


def _pieces(seconds: int = 5) -> Iterator[signals.Signal]:
    for path in _recordings():
        samples, rate = load_audio(path)
        for start in range(0, len(samples) - seconds * rate + 1, seconds * rate):
            yield samples[start : start + seconds * rate].astype(np.float64)


needs_recordings = pytest.mark.skipif(
    not _recordings(), reason="the recordings of VOICE_TEST_DATA are absent"
)


def test_speech_passes_with_nothing_to_improve() -> None:
    quality = assess(SPEECH)
    assert quality.score > 0.9
    assert quality.feedback == ()
    assert quality.duration_s == 5.0
    assert 3.0 < quality.net_speech_s <= 5.0
    assert quality.clipping < 0.002


@pytest.mark.slow
@pytest.mark.parametrize("name", signals.NOT_SPEECH)
def test_what_is_not_speech_fails_at_any_level(name: str) -> None:
    for seed in range(12):
        sound = signals.NOT_SPEECH[name](np.random.default_rng((seed, 41)))
        for gain in (1.0, 0.1, 0.003):
            quality = assess(sound * gain)
            assert quality.score < 0.5, (seed, gain, quality)


@pytest.mark.parametrize("name", ["white", "dtmf", "sweep", "chords", "arpeggio", "siren", "square"])
def test_what_is_not_speech_fails_over_a_telephone(name: str) -> None:
    for seed in range(8):
        line = signals.telephone(signals.NOT_SPEECH[name](np.random.default_rng((seed, 42))))
        assert assess(line, sample_rate=8000).score < 0.5
        assert assess(to_mono(line, 8000)).score < 0.5


@pytest.mark.parametrize("name", ["pink", "tone", "chords", "arpeggio", "sweep", "fm_tone"])
def test_what_is_not_speech_fails_in_short_clips(name: str) -> None:
    for seed in range(8):
        sound = signals.NOT_SPEECH[name](np.random.default_rng((seed, 43)))
        for start, seconds in ((0, 1), (1, 2), (2, 3)):
            assert assess(sound[start * signals.RATE : (start + seconds) * signals.RATE]).score < ACCEPTED


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0, 1e-7])
def test_silence_and_constants_are_no_speech(value: float) -> None:
    quality = assess(np.full(80000, value))
    assert quality.score == 0.0
    assert quality.feedback[0] == "no_speech"
    assert quality.level_dbfs == -120.0


def test_speech_at_0_db_of_noise_fails_and_at_20_db_passes() -> None:
    for exponent in (0, 1):
        rng = np.random.default_rng(5)
        bad, good = (assess(signals.with_noise(SPEECH, rng, snr, exponent)) for snr in (0, 20))
        assert bad.score < 0.3
        assert "noisy" in bad.feedback
        assert good.score > 0.7
        assert good.snr_db > 15


def test_a_telephone_line_passes_as_narrowband() -> None:
    for narrow in (False, True):
        line = signals.telephone(signals.with_noise(SPEECH, np.random.default_rng(6), 20), narrow=narrow)
        for quality in (assess(line, sample_rate=8000), assess(to_mono(line, 8000))):
            assert quality.score > 0.7
            assert quality.feedback == ("narrowband",)
            assert quality.bandwidth_hz <= 4000


@pytest.mark.parametrize("gain", [10, 30, 100])
def test_hard_clipped_speech_fails_even_when_it_was_turned_down_or_resampled(gain: float) -> None:
    import soxr

    clipped = signals.hard_clipped(SPEECH, gain)
    for sound, rate in (
        (clipped, 16000),
        (clipped * 0.2, 16000),
        (np.int16(clipped * 32767), 16000),
        (0.5 * soxr.resample(clipped, 16000, 44100), 44100),
        (signals.with_noise(clipped, np.random.default_rng(7), 30), 16000),
        (signals.mu_law(clipped), 16000),
    ):
        quality = assess(sound, sample_rate=rate)
        assert quality.score < 0.3
        assert "clipped" in quality.feedback
    if gain > 10:  # the filter that halves the rate repairs what was clipped less
        assert assess(0.5 * soxr.resample(clipped, 16000, 8000), sample_rate=8000).score < ACCEPTED


def test_quiet_speech_passes_and_almost_silent_speech_is_told_so() -> None:
    scaled = {dbfs: SPEECH * 10 ** (dbfs / 20) / SPEECH.std() for dbfs in (-45, -54, -70)}
    quality = {dbfs: assess(np.int16(np.round(sound * 32768))) for dbfs, sound in scaled.items()}
    assert quality[-45].score > 0.9
    assert quality[-54].score > 0.7
    assert quality[-70].score < 0.3
    assert "too_quiet" in quality[-70].feedback
    assert abs(quality[-45].level_dbfs + 45) < 3


def test_level_does_not_change_the_other_measures() -> None:
    loud, quiet = assess(SPEECH), assess(SPEECH * 0.03)
    assert abs(loud.snr_db - quiet.snr_db) < 1
    assert loud.bandwidth_hz == quiet.bandwidth_hz
    assert abs(loud.score - quiet.score) < 0.05


def test_a_constant_offset_changes_little() -> None:
    quality = assess(SPEECH * 0.5 + 0.3)
    assert quality.score > 0.9
    assert abs(quality.level_dbfs - assess(SPEECH * 0.5).level_dbfs) < 0.5


def test_short_speech_is_told_too_short() -> None:
    for seconds in (0.2, 0.5):
        quality = assess(SPEECH[: int(seconds * signals.RATE)])
        assert quality.score < ACCEPTED
        assert "too_short" in quality.feedback
    assert assess(SPEECH[: 2 * signals.RATE]).score >= ACCEPTED


@pytest.mark.parametrize("count", [1, 2, 100, 511, 512, 513, 1023, 1024, 1025, 1279, 2048, 5000])
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_any_length_gives_finite_measures(count: int, rate: int) -> None:
    noise = np.random.default_rng(count).uniform(-1, 1, count)
    for buffer in (noise, noise * 1e-30, np.ones(count), np.zeros(count), np.eye(1, count)[0]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quality = assess(buffer, sample_rate=rate)
        values = [*quality.model_dump(exclude={"feedback", "advice", "channel", "voices"}).values()]
        assert np.isfinite(values).all()
        assert quality.duration_s == count / rate


def test_long_audio_is_measured_as_its_parts_are() -> None:
    long = assess(np.tile(SPEECH, 12))
    assert long.score > 0.9
    assert abs(long.net_speech_s - 12 * assess(SPEECH).net_speech_s) < 3
    assert abs(long.snr_db - assess(SPEECH).snr_db) < 1


def test_quality_is_frozen_and_survives_json() -> None:
    quality = assess(SPEECH)
    with pytest.raises(pydantic.ValidationError):
        quality.score = 1.0  # type: ignore[misc]
    assert AudioQuality.model_validate_json(quality.model_dump_json()) == quality


def test_the_same_buffer_gives_the_same_answer() -> None:
    assert assess(SPEECH) == assess(SPEECH.copy())


@pytest.mark.speech
@needs_recordings
def test_recorded_speech_passes() -> None:
    scores = np.array([assess(piece).score for piece in _pieces()])
    assert (scores >= ACCEPTED).mean() >= 0.99


@needs_recordings
def test_short_utterances_pass() -> None:
    scores = []
    for path in _recordings():
        samples, rate = load_audio(path)
        if 2 * rate <= len(samples) < 5 * rate:
            scores.append(assess(samples, sample_rate=rate).score)
    assert np.mean(np.array(scores) >= ACCEPTED) >= 0.95


@pytest.mark.speech
@needs_recordings
def test_recorded_speech_passes_over_a_telephone_and_fails_in_noise_or_clipped() -> None:
    rng = np.random.default_rng(8)
    telephone, noisy, clipped = [], [], []
    for piece in list(_pieces())[::5]:
        telephone.append(
            assess(signals.telephone(signals.with_noise(piece, rng, 20)), sample_rate=8000).score
        )
        noisy.append(assess(signals.with_noise(piece, rng, 0)).score)
        clipped.append(assess(signals.hard_clipped(piece, 10)).score)
    assert (np.array(telephone) >= ACCEPTED).mean() >= 0.95
    assert (np.array(noisy) < ACCEPTED).mean() >= 0.95
    assert max(clipped) < ACCEPTED
