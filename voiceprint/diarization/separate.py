"""The voices of a recording, each with its turns and a recording of it alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import Recording, Turn
from voiceprint.audio.io.lazy_audio import Spliced
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.diarization.clustering import Labels, cluster
from voiceprint.diarization.windows import RATE, Partials, embed_windows

PAUSE_S: Final = 0.5
"""A longer pause of a voice ends its turn."""
MARGIN_S: Final = 0.3
"""Seconds of speech to each side of a change of voice that are in neither recording."""
MOST_S: Final = 120.0
"""Seconds of the recording of a voice: more do not improve the identification."""

_WINDOW_S: Final = vad.WINDOW / RATE  # the unit of times: a window of the VAD, 30 ms


@dataclass(frozen=True)
class Voice:
    """One voice of a recording.

    turns: in order. net_speech_s: seconds of speech in them, without pauses. recording: its turns with their
    pauses, without audio within `MARGIN_S` of another voice.
    """

    turns: tuple[Turn, ...]
    net_speech_s: float
    recording: Recording = field(repr=False)


def separate(recording: Recording, embed: Partials) -> tuple[Voice, ...]:
    """The voices of a recording, in the order of their first turns; none without speech.

    A single voice has the recording itself. Noise is reduced before the comparison, because noise makes
    voices more alike. Raises `EncoderError`.
    """
    speech = recording.trimmed
    if recording.cleaned is not None:
        cleaned = TrimmedSpeech(recording.cleaned)
        speech = cleaned if len(cleaned) else speech
    windows = embed_windows(speech, embed)
    if not len(windows):
        return ()
    labels = cluster(windows.embeddings)[windows.nearest()]
    places = np.flatnonzero(speech.windows)
    starts_s = _in_recording(recording, places * vad.WINDOW) / RATE
    count = int(labels.max()) + 1
    return tuple(
        Voice(
            _turns(starts_s, np.flatnonzero(labels == voice)),
            int(np.count_nonzero(labels == voice)) * vad.WINDOW / RATE,
            recording if count == 1 else _alone(recording, places, labels, voice),
        )
        for voice in range(count)
    )


def _turns(starts_s: NDArray[np.float64], own: NDArray[np.intp]) -> tuple[Turn, ...]:
    """The turns of a voice. own: its windows, by their index; starts_s: of all windows of speech."""
    new = (np.diff(own) > 1) | (np.diff(starts_s[own]) - _WINDOW_S > PAUSE_S)
    return tuple(
        Turn(start_s=float(starts_s[run[0]]), stop_s=float(starts_s[run[-1]] + _WINDOW_S))
        for run in np.split(own, np.flatnonzero(new) + 1)
    )


def _alone(recording: Recording, places: NDArray[np.intp], labels: Labels, voice: int) -> Recording:
    """The speech of one voice, with the pauses closest to it, by which the noise is measured."""
    every = np.arange(len(recording.speech) // vad.WINDOW)
    after = np.clip(np.searchsorted(places, every), 1, len(places) - 1) if len(places) > 1 else every * 0
    nearest = after - (every - places[after - 1] < places[after] - every)
    near_others = _near_changes(labels)
    own = np.flatnonzero((labels == voice)[nearest] & ~near_others[nearest])
    if not len(own):  # only borders
        own = np.flatnonzero((labels == voice)[nearest])
    own = own[: round(MOST_S / _WINDOW_S)]
    runs = np.split(own, np.flatnonzero(np.diff(own) > 1) + 1)
    parts = tuple((int(run[0]) * vad.WINDOW, (int(run[-1]) + 1) * vad.WINDOW) for run in runs)
    return Recording.from_buffer(Spliced(recording.speech, parts)[:])


def _near_changes(labels: Labels) -> NDArray[np.bool_]:
    """Whether each window of speech is within `MARGIN_S` of a change of voice, bool[n]."""
    near = np.zeros(len(labels), dtype=np.bool_)
    width = round(MARGIN_S / _WINDOW_S)
    for change in np.flatnonzero(np.diff(labels)) + 1:
        near[max(change - width, 0) : change + width] = True
    return near


def _in_recording(recording: Recording, samples: NDArray[np.intp]) -> NDArray[np.intp]:
    """The samples of `Recording.mono` that are these samples of `Recording.speech`."""
    starts = np.array([start for start, _ in recording.parts])
    before = np.cumsum([0, *(stop - start for start, stop in recording.parts[:-1])])
    part = np.searchsorted(before, samples, side="right") - 1
    return np.asarray(samples - before[part] + starts[part])
