"""The speech in a call as it comes, and the embedding of what there is of it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, to_mono
from voiceprint.audio.speech import vad
from voiceprint.encoder.base import Encoder, PartialEncoder
from voiceprint.encoder.mel import FRAME, HOP, mel_frames
from voiceprint.encoder.partials import FRAMES, STEP, count_partials
from voiceprint.errors import EncoderError

Samples = NDArray[np.float32]

_SAME_LEVEL_DB: Final = 0.05
_NO_SAMPLES: Final = np.zeros(0, dtype=np.float32)


class RunningSpeech:
    """Leaves the pauses out, as `voiceprint.encoder.partials.Speech` does, of audio that comes in pieces.

    Gives the same speech from the same gain; a window is given 0.21 s late, as those after it have a say.
    gain: what the audio is multiplied by; may change on the way.
    """

    def __init__(self, gain: np.float32) -> None:
        self.gain = gain
        self._detector = vad.Detector()
        self._flags = np.zeros(0, dtype=np.bool_)  # of the windows that wait, and some before
        self._before = 0  # how many before
        self._waiting = _NO_SAMPLES

    def add(self, audio: Samples, *, last: bool = False) -> Samples:
        """Speech that is sure to count as such, float32[480 n], after the next whole windows of audio."""
        self._flags = np.concatenate((self._flags, self._detector.flags(audio, self.gain)))
        self._waiting = np.concatenate((self._waiting, audio * self.gain))
        known = len(self._flags) - (0 if last else vad.AFTER)
        if known <= self._before:
            return _NO_SAMPLES
        counts = vad.speech_windows(self._flags)[self._before : known]
        windows = self._waiting[: len(counts) * vad.WINDOW].reshape(-1, vad.WINDOW)
        self._waiting = self._waiting[len(counts) * vad.WINDOW :]
        first = max(0, known - vad.BEFORE)
        self._flags, self._before = self._flags[first:], known - first
        return windows[counts].reshape(-1)


class EmbeddingAccumulator(Protocol):
    """What speech sounds like: embeddings of pieces of it, summed up."""

    length: int
    """Samples of speech that were heard."""
    count: int
    """Pieces that were embedded."""
    total: NDArray[np.float64]
    """The sum of their embeddings."""
    gain: np.float32
    """What the speech was raised by that comes next."""
    idle: bool
    """Whether speech is only counted, and nothing embedded."""
    resting: bool
    """Whether nobody waits for running answers: pieces are embedded as is quickest."""

    def add(self, speech: Samples, *, at_once: bool = False) -> None:
        """Embed the pieces that are complete with this; at_once: all of them, which is quickest."""

    def end(self) -> None:
        """Embed the rest, as there will be no more."""

    def correct_gain(self, gain: np.float32) -> None:
        """Change the sum to what it would be, had all speech been raised by `gain`; about so."""


# Partials that are embedded together, by the index of the first: alone they cost nearly twice as much, but
# give an answer soon, which counts in the beginning.
_TOGETHER: Final = ((2, 1), (4, 2), (16, 3))
_TOGETHER_LATER: Final = 6
_TOGETHER_AT_REST: Final = 6  # where nobody waits for an answer: a whole run of the network

_SAMPLES: Final = 64  # partials that are remembered, 1.6 MB


class _Sample(NamedTuple):
    place: int
    gain: np.float32
    mel: NDArray[np.float32]
    embedding: NDArray[np.float32]


class PartialAccumulator:
    """Resemblyzer's partials, each of which is embedded as soon as it is complete, or some together.

    step: 2 leaves every second one out: half of the work, for an answer that will be computed anew.
    """

    def __init__(self, encoder: PartialEncoder, step: int = 1) -> None:
        self.length = self.count = 0
        self.gain = np.float32(1.0)
        self.idle = self.resting = False
        self.total = np.zeros(encoder.dimension, dtype=np.float64)
        self._encoder = encoder
        self._step = step
        self._next = 0  # partial
        self._speech = np.zeros(FRAME // 2, dtype=np.float32)  # the first frame's center is sample 0
        self._dropped = -(FRAME // 2)  # samples of speech before those
        self.found: list[NDArray[np.float32]] = []
        """The embeddings of the partials, 1 KB each."""
        self._samples: list[_Sample] = []  # each n-th partial
        self._every = 1

    def add(self, speech: Samples, *, at_once: bool = False) -> None:
        """As `EmbeddingAccumulator.add`."""
        self.length += len(speech)
        if self.idle:
            return
        self._speech = np.concatenate((self._speech, speech))
        frames = (self.length - FRAME // 2) // HOP + 1
        complete = (frames - FRAMES) // STEP + 1  # partials
        while self._next < complete:
            wanted = next((count for below, count in _TOGETHER if self._next < below), _TOGETHER_LATER)
            if self.resting:
                wanted = _TOGETHER_AT_REST
            ready = -(-(complete - self._next) // self._step)
            if ready < wanted:
                break
            self._embed(ready if at_once else wanted)

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
        frames = mel_frames(self._speech[:samples])
        mels = np.lib.stride_tricks.sliding_window_view(frames, FRAMES, axis=0)[:: self._step * STEP]
        partials = mels.transpose(0, 2, 1)
        embeddings = self._encoder.embed_partials(partials)
        self.total = self.total + embeddings.sum(axis=0, dtype=np.float64)
        self.found.append(embeddings)
        if self._step == 1:
            for index, mel, embedding in zip(
                range(self._next, self._next + count), partials, embeddings, strict=True
            ):
                self._remember(index, mel, embedding)
        self.count += count
        self._next += count * self._step
        kept = self._next * STEP * HOP - FRAME // 2
        self._speech, self._dropped = self._speech[kept - self._dropped :], kept

    def _remember(self, index: int, mel: NDArray[np.float32], embedding: NDArray[np.float32]) -> None:
        if index % self._every:
            return
        self._samples.append(_Sample(index, self.gain, mel.copy(), embedding.copy()))
        if len(self._samples) > _SAMPLES:
            self._every *= 2
            self._samples = [sample for sample in self._samples if not sample.place % self._every]

    def correct_gain(self, gain: np.float32) -> None:
        """As `EmbeddingAccumulator.correct_gain`, measured on partials spread over the whole call."""
        ratios = np.array([float(gain) / float(sample.gain) for sample in self._samples])
        if not len(ratios) or np.abs(20.0 * np.log10(ratios)).max() < _SAME_LEVEL_DB:
            return
        # Mel power goes with the square of the amplitude.
        squares = np.square(ratios).astype(np.float32)[:, None, None]
        anew = self._encoder.embed_partials(np.stack([sample.mel for sample in self._samples]) * squares)
        change = anew - np.stack([sample.embedding for sample in self._samples])
        self.total = self.total + self.count * change.mean(axis=0, dtype=np.float64)


class ClipAccumulator:
    """Of an encoder of which nothing more is known: pieces of speech, embedded each by itself."""

    PIECE_S: Final = 2.4

    def __init__(self, encoder: Encoder) -> None:
        self.length = self.count = 0
        self.gain = np.float32(1.0)
        self.idle = self.resting = False
        self.total = np.zeros(encoder.dimension, dtype=np.float64)
        self._encoder = encoder
        self._speech = _NO_SAMPLES

    def add(self, speech: Samples, *, at_once: bool = False) -> None:  # noqa: ARG002 - of the protocol
        """As `EmbeddingAccumulator.add`."""
        self.length += len(speech)
        if self.idle:
            return
        self._speech = np.concatenate((self._speech, speech))
        piece = round(self.PIECE_S * SAMPLE_RATE)
        while len(self._speech) >= piece:
            self._embed(self._speech[:piece])
            self._speech = self._speech[piece:]

    def end(self) -> None:
        """As `EmbeddingAccumulator.end`: a short rest is left out, unless it is all."""
        if len(self._speech) and not self.count:
            self._embed(self._speech)

    def correct_gain(self, gain: np.float32) -> None:
        """As `EmbeddingAccumulator.correct_gain`: the encoder's own preprocessing sees to it."""

    def _embed(self, speech: Samples) -> None:
        audio = to_mono(np.clip(speech, -1.0, 1.0), SAMPLE_RATE, self._encoder.sample_rate)
        try:
            embedding: Any = self._encoder.embed(audio)
        except EncoderError:  # it hears no speech here; where it does not work at all, the end will tell
            return
        self.total = self.total + np.asarray(embedding, dtype=np.float64)
        self.count += 1
