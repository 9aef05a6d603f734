"""Noise reduction before the encoder: it leaves clean speech alone and takes steady noise off."""

import numpy as np
import pytest
from voices import load_voices

from voiceprint.audio.enhance.noise_reduction import reduce_noise
from voiceprint.encoder import default_encoder


@pytest.fixture(scope="module")
def speech():
    return next(iter(load_voices().values()))[0]


def noisy(speech, level_db):
    noise = np.random.default_rng(1).standard_normal(len(speech)).astype(np.float32)
    return speech + noise * np.sqrt(np.square(speech).mean()) * np.float32(10 ** (-level_db / 20))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 511, 512, 513, 16_000, 16_001])
def test_length_type_and_silence_are_kept(length):
    silence = np.zeros(length, dtype=np.float32)
    reduced = reduce_noise(silence)
    assert (reduced.shape, reduced.dtype) == ((length,), np.float32)
    assert not reduced.any()


def test_what_is_over_the_noise_stays_where_it_is():
    burst = np.zeros(16_000, dtype=np.float32)
    burst[8000:8400] = 0.5 * np.sin(np.arange(400) * 0.3)
    assert reduce_noise(burst) == pytest.approx(burst, abs=1e-4)


def test_pauses_lose_most_of_the_noise(speech):
    padded = np.concatenate([np.zeros(16_000, dtype=np.float32), speech])
    noised = noisy(padded, 15)
    pause = slice(2000, 14_000)
    assert np.square(reduce_noise(noised)[pause]).mean() < 0.25 * np.square(noised[pause]).mean()


def test_clean_speech_keeps_its_embedding_and_noisy_speech_comes_nearer(speech):
    encoder = default_encoder()
    clean = encoder.embed(speech)
    assert np.square(reduce_noise(noisy(speech, 10))).mean() > 0.8 * np.square(speech).mean()
    assert encoder.embed(reduce_noise(speech)) @ clean > 0.97
    noised = noisy(speech, 15)
    assert encoder.embed(reduce_noise(noised)) @ clean > encoder.embed(noised) @ clean


def test_a_long_call_is_cut_into_blocks_without_a_seam():
    # A tone that comes and goes, so that it is not taken for the noise; the seams are at 20 s or so.
    time = np.arange(60 * 16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 440 * time) * (time % 1.0 < 0.3)).astype(np.float32)
    assert np.abs(reduce_noise(tone) - tone).max() < 0.02
