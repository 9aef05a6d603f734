"""Speech without its pauses: exactly what Resemblyzer's preprocessing leaves for the encoder.

The rule is that of `preprocess_wav` of Resemblyzer 0.1.4: audio quieter than -30 dBFS is raised to it, and
windows of 30 ms that WebRTC's VAD takes for silence are cut out (see `voiceprint.audio.speech.vad`).
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech import vad
from voiceprint.errors import EncoderError

_TOGETHER: Final = 512  # windows, 15 s, that are read in one piece whatever lies between them


class TrimmedSpeech:
    """The speech in mono audio, raised in level and without its pauses; never copied as a whole.

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

    @cached_property
    def _places(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.windows)

    def __len__(self) -> int:
        """Samples of speech."""
        return len(self._places) * vad.WINDOW

    @property
    def seconds(self) -> float:
        """Seconds of speech."""
        return len(self) / SAMPLE_RATE

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples start to stop of the speech, float32[stop - start]; zeros before and after it."""
        read = np.zeros(stop - start, dtype=np.float32)
        first, last = max(start, 0), min(stop, len(self))
        if first < last:
            window = first // vad.WINDOW
            samples = self._gathered(self._places[window : -(-last // vad.WINDOW)])
            skipped = first - window * vad.WINDOW
            np.multiply(
                samples[skipped : skipped + last - first], self.gain, out=read[first - start : last - start]
            )
        return read

    def source(self, places: NDArray[np.integer]) -> NDArray[np.int64]:
        """The places in the audio of samples of the speech, int64[n]; both counted from 0."""
        windows, within = np.divmod(np.asarray(places, dtype=np.int64), vad.WINDOW)
        return np.asarray(self._places[windows] * vad.WINDOW + within, dtype=np.int64)

    def _gathered(self, windows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The samples of windows, whose numbers rise."""
        groups = np.split(windows, np.flatnonzero(np.diff(windows // _TOGETHER)) + 1)
        return np.concatenate([self._group(group) for group in groups])

    def _group(self, windows: NDArray[np.intp]) -> NDArray[np.float32]:
        first, end = windows[0], windows[-1] + 1
        block = self.audio[first * vad.WINDOW : end * vad.WINDOW].reshape(-1, vad.WINDOW)
        return np.asarray(block[windows - first].reshape(-1))
