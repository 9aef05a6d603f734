"""The default encoder gives Resemblyzer's embeddings, of whole recordings and of pieces of 5 s.

By default of all sample voices and of some pieces of the real speech; `--all-speech` takes all of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import resemblyzer
from numpy.typing import NDArray
from resemblyzer.audio import wav_to_mel_spectrogram
from voices import RATE, SAMPLES, Audio, Voices, real_speech

from voiceprint import load_audio
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import OnnxEncoder, OnnxInt8Encoder, ResemblyzerEncoder
from voiceprint.encoder.mel import FRAME, mel_frames
from voiceprint.encoder.partials import STEP, count_partials

pytestmark = pytest.mark.slow

PIECE = 5 * RATE
SOME = 40
LEAST = 0.9999
LEAST_INT8 = 0.999

Embeddings = NDArray[np.float32]

ours, reference = OnnxEncoder(), ResemblyzerEncoder()


def pieces(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Every recording as a whole (None), and the places where its pieces begin."""
    for path in sorted(folder.rglob("*.flac")):
        yield path, None
        for start in range(0, len(load_audio(path)[0]) - PIECE + 1, PIECE):
            yield path, start


def piece(path: Path, start: int | None) -> Audio:
    audio, rate = load_audio(path)
    assert rate == RATE
    return audio if start is None else audio[start : start + PIECE]


def check_parity(audios: list[Audio]) -> Embeddings:
    """Compare each embedding, of a batch and of one; gives the reference's, float32[n, 256]."""
    expected = reference.embed_batch(audios)
    cosines = np.einsum("nd,nd->n", ours.embed_batch(audios), expected)
    assert cosines.min() >= LEAST, cosines
    for audio, embedding in zip(audios, expected, strict=True):
        assert float(ours.embed(audio) @ embedding) >= LEAST
    return expected


def test_every_sample_voice_and_each_of_its_pieces() -> None:
    found = list(pieces(SAMPLES))
    assert len(found) > 40
    audios = [piece(*one) for one in found]
    expected = check_parity(audios)
    # The encoder with products of 8 bits too: the reference takes most of the time.
    cosines = np.einsum("nd,nd->n", OnnxInt8Encoder().embed_batch(audios), expected)
    assert cosines.min() >= LEAST_INT8, cosines


@pytest.mark.speech
def test_real_speech(request: pytest.FixtureRequest) -> None:
    speech = real_speech()
    if not speech.is_dir():
        pytest.skip(f"the real speech is not there: {speech} (VOICE_TEST_DATA names its folder)")
    found = list(pieces(speech))
    assert len(found) > 500
    if not request.config.getoption("--all-speech"):
        found = random.Random(1).sample(found, SOME)
    for first in range(0, len(found), SOME):
        check_parity([piece(*one) for one in found[first : first + SOME]])


def quiet(audio: Audio) -> Audio:
    return audio * np.float32(0.003)


def noisy(audio: Audio) -> Audio:
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    return np.clip(audio + 0.02 * noise, -1, 1)


def with_pauses(audio: Audio) -> Audio:
    return np.concatenate([np.zeros(RATE, np.float32), audio[:RATE], np.zeros(3 * RATE, np.float32), audio])


@pytest.mark.parametrize("change", [quiet, noisy, with_pauses])
def test_speech_that_was_changed(voices: Voices, change: object) -> None:
    assert callable(change)
    check_parity([change(audios[0]) for audios in voices.values()])


@pytest.mark.parametrize("samples", [0, 480, 20_000, 25_599, 25_600, 30_000, 41_000])
def test_little_speech(voices: Voices, samples: int) -> None:
    audio = voices["amara"][0][RATE : RATE + samples]
    if not vad.speech_mask(audio).any():
        with pytest.raises(Exception, match="no speech"):
            ours.embed(audio)
    else:
        check_parity([audio])


@pytest.mark.parametrize("samples", [*range(480, 90_000, 3_360), 25_600, 25_601, 57_600_000])
def test_there_are_as_many_partials(samples: int) -> None:
    _, expected = resemblyzer.VoiceEncoder.compute_partial_slices(samples, 1.3, 0.75)
    assert count_partials(samples) == len(expected)
    assert expected[-1].start == (len(expected) - 1) * STEP


def test_the_mel_frames_are_librosas(voices: Voices) -> None:
    audio = voices["bruno"][0]
    expected = wav_to_mel_spectrogram(audio)
    frames = mel_frames(np.pad(audio, FRAME // 2))
    assert (frames.shape, frames.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(frames, expected, rtol=1e-4, atol=1e-7 * expected.max())


def test_speech_can_be_read_from_anywhere(voices: Voices) -> None:
    audio = with_pauses(voices["carlo"][0]) * np.float32(0.01)
    expected = (audio * vad.volume_gain(audio))[vad.speech_mask(audio)]
    speech = TrimmedSpeech(audio)
    assert len(speech) == len(expected) < len(audio)
    around = np.pad(expected, 1_000)
    chance = random.Random(3)
    for _ in range(200):
        start, stop = sorted(chance.sample(range(-1_000, len(expected) + 1_000), 2))
        np.testing.assert_array_equal(speech.read(start, stop), around[start + 1_000 : stop + 1_000])
