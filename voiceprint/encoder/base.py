"""What an encoder is to the rest of the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


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
