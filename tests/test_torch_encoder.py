"""The encoder for CUDA devices: the embeddings of the default one, on the CPU and on a device if present."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_child
from tiny_models import TINY, write_tiny_model
from voices import RATE, Audio, Voices

from voiceprint import (
    ConfigurationError,
    EncoderError,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    VoiceFingerprintConfig,
)
from voiceprint import encoder as encoders
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import OnnxEncoder, PartialEncoder, TorchEncoder, default_encoder, torch_encoder
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import count_partials, partials
from voiceprint.encoder.torch_network import TorchNetwork
from voiceprint.encoder.weights import read_weights, weights_file

pytestmark = pytest.mark.resemblyzer

CUDA = torch.cuda.is_available()
DEVICES = ["cpu", *(["cuda"] if CUDA else [])]
LARGEST = {"cpu": 1e-6, "cuda": 5e-4}
"""Largest 1 - cosine with OnnxEncoder's embeddings: in float32, and in float16."""

needs_cuda = pytest.mark.skipif(not CUDA, reason="torch finds no CUDA device here")
without_cuda = pytest.mark.skipif(CUDA, reason="torch finds a CUDA device here")


@pytest.fixture(scope="module", params=DEVICES)
def encoder(request: pytest.FixtureRequest) -> TorchEncoder:
    """The encoder on each device of this machine."""
    return TorchEncoder(request.param)


@pytest.fixture
def small_runs(encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> TorchNetwork:
    """Let a run hold at most 7 partials, a number that ends amid a recording."""
    network = encoder._network.get()
    monkeypatch.setattr(torch_encoder, "RUN", 7)
    monkeypatch.setattr(network, "run", 7)
    return network


@pytest.fixture
def _no_shared_encoders() -> Iterator[None]:
    """Forget the encoders that the process shares, before and after."""
    encoders._shared.cache_clear()
    yield
    encoders._shared.cache_clear()


def some(voices: Voices) -> list[Audio]:
    """Recordings of many lengths, from 1 s to 26 s."""
    audios = [audios[0] for audios in voices.values()]
    return [*audios, np.tile(audios[0], 4), audios[1][:RATE], audios[2][: 3 * RATE]]


def check_distances(encoder: TorchEncoder, embeddings: Audio, others: Audio) -> None:
    """Compare rows with OnnxEncoder's."""
    distances = 1 - np.einsum("nd,nd->n", embeddings, others, dtype=np.float64)
    assert distances.max() < LARGEST[encoder._network.get()._device.type]


# The embeddings


def test_every_sample_voice_has_the_embedding_of_the_default_encoder(
    encoder: TorchEncoder, voices: Voices
) -> None:
    audios = [audio for audios in voices.values() for audio in audios]
    embeddings = encoder.embed_batch(audios)
    assert (embeddings.shape, embeddings.dtype) == ((len(audios), 256), np.float32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    check_distances(encoder, embeddings, OnnxEncoder().embed_batch(audios))


def test_float16_is_near_enough_for_the_same_space(voices: Voices) -> None:
    audios = [audios[0] for audios in voices.values()][:4]
    half = TorchEncoder("cpu", "float16").embed_batch(audios)
    distances = 1 - np.einsum("nd,nd->n", half, OnnxEncoder().embed_batch(audios), dtype=np.float64)
    assert 1e-7 < distances.max() < 5e-4


def test_a_click_beyond_the_range_of_float16_gives_an_embedding(voices: Voices) -> None:
    audio = np.tile(voices["amara"][0], 3)
    audio[40_000] = 30.0
    speech = TrimmedSpeech(audio)
    assert max(float(block.max()) for block in partials(speech, 100)) > 0
    speech.gain *= 300.0
    assert max(float(block.max()) for block in partials(speech, 100)) > 65_504
    embedding = TorchEncoder("cpu", "float16").embed_speech(speech).embedding
    assert float(np.linalg.norm(embedding)) == pytest.approx(1, abs=1e-6)


def test_a_batch_gives_what_each_gives_alone(
    encoder: TorchEncoder, voices: Voices, small_runs: TorchNetwork
) -> None:
    audios = some(voices)
    batch = encoder.embed_batch(audios)
    alone = np.stack([encoder.embed(audio) for audio in audios])
    check_distances(encoder, batch, alone)
    check_distances(encoder, batch, OnnxEncoder().embed_batch(audios))


def test_the_partials_are_those_of_the_default_encoder_in_order(
    encoder: TorchEncoder, voices: Voices, small_runs: TorchNetwork
) -> None:
    speeches = [TrimmedSpeech(audio) for audio in some(voices)]
    found = encoder.embed_speeches(speeches)
    for speech, embedding, expected in zip(
        speeches, found, OnnxEncoder().embed_speeches(speeches), strict=True
    ):
        assert embedding.partials.shape == (count_partials(len(speech)), 256)
        check_distances(encoder, embedding.partials, expected.partials)


def test_spectrograms_computed_elsewhere_are_embedded_too(
    encoder: TorchEncoder, voices: Voices, small_runs: TorchNetwork
) -> None:
    mels = np.concatenate([*partials(TrimmedSpeech(np.tile(voices["amara"][0], 4)), 50)])
    assert len(mels) > 14
    check_distances(encoder, encoder.embed_partials(mels), OnnxEncoder().embed_partials(mels))


def test_long_audio_goes_to_the_device_in_runs(
    encoder: TorchEncoder, voices: Voices, small_runs: TorchNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    pack = small_runs._pack

    def counted(blocks: Any) -> Any:
        packed = pack(blocks)
        sizes.append(len(packed.starts))
        return packed

    monkeypatch.setattr(small_runs, "_pack", counted)
    audio = np.tile(voices["amara"][0], 12)
    check_distances(encoder, encoder.embed_batch([audio]), OnnxEncoder().embed_batch([audio]))
    assert max(sizes) == 7
    assert sum(sizes) == count_partials(len(TrimmedSpeech(audio))) > 50


def test_a_partial_without_an_output_stays_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = dict(read_weights(weights_file()))
    weights["linear.bias"] = np.full(256, -1e3, dtype=np.float32)
    mels = np.zeros((1, 160, 40), dtype=np.float32)
    for network in (TorchNetwork(weights, "cpu"), Network(weights)):
        assert not network.embed(mels).any()


# Batches, threads and errors


def test_it_is_a_partial_encoder_of_the_same_space(encoder: TorchEncoder) -> None:
    assert isinstance(encoder, PartialEncoder)
    assert (encoder.name, encoder.dimension) == (OnnxEncoder.name, OnnxEncoder.dimension)


def test_an_empty_batch_is_a_matrix_without_rows(encoder: TorchEncoder) -> None:
    batch = encoder.embed_batch([])
    assert (batch.shape, batch.dtype) == ((0, 256), np.float32)


def test_silence_in_a_batch_is_an_error(encoder: TorchEncoder, voices: Voices) -> None:
    audios = [voices["amara"][0], np.zeros(5 * RATE, np.float32), voices["bruno"][0]]
    with pytest.raises(EncoderError, match="no speech"):
        encoder.embed_batch(audios)


def test_audio_that_is_not_finite_gives_no_embedding(encoder: TorchEncoder, voices: Voices) -> None:
    audio = voices["amara"][0].copy()
    audio[40_000] = np.nan
    with pytest.raises(EncoderError):
        encoder.embed(audio)


def test_many_threads_get_the_same_answers(encoder: TorchEncoder, voices: Voices) -> None:
    audios = [audios[0] for audios in voices.values()]
    expected = np.stack([encoder.embed(audio) for audio in audios])
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            check_distances(encoder, np.stack([*pool.map(encoder.embed, audios)]), expected)


def test_calls_that_wait_for_the_device_are_answered_together(
    encoder: TorchEncoder, voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = encoder._network.get()
    sizes: list[int] = []
    embed = network._embed

    def counted(mels: torch.Tensor) -> torch.Tensor:
        sizes.append(mels.shape[1])
        return embed(mels)

    audios = [audios[0] for audios in voices.values()]
    speeches = [TrimmedSpeech(audio) for audio in audios]
    mels = [np.concatenate([*partials(speech, 50)]) for speech in speeches]
    monkeypatch.setattr(network, "_embed", counted)
    with ThreadPoolExecutor(len(audios)) as pool:
        embeddings = np.stack([*pool.map(encoder.embed, audios)])
        of_mels = [*pool.map(encoder.embed_partials, mels)]
    monkeypatch.undo()
    assert sum(sizes) == 2 * sum(map(len, mels))
    assert len(sizes) < 2 * len(audios)
    onnx = OnnxEncoder()
    check_distances(encoder, embeddings, onnx.embed_batch(audios))
    for found, expected in zip(of_mels, map(onnx.embed_partials, mels), strict=True):
        check_distances(encoder, found, expected)


def limit_memory(network: TorchNetwork, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the device run out of memory for more partials than `most`, as a device does."""
    embed = network._embed

    def limited(mels: torch.Tensor) -> torch.Tensor:
        if mels.shape[1] > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return embed(mels)

    monkeypatch.setattr(network, "_embed", limited)


def test_a_device_that_is_short_of_memory_gets_smaller_runs(
    voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TorchEncoder("cpu")
    network = encoder._network.get()
    limit_memory(network, 5, monkeypatch)
    audios = some(voices)
    check_distances(encoder, encoder.embed_batch(audios), OnnxEncoder().embed_batch(audios))
    assert 2 < network.run <= 5  # halved until it fits, and no further


def test_a_device_without_memory_for_one_partial_is_an_error(
    voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TorchEncoder("cpu")
    limit_memory(encoder._network.get(), 0, monkeypatch)
    with pytest.raises(EncoderError, match=r"CUDA out of memory\. Tried to allocate 2\.00 GiB\.\)") as caught:
        encoder.embed(voices["amara"][0])
    assert isinstance(caught.value.__cause__, torch.cuda.OutOfMemoryError)


def test_an_error_of_the_device_is_one_of_ours_with_its_cause(
    voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TorchEncoder("cpu")
    failure = RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    def fail(_: object) -> None:
        raise failure

    monkeypatch.setattr(encoder._network.get(), "_embed", fail)
    with pytest.raises(EncoderError, match=r"illegal memory access was encountered\)") as caught:
        encoder.embed(voices["amara"][0])
    assert caught.value.__cause__ is failure


def test_another_precision_or_device_is_an_error(voices: Voices) -> None:
    wrong: Any = "float64"
    with pytest.raises(InvalidArgumentError, match="precision is 'float64': float16 or float32"):
        TorchEncoder("cpu", wrong)
    with pytest.raises(EncoderError, match="cannot load the encoder on gpu"):
        TorchEncoder("gpu").embed(voices["amara"][0])


@without_cuda
def test_a_device_that_is_not_there_is_an_error_at_the_first_use(voices: Voices) -> None:
    with pytest.raises(EncoderError, match="cannot load the encoder on cuda"):
        TorchEncoder("cuda").embed(voices["amara"][0])


def test_the_error_of_cuda_after_a_fork_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # The message of torch.cuda, which a process without CUDA cannot raise.
    failure = RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA with ...")

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(torch.nn, "LSTM", fail)
    with pytest.raises(EncoderError, match=r"docs/forks\.md"):
        TorchEncoder("cpu").warm_up()


@needs_cuda
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_gets_an_error_and_not_the_parents_device(voices: Voices) -> None:
    encoder = TorchEncoder("cuda")
    expected = encoder.embed(voices["amara"][0])

    def child() -> None:
        with pytest.raises(EncoderError, match=r"docs/forks\.md"):
            encoder.embed(voices["amara"][0])

    in_child(child)
    np.testing.assert_allclose(encoder.embed(voices["amara"][0]), expected, atol=1e-4)


# At work


def test_callers_of_the_default_encoder_are_recognized(encoder: TorchEncoder, voices: Voices) -> None:
    storage = MemoryStorage()
    enrolling = OpusAgentVoiceRecognizer(storage, encoder=OnnxEncoder())
    results = enrolling.enroll_many([(caller, audios[0], None) for caller, audios in voices.items()])
    assert {result.encoder for result in results} == {encoder.name}
    matching = OpusAgentVoiceRecognizer(storage, encoder=encoder)
    for audios in voices.values():
        expected, found = enrolling.identify(audios[1], k=2), matching.identify(audios[1], k=2)
        assert found[0].caller_id == expected[0].caller_id
        assert found[0].similarity == pytest.approx(expected[0].similarity, abs=1e-3)


def test_a_stream_ends_with_the_answer_of_identify(encoder: TorchEncoder, voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=encoder)
    recognizer.enroll_many([(caller, audios[0], None) for caller, audios in [*voices.items()][:3]])
    audio = voices["amara"][1]
    with recognizer.stream() as stream:
        for start in range(0, len(audio), 4_000):
            stream.feed(audio[start : start + 4_000])
        end = stream.finish()
    (match,) = recognizer.identify(audio, k=1)
    assert end.similarity == pytest.approx(match.similarity, abs=1e-3)


# The setting


def encoder_of(**settings: object) -> object:
    """The encoder that a recognizer with these settings has."""
    return OpusAgentVoiceRecognizer(MemoryStorage(), config=VoiceFingerprintConfig(**settings)).encoder


@needs_cuda
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_the_setting_takes_the_device(device: str) -> None:
    encoder = encoder_of(encoder_device=device)
    assert isinstance(encoder, TorchEncoder)
    assert encoder_of(encoder_device=device) is encoder


@without_cuda
@pytest.mark.usefixtures("_no_shared_encoders")
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_where_torch_reports_a_device_the_setting_takes_it(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    encoder = encoder_of(encoder_device=device)
    assert isinstance(encoder, TorchEncoder)
    assert encoder_of(encoder_device=device) is encoder  # and loads nothing yet


@without_cuda
@pytest.mark.usefixtures("_no_shared_encoders")
@pytest.mark.parametrize(("built", "why"), [(True, "finds no CUDA device"), (False, "built without CUDA")])
def test_the_error_tells_a_build_without_cuda_from_a_machine_without_a_device(
    built: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    with pytest.raises(ConfigurationError, match=why):
        encoder_of(encoder_device="cuda")


@without_cuda
@pytest.mark.usefixtures("_no_shared_encoders")
def test_without_a_device_the_setting_cuda_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"VOICE_ENCODER_DEVICE is cuda: .* CUDA.*DEVICE=cpu"):
        encoder_of(encoder_device="cuda")


@without_cuda
@pytest.mark.usefixtures("_no_shared_encoders")
def test_without_a_device_auto_is_the_cpu_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "voiceprint"):
        encoder = encoder_of(encoder_device="auto")
        assert encoder_of(encoder_device="auto") is encoder is default_encoder()
    assert isinstance(encoder, OnnxEncoder)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "VOICE_ENCODER_DEVICE is auto, and the encoder runs on the CPU" in record.message


@pytest.mark.usefixtures("_no_shared_encoders")
@pytest.mark.parametrize("spec", ["onnx-int8", "resemblyzer"])
def test_encoders_of_the_cpu_alone_refuse_the_setting(spec: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError, match=f"VOICE_ENCODER is {spec}, .*VOICE_ENCODER=onnx runs on"):
        encoder_of(encoder=spec, encoder_device="cuda")
    assert encoder_of(encoder=spec, encoder_device="auto") is default_encoder(spec)
    assert f"VOICE_ENCODER is {spec}" in caplog.text


@pytest.mark.usefixtures("_no_shared_encoders")
def test_a_speaker_model_from_a_file_stays_on_the_cpu(tmp_path: Path) -> None:
    program, dimension, framework = TINY["tiny-192"]
    path = write_tiny_model(tmp_path / "tiny.onnx", dimension, framework)
    with pytest.raises(
        ConfigurationError, match=f"VOICE_ENCODER is {program}:.*tiny.onnx, which runs on the"
    ):
        encoder_of(encoder=f"{program}:{path}", encoder_device="cuda")
    encoder = encoder_of(encoder=f"{program}:{path}", encoder_device="auto")
    assert encoder is default_encoder(f"{program}:{path}")


@pytest.mark.usefixtures("_no_shared_encoders")
def test_without_torch_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match=r"opusagent-voiceprint\[cuda\]"):
        encoder_of(encoder_device="cuda")
    assert encoder_of(encoder_device="auto") is default_encoder()
    assert "opusagent-voiceprint[cuda]" in caplog.text
    with pytest.raises(EncoderError, match=r"opusagent-voiceprint\[cuda\]"):
        TorchEncoder().warm_up()


def test_an_encoder_of_ones_own_needs_no_device() -> None:
    config = VoiceFingerprintConfig(encoder_device="cuda")
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=OnnxEncoder())
    assert isinstance(recognizer.encoder, OnnxEncoder)
