"""One pass over a call: its speech parts at one gain, embedded as they come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from voiceprint.audio.io.lazy_audio import Spliced
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.runs import union
from voiceprint.encoder.base import PartialEncoder
from voiceprint.streaming.accumulator import ClipAccumulator, EmbeddingAccumulator, PartialAccumulator
from voiceprint.streaming.buffered_audio import Audio, BufferedAudio, Parts

if TYPE_CHECKING:
    from voiceprint.audio import Recording
    from voiceprint.encoder import Encoder

SAME_DB: Final = 0.01
"""Levels that differ by less count as equal."""

_NO_SAMPLES: Final = np.zeros(0, dtype=np.float32)


class EmbeddingPass:
    """Embeds the speech parts of a call from its beginning.

    cutoff_hz: of the high-pass filter, None without one. exact: whether parts, filter and gain agree with the
    analysis so far; otherwise every second partial is left out.
    """

    def __init__(self, encoder: Encoder, *, cutoff_hz: float | None, exact: bool) -> None:
        self.cutoff_hz = cutoff_hz
        self.exact = exact
        self.ended = False
        self.parts: Parts = ()  # of the buffer, as they were read
        self.stop = 0  # in the buffer, up to which it was read
        self._energy = 0.0
        self._length = 0
        self._waiting: list[Audio] = []
        self._rest = _NO_SAMPLES
        self._speech = RunningSpeech()
        self.accumulator: EmbeddingAccumulator = (
            PartialAccumulator(encoder, 1 if exact else 2)
            if isinstance(encoder, PartialEncoder)
            else ClipAccumulator(encoder)
        )

    @property
    def gain(self) -> np.float32:
        """Gain of the audio that is embedded next."""
        return self.accumulator.gain

    @gain.setter
    def gain(self, gain: np.float32) -> None:
        self._speech.gain = self.accumulator.gain = gain

    @property
    def wanted_gain(self) -> np.float32:
        """The gain for all that was read."""
        return vad.gain_of(self._energy, self._length)

    def read(self, buffer: BufferedAudio, parts: Parts, stop: int) -> None:
        """Read the speech parts of a buffer up to a sample."""
        if stop <= self.stop:
            return
        new = clip_parts(parts, self.stop, stop)
        audio = Spliced(buffer.filtered(self.cutoff_hz), new)[:]
        self._energy += float(np.square(audio, dtype=np.float64).sum())
        self._length += len(audio)
        self._waiting.append(audio)
        self.parts = union(self.parts + new)
        self.stop = stop

    def embed(self, *, at_once: bool = False, last: bool = False) -> None:
        """Embed the audio that was read; at_once: as of `EmbeddingAccumulator.add`."""
        audio = np.concatenate([self._rest, *self._waiting])
        stop = whole_windows(len(audio))
        self._waiting, self._rest = [], audio[stop:].copy()
        self.accumulator.add(self._speech.add(audio[:stop], last=last), at_once=at_once)
        if last:
            self.accumulator.end()

    def begin_buffer(self) -> None:
        """Continue at the beginning of a new buffer."""
        self.parts, self.stop = (), 0

    def agrees_with(self, buffer: BufferedAudio, parts: Parts) -> bool:
        """Whether filter and speech parts of a buffer are those that were read."""
        return self.cutoff_hz == buffer.cutoff_hz and self.parts == clip_parts(parts, 0, self.stop)

    def is_of(self, recording: Recording) -> bool:
        """Whether the pass, once ended, gives the embedding of this recording."""
        return (
            self.exact
            and self.cutoff_hz == recording.cutoff_hz
            and self.parts == clip_parts(recording.parts, 0, self.stop)
            and level_difference_db(recording.trimmed.gain, self.gain) <= SAME_DB
        )


class RunningSpeech:
    """Removes the pauses, as `TrimmedSpeech` does, from audio that comes in pieces.

    Equal gains give equal speech. A window comes out 0.21 s late, because the later ones count in its
    detection.
    """

    def __init__(self) -> None:
        self.gain = np.float32(1.0)
        self._detector = vad.Detector()
        self._flags = np.zeros(0, dtype=np.bool_)  # of the windows that wait, and of some before
        self._before = 0  # number of those before
        self._waiting: Audio = _NO_SAMPLES

    def add(self, audio: Audio, *, last: bool = False) -> Audio:
        """The speech, float32[480 n], that is final after the next whole windows of audio."""
        self._flags = np.concatenate((self._flags, self._detector.flags(audio, self.gain)))
        self._waiting = np.concatenate((self._waiting, audio * self.gain))
        final = len(self._flags) - (0 if last else vad.AFTER)
        if final <= self._before:
            return _NO_SAMPLES
        is_speech = vad.speech_windows(self._flags)[self._before : final]
        windows = self._waiting[: len(is_speech) * vad.WINDOW].reshape(-1, vad.WINDOW)
        self._waiting = self._waiting[len(is_speech) * vad.WINDOW :]
        first = max(0, final - vad.BEFORE)
        self._flags, self._before = self._flags[first:], final - first
        return windows[is_speech].reshape(-1)


def clip_parts(parts: Parts, start: int, stop: int) -> Parts:
    """The parts between `start` and `stop`."""
    return tuple(
        (max(first, start), min(last, stop)) for first, last in parts if first < stop and last > start
    )


def whole_windows(length: int) -> int:
    """The samples of the whole windows of the VAD in `length` samples."""
    return max(0, length - length % vad.WINDOW)


def level_difference_db(one: np.float32, other: np.float32) -> float:
    """The absolute difference of two gains in dB."""
    return abs(20.0 * math.log10(float(one) / float(other)))
