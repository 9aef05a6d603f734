"""Sums of the embeddings of pieces of speech, which grow with a call."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, to_mono
from voiceprint.encoder.base import Encoder, PartialEncoder
from voiceprint.encoder.mel import FRAME, HOP
from voiceprint.encoder.partials import FRAMES, STEP, count_partials, spectrograms
from voiceprint.errors import EncoderError

Samples = NDArray[np.float32]

_SAME_LEVEL_DB: Final = 0.05


class EmbeddingAccumulator(Protocol):
    """The sum of the embeddings of pieces of speech, mono at 16 kHz."""

    length: int
    """Samples of speech that were added."""
    count: int
    """Pieces that were embedded."""
    total: NDArray[np.float64]
    """The sum of their embeddings."""
    gain: np.float32
    """Gain of the speech that is added next."""
    count_only: bool
    """Whether to count speech and embed nothing."""
    full_batches: bool
    """Whether to embed only full batches, which costs least and delays running answers."""

    def add(self, speech: Samples, *, at_once: bool = False) -> None:
        """Embed the complete pieces; at_once: all of them in one batch."""

    def end(self) -> None:
        """Embed the rest of the speech."""

    def correct_gain(self, gain: np.float32) -> None:
        """Change the sum to an estimate of the sum with this gain for all speech."""


_BATCHES: Final = ((2, 1), (4, 2), (16, 3))
"""Partials of a batch, by the index of its first: small batches give the first answers soon, and cost up to
twice as much a partial."""
_FULL_BATCH: Final = 6  # one run of the network

_SAMPLES: Final = 64  # partials that are remembered, 1.6 MB


class _Sample(NamedTuple):
    partial: int  # its index
    gain: np.float32
    mel: NDArray[np.float32]
    embedding: NDArray[np.float32]


class PartialAccumulator:
    """Sums the embeddings of Resemblyzer's partials.

    step: 2 leaves every second partial out, for half of the work.
    """

    def __init__(self, encoder: PartialEncoder, step: int = 1) -> None:
        self.length = self.count = 0
        self.gain = np.float32(1.0)
        self.count_only = self.full_batches = False
        self.total = np.zeros(encoder.dimension, dtype=np.float64)
        self.embeddings: list[NDArray[np.float32]] = []
        """Embeddings of the partials, 1 KB each."""
        self._encoder = encoder
        self._step = step
        self._next = 0  # index of the next partial
        self._speech = np.zeros(FRAME // 2, dtype=np.float32)  # the first frame's center is sample 0
        self._start = -(FRAME // 2)  # of `_speech`, in samples of all speech
        self._samples: list[_Sample] = []  # every `_sample_step`-th partial
        self._sample_step = 1

    def add(self, speech: Samples, *, at_once: bool = False) -> None:
        """As `EmbeddingAccumulator.add`."""
        self.length += len(speech)
        if self.count_only:
            return
        self._speech = np.concatenate((self._speech, speech))
        frames = (self.length - FRAME // 2) // HOP + 1
        complete = (frames - FRAMES) // STEP + 1  # partials
        while self._next < complete:
            batch = next((size for below, size in _BATCHES if self._next < below), _FULL_BATCH)
            if self.full_batches:
                batch = _FULL_BATCH
            ready = -(-(complete - self._next) // self._step)
            if ready < batch:
                break
            self._embed(ready if at_once else batch)

    def end(self) -> None:
        """As `EmbeddingAccumulator.end`."""
        if not self.length:
            return
        self._speech = np.concatenate((self._speech, np.zeros(FRAMES * HOP + FRAME, dtype=np.float32)))
        left = -(-(count_partials(self.length) - self._next) // self._step)
        if left > 0:
            self._embed(left)

    def _embed(self, count: int) -> None:
        samples = ((count - 1) * self._step * STEP + FRAMES - 1) * HOP + FRAME
        mels = spectrograms(self._speech[:samples])[:: self._step]
        embeddings = self._encoder.embed_partials(mels)
        self.total = self.total + embeddings.sum(axis=0, dtype=np.float64)
        self.embeddings.append(embeddings)
        if self._step == 1:
            for index, mel, embedding in zip(
                range(self._next, self._next + count), mels, embeddings, strict=True
            ):
                self._remember(index, mel, embedding)
        self.count += count
        self._next += count * self._step
        start = self._next * STEP * HOP - FRAME // 2
        self._speech, self._start = self._speech[start - self._start :], start

    def _remember(self, index: int, mel: NDArray[np.float32], embedding: NDArray[np.float32]) -> None:
        if index % self._sample_step:
            return
        self._samples.append(_Sample(index, self.gain, mel.copy(), embedding.copy()))
        if len(self._samples) > _SAMPLES:
            self._sample_step *= 2
            self._samples = [sample for sample in self._samples if not sample.partial % self._sample_step]

    def correct_gain(self, gain: np.float32) -> None:
        """As `EmbeddingAccumulator.correct_gain`, estimated from partials spread over the call."""
        ratios = np.array([float(gain) / float(sample.gain) for sample in self._samples])
        if not len(ratios) or np.abs(20.0 * np.log10(ratios)).max() < _SAME_LEVEL_DB:
            return
        # Mel power goes with the square of the amplitude.
        squares = np.square(ratios).astype(np.float32)[:, None, None]
        corrected = self._encoder.embed_partials(np.stack([sample.mel for sample in self._samples]) * squares)
        change = corrected - np.stack([sample.embedding for sample in self._samples])
        self.total = self.total + self.count * change.mean(axis=0, dtype=np.float64)


class ClipAccumulator:
    """Sums the embeddings of clips of 2.4 s, for an encoder that is no `PartialEncoder`."""

    CLIP_S: Final = 2.4

    def __init__(self, encoder: Encoder) -> None:
        self.length = self.count = 0
        self.gain = np.float32(1.0)
        self.count_only = self.full_batches = False
        self.total = np.zeros(encoder.dimension, dtype=np.float64)
        self._encoder = encoder
        self._speech: Samples = np.zeros(0, dtype=np.float32)

    def add(self, speech: Samples, *, at_once: bool = False) -> None:  # noqa: ARG002 - of the protocol
        """As `EmbeddingAccumulator.add`."""
        self.length += len(speech)
        if self.count_only:
            return
        self._speech = np.concatenate((self._speech, speech))
        clip = round(self.CLIP_S * SAMPLE_RATE)
        while len(self._speech) >= clip:
            self._embed(self._speech[:clip])
            self._speech = self._speech[clip:]

    def end(self) -> None:
        """As `EmbeddingAccumulator.end`: embeds the rest only where no clip was complete."""
        if len(self._speech) and not self.count:
            self._embed(self._speech)

    def correct_gain(self, gain: np.float32) -> None:
        """Nothing to correct: the encoder's own preprocessing normalizes the level."""

    def _embed(self, speech: Samples) -> None:
        audio = to_mono(np.clip(speech, -1.0, 1.0), SAMPLE_RATE, self._encoder.sample_rate)
        try:
            embedding: Any = self._encoder.embed(audio)
        except EncoderError:  # no speech by its own detector; an encoder that always fails raises at the end
            return
        self.total = self.total + np.asarray(embedding, dtype=np.float64)
        self.count += 1
