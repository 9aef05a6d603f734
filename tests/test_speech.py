"""The search for speech: in pieces cut anywhere as in one, and each kind of sound by its name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import signals
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import SAMPLES, Audio, Voices, real_speech

from voiceprint.audio import load_audio, to_mono
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.segmenter import Segment, Segmenter, run_segmenter

RATE = 16_000


def segment_audio(audio: Audio) -> tuple[Segment, ...]:
    return run_segmenter(audio).segments()


def _mixture(seed: int) -> Audio:
    """Speech, tones, hiss and silence in turn, up to 20 s."""
    rng = np.random.default_rng(seed)
    voice, _ = load_audio(sorted(SAMPLES.glob("*/*.flac"))[seed % 30])
    time = np.arange(2 * RATE) / RATE
    choices = (
        voice[: rng.integers(RATE, len(voice))],
        0.3 * np.sin(2 * np.pi * rng.uniform(300, 3000) * time),
        1e-3 * rng.standard_normal(3 * RATE),
        np.zeros(3 * RATE),
    )
    parts = [choices[rng.integers(len(choices))] for _ in range(rng.integers(2, 6))]
    return np.concatenate(parts).astype(np.float32)[: 20 * RATE]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 20_000), min_size=1, max_size=8))
def test_cuts_change_nothing(seed: int, cuts: list[int]) -> None:
    audio = _mixture(seed)
    segmenter, place, turn = Segmenter(), 0, 0
    while place < len(audio):
        cut = max(cuts[turn % len(cuts)], len(audio) // 50)
        segmenter.add(audio[place : place + cut])
        segmenter.segments()  # must not change the state
        place, turn = place + cut, turn + 1
    whole = segment_audio(audio)
    assert segmenter.segments() == whole
    assert whole[0].start == 0
    assert whole[-1].stop == len(audio)
    for one, other in itertools.pairwise(whole):
        assert one.stop == other.start
        assert one.stop % vad.WINDOW == 0
        assert one.kind != other.kind


def _kinds(audio: np.ndarray) -> list[str]:
    return [each.kind for each in segment_audio(audio.astype(np.float32))]


def _speech(audio: np.ndarray) -> list[Segment]:
    return [each for each in segment_audio(audio.astype(np.float32)) if each.kind == "speech"]


def _cover(found: list[Segment], start_s: float, stop_s: float, slack_s: float) -> bool:
    """Whether the one segment has these ends."""
    (one,) = found
    return abs(one.start / RATE - start_s) <= slack_s and abs(one.stop / RATE - stop_s) <= slack_s


def test_a_recording_of_speech_is_one_segment(voices: Voices) -> None:
    for name, recordings in voices.items():
        for audio in recordings:
            assert segment_audio(audio) == (Segment(0, len(audio), "speech"),), name


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_pieces_of_any_length_are_one_segment(voices: Voices, gain: float) -> None:
    for recordings in voices.values():
        for seconds in (0.01, 0.3, 0.8, 1.2, 2.0, 5.0):
            piece = recordings[0][: round(seconds * RATE)] * np.float32(gain)
            assert segment_audio(piece) == (Segment(0, len(piece), "speech"),), seconds


def test_no_audio_has_no_segments() -> None:
    assert segment_audio(np.zeros(0, dtype=np.float32)) == ()


@pytest.mark.parametrize("amplitude", [0.02, 0.4, 0.95])
@pytest.mark.parametrize("hertz", [(1000.0,), (425.0,), (440.0, 480.0), (350.0, 440.0), (2100.0,)])
def test_a_tone_before_speech_is_found_by_its_frequency(
    voices: Voices, hertz: tuple[float, ...], amplitude: float
) -> None:
    for recordings in voices.values():
        speech = recordings[0].astype(np.float64)
        tone = signals.beep(1.0, *hertz, amplitude=amplitude)
        segments = segment_audio(np.concatenate((tone, speech)).astype(np.float32))
        (found,) = (each for each in segments if each.kind == "tone")
        assert found.frequency_hz is not None
        assert min(abs(found.frequency_hz - one) for one in hertz) < 30
        assert (found.stop - found.start) / RATE == pytest.approx(1.0, abs=0.13)
        assert _cover(_speech(np.concatenate((tone, speech))), 1.0, 1.0 + len(speech) / RATE, 0.13)


@pytest.mark.parametrize("seconds", [0.06, 0.1, 0.2])
def test_keys_are_found_each(voices: Voices, seconds: float) -> None:
    speech = voices["bruno"][0].astype(np.float64)
    digits = signals.keys("1234567890*#", seconds, 0.2)
    segments = segment_audio(np.concatenate((digits, speech, digits)).astype(np.float32))
    assert sum(each.kind == "tone" for each in segments) == 24
    start = len(digits) / RATE
    assert _cover([s for s in segments if s.kind == "speech"], start, start + len(speech) / RATE, 0.3)


@pytest.mark.parametrize("dbfs", [-20.0, -60.0])
def test_speech_between_minutes_of_hiss_or_silence_is_found(voices: Voices, dbfs: float) -> None:
    rng = np.random.default_rng(3)
    speech = signals.at_level(voices["carlo"][0].astype(np.float64), dbfs)
    for rest, kind in ((signals.hiss(rng, 60, -70), "noise"), (np.zeros(60 * RATE), "silence")):
        audio = np.concatenate((rest, speech, rest))
        assert _kinds(audio) == [kind, "speech", kind]
        assert _cover(_speech(audio), 60, 60 + len(speech) / RATE, 1.0)


def test_a_pause_of_two_seconds_belongs_to_the_speech_and_one_of_four_does_not(voices: Voices) -> None:
    for recordings in voices.values():
        one, other = recordings[0], recordings[1]
        pause = np.zeros(4 * RATE)
        assert _kinds(np.concatenate((one, pause[: 2 * RATE], other))) == ["speech"]
        assert len(_speech(np.concatenate((one, pause, other)))) == 2


def test_hold_music_is_cut_and_the_speech_is_not(voices: Voices) -> None:
    cut = lost = total = 0.0
    for place, recordings in enumerate(voices.values()):
        music = signals.hold_music(np.random.default_rng((5, place)), 10.0)
        speech = recordings[0].astype(np.float64)
        is_speech = np.zeros(len(music) + len(speech), dtype=bool)
        for each in _speech(np.concatenate((music, speech))):
            is_speech[each.start : each.stop] = True
        cut += (~is_speech[: len(music)]).mean()
        lost += (~is_speech[len(music) :]).mean()
        total += 1
    assert cut / total > 0.85
    assert lost / total < 0.02


@pytest.mark.parametrize("name", ["white", "pink", "brown", "tone", "hum", "square"])
def test_what_is_steady_holds_no_speech(name: str) -> None:
    for seed in range(10):
        sound = signals.NOT_SPEECH[name](np.random.default_rng((6, seed)))
        assert "speech" not in _kinds(sound), seed


@pytest.mark.parametrize("spoil", ["white", "pink", "telephone"])
def test_noisy_speech_is_not_cut(voices: Voices, spoil: str) -> None:
    rng = np.random.default_rng(7)
    for name, recordings in voices.items():
        audio = recordings[0].astype(np.float64)
        if spoil == "telephone":
            noisy = to_mono(signals.telephone(signals.with_noise(audio, rng, 20)), 8000)
        else:
            noisy = signals.with_noise(audio, rng, 10, 0.0 if spoil == "white" else 1.0).astype(np.float32)
        assert _kinds(noisy) == ["speech"], name


def test_a_stream_seldom_changes_its_mind_about_the_past(voices: Voices) -> None:
    """The segments older than three seconds, by which a pause differs from an end."""
    changed = looked = 0
    for seed in range(12):
        audio = _mixture(seed)
        segmenter = Segmenter()
        before = np.zeros(0, dtype=bool)
        for place in range(0, len(audio), 7680):
            segmenter.add(audio[place : place + 7680])
            now = np.zeros(place + 7680, dtype=bool)
            for each in segmenter.segments():
                now[each.start : each.stop] = each.kind == "speech"
            old = max(0, len(before) - 3 * RATE)
            changed += int((before[:old] != now[:old]).sum())
            looked += old
            before = now
    assert changed < 0.001 * looked


needs_speech = pytest.mark.skipif(
    not real_speech().is_dir(), reason="the recordings of VOICE_TEST_DATA are absent"
)


@pytest.mark.speech
@needs_speech
def test_real_recordings_are_one_segment() -> None:
    files = sorted(real_speech().rglob("*.flac"))
    cut = [path.name for path in files[::5] if len(segment_audio(load_audio(path)[0])) > 1]
    assert len(cut) <= 0.01 * len(files[::5]), cut
