"""The contract of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.errors import EncoderError
from voiceprint.models import RESEMBLYZER_SPACE

MIN_SPEECH_S: Final = 1.0
"""Least net speech of a probe in seconds where the encoder names none. The embedding of less depends little
on the speaker. Doubled, a caller is named a second later."""


@runtime_checkable
class Encoder(Protocol):
    """Turns speech into a unit vector; vectors of one speaker lie close together.

    All methods are thread-safe. An encoder may have a further attribute `min_speech_s`, see the function of
    that name.
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
    """The embedding of speech, float32[d] of length 1, and those of its pieces, float32[n, d] likewise.

    The pieces of a `PartialEncoder` are its partials.
    """

    embedding: NDArray[np.float32]
    partials: NDArray[np.float32]


@runtime_checkable
class SpeechEncoder(Encoder, Protocol):
    """An encoder that takes speech as the package has found it, and so detects no speech a second time."""

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `embed`, of trimmed speech, with the embeddings of its pieces."""

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """`embed_speech` for many."""


@runtime_checkable
class PartialEncoder(SpeechEncoder, Protocol):
    """An encoder of Resemblyzer's kind: the embedding is the normalized sum of those of partials.

    Partials are the mel spectrograms of overlapping pieces of trimmed speech, see
    `voiceprint.encoder.partials`. `embed_partials` embeds a call while it lasts at no extra cost.
    """

    def embed_partials(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of partials, float32[n, dimension] of length 1, of float32[n, 160, 40], n >= 1."""


def min_speech_s(encoder: Encoder) -> float:
    """Least net speech of a probe in seconds: the encoder's `min_speech_s`, or `MIN_SPEECH_S` without one."""
    return float(getattr(encoder, "min_speech_s", MIN_SPEECH_S))


def takes_enhanced(encoder: Encoder) -> bool:
    """Whether embeddings of cleaned and simulated audio help this encoder, as measured for Resemblyzer's."""
    return encoder.name == RESEMBLYZER_SPACE and encoder.sample_rate == SAMPLE_RATE


def sum_embeddings(embeddings: NDArray[np.float32]) -> SpeechEmbedding:
    """The embedding of pieces, float32[n, d]: their normalized sum. Raises `EncoderError` for a sum of 0."""
    total = embeddings.sum(axis=0, dtype=np.float64)
    norm = float(np.linalg.norm(total))
    if not 0.0 < norm < np.inf:  # all outputs are zero, or the audio was not finite
        raise EncoderError("The network gave no embedding of this audio.")
    return SpeechEmbedding(np.asarray(total / norm, dtype=np.float32), embeddings)


def check_speech(speech: TrimmedSpeech) -> TrimmedSpeech:
    """The speech, or `EncoderError` where there is none."""
    if not len(speech):
        raise EncoderError("The audio holds no speech to embed.")
    return speech
