"""The contract of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.speech.trimming import TrimmedSpeech


@runtime_checkable
class Encoder(Protocol):
    """Turns speech into a unit vector; vectors of one speaker lie close together.

    All methods are thread-safe.
    """

    @property
    def name(self) -> str:
        """Name of the embedding space: vectors of encoders with equal names can be compared."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio that `embed` takes, in Hz."""

    def warm_up(self) -> None:
        """Load the model now, so that the first caller does not wait for it."""

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding, float32[dimension] of length 1, of mono audio, float32[n] in [-1, 1].

        The encoder trims silences. Raises `EncoderError` where no speech is left.
        """

    def embed_batch(self, audios: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """`embed` for many, float32[len(audios), dimension]."""


class SpeechEmbedding(NamedTuple):
    """The embedding of speech, float32[d] of length 1, and those of its partials, float32[n, d] likewise."""

    embedding: NDArray[np.float32]
    partials: NDArray[np.float32]


@runtime_checkable
class PartialEncoder(Encoder, Protocol):
    """An encoder of Resemblyzer's kind: the embedding is the normalized sum of those of partials.

    Partials are the mel spectrograms of overlapping pieces of trimmed speech, see
    `voiceprint.encoder.partials`. These methods reuse a speech detection, and embed a call while it lasts at
    no extra cost.
    """

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `embed`, of trimmed speech, with the embeddings of the partials."""

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """`embed_speech` for many."""

    def embed_partials(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of partials, float32[n, dimension] of length 1, of float32[n, 160, 40], n >= 1."""
