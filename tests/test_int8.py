"""The encoder with products of 8 bits: near enough to Resemblyzer's embeddings that prints of both compare.

By default of some pieces of the real speech; `--all-speech` takes all of it. tests/test_parity.py compares
all sample voices.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from processes import in_child
from test_parity import LEAST_INT8, SOME, piece, pieces, reference
from voices import Audio, Voices, real_speech

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.encoder import OnnxEncoder, OnnxInt8Encoder, default_encoder

pytestmark = pytest.mark.slow


int8 = OnnxInt8Encoder()


def check_nearness(audios: list[Audio]) -> None:
    cosines = np.einsum("nd,nd->n", int8.embed_batch(audios), reference.embed_batch(audios))
    assert cosines.min() >= LEAST_INT8, cosines


@pytest.mark.speech
def test_real_speech(request: pytest.FixtureRequest) -> None:
    speech = real_speech()
    if not speech.is_dir():
        pytest.skip(f"the real speech is not there: {speech} (VOICE_TEST_DATA names its folder)")
    found = list(pieces(speech))
    if not request.config.getoption("--all-speech"):
        found = random.Random(2).sample(found, SOME)
    for first in range(0, len(found), SOME):
        check_nearness([piece(*one) for one in found[first : first + SOME]])


def test_it_works_with_8_bits_at_all(voices: Voices) -> None:
    audio = voices["amara"][0]
    assert 1e-6 < 1.0 - float(int8.embed(audio) @ OnnxEncoder().embed(audio)) < 1e-3
    assert OnnxInt8Encoder._network is not OnnxEncoder._network


def test_a_batch_is_as_near_as_each_alone(voices: Voices) -> None:
    audios = [audios[0] for audios in voices.values()]
    alone = np.stack([int8.embed(audio) for audio in audios])
    cosines = np.einsum("nd,nd->n", alone, int8.embed_batch(audios))
    assert cosines.min() >= LEAST_INT8


def test_prints_of_both_encoders_compare(voices: Voices) -> None:
    storage = MemoryStorage()
    exact = OpusAgentVoiceRecognizer(storage, encoder=OnnxEncoder())
    for caller, audios in voices.items():
        exact.enroll_caller(caller, audios[0])
    config = VoiceFingerprintConfig(encoder="onnx-int8")
    quick = OpusAgentVoiceRecognizer(storage, config=config)
    assert quick.encoder is default_encoder("onnx-int8")
    for audios in voices.values():
        expected, found = exact.identify(audios[1], k=3), quick.identify(audios[1], k=3)
        assert found[0].caller_id == expected[0].caller_id
        for match, other in zip(found, expected, strict=True):
            assert match.similarity == pytest.approx(other.similarity, abs=0.02)


def test_a_stream_ends_with_the_answer_of_identify(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=int8)
    recognizer.enroll_caller("amara", voices["amara"][0])
    audio = voices["amara"][1]
    with recognizer.stream() as stream:
        for start in range(0, len(audio), 4_000):
            stream.feed(audio[start : start + 4_000])
        end = stream.finish()
    (match,) = recognizer.identify(audio, k=1)
    assert end.similarity == pytest.approx(match.similarity, abs=0.005)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_embeds_too(voices: Voices) -> None:
    audio = voices["amara"][0]
    expected = int8.embed(audio)

    def child() -> None:
        np.testing.assert_allclose(int8.embed(audio), expected, atol=1e-6)

    in_child(child)
