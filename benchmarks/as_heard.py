"""What the product embeds of a piece of audio: to search with it, and to enrol a caller from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import assess
from voiceprint.encoder import default_encoder
from voiceprint.evaluation.embedding import embed, second_print, without_noise
from voiceprint.simulated import versions

Audio = NDArray[np.float32]


def best(audio: Audio, plain: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The embedding that log-likelihood ratios are of; NaN without speech. plain: that of all the audio."""
    cleaned = without_noise(audio)
    if cleaned is audio and plain is not None:
        return plain
    found = embed(cleaned, default_encoder(), None)
    if found is None:
        found = embed(audio, default_encoder(), None) if plain is None else plain
    return np.full(default_encoder().dimension, np.nan, dtype=np.float32) if found is None else found


def second(audio: Audio, plain: NDArray[np.float32]) -> NDArray[np.float32]:
    """The print that the product keeps beside the plain one."""
    encoder = default_encoder()
    return second_print(audio, plain, versions(encoder, assess(audio)), encoder, None)
