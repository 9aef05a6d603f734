"""Where the speech is in a recording, and what else there is: tones, music, noise, silence.

Decided before anything is measured on the whole, and from what lies within a second alone: a beep, a
ring-back or minutes of hiss say nothing about the level of the speech beside them. Speech is what is left
when the rest was recognized; pauses up to two seconds belong to it, so that an ordinary recording is one
segment: all but one of 1,162 in three sets are, and 708 of 709 pieces of 5 s.

Why no network. Of VADs with the same after-treatment (research/speech.md), Silero's rejects all that
is not speech, and misses of speech as much as WebRTC's, but takes 32 ms of CPU for a second of audio, 60
times as much as what is here together with WebRTC's; TEN's takes 4 ms, takes music and sirens for speech,
and its license forbids products that compete with its maker's. What is here misses no more than WebRTC's
alone, which takes nearly everything for speech, and rejects nearly all that Silero's does. Still taken for
speech: a third of the seconds of quick melodies of one voice, gated noise, and any music that speech goes
on over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.lazy_audio import Samples, blocks
from voiceprint.audio.speech.runs import long_runs, runs
from voiceprint.audio.speech.sounds import (
    MUSIC,
    NOISE,
    PERHAPS_MUSIC,
    SILENCE,
    SPAN,
    SPEECH,
    STEP,
    TONE,
    Codes,
    Flags,
    decisions,
)
from voiceprint.audio.speech.spectrogram import ROW, Rows, Spectrogram
from voiceprint.audio.speech.tones import tone_rows
from voiceprint.audio.speech.vad import BLOCK

Kind = Literal["speech", "tone", "music", "noise", "silence", "prompt"]
"""What a segment holds."""

_KINDS: Final[tuple[Kind, ...]] = ("speech", "tone", "music", "noise", "silence")

_LEAST_ROWS: Final = 8  # half a second: less is not told from speech
_COVERED: Final = SPAN // STEP  # decisions that look at a place
_SURE_MUSIC: Final = 6  # decisions for music, of 4 s around one of them, that are no chance
_AROUND: Final = 8  # decisions to either side, 2 s
# Decisions for speech, 2.2 s, that are music between music; and on one side of it if there is more speech.
_ISLAND: Final = 9

# Decisions in a row. As one that hears speech speaks for all of its second, a stretch without is seen 0.7 s
# shorter than it is.
_LEAST_CUT: Final = 8  # of noise or silence: 2.6 s
_LEAST_MUSIC: Final = 3  # 1.4 s
_LEAST_BETWEEN: Final = 5  # rows of anything beside a tone, 0.3 s, that are worth keeping
_SILENCE: Final = 10**-3.5  # energy of the loudest frame: a noise of -80 dBFS


class Segment(NamedTuple):
    """A stretch of a recording."""

    start: int
    """Its first sample at 16 kHz, a multiple of `vad.WINDOW`."""
    stop: int
    """The sample after its last: a multiple, but for the end of the recording."""
    kind: Kind
    frequency_hz: float | None = None
    """The strongest frequency of a tone, to 8 Hz."""


class Segmenter:
    """Finds the segments of audio that comes in pieces; they do not depend on the cuts."""

    def __init__(self, expected: int = 0) -> None:
        """expected: samples, where that is known, so that memory is taken once."""
        self._spectrogram = Spectrogram(expected)
        self._samples = 0
        self._decided: list[Codes] = []
        self._next = 0  # row where the next second begins

    def add(self, audio: npt.NDArray[np.float32]) -> None:
        """Take the next piece, float32[n] mono at 16 kHz in [-1, 1], of any length."""
        self._samples += len(audio)
        self._spectrogram.add(audio)
        ready = (self._spectrogram.count - SPAN - self._next) // STEP + 1
        if ready > 0:
            rows = self._spectrogram.rows()
            self._decided.append(decisions(rows, self._next, ready))
            self._next += ready * STEP

    @property
    def spectrogram(self) -> Spectrogram:
        """What was measured on the audio so far."""
        return self._spectrogram

    def segments(self) -> tuple[Segment, ...]:
        """All of the audio so far, in order. What is older than two seconds seldom changes with more."""
        rows = self._spectrogram.rows()
        count = len(rows.likeness)
        if not count:
            return (Segment(0, self._samples, "speech"),) if self._samples else ()
        if self._decided:
            if len(self._decided) > 1:
                self._decided = [np.concatenate(self._decided)]
            decided = self._decided[0]
        elif count >= _LEAST_ROWS:
            decided = decisions(rows, 0, 1, count)
        else:
            decided = np.zeros(1, dtype=np.int8)
        kinds, heard = _smoothed(decided, count)
        tones = tone_rows(rows)
        if tones.any():
            kinds = _with_tones(kinds, heard, tones, rows)
        return self._as_segments(kinds, rows)

    def _as_segments(self, kinds: Codes, rows: Rows) -> tuple[Segment, ...]:
        found = []
        starts, stops = runs(kinds)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            last = stop == len(kinds)
            frequency = None
            if kinds[start] == TONE:
                loudest = start + int(rows.harmonic_power[start:stop].argmax())
                frequency = float(rows.strongest_hz[loudest])
            found.append(
                Segment(start * ROW, self._samples if last else stop * ROW, _KINDS[kinds[start]], frequency)
            )
        return tuple(found)


def segment(audio: Samples) -> tuple[Segment, ...]:
    """The segments of a whole recording, float32[n] mono at 16 kHz."""
    segmenter = Segmenter(len(audio))
    for block in blocks(audio, BLOCK):
        segmenter.add(block)
    return segmenter.segments()


def speech_parts(segments: Iterable[Segment]) -> tuple[tuple[int, int], ...]:
    """Start and stop of the stretches of speech, in samples, with those that touch made one."""
    parts: list[tuple[int, int]] = []
    for each in segments:
        if each.kind != "speech":
            continue
        if parts and parts[-1][1] == each.start:
            parts[-1] = parts[-1][0], each.stop
        else:
            parts.append((each.start, each.stop))
    return tuple(parts)


def with_prompts(segments: Iterable[Segment], prompts: Iterable[tuple[int, int]]) -> tuple[Segment, ...]:
    """The segments, and prompts in place of what they were found to be; prompts: start and stop of each."""
    segments = tuple(segments)
    end = segments[-1].stop if segments else 0
    known = [
        Segment(start // ROW * ROW, min(-(-stop // ROW) * ROW, end), "prompt") for start, stop in prompts
    ]
    left: list[Segment] = []
    for each in segments:
        start = each.start
        for prompt in known:
            if prompt.stop <= start or prompt.start >= each.stop:
                continue
            if prompt.start > start:
                left.append(each._replace(start=start, stop=prompt.start))
            start = min(prompt.stop, each.stop)
        if start < each.stop:
            left.append(each._replace(start=start))
    return tuple(sorted((*left, *known), key=lambda each: each.start))


def _smoothed(decided: Codes, count: int) -> tuple[Codes, Flags]:
    """The kind of each of `count` rows, and where speech was heard for itself."""
    decided = _with_all_music(decided)
    places = max(-(-count // STEP), len(decided))
    # A place is speech where any decision that looks at it is; else what the middle one says.
    padded = np.concatenate((np.full(_COVERED - 1, -1, np.int8), decided, np.full(places, -1, np.int8)))
    looking = np.lib.stride_tricks.sliding_window_view(padded, _COVERED)[:places]
    heard = (looking == SPEECH).any(axis=1)
    last = len(decided) - 1
    kinds = decided[np.clip(np.arange(places) - _COVERED // 2 + 1, 0, last)].copy()
    other = kinds == SPEECH
    kinds[other] = decided[np.clip(np.arange(places), 0, last)][other]
    kinds[kinds == SPEECH] = NOISE
    # The last places, which no decision looks at, go on as the one before.
    heard[last + _COVERED :] = heard[min(last + _COVERED - 1, places - 1)]
    kinds[heard] = SPEECH
    if heard.any():
        starts, stops = runs(heard)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            if heard[start]:
                continue
            music = int((kinds[start:stop] == MUSIC).sum())
            if not (stop - start >= _LEAST_CUT or music >= _LEAST_MUSIC):
                kinds[start:stop] = SPEECH
    return np.repeat(kinds, STEP)[:count], np.repeat(heard, STEP)[:count]


def _with_all_music(decided: Codes) -> Codes:
    """The decisions, with those settled that took a second for music only beside music."""
    decided = decided.copy()
    music = (decided == MUSIC) | (decided == PERHAPS_MUSIC)
    if music.any():
        sure = decided == MUSIC
        total = np.concatenate((np.zeros(_AROUND + 1, np.int64), np.cumsum(sure)))
        total = np.concatenate((total, np.full(_AROUND, total[-1])))
        sure &= total[2 * _AROUND + 1 :] - total[: -2 * _AROUND - 1] >= _SURE_MUSIC
        for first, last in long_runs(music, 1):
            run = decided[first:last]
            run[:] = MUSIC if sure[first:last].any() else SPEECH
        spoken = long_runs(decided == SPEECH, 1)
        longest = max((last - first for first, last in spoken), default=0)
        for first, last in spoken:
            music_beside = int((decided[max(0, first - 1) : last + 1] == MUSIC).sum())
            short = last - first <= _ISLAND
            if short and (music_beside == 2 or (music_beside and 2 * (last - first) < longest)):
                decided[first:last] = MUSIC
    return decided


def _with_tones(kinds: Codes, heard: Flags, tones: Flags, rows: Rows) -> Codes:
    """The kinds with the tones, and without the crumbs of speech between them in which none was heard."""
    kinds = kinds.copy()
    kinds[tones] = TONE
    starts, stops = runs(kinds)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        beside = (start and tones[start - 1]) or (stop < len(kinds) and tones[stop])
        if (
            kinds[start] == SPEECH
            and beside
            and (stop - start < _LEAST_BETWEEN or not heard[start:stop].any())
        ):
            loud = float(rows.bands[start:stop].sum(axis=2).max())
            kinds[start:stop] = SILENCE if loud < _SILENCE else NOISE
    for start, stop in long_runs(kinds != SPEECH, 1):
        if 2 * int((kinds[start:stop] == MUSIC).sum()) > stop - start:  # tones in music are notes
            kinds[start:stop] = MUSIC
    return kinds
