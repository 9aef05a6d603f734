"""The faults of an encoder, and their treatment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import resemblyzer
from voices import BandEncoder, Voices

from voiceprint import AudioQualityError, EncoderError, MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.encoder import ResemblyzerEncoder


class BrokenEncoder(BandEncoder):
    """Gives what it is told to instead of an embedding."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def embed(self, audio: Any) -> Any:
        """The wrong answer."""
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [None, np.full(32, np.nan, np.float32), np.zeros(32, np.float32), np.ones(31), np.ones((1, 32)), "x"],
    ids=["none", "nan", "zero", "too short", "2-d", "text"],
)
def test_what_is_not_an_embedding_is_an_error_and_never_an_answer(voices: Voices, answer: Any) -> None:
    storage = MemoryStorage()
    OpusAgentVoiceRecognizer(storage, encoder=BandEncoder()).enroll_caller("amara", voices["amara"][0])
    recognizer = OpusAgentVoiceRecognizer(storage, encoder=BrokenEncoder(answer))
    audio = voices["amara"][1]
    for use in (
        lambda: recognizer.get_embedding(audio),
        lambda: recognizer.match_caller(audio),
        lambda: recognizer.identify(audio, candidates=["amara"]),
        lambda: recognizer.verify_caller("amara", audio),
        lambda: recognizer.enroll_caller("bruno", audio),
    ):
        with pytest.raises(EncoderError, match="test-bands"):
            use()
    assert [type(result) for result in recognizer.enroll_many([("bruno", audio, None)])] == [EncoderError]
    assert storage.count() == 1


def test_an_embedding_that_is_not_of_length_one_is_made_so(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BrokenEncoder([5.0] * 32))
    embedding = recognizer.get_embedding(voices["amara"][0])
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, 32**-0.5, rtol=1e-6)


@pytest.mark.parametrize("peak", [1e-45, 1e-38, 1e-30, 1e-25, 1e-20, 1e-10])
def test_audio_too_quiet_to_be_anything_has_no_embedding(
    recognizer: OpusAgentVoiceRecognizer, peak: float
) -> None:
    click = np.zeros(80_000, np.float32)
    click[40_000] = peak
    for audio in (click, np.full(80_000, peak, np.float32), np.full(80_000, peak)):
        with pytest.raises(AudioQualityError, match="no speech"):
            recognizer.get_embedding(audio)


@pytest.mark.parametrize("gain", [1e-38, 1e-30, 1e-12, 1e-3])
def test_quiet_speech_has_an_embedding_of_length_one_or_none(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, gain: float
) -> None:
    audio = voices["amara"][0] * np.float32(gain)
    try:
        embedding = recognizer.get_embedding(audio)
    except AudioQualityError:
        assert gain <= 1e-12
    else:
        assert float(np.linalg.norm(embedding)) == pytest.approx(1, abs=1e-6)


def test_a_network_that_fails_is_an_error_of_ours_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, voices: Voices
) -> None:
    failure = RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def out_of_memory(*_: object) -> None:
        raise failure

    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=ResemblyzerEncoder())
    monkeypatch.setattr(resemblyzer.VoiceEncoder, "embed_utterance", out_of_memory)
    with pytest.raises(EncoderError, match="can't allocate memory") as caught:
        recognizer.get_embedding(voices["amara"][0])
    assert caught.value.__cause__ is failure
    results = recognizer.enroll_many([("amara", voices["amara"][0], None)])
    assert [type(result) for result in results] == [EncoderError]


def test_a_network_that_cannot_be_loaded_is_tried_again_at_the_next_use(
    monkeypatch: pytest.MonkeyPatch, voices: Voices
) -> None:
    encoder = ResemblyzerEncoder()
    with monkeypatch.context() as patch:
        patch.setattr(resemblyzer, "VoiceEncoder", lambda *_, **__: open("/nonexistent/pretrained.pt"))  # noqa: PTH123, SIM115
        with pytest.raises(EncoderError, match=r"pretrained\.pt"):
            encoder.embed(voices["amara"][0])
    assert encoder.embed(voices["amara"][0]).shape == (256,)
