"""The voices of a recording, each with the times at which it speaks and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import vad
from voiceprint.audio.trimming import TrimmedSpeech
from voiceprint.diarization.clustering import cluster
from voiceprint.diarization.windows import RATE, Partials, Windows, embed_windows

PAUSE_S: Final = 0.5
"""A pause from which a voice's speech counts as two segments."""
MARGIN_S: Final = 0.3
"""Speech next to another voice's that is not embedded: so well are the borders of turns known."""

_WINDOW_S: Final = vad.WINDOW / RATE


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording in which one voice speaks.

    start_s, stop_s: seconds from the beginning.
    """

    start_s: float
    stop_s: float


@dataclass(frozen=True)
class Voice:
    """One voice of a recording.

    segments: in order. speech: float32[n] at 16 kHz, what it says without pauses and without what is
    next to another voice.
    """

    segments: tuple[Segment, ...]
    speech: NDArray[np.float32] = field(repr=False)

    @property
    def net_speech_s(self) -> float:
        """Seconds of `speech`."""
        return len(self.speech) / RATE


def separate(speech: TrimmedSpeech, embed: Partials) -> list[Voice]:
    """The voices in the speech of a recording, in the order in which they speak first.

    One where it holds one, none where nobody speaks. Raises `EncoderError`.
    """
    windows = embed_windows(speech, embed)
    if not len(windows):
        return []
    labels = cluster(windows.embeddings)[windows.nearest()]
    return [_voice(speech, labels, voice) for voice in range(int(labels.max()) + 1)]


def _voice(speech: TrimmedSpeech, labels: NDArray[np.intp], voice: int) -> Voice:
    own = np.flatnonzero(labels == voice)
    start_s = speech.source(own * vad.WINDOW) / RATE
    new = (np.diff(own) > 1) | (np.diff(start_s) - _WINDOW_S > PAUSE_S)
    segments = tuple(
        Segment(float(run[0]), float(run[-1] + _WINDOW_S)) for run in np.split(start_s, np.flatnonzero(new) + 1)
    )
    inner = own[~_near_others(labels)[own]]
    return Voice(segments, _samples(speech, inner if len(inner) else own))


def _samples(speech: TrimmedSpeech, windows: NDArray[np.intp]) -> NDArray[np.float32]:
    runs = np.split(windows, np.flatnonzero(np.diff(windows) > 1) + 1)
    return np.concatenate([speech.read(run[0] * vad.WINDOW, (run[-1] + 1) * vad.WINDOW) for run in runs])


def _near_others(labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which 30 ms of speech are within `MARGIN_S` of a change of voice, bool[n]."""
    near = np.zeros(len(labels), dtype=np.bool_)
    width = round(MARGIN_S / _WINDOW_S)
    for change in np.flatnonzero(np.diff(labels)) + 1:
        near[max(change - width, 0) : change + width] = True
    return near
