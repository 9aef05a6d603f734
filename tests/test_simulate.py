"""Simulated telephone lines and noise."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signals import mu_law
from voices import RATE, Audio, Voices

from voiceprint import InvalidArgumentError, InvalidAudioError
from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.audio.speech import vad

SECONDS = 4


@pytest.fixture(scope="module")
def speech(voices: Voices) -> Audio:
    return voices["amara"][0][: SECONDS * RATE]


def tone(hz: float, amplitude: float = 0.25) -> Audio:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(2 * RATE) / RATE)).astype(np.float32)


def gain_db(condition: str, hz: float) -> float:
    """The gain of a tone's own component, away from the ends."""
    before, middle = tone(hz), slice(RATE // 2, 3 * RATE // 2)
    after = Condition.parse(condition).apply(before)
    wave = np.exp(-2j * np.pi * hz * np.arange(2 * RATE) / RATE)[middle]
    return float(20 * np.log10(max(abs(after[middle] @ wave) / abs(before[middle] @ wave), 1e-9)))


def snr_db(clean: Audio, noisy: Audio, received: Audio) -> float:
    """The ratio of the speech in `clean`, where the VAD finds it in `received`, to the added noise."""
    mask = vad.speech_mask(received)
    power = np.square(clean[mask], dtype=np.float64).mean()
    return float(10 * np.log10(power / np.square(noisy - clean, dtype=np.float64).mean()))


@given(
    st.one_of(
        st.just(AS_IS),
        st.builds(Condition, st.just("noise"), st.integers(-20, 80).map(float)),
        st.builds(
            Condition,
            st.just("telephone"),
            st.none() | st.integers(-200, 800).map(lambda n: n / 10),
            st.sampled_from(["narrow", "full"]),
            st.sampled_from(["mulaw", "alaw"]),
        ),
    )
)
def test_the_name_of_a_condition_gives_the_condition_back(condition: Condition) -> None:
    assert Condition.parse(str(condition)) == condition


def test_the_names_are_those_of_the_documentation() -> None:
    assert [str(Condition.parse(name)) for name in ("as-is", " telephone ", "noise:snr=10.0")] == [
        "as-is",
        "telephone",
        "noise:snr=10",
    ]
    assert Condition.parse("telephone:law=alaw,snr=15") == Condition("telephone", 15, "narrow", "alaw")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "'' is not a condition"),
        ("phone", "'phone' is not a condition: give as-is, telephone"),
        ("noise", "noise needs its level, such as noise:snr=10"),
        ("noise:snr=loud", "snr in the condition 'noise:snr=loud' must be a number of dB"),
        ("noise:snr=nan", "snr must be a number of -20 to 80 dB, not nan"),
        ("noise:snr=81", "not 81"),
        ("noise:band=full,snr=3", "'band=full' in the condition"),
        ("as-is:snr=3", "as-is takes nothing"),
        ("telephone:snr", "'snr' in the condition"),
        ("telephone:snr=1,snr=2", "each once"),
        ("telephone:band=wide", "band must be narrow or full, not 'wide'"),
        ("telephone:law=gsm", "law must be mulaw or alaw, not 'gsm'"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_would_be_one(name: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(says)):
        Condition.parse(name)


def test_what_does_not_go_together_is_refused() -> None:
    for made in (
        lambda: Condition("as-is", 3.0),
        lambda: Condition("noise", 3.0, band="full"),
        lambda: Condition("radio"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgumentError):
            made()


def test_as_is_changes_nothing(speech: Audio) -> None:
    assert AS_IS.apply(speech) is speech


def test_noise_comes_at_the_level_that_is_asked_for(speech: Audio) -> None:
    for level in (30.0, 10.0, 0.0):
        quiet = speech * np.float32(0.2)  # so that nothing is clipped
        assert snr_db(quiet, Condition("noise", level).apply(quiet), quiet) == pytest.approx(level, abs=0.1)


def test_pauses_do_not_lower_the_noise(speech: Audio) -> None:
    quiet = speech * np.float32(0.2)
    half = np.concatenate([quiet, np.zeros_like(quiet)])
    noisy = Condition("noise", 10.0).apply(half)
    assert snr_db(half, noisy, half) == pytest.approx(10, abs=0.1)


def test_noise_on_a_line_comes_at_the_level_that_is_asked_for(speech: Audio) -> None:
    line = Condition.parse("telephone").apply(speech)
    noisy = Condition.parse("telephone:snr=10").apply(speech)
    assert snr_db(line, noisy, speech) == pytest.approx(10, abs=0.3)


@pytest.mark.parametrize(
    ("hz", "least", "most"),
    [(50, -80, -40), (300, -3.2, -2.8), (1010, -0.1, 0.1), (3400, -3.2, -2.8), (5000, -200, -60)],
)
def test_a_line_cuts_the_band_to_300_to_3400_hz(hz: float, least: float, most: float) -> None:
    assert least < gain_db("telephone", hz) < most


def test_a_full_band_keeps_what_8_khz_carry() -> None:
    assert gain_db("telephone:band=full", 100) == pytest.approx(0, abs=0.1)
    assert gain_db("telephone:band=full", 3600) == pytest.approx(0, abs=0.1)
    assert gain_db("telephone:band=full", 4400) < -60


def test_a_line_codes_with_mu_law() -> None:
    """Beside the continuous law, whose steps are those of G.711 but for the corners between segments."""
    before = tone(1000)
    error = Condition.parse("telephone:band=full").apply(before) - before
    expected = mu_law(before[::2].astype(np.float64)) - before[::2]
    assert np.std(error[RATE // 2 : -RATE // 2]) == pytest.approx(np.std(expected), rel=0.3)
    assert np.std(error[RATE // 2 : -RATE // 2]) > 1e-4


def test_alaw_gives_another_sound_than_mulaw(speech: Audio) -> None:
    mulaw, alaw = (Condition.parse(f"telephone:law={law}").apply(speech) for law in ("mulaw", "alaw"))
    assert not np.array_equal(mulaw, alaw)
    assert np.corrcoef(mulaw, alaw)[0, 1] > 0.999


@pytest.mark.parametrize("name", ["telephone", "telephone:snr=5", "noise:snr=-5"])
@pytest.mark.parametrize("length", [1, 2, 479, 8001, 31999])
def test_the_length_and_the_range_stay(name: str, length: int, speech: Audio) -> None:
    for audio in (speech[10000 : 10000 + length], np.zeros(length, np.float32), np.ones(length, np.float32)):
        received = Condition.parse(name).apply(audio)
        assert received.shape == (length,)
        assert received.dtype == np.float32
        assert np.abs(received).max() <= 1


def test_the_noise_depends_on_audio_condition_and_seed_alone(speech: Audio) -> None:
    condition = Condition.parse("telephone:snr=20")
    once = condition.apply(speech)
    assert np.array_equal(once, condition.apply(speech.copy()))
    assert not np.array_equal(once, condition.apply(speech, seed=1))
    noise = [Condition("noise", 20.0).apply(audio) - audio for audio in (speech[:8000], speech[8000:16000])]
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.05


def test_a_condition_wants_float32_mono(speech: Audio) -> None:
    for wrong in (speech.astype(np.float64), speech.reshape(2, -1), speech[:0], [0.0]):
        with pytest.raises(InvalidAudioError):
            Condition.parse("telephone").apply(wrong)  # type: ignore[arg-type]
