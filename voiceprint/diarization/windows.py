"""The embeddings of windows of a recording: 1.6 s of speech each, one every 0.4 s, all at one level.

The partials of an embedding are unsuitable for two reasons. One every 0.77 s is too coarse for turns of a few
seconds. And they have their own levels, which change the embedding: where a voice becomes 10 dB quieter, the
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
"""Seconds between the starts of windows, in speech without its pauses."""
WINDOW_S: Final = ((FRAMES - 1) * HOP + FRAME) / RATE
"""Seconds of speech in a window, 1.615: one partial."""

_HOP: Final = round(HOP_S * RATE)
_WINDOW: Final = (FRAMES - 1) * HOP + FRAME
_LEVEL: Final = 10.0 ** (vad.TARGET_DBFS / 20.0)  # RMS of every window: the -30 dBFS of the encoder
_TOGETHER: Final = 64  # windows whose spectrograms, 1.6 MB, are in memory at once

Partials = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Embeddings, float32[n, d] of length 1, of mel spectrograms, float32[n, 160, 40]."""


@dataclass(frozen=True)
class Windows:
    """The windows of a recording.

    embeddings: float32[n, d] of length 1; n = 0 without speech.
    speech: the recording without its pauses; window i begins at its sample i * 6400.
    """

    embeddings: NDArray[np.float32] = field(repr=False)
    speech: TrimmedSpeech = field(repr=False)

    def __len__(self) -> int:
        return len(self.embeddings)

    def nearest(self) -> NDArray[np.intp]:
        """The index of the window closest to each 30 ms of the speech, intp[len(speech) // 480]."""
        middles = (np.arange(len(self.speech) // vad.WINDOW) + 0.5) * vad.WINDOW
        return np.clip(np.rint((middles - _WINDOW / 2) / _HOP), 0, len(self) - 1).astype(np.intp)


def embed_windows(speech: TrimmedSpeech, embed: Partials) -> Windows:
    """Embed the windows of speech; shorter speech gives one, padded with zeros. Raises `EncoderError`."""
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
