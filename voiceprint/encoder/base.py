"""What an encoder is to the rest of the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.speech.trimming import TrimmedSpeech


@runtime_checkable
class Encoder(Protocol):
    """Turns speech into a unit vector; vectors of one speaker lie close together.

    All methods may be called from many threads.
    """

    @property
    def name(self) -> str:
        """Name of the embedding space: two encoders of one name give comparable vectors."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio that `embed` takes, in Hz."""

    def warm_up(self) -> None:
        """Load what the first embedding would load, so that no caller waits for it."""

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding, float32[dimension] of length 1, of mono audio, float32[n] in [-1, 1].

        Silences are trimmed by the encoder. Raises `EncoderError` when no speech is left.
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
    `voiceprint.encoder.partials`. An encoder that has these methods is given speech that was found already,
    and embeds a call while it lasts at no extra cost.
    """

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `embed`, of audio whose speech was found, and with the partials."""

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """`embed_speech` for many."""

    def embed_partials(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of partials, float32[n, dimension] of length 1, of float32[n, 160, 40], n >= 1."""
