"""`ModelEncoder`: an encoder whose network is a file, common to the programs that run it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import Lazy
from voiceprint.audio.io.buffers import SAMPLE_RATE, resample
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.audio.speech.vad import WINDOW
from voiceprint.encoder.base import SpeechEmbedding, check_speech, sum_embeddings
from voiceprint.encoder.model_file import ModelFile, open_model
from voiceprint.encoder.workers import Workers
from voiceprint.errors import EncoderError

LONGEST_PIECE_S: Final = 30.0
"""Seconds of speech in one run of the network; longer speech is embedded in equal pieces. This bounds the
memory: a layer of 32 channels over 80 bands holds 1 MB a second. Doubled, a run takes twice the memory."""


class Network(Protocol):
    """A loaded network."""

    def __call__(self, audio: NDArray[np.float32], /) -> Any:
        """The embedding, of any length above 0, of mono audio float32[n] in -1..1 at the model's rate."""


class ModelEncoder(ABC):
    """A published speaker model, with the speech found by this package.

    path: the file of the model, see `voiceprint.encoder.model_file`. It is checked at once, and loaded at the
    first embedding or by `warm_up`; each process loads its own.
    threads: for all calls together beside the calling threads; 0 for one a core. A run of the network takes
    one; pieces of long speech, and the recordings of a batch, run side by side.
    sha256: the digest that the file must have; None for any.

    Raises `EncoderError` for a file that cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0, sha256: str | None = None) -> None:
        self.model = open_model(path, sha256)
        self.name = self.model.space
        self.dimension = self.model.dimension
        self.sample_rate = self.model.front_end.sample_rate
        self._workers = Workers(threads)
        self._network: Lazy[Network] = Lazy(partial(self._load, self.model), inherited=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.model.path)!r})"

    @staticmethod
    @abstractmethod
    def _load(model: ModelFile) -> Network:
        """Load the network. Raises `EncoderError`."""

    def warm_up(self) -> None:
        """As `Encoder.warm_up`."""
        _ = TrimmedSpeech(np.zeros(WINDOW, dtype=np.float32)).windows  # the VAD
        self._embed_piece(np.zeros(self.sample_rate, dtype=np.float32), check=False)

    def embed(self, audio: Samples) -> NDArray[np.float32]:
        """As `Encoder.embed`; also of `LazyAudio` at 16 kHz, which is converted piece by piece."""
        return self.embed_speech(self._trimmed(audio)).embedding

    def embed_batch(self, audios: Sequence[Samples]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`."""
        found = self.embed_speeches([self._trimmed(audio) for audio in audios])
        return np.array([each.embedding for each in found], dtype=np.float32).reshape(-1, self.dimension)

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `SpeechEncoder.embed_speech`."""
        return self.embed_speeches([speech])[0]

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """As `SpeechEncoder.embed_speeches`."""
        pieces = [_pieces(check_speech(speech)) for speech in speeches]
        # Only this thread reads: reading lazy audio converts it. Few pieces at a time bound the memory.
        audios = (
            speech.read(*piece) for speech, parts in zip(speeches, pieces, strict=True) for piece in parts
        )
        found: list[NDArray[np.float32]] = []
        while some := [*islice(audios, 2 * self._workers.threads)]:
            found += self._workers.run([partial(self._embed_part, audio) for audio in some])
        embeddings = iter(found)
        return [sum_embeddings(np.stack([*islice(embeddings, len(parts))])) for parts in pieces]

    def _trimmed(self, audio: Samples) -> TrimmedSpeech:
        if self.sample_rate != SAMPLE_RATE:
            audio = resample(audio[:], self.sample_rate, SAMPLE_RATE)
        return TrimmedSpeech(audio)

    def _embed_part(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding of a piece at 16 kHz."""
        if self.sample_rate != SAMPLE_RATE:
            audio = resample(audio, SAMPLE_RATE, self.sample_rate)
        return self._embed_piece(audio)

    def _embed_piece(self, audio: NDArray[np.float32], *, check: bool = True) -> NDArray[np.float32]:
        found = np.asarray(self._network.get()(audio), dtype=np.float32)
        if found.shape != (self.dimension,):
            raise EncoderError(
                f"{self.model.path} gave an embedding of the shape {found.shape}, and its metadata say "
                f"{self.dimension}: the file is damaged, or its metadata are wrong."
            )
        return sum_embeddings(found[None]).embedding if check else found


def _pieces(speech: TrimmedSpeech) -> list[tuple[int, int]]:
    """Start and stop, in samples of speech, of the pieces to embed."""
    count = -(-len(speech) // round(LONGEST_PIECE_S * SAMPLE_RATE))
    edges = [number * len(speech) // count for number in range(count + 1)]
    return [*pairwise(edges)]
