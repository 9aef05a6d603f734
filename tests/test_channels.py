"""Recordings with channels: choosing one, and a warning about a mix of two voices."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
import scipy.signal
import signals
import soxr
from hypothesis import given
from hypothesis import strategies as st
from voices import Voices, real_speech

from voiceprint import AudioQualityError, OpusAgentVoiceRecognizer, assess, preprocess_audio
from voiceprint.audio import (
    MIXED,
    ChannelComparison,
    as_pcm,
    channels_differ,
    compare_channels,
    load_audio,
    mixable,
    to_mono,
)
from voiceprint.audio.io import g711
from voiceprint.errors import InvalidAudioError

RATE = 16_000
FLAG = "channels_differ"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng((2027, seed))


def beside(one: Any, other: Any) -> np.ndarray:
    """Two channels, float32[n, 2], as long as the shorter one and in range."""
    n = min(len(one), len(other))
    both = np.stack([one[:n], other[:n]], axis=1)
    return np.float32(both / max(1.0, np.abs(both).max()))


def delayed(audio: Any, ms: float) -> np.ndarray:
    count = int(ms * RATE / 1000)
    return np.concatenate([np.zeros(count), audio[: len(audio) - count]])


def in_a_room(audio: Any, seed: int) -> np.ndarray:
    """The audio with echoes of white noise that fall by 60 dB in 0.4 s, as strong as the voice itself."""
    n = int(0.4 * RATE)
    echoes = rng(seed).standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    echoes /= np.linalg.norm(echoes)
    echoes[0] += 1
    return np.asarray(scipy.signal.fftconvolve(audio, echoes)[: len(audio)])


def on_the_line(audio: Any) -> np.ndarray:
    """Through a telephone line of 300 to 3400 Hz with mu-law."""
    low = soxr.resample(np.asarray(audio, dtype=np.float64), RATE, 8000)
    low = scipy.signal.sosfilt(
        scipy.signal.butter(4, [300, 3400], "bandpass", fs=8000, output="sos"), low
    ).clip(-1, 1)
    coded = g711.decode(g711.encode(np.int16(low * 32767), "mulaw"), "mulaw")
    return np.asarray(soxr.resample(coded / 32768, 8000, RATE)[: len(audio)])


ONE_VOICE = {
    "a copy": lambda a: a,
    "a quiet copy of the other polarity": lambda a: -0.05 * a,
    "through a telephone line": on_the_line,
    "in 10 dB of noise": lambda a: signals.with_noise(a, rng(), 10, 1),
    "in as much noise": lambda a: signals.with_noise(a, rng(), 0),
    "40 ms later": lambda a: delayed(a, 40),
    "another microphone": lambda a: signals.with_noise(delayed(in_a_room(a, 1), 10), rng(), 20),
    "silence": lambda a: 0 * a,
    "a line that is not spoken on": lambda a: on_the_line(0.0005 * signals.white(rng())),
    "noise": lambda a: 0.1 * signals.pink(rng()),
    "noise and a leak at -40 dB": lambda a: 0.01 * a + 0.0005 * rng().standard_normal(len(a)),
    "hum": lambda a: signals.hum(rng()),
}


@pytest.mark.parametrize("other", ONE_VOICE)
def test_channels_of_one_voice_do_not_differ(voices: Voices, other: str) -> None:
    for name in voices:
        audio = voices[name][0].astype(np.float64)[: 5 * RATE]
        pair = beside(audio, ONE_VOICE[other](audio))
        assert not channels_differ(pair, RATE), name
        assert FLAG not in assess(pair, sample_rate=RATE).feedback


def in_turns(one: Any, other: Any, leak: float = 0.0, turn_s: float = 1.3) -> np.ndarray:
    """A call: each speaks while the other is silent, and leaks into the other's channel at `leak`."""
    n = min(len(one), len(other))
    first = (np.arange(n) / RATE / turn_s).astype(int) % 2 == 0
    one, other = one[:n] / np.std(one) * 0.05 * first, other[:n] / np.std(other) * 0.05 * ~first
    return beside(one + leak * other, other + leak * one)


TWO_VOICES = {
    "at once": beside,
    "one much quieter": lambda a, b: beside(a, 0.02 * b),
    "on a telephone line": lambda a, b: beside(on_the_line(a), on_the_line(b)),
    "in 20 dB of noise": lambda a, b: beside(*(signals.with_noise(x, rng(), 20) for x in (a, b))),
    "in turns": in_turns,
    "in turns that leak at -20 dB": lambda a, b: in_turns(a, b, 0.1),
    "in turns that leak at -16 dB": lambda a, b: in_turns(a, b, 0.16),
}


@pytest.mark.parametrize("how", TWO_VOICES)
def test_channels_of_two_voices_differ(voices: Voices, how: str) -> None:
    names = list(voices)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        pair = TWO_VOICES[how](voices[name][0].astype(np.float64), voices[other][1].astype(np.float64))
        assert channels_differ(pair, RATE), (name, other)
        assert FLAG in assess(pair, sample_rate=RATE).feedback
        assert FLAG not in assess(pair, sample_rate=RATE, channel=0).feedback


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_the_rate_the_axis_order_and_the_type_do_not_matter(voices: Voices, rate: int) -> None:
    amara, bruno = (soxr.resample(voices[name][0], RATE, rate) for name in ("amara", "bruno"))
    two, one = beside(amara, bruno), beside(amara, 0.5 * amara)
    for convert in (np.asarray, np.transpose, lambda x: np.int16(x * 32767), np.float64):
        assert channels_differ(convert(two), rate)
        assert not channels_differ(convert(one), rate)


def test_a_third_channel_is_compared_as_well(voices: Voices) -> None:
    amara, bruno = (voices[name][0][: 5 * RATE] for name in ("amara", "bruno"))
    assert channels_differ(np.stack([amara, amara, 0 * amara, bruno]), RATE)
    assert not channels_differ(np.stack([amara, amara, 0 * amara]), RATE)


def test_a_voice_that_comes_late_in_a_long_call_is_heard(voices: Voices) -> None:
    amara, bruno = (np.tile(voices[name][0], 30)[: 150 * RATE] for name in ("amara", "bruno"))
    late = np.arange(len(amara)) < 130 * RATE
    assert channels_differ(beside(amara * late, bruno * ~late), RATE)
    assert not channels_differ(beside(amara, 0.3 * amara), RATE)


@given(count=st.integers(1, 9000), channels=st.integers(1, 8), seed=st.integers(0, 99))
def test_short_and_odd_channels_never_fail(count: int, channels: int, seed: int) -> None:
    buffer = rng(seed).uniform(-1, 1, (count, channels)) * rng(seed).choice([0, 1e-30, 1e-6, 1], channels)
    assert channels_differ(buffer, 8000) in (True, False)
    if count < min(channels, 4000) or channels == 1:
        assert not channels_differ(buffer, 8000)


def test_the_callers_numpy_error_settings_do_not_leak_in() -> None:
    noise = rng().uniform(-1, 1, (9000, 2))
    for scale in (1e-300, 1e-38, 1e-22, 1e-9, [1, 1e-38], [1, 0]):
        with np.errstate(all="raise", under="ignore"):
            buffer = noise * scale
        with np.errstate(all="raise"):
            assert not channels_differ(buffer, 8000)


# Choosing a channel


@pytest.mark.parametrize("channel", [0, 1, 2, np.int64(1)])
def test_the_chosen_channel_is_what_is_used(channel: Any) -> None:
    buffer = np.int16(rng().uniform(-30_000, 30_000, (900, 3)))
    expected = to_mono(buffer[:, channel], RATE)
    for given_ in (buffer, buffer.T, np.asfortranarray(buffer), buffer.astype(">i2")):
        np.testing.assert_array_equal(to_mono(given_, RATE, channel=channel), expected)
        np.testing.assert_array_equal(as_pcm(given_, RATE, channel=channel), buffer[:, channel])
        np.testing.assert_array_equal(preprocess_audio(given_, RATE, channel=channel), expected)


def test_the_only_channel_is_number_0() -> None:
    for buffer in (np.zeros(900), np.zeros((900, 1)), np.zeros((1, 900)), bytes(1800)):
        assert len(to_mono(buffer, RATE, channel=0)) == 900
        for channel in (1, -1):
            with pytest.raises(InvalidAudioError, match=rf"channel is {channel}.* 1 channel: 0"):
                to_mono(buffer, RATE, channel=channel)


@pytest.mark.parametrize("channel", [2, -1, 10**30, True, 0.0, "0", [0], np.array([0, 1]), 1j, np.nan])
def test_a_channel_that_is_not_there_is_refused_with_how_many_there_are(channel: Any) -> None:
    for use in (to_mono, as_pcm):
        with pytest.raises(InvalidAudioError, match="the audio has 2 channels: one of 0 to 1"):
            use(np.zeros((900, 2)), RATE, channel=channel)


def test_each_channel_of_a_call_is_matched_by_its_own_voice(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    for name in ("amara", "bruno"):
        quick.enroll_caller(name, beside(voices["ivo"][0], voices[name][0]), channel=1)
    call = beside(voices["amara"][1], voices["bruno"][1])
    for channel, name in enumerate(("amara", "bruno")):
        match = quick.match_caller(call, channel=channel)
        assert match is not None
        assert match[0] == name
        assert asyncio.run(quick.amatch_caller(call, channel=channel)) == match
        assert quick.identify(call, channel=channel)[0].caller_id == name
        assert asyncio.run(quick.aidentify(call, channel=channel))[0].caller_id == name
        assert quick.verify_caller(name, call, channel=channel).accepted
        alone = quick.get_embedding(call[:, channel])
        np.testing.assert_array_equal(quick.get_embedding(call, channel=channel), alone)
        asyncio.run(quick.aenroll_caller("other", call, channel=channel))
        quick.enroll_many([("another", call, None)], channel=channel)
        for other in ("other", "another"):
            caller = quick.get_caller(other)
            assert caller is not None
            np.testing.assert_allclose(caller.voiceprints[-1].embedding, alone, atol=1e-6)


# Warnings


def test_every_method_says_once_that_it_mixed_channels_that_differ(
    quick: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    quick.config.min_audio_quality = 0
    quick.config.same_recording = False  # the same audio comes again and again
    quick.enroll_caller("amara", voices["amara"][0])
    two = beside(voices["amara"][1], voices["bruno"][1])
    uses: list[Any] = [
        lambda audio, **how: quick.enroll_caller("a", audio, **how),
        lambda audio, **how: quick.enroll_many([("a", audio, None)], **how),
        quick.match_caller,
        quick.identify,
        lambda audio, **how: quick.verify_caller("amara", audio, **how),
        quick.get_embedding,
        preprocess_audio,
    ]
    for use in uses:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "voiceprint"):
            use(two, channel=0)
            use(beside(two[:, 0], 0.5 * two[:, 0]))
            assert caplog.messages == []
            use(two)
        assert caplog.messages == [MIXED]
    assert "channel=" in MIXED


def test_a_mix_that_is_refused_carries_the_reason(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    quiet = 0.0005 * beside(voices["amara"][0], voices["bruno"][0])
    with pytest.raises(AudioQualityError, match=rf"{FLAG}, too_quiet") as caught:
        quick.match_caller(quiet)
    assert caught.value.quality.feedback == (FLAG, "too_quiet")


# Channels that cancel

INVERTED = {
    "an inverted copy": lambda a: -a,
    "1 dB quieter": lambda a: -(10**-0.05) * a,
    "3 dB quieter": lambda a: -(10**-0.15) * a,
    "6 dB quieter": lambda a: -0.5 * a,
    "in 20 dB of noise": lambda a: signals.with_noise(-a, rng(), 20, 1),
    "a sixteenth of a millisecond late": lambda a: -delayed(a, 0.0626),
    "turned by 150 degrees": lambda a: np.real(scipy.signal.hilbert(a) * np.exp(5j * np.pi / 6)),
    "through an all-pass filter": lambda a: -scipy.signal.lfilter([0.5, 1], [1, 0.5], a),
}


@pytest.mark.slow
@pytest.mark.parametrize("other", INVERTED)
def test_of_channels_that_cancel_the_loudest_is_used(voices: Voices, other: str) -> None:
    for name in voices:
        audio = voices[name][0].astype(np.float64)[: 5 * RATE]
        copy = INVERTED[other](audio)
        loudest = int(np.std(copy) > 0.9 * np.std(audio))
        for pair, channel in ((beside(audio, copy), 0), (beside(copy, audio), 1 - loudest)):
            report = compare_channels(pair, RATE)
            assert (report.cancels, report.use, report.differ) == (True, channel, False), (name, report)
            quality = assess(pair, sample_rate=RATE)
            assert "channels_cancel" in quality.feedback
            assert quality.channel == channel
            assert quality.score == assess(pair, sample_rate=RATE, channel=channel).score
            np.testing.assert_array_equal(
                preprocess_audio(pair, RATE), preprocess_audio(pair[:, channel], RATE)
            )


@pytest.mark.parametrize("other", ONE_VOICE)
def test_channels_of_one_voice_are_mixed(voices: Voices, other: str) -> None:
    for name in voices:
        audio = voices[name][0].astype(np.float64)[: 5 * RATE]
        assert compare_channels(beside(audio, ONE_VOICE[other](audio)), RATE).use is None, name


@pytest.mark.parametrize("ms", [0.126, 0.25, 0.5, 1, 10])
def test_an_echo_in_the_other_channel_does_not_cancel(voices: Voices, ms: float) -> None:
    for name in voices:
        audio = voices[name][0].astype(np.float64)[: 5 * RATE]
        assert compare_channels(beside(audio, delayed(audio, ms)), RATE).lost_db < 4, name


@pytest.mark.parametrize("how", TWO_VOICES)
def test_two_voices_are_never_taken_for_one_that_cancels(voices: Voices, how: str) -> None:
    audio = TWO_VOICES[how](voices["amara"][0].astype(np.float64), voices["bruno"][1].astype(np.float64))
    hum = 0.05 * signals.hum(rng())[: len(audio)]
    for pair in (audio, beside(audio[: len(hum), 0] + hum, audio[: len(hum), 1] - hum)):
        assert not compare_channels(pair, RATE).cancels


def test_the_advice_says_which_channel_was_used(voices: Voices) -> None:
    audio = voices["amara"][0]
    advice = assess(beside(-0.9 * audio, audio), sample_rate=RATE).advice
    assert advice[0] == (
        "The channels are inverted copies and cancel each other when mixed: channel 0 was used."
    )


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_blocks_of_any_length_give_one_report(voices: Voices, rate: int) -> None:
    amara, bruno = (soxr.resample(voices[name][0], RATE, rate) for name in ("amara", "bruno"))
    for pair in (beside(amara, bruno), beside(amara, -0.9 * amara), beside(amara, 0.5 * amara)):
        whole = compare_channels(pair, rate)
        for size in (rate // 50, 1000, 3 * rate):
            comparison = ChannelComparison(rate)
            for start in range(0, len(pair), size):
                comparison.add(pair[start : start + size])
            report = comparison.report()
            assert report.lost_db == pytest.approx(whole.lost_db, abs=0.01)
            assert (report.differ, report.use) == (whole.differ, whole.use)


def test_channels_that_begin_alike_are_compared_from_where_they_do_not(voices: Voices) -> None:
    silence = np.zeros((30 * RATE, 2), dtype=np.float32)
    for pair, differ, use in (
        (beside(voices["amara"][0], voices["bruno"][0]), True, None),
        (beside(voices["amara"][0], -voices["amara"][0]), False, 0),
    ):
        report = compare_channels(np.concatenate((silence, pair)), RATE)
        assert (report.differ, report.use) == (differ, use)


def test_a_part_with_other_channels_is_refused() -> None:
    comparison = ChannelComparison(RATE)
    comparison.add(np.zeros((900, 2)))
    with pytest.raises(InvalidAudioError, match="3 channels, and had 2"):
        comparison.add(np.zeros((900, 3)))


# Channels that were taken for one


def interleave(one: Any, other: Any, length: int) -> np.ndarray:
    pairs = [x[: min(len(one), len(other)) // length * length].reshape(-1, length) for x in (one, other)]
    return np.stack(pairs, axis=1).ravel()


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("ms", [0, 10, 20, 30, 60])
def test_interleaved_channels_are_split(voices: Voices, rate: int, ms: int) -> None:
    names = list(voices)
    length = rate * ms // 1000 or 1
    missed = 0
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        one, two = (np.int16(soxr.resample(voices[n][0], RATE, rate) * 20_000) for n in (name, other))
        for second, differ in ((two, True), (0 * one, False)):
            audio, report = mixable(interleave(one, second, length), rate)
            if report.interleaved is None:
                missed += 1
                continue
            assert (report.interleaved, report.count, report.differ) == (length, 2, differ), name
            whole = min(len(one), len(second)) // length * length
            np.testing.assert_array_equal(audio, np.stack([one[:whole], second[:whole]], axis=1))
    assert missed <= (0 if ms == 0 else 1)


def test_splitting_is_said(voices: Voices) -> None:
    for length in (1, 320):
        quality = assess(interleave(voices["amara"][0], voices["bruno"][0], length), sample_rate=RATE)
        assert quality.feedback[:2] == (FLAG, "interleaved")
        assert any("channels=2" in sentence for sentence in quality.advice)


def test_one_channel_twice_is_split(voices: Voices) -> None:
    for name in voices:
        audio, report = mixable(np.repeat(voices[name][0], 2), RATE)
        assert (report.interleaved, report.count, report.differ) == (1, 2, False)
        np.testing.assert_array_equal(audio[:, 1], voices[name][0])


@pytest.mark.parametrize(
    "signal", ["white", "pink", "modulated_noise", "band_noise", "tone", "dtmf", "square", "hum", "chords"]
)
def test_one_channel_is_left_as_it_is(voices: Voices, signal: str) -> None:
    alone = [getattr(signals, signal)(rng(seed)) for seed in range(10)]
    for audio in (*alone, *(recording for voice in voices.values() for recording in voice)):
        for rate in (8_000, RATE):
            given_ = soxr.resample(audio, RATE, rate)
            same, report = mixable(given_, rate)
            assert same is given_
            assert report.interleaved is None


@pytest.mark.speech
def test_real_speech_is_not_taken_for_channels() -> None:
    if not (folder := real_speech()).is_dir():
        pytest.skip(f"{folder} with real speech is not there")
    for file in sorted(folder.rglob("*.flac"))[::20]:
        audio, rate = load_audio(file)
        assert mixable(audio, rate)[1].interleaved is None, file
