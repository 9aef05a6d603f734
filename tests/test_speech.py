"""Where the speech is: in pieces cut anywhere as in one, and each kind of sound by its name."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import SAMPLES, Audio

from voiceprint.audio import load_audio, vad
from voiceprint.audio.speech import Segmenter, segment

RATE = 16_000


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
        segmenter.segments()  # must leave nothing behind
        place, turn = place + cut, turn + 1
    whole = segment(audio)
    assert segmenter.segments() == whole
    assert whole[0].start == 0
    assert whole[-1].stop == len(audio)
    for one, other in itertools.pairwise(whole):
        assert one.stop == other.start
        assert one.stop % vad.WINDOW == 0
        assert one.kind != other.kind
