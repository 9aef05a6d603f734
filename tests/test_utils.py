"""The two helpers of `voiceprint.utils`, as OpusAgent calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voiceprint import (
    InvalidArgumentError,
    InvalidAudioError,
    load_audio,
    normalize_embedding,
    preprocess_audio,
)

SAMPLE = Path(__file__).parents[1] / "examples/voices/amara/1.flac"


def test_a_path_gives_the_audio_of_its_file() -> None:
    expected = preprocess_audio(*load_audio(SAMPLE))
    assert expected.dtype == np.float32
    for path in (SAMPLE, str(SAMPLE)):
        np.testing.assert_array_equal(preprocess_audio(path), expected)


def test_a_file_without_a_header_is_read_with_the_encoding_and_rate_given(tmp_path: Path) -> None:
    path = tmp_path / "call.bin"
    codes = np.arange(256, dtype=np.uint8).repeat(50).tobytes()
    path.write_bytes(codes)
    expected = preprocess_audio(codes, 8000, encoding="alaw")
    np.testing.assert_array_equal(preprocess_audio(path, 8000, encoding="alaw"), expected)


def test_a_file_that_is_not_there_and_channels_of_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAudioError, match=r"missing\.wav"):
        preprocess_audio(tmp_path / "missing.wav")
    with pytest.raises(InvalidAudioError, match="channels=2"):
        preprocess_audio(SAMPLE, channels=2)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e200])
def test_a_float64_embedding_stays_float64(scale: float) -> None:
    embedding = np.array([3.0, -4.0]) * scale
    unit = normalize_embedding(embedding)
    assert unit.dtype == np.float64
    np.testing.assert_allclose(unit, [0.6, -0.8], rtol=1e-15)


@pytest.mark.parametrize("embedding", [[3.0, 4.0], np.array([3, 4]), np.array([3, 4], np.float32)])
def test_any_other_embedding_becomes_float32(embedding: object) -> None:
    unit = normalize_embedding(embedding)  # type: ignore[arg-type]
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [0.6, 0.8], rtol=1e-6)


def test_a_vector_without_a_direction_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="all zero"):
        normalize_embedding(np.zeros(256))
