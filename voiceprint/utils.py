"""The two steps around the encoder, for use on their own: audio in, unit vector out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiceprint.audio import AudioBuffer, Encoding, Recording
from voiceprint.validation import unit_vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["normalize_embedding", "preprocess_audio"]


def preprocess_audio(
    audio_buffer: AudioBuffer,
    sample_rate: int | None = None,
    *,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> NDArray[np.float32]:
    """Audio of any accepted kind as the encoder takes it: float32[n], mono, 16 kHz, in [-1, 1].

    `audio_buffer`: int16, int32, uint8 or float array, 1-D or 2-D, or bytes. `sample_rate`: 8000 to
    48000 Hz; None is 8000 of G.711 and 16000 of all else. `encoding` of bytes, "pcm" being 16-bit
    little-endian; "mulaw" and "alaw" also of uint8 arrays. `channel`: index; None mixes, and logs a warning
    where the channels differ; where they cancel each other, it takes the loudest. `channels`: how many are
    interleaved in bytes. Raises `InvalidAudioError`.
    """
    recording = Recording.from_buffer(audio_buffer, sample_rate, encoding, channel, channels)
    recording.warn_if_mixed()
    return recording.mono[:]


def normalize_embedding(embedding: ArrayLike) -> NDArray[np.float32]:
    """The embedding divided by its Euclidean length: float32[n] of length 1.

    `embedding`: n numbers, finite and not all zero. Raises `InvalidArgumentError`.
    """
    return unit_vector(embedding)
