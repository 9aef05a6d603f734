"""The embeddings of windows of a recording: 1.6 s of speech each, one every 0.4 s, all at one loudness.

A partial of `OnnxEncoder.embed` differs in two ways. It comes every 0.77 s, which is too coarse for turns of
a few seconds; and it keeps its level, which the network hears: where a voice becomes 10 dB quieter, the
cosine of its two halves falls from 0.96 to 0.88, as between two voices (research/several-voices.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.speech import vad
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder.mel import FRAME, HOP, mel_frames
from voiceprint.encoder.partials import FRAMES

RATE: Final = 16_000
HOP_S: Final = 0.4
"""From the beginning of one window to that of the next, in seconds of speech without its pauses."""
WINDOW_S: Final = ((FRAMES - 1) * HOP + FRAME) / RATE
"""Speech in a window: 1.615 s, which is what the network takes."""

_HOP: Final = round(HOP_S * RATE)
_WINDOW: Final = (FRAMES - 1) * HOP + FRAME
_LEVEL: Final = 10.0 ** (vad.TARGET_DBFS / 20.0)  # RMS of every window: the encoder's own, -30 dBFS
_TOGETHER: Final = 64  # windows whose spectrograms, 1.6 MB, are in memory at once

Partials = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Embeddings, float32[n, d] of length 1, of mel spectrograms, float32[n, 160, 40]."""


@dataclass(frozen=True)
class Windows:
    """What is said in a recording, window by window.

    embeddings: float32[n, d] of length 1; n = 0 where nobody speaks.
    speech: the recording without its pauses; window i begins at its sample i * 6400.
    """

    embeddings: NDArray[np.float32] = field(repr=False)
    speech: TrimmedSpeech = field(repr=False)

    def __len__(self) -> int:
        return len(self.embeddings)

    def nearest(self) -> NDArray[np.intp]:
        """The window whose middle is nearest to each 30 ms of the speech, intp[len(speech) // 480]."""
        middles = (np.arange(len(self.speech) // vad.WINDOW) + 0.5) * vad.WINDOW
        return np.clip(np.rint((middles - _WINDOW / 2) / _HOP), 0, len(self) - 1).astype(np.intp)


def embed_windows(speech: TrimmedSpeech, embed: Partials) -> Windows:
    """The windows of speech; one, filled up with zeros, where it is shorter. Raises `EncoderError`."""
    if not len(speech):
        return Windows(np.zeros((0, 0), dtype=np.float32), speech)
    starts = range(0, max(len(speech) - _WINDOW, 0) + 1, _HOP)
    embeddings = [
        embed(np.stack([_spectrogram(speech.read(start, start + _WINDOW)) for start in block]))
        for block in (starts[first : first + _TOGETHER] for first in range(0, len(starts), _TOGETHER))
    ]
    return Windows(np.concatenate(embeddings), speech)


def _spectrogram(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return mel_frames(samples * np.float32(_LEVEL / max(rms, 1e-9)))
