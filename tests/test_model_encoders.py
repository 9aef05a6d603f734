"""Encoders of speaker models: `sherpa:PATH` and `onnx:PATH`."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import METADATA, Framework, tiny_model, write_tiny_model
from voices import RATE, Voices

from voiceprint import ConfigurationError, EncoderError, VoiceFingerprintConfig
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import (
    Encoder,
    OnnxFileEncoder,
    PartialEncoder,
    SherpaEncoder,
    SpeechEncoder,
    configured_encoder,
    default_encoder,
)
from voiceprint.encoder.features import Features
from voiceprint.encoder.model_encoder import LONGEST_PIECE_S
from voiceprint.encoder.model_file import FrontEnd, open_model
from voiceprint.encoder.onnx_format import model, model_facts, node, with_exact_pools

BOTH = [SherpaEncoder, OnnxFileEncoder]
FRAMEWORKS: tuple[Framework, ...] = ("wespeaker", "3d-speaker", "nemo")


@pytest.fixture(params=BOTH, ids=["sherpa", "onnx"])
def program(request: pytest.FixtureRequest) -> Any:
    """The class of an encoder."""
    return request.param


# Embeddings


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dimension", [192, 512])
def test_both_programs_give_equal_embeddings_in_one_space(
    tmp_path: Path, voices: Voices, framework: Framework, dimension: int
) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", dimension, framework)
    sherpa, onnx = SherpaEncoder(path), OnnxFileEncoder(path)
    audios = [utterances[0] for utterances in voices.values()]
    mine, others = onnx.embed_batch(audios), sherpa.embed_batch(audios)
    assert (sherpa.name, sherpa.dimension, sherpa.sample_rate) == (onnx.name, dimension, RATE)
    assert (mine.shape, mine.dtype) == ((len(audios), dimension), np.float32)
    # Two versions of ONNX Runtime: they differ in the order of their sums, by rounding of float32 alone.
    assert np.abs(mine - others).max() < 1e-5
    assert np.abs(np.linalg.norm(mine, axis=1) - 1.0).max() < 1e-5


@pytest.mark.parametrize("framework", ["wespeaker", "3d-speaker"])
def test_tiny_models_tell_the_sample_callers_apart(
    tmp_path: Path, voices: Voices, framework: Framework
) -> None:
    encoder = OnnxFileEncoder(write_tiny_model(tmp_path / "model.onnx", 192, framework))
    enrolled = encoder.embed_batch([utterances[0] for utterances in voices.values()])
    probes = encoder.embed_batch([utterances[1] for utterances in voices.values()]) - enrolled.mean(axis=0)
    enrolled = enrolled - enrolled.mean(axis=0)
    nearest = (probes @ (enrolled / np.linalg.norm(enrolled, axis=1, keepdims=True)).T).argmax(axis=1)
    assert nearest.tolist() == [*range(len(voices))]


def test_alone_in_a_batch_and_in_threads_an_audio_has_one_embedding(
    tmp_path: Path, voices: Voices, program: Any
) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192), threads=2)
    audios = [utterances[0] for utterances in voices.values()]
    alone = np.stack([encoder.embed(audio) for audio in audios])
    np.testing.assert_array_equal(encoder.embed_batch(audios), alone)
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(np.stack([*pool.map(encoder.embed, audios)]), alone)
    assert encoder.embed_batch([]).shape == (0, 192)


def test_pauses_and_level_of_the_audio_hardly_matter(tmp_path: Path, voices: Voices, program: Any) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192))
    audio = voices["amara"][0]
    silence = np.zeros(3 * RATE, dtype=np.float32)
    padded = np.concatenate([silence, 0.5 * audio, silence])
    assert float(encoder.embed(padded) @ encoder.embed(audio)) > 0.98


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_silence_has_no_embedding(tmp_path: Path, program: Any, seconds: float) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192))
    with pytest.raises(EncoderError, match="no speech"):
        encoder.embed(np.zeros(round(seconds * RATE), dtype=np.float32))


def test_long_speech_is_embedded_in_equal_pieces(tmp_path: Path, voices: Voices, program: Any) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192), threads=2)
    audio = np.concatenate(voices["amara"] * 4)
    speech = TrimmedSpeech(audio)
    found = encoder.embed_speech(speech)
    count = -(-len(speech) // round(LONGEST_PIECE_S * RATE))
    assert count > 1
    assert found.partials.shape == (count, 192)
    np.testing.assert_allclose(found.embedding, encoder.embed(audio), atol=1e-6)
    total = found.partials.sum(axis=0)
    np.testing.assert_allclose(found.embedding, total / np.linalg.norm(total), atol=1e-6)


def test_a_model_of_another_rate_takes_audio_of_that_rate(tmp_path: Path, voices: Voices) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192, changed={"sample_rate": "8000"})
    sherpa, onnx = SherpaEncoder(path), OnnxFileEncoder(path)
    audio = voices["amara"][0][::2].copy()
    assert sherpa.sample_rate == onnx.sample_rate == 8_000
    assert float(sherpa.embed(audio) @ onnx.embed(audio)) > 0.99999
    speech = TrimmedSpeech(voices["amara"][0])
    assert float(onnx.embed_speech(speech).embedding @ onnx.embed(audio)) > 0.95


def test_an_encoder_of_a_model_takes_speech_and_no_partials(tmp_path: Path, program: Any) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192))
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, SpeechEncoder)
    assert not isinstance(encoder, PartialEncoder)
    encoder.warm_up()


FORK = """
import os, sys
import numpy as np
from voiceprint.encoder import default_encoder
encoder = default_encoder(sys.argv[1])
audio = np.load(sys.argv[2])
here = encoder.embed(audio)
network = encoder._network.get()
child = os.fork()
if child == 0:
    same = np.array_equal(encoder.embed_batch([audio, audio])[1], here)
    os._exit(0 if same and encoder._network.get() is not network else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert encoder._network.get() is network
"""


@pytest.mark.parametrize("spec", ["sherpa", "onnx"])
def test_a_forked_process_loads_its_own_network(tmp_path: Path, voices: Voices, spec: str) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    np.save(tmp_path / "audio.npy", voices["amara"][0])
    command = [sys.executable, "-c", FORK, f"{spec}:{path}", str(tmp_path / "audio.npy")]
    subprocess.run(command, check=True, timeout=60)


def test_threads_load_one_network(tmp_path: Path, voices: Voices, program: Any) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(encoder._network.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


# Features


def _power_frames(audio: Any, length: int, shift: int) -> Any:
    """Power spectra, float64[frames, 257], of frames inside the audio, as Kaldi computes them."""
    count = (len(audio) - length) // shift + 1
    frames = np.stack([audio[n * shift : n * shift + length] for n in range(count)]).astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85
    return np.abs(np.fft.rfft(frames * window, 512)) ** 2


def _mel_bands(bands: int, low: float, high: float, rate: int) -> Any:
    """Triangular bands, equally wide in mel, float64[257, bands]."""

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(hertz / 700.0)

    edges = np.linspace(mel(low), mel(high), bands + 2)
    bins = mel(np.arange(257) * rate / 512)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rise, fall), 0.0, None)


def test_features_are_kaldis_log_mel_bands(voices: Voices) -> None:
    front_end = FrontEnd("wespeaker", RATE, 80, normalize_samples=False, normalization="")
    audio = voices["amara"][0][: 2 * RATE]
    found = Features(front_end)(audio)
    power = _power_frames(audio * 32_768.0, 400, 160)
    expected = np.log(np.maximum(power @ _mel_bands(80, 20.0, 7_600.0, RATE), np.finfo(np.float32).eps))
    # Kaldi centers its frames at 5, 15, 25 ms: frame 1 begins at sample 240 - 200.
    shifted = _power_frames(audio[40:] * 32_768.0, 400, 160)
    expected = np.log(np.maximum(shifted @ _mel_bands(80, 20.0, 7_600.0, RATE), np.finfo(np.float32).eps))
    assert found.shape == (200, 80)
    np.testing.assert_allclose(found[1 : 1 + len(expected)], expected, atol=0.01)


def test_features_are_those_of_kaldi_native_fbank_by_the_metadata() -> None:
    import kaldi_native_fbank

    audio = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400.0
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(RATE, audio * 32_768.0)
    bank.input_finished()
    expected = np.stack([bank.get_frame(n) for n in range(bank.num_frames_ready)])
    plain = FrontEnd("wespeaker", RATE, 80, normalize_samples=False, normalization="")
    np.testing.assert_array_equal(Features(plain)(audio), expected)
    centered = Features(plain._replace(normalization="global-mean"))(audio)
    np.testing.assert_allclose(centered, expected - expected.mean(axis=0), atol=1e-4)
    quiet = Features(plain._replace(normalize_samples=True))(audio)
    np.testing.assert_allclose(quiet, expected - 2.0 * np.log(32_768.0), atol=1e-3)


def test_features_of_nemo_have_mean_zero_and_deviation_one() -> None:
    audio = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    found = Features(FrontEnd("nemo", RATE, 80, True, "per_feature", 25, 10, "hann"))(audio)
    assert found.shape == (98, 80)  # frames within the audio
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), 1.0, atol=1e-3)


def test_audio_shorter_than_a_frame_has_no_features() -> None:
    with pytest.raises(EncoderError, match="too short for one frame"):
        Features(FrontEnd("nemo", RATE, 80, True, "", 25, 10, "hann"))(np.zeros(100, dtype=np.float32))


# Pools that versions of ONNX Runtime compute differently


def pooling_model(**attributes: Any) -> bytes:
    """A model whose embedding is the mean, over windows of 100 frames, of the mean of each band."""
    nodes = [
        node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        node("AveragePool", ["turned"], ["pooled"], kernel_shape=[100], strides=[100], **attributes),
        node("ReduceMean", ["pooled"], ["embs"], axes=[2], keepdims=0),
    ]
    metadata = METADATA["wespeaker"] | {"output_dim": "80"}
    return model(nodes, {}, {"x": [1, "t", 80]}, {"embs": [1, 80]}, {"": 13}, metadata=metadata)


@pytest.mark.parametrize("frames", [100, 150, 199, 201])
def test_the_last_window_of_a_pool_is_divided_by_its_frames(
    tmp_path: Path, program: Any, frames: int
) -> None:
    (tmp_path / "model.onnx").write_bytes(pooling_model(ceil_mode=1, count_include_pad=1))
    encoder = program(tmp_path / "model.onnx")
    audio = (0.1 * np.random.default_rng(0).standard_normal(frames * 160)).astype(np.float32)
    features = Features(encoder.model.front_end)(audio)
    assert len(features) == frames
    expected = np.mean(
        [features[first : first + 100].mean(axis=0) for first in range(0, frames, 100)], axis=0
    )
    np.testing.assert_allclose(encoder._network.get()(audio), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ceil_mode": 0, "count_include_pad": 1},
        {"ceil_mode": 1, "count_include_pad": 0},
        {"ceil_mode": 1, "count_include_pad": 1, "pads": [0, 1]},
        {},
    ],
)
def test_other_pools_are_left_as_they_are(attributes: dict[str, Any]) -> None:
    content = pooling_model(**attributes)
    assert with_exact_pools(content) == content
    assert with_exact_pools(tiny_model(192)) == tiny_model(192)
    padless = pooling_model(ceil_mode=1, count_include_pad=1, pads=[0, 0])
    assert with_exact_pools(padless) == pooling_model(ceil_mode=1, count_include_pad=0, pads=[0, 0])


def test_the_content_that_was_checked_is_loaded_without_a_file_in_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voices: Voices
) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    expected = SherpaEncoder(path).embed(voices["amara"][0])
    monkeypatch.delattr(os, "memfd_create")  # as on macOS
    np.testing.assert_array_equal(SherpaEncoder(path).embed(voices["amara"][0]), expected)


# The space


def test_the_space_follows_the_content_and_not_the_name_of_the_file(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    name = SherpaEncoder(path).name
    moved = tmp_path / "folder" / "renamed.onnx"
    moved.parent.mkdir()
    path.rename(moved)
    assert SherpaEncoder(moved).name == name
    assert name == f"wespeaker-192-{hashlib.sha256(moved.read_bytes()).hexdigest()[:16]}"
    assert len(name) <= 100  # the limit of `Voiceprint.encoder`


def test_two_models_have_two_spaces(tmp_path: Path) -> None:
    names = {
        SherpaEncoder(write_tiny_model(tmp_path / f"{seed}{framework}.onnx", 192, framework, seed=seed)).name
        for seed in (1, 2)
        for framework in FRAMEWORKS
    }
    assert len(names) == 6


def test_a_digest_can_be_pinned(tmp_path: Path, program: Any) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert program(path, sha256=digest.upper()).name == program(path).name
    with pytest.raises(EncoderError, match=f"SHA-256 digest {digest}, and VOICE_ENCODER_SHA256 is 0000"):
        program(path, sha256="0" * 64)


def test_a_file_that_is_replaced_before_it_is_loaded_is_refused(tmp_path: Path, program: Any) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    encoder = program(path)
    write_tiny_model(path, 192, seed=1)
    with pytest.raises(EncoderError, match="was replaced"):
        encoder.warm_up()


# Files that are no such model


def test_a_missing_file_is_an_error_that_says_that_no_model_is_downloaded(
    tmp_path: Path, program: Any
) -> None:
    with pytest.raises(EncoderError, match=r"missing\.onnx cannot be read: No such file.*docs/encoders\.md"):
        program(tmp_path / "missing.onnx")
    with pytest.raises(EncoderError, match="a directory"):
        program(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am no model\n",
        bytes(100),
        b"\xff" * 100,
        tiny_model(192)[:-1],
        tiny_model(192)[:5_000],
    ],
    ids=["empty", "text", "zeros", "ones", "truncated", "half"],
)
def test_a_file_that_is_no_model_is_an_error(tmp_path: Path, program: Any, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"model\.onnx is"):
        program(path)


@pytest.mark.parametrize(("framework", "key"), [(name, key) for name in FRAMEWORKS for key in METADATA[name]])
def test_metadata_that_is_missing_is_named(
    tmp_path: Path, program: Any, framework: Framework, key: str
) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192, framework, changed={key: None})
    if key in ("feature_normalize_type", "window_type"):
        assert program(path).dimension == 192  # optional
    else:
        with pytest.raises(EncoderError, match=f"without the metadata '{key}'"):
            program(path)


@pytest.mark.parametrize(
    ("changed", "allowed"),
    [
        ({"framework": "speechbrain"}, "'wespeaker' or '3d-speaker' or 'nemo'"),
        ({"output_dim": "0"}, "a whole number from 1"),
        ({"output_dim": "-192"}, "a whole number from 1"),
        ({"output_dim": "many"}, "a whole number from 1"),
        ({"sample_rate": "4000"}, "8000 to 48000"),
        ({"normalize_samples": "2"}, "'0' or '1'"),
        ({"feature_normalize_type": "per_feature"}, "'' or 'global-mean'"),
    ],
)
def test_metadata_that_is_not_supported_is_named_with_its_value(
    tmp_path: Path, program: Any, changed: dict[str, str], allowed: str
) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192, changed=changed)
    ((name, value),) = changed.items()
    with pytest.raises(EncoderError, match=re.escape(f"'{name}' '{value}', and {allowed}")):
        program(path)


def test_a_dimension_that_the_network_does_not_give_is_an_error(tmp_path: Path, program: Any) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192, changed={"output_dim": "256"})
    with pytest.raises(EncoderError, match=r"shape \(192,\), and its metadata say 256"):
        program(path).warm_up()


def test_a_graph_that_cannot_run_is_an_error(tmp_path: Path, program: Any) -> None:
    metadata = METADATA["wespeaker"] | {"output_dim": "192"}
    graph = model([node("NoSuchOperator", ["x"], ["y"])], {}, {"x": [1, "t", 80]}, {"y": [1, 192]}, {"": 18},
                  metadata=metadata)  # fmt: skip
    (tmp_path / "model.onnx").write_bytes(graph)
    with pytest.raises(EncoderError, match=r"cannot load.*NoSuchOperator"):
        program(tmp_path / "model.onnx").warm_up()


def test_a_damaged_graph_is_an_error(tmp_path: Path, program: Any) -> None:
    content = tiny_model(192).replace(b"ReduceMean", b"Reduce\xe6ean")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EncoderError):
        program(tmp_path / "model.onnx").warm_up()


def test_a_damaged_node_is_an_error(tmp_path: Path, program: Any) -> None:
    content = tiny_model(192)
    place = content.index(b"ReduceMean")
    (tmp_path / "model.onnx").write_bytes(content[: place - 2] + b"\x07" + content[place - 1 :])
    with pytest.raises(EncoderError, match=r"is no ONNX model \(a field of the unknown kind 7\)"):
        program(tmp_path / "model.onnx").warm_up()


@pytest.mark.parametrize("framework", ["wespeaker", "nemo"])
def test_a_graph_with_other_inputs_is_an_error(tmp_path: Path, program: Any, framework: Framework) -> None:
    metadata = METADATA[framework] | {"output_dim": "80"}
    nodes = [node("Identity", ["x"], ["y"]), node("Identity", ["x"], ["z"])]
    outputs: dict[str, list[int | str]] = {"y": ["n", 80], "z": ["n", 80]}
    inputs: dict[str, list[int | str]] = {"x": ["n", 80]}
    (tmp_path / "model.onnx").write_bytes(model(nodes, {}, inputs, outputs, {"": 18}, metadata=metadata))
    audio = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    with pytest.raises(EncoderError):
        program(tmp_path / "model.onnx")._network.get()(audio)


def test_a_model_of_nemo_needs_both_outputs(tmp_path: Path, program: Any) -> None:
    metadata = METADATA["nemo"] | {"output_dim": "80"}
    nodes = [node("Identity", ["x"], ["y"])]
    (tmp_path / "model.onnx").write_bytes(
        model(nodes, {}, {"x": ["n", 80]}, {"y": ["n", 80]}, {"": 18}, metadata=metadata)
    )
    with pytest.raises(EncoderError, match="has 1 outputs; a model of NeMo has two"):
        program(tmp_path / "model.onnx")


def test_weights_in_another_file_are_refused(tmp_path: Path, program: Any) -> None:
    from voiceprint.encoder.onnx_format import _field, _number

    outside = _field(7, _field(5, _number(14, 1)))  # a graph whose tensor lies outside; fields of both merge
    (tmp_path / "model.onnx").write_bytes(tiny_model(192) + outside)
    with pytest.raises(EncoderError, match="weights in another file"):
        program(tmp_path / "model.onnx")


@pytest.mark.parametrize("place", ["node", "branch", "function", "sparse"])
def test_weights_in_another_file_are_refused_wherever_they_are_named(tmp_path: Path, place: str) -> None:
    from voiceprint.encoder.onnx_format import _field, _number

    tensor = _field(13, _field(1, "location") + _field(2, "weights.bin")) + _number(14, 1)
    with_attribute = _field(5, _field(5, tensor))
    branch = _field(5, _field(6, _field(1, with_attribute)))
    parts = {
        "node": _field(7, _field(1, with_attribute)),
        "branch": _field(7, _field(1, branch)),
        "function": _field(25, _field(7, with_attribute)),
        "sparse": _field(7, _field(15, _field(1, tensor))),
    }
    (tmp_path / "model.onnx").write_bytes(tiny_model(192) + parts[place])
    with pytest.raises(EncoderError, match="weights in another file"):
        OnnxFileEncoder(tmp_path / "model.onnx")


def test_graphs_that_are_nested_without_end_are_refused(tmp_path: Path) -> None:
    from voiceprint.encoder.onnx_format import _field

    graph = b""
    for _ in range(100):
        graph = _field(1, _field(5, _field(6, graph)))
    (tmp_path / "model.onnx").write_bytes(tiny_model(192) + _field(7, graph))
    with pytest.raises(EncoderError, match="nested too deeply"):
        OnnxFileEncoder(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("name", "value"),
    [("feat_dim", "600"), ("feat_dim", "1"), ("window_size_ms", "1"), ("window_stride_ms", "500")],
)
def test_features_that_do_not_exist_are_refused_before_a_program_sees_them(
    tmp_path: Path, program: Any, name: str, value: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model(192, "nemo", changed={name: value}))
    with pytest.raises(EncoderError, match=f"has the metadata '{name}' '{value}'"):
        program(path)


def test_facts_of_a_model_are_read_without_its_weights() -> None:
    facts = model_facts(tiny_model(192, "nemo", changed={"language": "Deutsch, für Anrufe"}))
    assert facts.metadata["language"] == "Deutsch, für Anrufe"
    assert (facts.outputs, facts.is_whole) == (2, True)


@pytest.mark.parametrize(
    ("program", "module", "advice"),
    [
        (SherpaEncoder, "sherpa_onnx", r"voiceprint\[sherpa\].*VOICE_ENCODER=onnx:/"),
        (OnnxFileEncoder, "kaldi_native_fbank", r"voiceprint\[fbank\]"),
    ],
)
def test_a_missing_wheel_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Any, module: str, advice: str
) -> None:
    encoder = program(write_tiny_model(tmp_path / "model.onnx", 192))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EncoderError, match=advice):
        encoder.warm_up()


# The setting


def test_a_spec_names_the_program_and_the_file(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    for spec, program in ((f"sherpa:{path}", SherpaEncoder), (f" ONNX:{path} ", OnnxFileEncoder)):
        encoder = default_encoder(spec)
        assert type(encoder) is program
        assert default_encoder(spec) is encoder
        assert configured_encoder(VoiceFingerprintConfig(encoder=spec)) is encoder


def test_a_relative_path_is_of_the_folder_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        write_tiny_model(tmp_path / str(seed) / "model.onnx", 192, seed=seed)
    names = []
    for seed in (1, 2):
        monkeypatch.chdir(tmp_path / str(seed))
        names.append(default_encoder("onnx:model.onnx").name)
    assert names[0] != names[1]
    monkeypatch.setenv("HOME", str(tmp_path / "1"))
    assert default_encoder("onnx:~/model.onnx").name == names[0]


@pytest.mark.parametrize("spec", ["sherpa", "sherpa:", "onnx:", "onnx-int8:a.onnx", "nemo:a.onnx", "", ":"])
def test_another_spec_is_an_error_that_says_what_is_allowed(spec: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sherpa:PATH or onnx:PATH"):
        default_encoder(spec)
    with pytest.raises(ConfigurationError, match=r"VOICE_ENCODER is .*sherpa:PATH or onnx:PATH"):
        VoiceFingerprintConfig(encoder=spec)


def test_a_digest_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="VOICE_ENCODER_SHA256 is set, and VOICE_ENCODER is 'onnx'"):
        configured_encoder(VoiceFingerprintConfig(encoder="onnx", encoder_sha256="0" * 64))


def test_the_digest_of_the_setting_is_checked(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", 192)
    config = VoiceFingerprintConfig(encoder=f"onnx:{path}", encoder_sha256="0" * 64)
    with pytest.raises(EncoderError, match="give the file that was pinned"):
        configured_encoder(config)
    assert os.fspath(path) in repr(configured_encoder(config.model_copy(update={"encoder_sha256": None})))
    assert open_model(path).path == path.resolve()
