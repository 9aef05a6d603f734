"""The two steps around the encoder: audio preprocessing and normalization of embeddings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from voiceprint.audio import AudioBuffer, Encoding, Recording
from voiceprint.errors import InvalidAudioError
from voiceprint.validation import unit_vector

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["normalize_embedding", "preprocess_audio"]


def preprocess_audio(
    audio_buffer: AudioBuffer | str | os.PathLike[str],
    sample_rate: int | None = None,
    *,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> NDArray[np.float32]:
    """Convert audio to the input of the encoder: float32[n], mono, 16 kHz, in [-1, 1].

    `audio_buffer`: int16, int32, uint8 or float array, 1-D or 2-D; bytes; or the path of a file, as of
    `load_audio`. `sample_rate`: 8000 to 48000 Hz; None is 8000 for G.711 and 16000 otherwise, and
    for a file the rate in its header. `encoding`: of bytes, and of a file without a header; "pcm" is 16-bit
    little-endian; "mulaw" and "alaw" also of uint8 arrays. `channel`: index; None mixes, and logs a warning
    where the channels differ; where they cancel each other, it selects the loudest. `channels`: interleaved
    in bytes.
    Raises `InvalidAudioError`.
    """
    if isinstance(audio_buffer, str | os.PathLike):
        if channels != 1:
            raise InvalidAudioError(
                f"channels={channels!r} is for bytes: a file has the number in its header."
            )
        raw = None if encoding == "pcm" else encoding
        recording = Recording.open(audio_buffer, encoding=raw, sample_rate=sample_rate, channel=channel)
    else:
        recording = Recording.from_buffer(audio_buffer, sample_rate, encoding, channel, channels)
    recording.warn_if_mixed()
    return recording.mono[:]


def normalize_embedding(embedding: ArrayLike) -> NDArray[Any]:
    """The embedding divided by its Euclidean length: [n], float64 of a float64 array, else float32.

    `embedding`: n numbers, finite and not all zero. Raises `InvalidArgumentError`.
    """
    unit = unit_vector(embedding)
    if isinstance(embedding, np.ndarray) and embedding.dtype == np.float64:
        scaled = embedding / np.abs(embedding).max()  # the squares of huge values would overflow
        return np.asarray(scaled / np.linalg.norm(scaled))
    return unit
