"""The buffered audio of a call, analyzed while it grows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE
from voiceprint.audio.enhance.high_pass import HighPass, LowFrequencyMeter
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.prompts import KnownPrompts, PromptFollower
from voiceprint.audio.speech.segmenter import Segmenter, speech_parts, with_prompts

_CUTOFF_EVERY_S: Final = 2.0  # seconds between searches for an offset or hum

Audio = NDArray[np.float32]
Parts = tuple[tuple[int, int], ...]
"""Start and stop of stretches of audio, in samples."""


class BufferedAudio:
    """Audio at 16 kHz, its speech, and the high-pass filter that it needs."""

    def __init__(self, prompts: KnownPrompts | None) -> None:
        self.segmenter = Segmenter()
        self.cutoff_hz: float | None = None
        self.length = 0
        self._prompts = None if prompts is None else PromptFollower(prompts)
        self._low_frequencies = LowFrequencyMeter()
        self._cutoff_due = 0
        self._analyzed = 0
        self._audio = np.zeros(16 * SAMPLE_RATE, dtype=np.float32)

    def add(self, audio: Audio) -> None:
        """Append audio."""
        stop = self.length + len(audio)
        if stop > len(self._audio):
            self._audio = np.concatenate((self._audio, np.zeros(max(stop, self.length), dtype=np.float32)))
        self._audio[self.length : stop] = audio
        self.length = stop

    @property
    def waiting(self) -> int:
        """Samples that were not analyzed yet."""
        return self.length - self._analyzed

    @property
    def mono(self) -> Audio:
        """All of the audio."""
        return self._audio[: self.length]

    def analyze(self) -> None:
        """Analyze the audio that was added since the last call."""
        audio = self._audio[self._analyzed : self.length]
        self._analyzed = self.length
        self.segmenter.add(audio)
        if self._prompts is not None:
            self._prompts.add(audio)
        self._low_frequencies.add(audio)
        if self.length >= self._cutoff_due:
            self.cutoff_hz = self._low_frequencies.cutoff_hz
            self._cutoff_due = self.length + round(_CUTOFF_EVERY_S * SAMPLE_RATE)

    def parts(self) -> Parts:
        """The parts that hold speech, by the analysis so far."""
        segments = self.segmenter.segments()
        if self._prompts is not None:
            segments = with_prompts(segments, self._prompts.stretches())
        return speech_parts(segments)

    def filtered(self, cutoff_hz: float | None) -> Samples:
        """The audio without what lies below `cutoff_hz`."""
        return self.mono if cutoff_hz is None else HighPass(self.mono, cutoff_hz)
