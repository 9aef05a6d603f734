"""The voices of a recording, each with the times at which it speaks and a recording of it alone."""

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
"""A pause of one voice from which on what it says before and after are two turns."""
MARGIN_S: Final = 0.3
"""Speech to each side of a change of voice that is in neither recording: so well are the borders known."""
MOST_S: Final = 120.0
"""Seconds of one voice that are kept as its recording: more does not tell better who it is."""

_PLACE_S: Final = vad.WINDOW / RATE  # times are known in units of the VAD's windows, 30 ms


@dataclass(frozen=True)
class Voice:
    """One voice of a recording.

    turns: when it speaks, in order. net_speech_s: seconds of speech in them, without pauses.
    recording: its turns with their pauses, without what is within `MARGIN_S` of another voice.
    """

    turns: tuple[Turn, ...]
    net_speech_s: float
    recording: Recording = field(repr=False)


def separate(recording: Recording, embed: Partials) -> tuple[Voice, ...]:
    """The voices of a recording, in the order in which they speak first.

    One where it holds one, which is then the recording itself; none where nobody speaks. Noise is reduced
    before voices are compared: it makes them more alike.

    Raises `EncoderError`.
    """
    speech = recording.trimmed
    if recording.cleaned is not None:
        without_noise = TrimmedSpeech(recording.cleaned)
        speech = without_noise if len(without_noise) else speech
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
    """Of one voice, which says the windows `own` of the speech that starts at `starts_s`."""
    new = (np.diff(own) > 1) | (np.diff(starts_s[own]) - _PLACE_S > PAUSE_S)
    return tuple(
        Turn(start_s=float(starts_s[run[0]]), stop_s=float(starts_s[run[-1]] + _PLACE_S))
        for run in np.split(own, np.flatnonzero(new) + 1)
    )


def _alone(recording: Recording, places: NDArray[np.intp], labels: Labels, voice: int) -> Recording:
    """What one voice says, with the pauses nearest to it: the level of the noise shows in them."""
    every = np.arange(len(recording.speech) // vad.WINDOW)
    after = np.clip(np.searchsorted(places, every), 1, len(places) - 1) if len(places) > 1 else every * 0
    nearest = after - (every - places[after - 1] < places[after] - every)
    near_others = _near_changes(labels)
    own = np.flatnonzero((labels == voice)[nearest] & ~near_others[nearest])
    if not len(own):  # nothing but borders
        own = np.flatnonzero((labels == voice)[nearest])
    own = own[: round(MOST_S / _PLACE_S)]
    runs = np.split(own, np.flatnonzero(np.diff(own) > 1) + 1)
    parts = tuple((int(run[0]) * vad.WINDOW, (int(run[-1]) + 1) * vad.WINDOW) for run in runs)
    return Recording.from_buffer(Spliced(recording.speech, parts)[:])


def _near_changes(labels: Labels) -> NDArray[np.bool_]:
    """Which windows of speech are within `MARGIN_S` of a change of voice, bool[n]."""
    near = np.zeros(len(labels), dtype=np.bool_)
    width = round(MARGIN_S / _PLACE_S)
    for change in np.flatnonzero(np.diff(labels)) + 1:
        near[max(change - width, 0) : change + width] = True
    return near


def _in_recording(recording: Recording, samples: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places in `Recording.mono` of places in `Recording.speech`, whose parts stand one after the other."""
    starts = np.array([start for start, _ in recording.parts])
    before = np.cumsum([0, *(stop - start for start, stop in recording.parts[:-1])])
    part = np.searchsorted(before, samples, side="right") - 1
    return np.asarray(samples - before[part] + starts[part])
