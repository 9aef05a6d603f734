"""Speech without its pauses, as Resemblyzer's preprocessing passes it to the encoder.

As in `preprocess_wav` of Resemblyzer 0.1.4, audio quieter than -30 dBFS is amplified to that level, and
windows of 30 ms that WebRTC's VAD classifies as silence are cut out (see `voiceprint.audio.speech.vad`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import cached_property
from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.io.lazy_audio import Samples, blocks
from voiceprint.audio.speech import vad
from voiceprint.errors import EncoderError

_READ_TOGETHER: Final = 512  # windows, 15 s, read in one piece with the pauses between them


class TrimmedSpeech:
    """The speech in mono audio, amplified and without its pauses; never copied as a whole.

    audio: float32[n] in [-1, 1] at 16 kHz.

    Raises `EncoderError` where the audio holds NaN or infinity.
    """

    def __init__(self, audio: Samples) -> None:
        self.audio = audio
        self.gain = vad.volume_gain(audio)
        if not np.isfinite(self.gain):
            raise EncoderError("The audio holds values that are not numbers.")

    @cached_property
    def windows(self) -> NDArray[np.bool_]:
        """Whether each window of 480 samples is speech, bool[n // 480]."""
        return vad.speech_windows(vad.voice_flags(self.audio, self.gain))

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The speech at its own level, float32[n] of at most a minute each; all audio if none is speech."""
        if not self.windows.any():
            yield from blocks(self.audio, vad.BLOCK)
            return
        for first in range(0, len(self.windows), vad.BLOCK // vad.WINDOW):
            mask = self.windows[first : first + vad.BLOCK // vad.WINDOW]
            if mask.any():
                block = self.audio[first * vad.WINDOW : (first + len(mask)) * vad.WINDOW]
                yield block.reshape(-1, vad.WINDOW)[mask].reshape(-1)

    @cached_property
    def _window_indices(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.windows)

    def __len__(self) -> int:
        """Samples of speech."""
        return len(self._window_indices) * vad.WINDOW

    @property
    def seconds(self) -> float:
        """Seconds of speech."""
        return len(self) / SAMPLE_RATE

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples start to stop of the speech, float32[stop - start]; zero before and after it."""
        read = np.zeros(stop - start, dtype=np.float32)
        first, last = max(start, 0), min(stop, len(self))
        if first < last:
            window = first // vad.WINDOW
            samples = self._gather(self._window_indices[window : -(-last // vad.WINDOW)])
            offset = first - window * vad.WINDOW
            np.multiply(
                samples[offset : offset + last - first], self.gain, out=read[first - start : last - start]
            )
        return read

    def source(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Map sample indices of the speech, int[n], to those of the audio, int64[n]."""
        windows, within = np.divmod(np.asarray(indices, dtype=np.int64), vad.WINDOW)
        return np.asarray(self._window_indices[windows] * vad.WINDOW + within, dtype=np.int64)

    def _gather(self, windows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The samples of windows, in ascending order."""
        groups = np.split(windows, np.flatnonzero(np.diff(windows // _READ_TOGETHER)) + 1)
        return np.concatenate([self._read_group(group) for group in groups])

    def _read_group(self, windows: NDArray[np.intp]) -> NDArray[np.float32]:
        first, end = windows[0], windows[-1] + 1
        block = self.audio[first * vad.WINDOW : end * vad.WINDOW].reshape(-1, vad.WINDOW)
        return np.asarray(block[windows - first].reshape(-1))
