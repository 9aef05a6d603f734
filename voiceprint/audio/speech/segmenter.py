"""Segmentation of a recording into speech, tones, music, noise and silence.

Decisions use one second of audio each and precede all global measures: a beep, a ring-back or minutes of hiss
must not affect the level of the speech beside them. Speech is the remainder after the other kinds; pauses up
to two seconds belong to it, so an ordinary recording is one segment: all but one of 1,162 in three sets, and
708 of 709 pieces of 5 s.

Why no network. With the same smoothing of decisions (research/speech.md), Silero's VAD rejects all that is
not speech and misses as much speech as WebRTC's, but costs 32 ms of CPU per second of audio, 60 times as much
as this module and WebRTC's together; TEN's costs 4 ms, accepts music and sirens, and its license forbids
products that compete with its vendor's. This module misses no more speech than WebRTC's VAD alone, which
accepts nearly everything, and rejects nearly all that Silero's does. It still accepts a third of the seconds
of quick single-voice melodies, gated noise, and music under continuous speech.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.lazy_audio import Samples, blocks
from voiceprint.audio.speech.runs import runs, true_runs, union
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
    classify,
)
from voiceprint.audio.speech.spectrogram import ROW, Rows, Spectrogram
from voiceprint.audio.speech.tones import tone_rows
from voiceprint.audio.speech.vad import BLOCK

Kind = Literal["speech", "tone", "music", "noise", "silence", "prompt"]
"""The kind of sound in a segment."""

_KINDS: Final[tuple[Kind, ...]] = ("speech", "tone", "music", "noise", "silence")

_MIN_ROWS: Final = 8  # half a second; shorter audio counts as speech
_OVERLAP: Final = SPAN // STEP  # decisions that cover a step
_MIN_MUSIC: Final = 6  # decisions for music within 4 s that confirm one of them
_NEIGHBORHOOD: Final = 8  # decisions in both directions, 2 s
# Longest run of decisions for speech, 2.2 s, that counts as music between music, or on one side of music if a
# run of speech twice as long exists.
_MAX_ISLAND: Final = 9

# Decisions in a row. A decision for speech covers its whole second, which shortens adjacent runs by 0.7 s.
_MIN_CUT: Final = 8  # of noise or silence: 2.6 s
_MIN_MUSIC_CUT: Final = 3  # 1.4 s
_MIN_BESIDE_TONE: Final = 5  # rows of speech beside a tone, 0.3 s
_SILENCE: Final = 10**-3.5  # energy of the loudest frame: noise of -80 dBFS


class Segment(NamedTuple):
    """A stretch of a recording."""

    start: int
    """Its first sample at 16 kHz, a multiple of `vad.WINDOW`."""
    stop: int
    """The sample after its last: a multiple too, except at the end of the recording."""
    kind: Kind
    frequency_hz: float | None = None
    """The strongest frequency of a tone, to 8 Hz."""


class Segmenter:
    """Segments audio that arrives in pieces, independently of the cuts."""

    def __init__(self, expected: int = 0) -> None:
        """expected: samples to allocate for."""
        self.spectrogram = Spectrogram(expected)
        self._samples = 0
        self._decisions: list[Codes] = []
        self._next = 0  # first row of the next decision

    def add(self, audio: npt.NDArray[np.float32]) -> None:
        """Process the next piece, float32[n] mono at 16 kHz in [-1, 1], of any length."""
        self._samples += len(audio)
        self.spectrogram.add(audio)
        ready = (self.spectrogram.count - SPAN - self._next) // STEP + 1
        if ready > 0:
            rows = self.spectrogram.rows()
            self._decisions.append(classify(rows, self._next, ready))
            self._next += ready * STEP

    def segments(self) -> tuple[Segment, ...]:
        """The segments so far, in order. More audio seldom changes those older than two seconds."""
        rows = self.spectrogram.rows()
        count = len(rows.harmonic_correlation)
        if not count:
            return (Segment(0, self._samples, "speech"),) if self._samples else ()
        if self._decisions:
            if len(self._decisions) > 1:
                self._decisions = [np.concatenate(self._decisions)]
            decisions = self._decisions[0]
        elif count >= _MIN_ROWS:
            decisions = classify(rows, 0, 1, count)
        else:
            decisions = np.full(1, SPEECH, dtype=np.int8)
        kinds, covered = _smooth(decisions, count)
        tones = tone_rows(rows)
        if tones.any():
            kinds = _add_tones(kinds, covered, tones, rows)
        return self._as_segments(kinds, rows)

    def _as_segments(self, kinds: Codes, rows: Rows) -> tuple[Segment, ...]:
        segments = []
        starts, stops = runs(kinds)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            last = stop == len(kinds)
            frequency = None
            if kinds[start] == TONE:
                loudest = start + int(rows.harmonic_power[start:stop].argmax())
                frequency = float(rows.strongest_hz[loudest])
            segments.append(
                Segment(start * ROW, self._samples if last else stop * ROW, _KINDS[kinds[start]], frequency)
            )
        return tuple(segments)


def run_segmenter(audio: Samples) -> Segmenter:
    """A segmenter over a whole recording, float32[n] mono at 16 kHz."""
    segmenter = Segmenter(len(audio))
    for block in blocks(audio, BLOCK):
        segmenter.add(block)
    return segmenter


def speech_parts(segments: Iterable[Segment]) -> tuple[tuple[int, int], ...]:
    """Start and stop, in samples, of the speech; adjacent segments are merged."""
    return union((segment.start, segment.stop) for segment in segments if segment.kind == "speech")


def with_prompts(segments: Iterable[Segment], prompts: Iterable[tuple[int, int]]) -> tuple[Segment, ...]:
    """The segments with prompts in place of what they cover; prompts: start and stop of each."""
    segments = tuple(segments)
    end = segments[-1].stop if segments else 0
    prompt_segments = [
        Segment(start // ROW * ROW, min(-(-stop // ROW) * ROW, end), "prompt") for start, stop in prompts
    ]
    remaining: list[Segment] = []
    for segment in segments:
        start = segment.start
        for prompt in prompt_segments:
            if prompt.stop <= start or prompt.start >= segment.stop:
                continue
            if prompt.start > start:
                remaining.append(segment._replace(start=start, stop=prompt.start))
            start = min(prompt.stop, segment.stop)
        if start < segment.stop:
            remaining.append(segment._replace(start=start))
    return tuple(sorted((*remaining, *prompt_segments), key=lambda segment: segment.start))


def _smooth(decisions: Codes, count: int) -> tuple[Codes, Flags]:
    """The kinds of `count` rows, int8, and the rows that a decision for speech covers, bool."""
    decisions = _resolve_music(decisions)
    steps = max(-(-count // STEP), len(decisions))
    # A step is speech if any decision that covers it is; else the middle decision holds.
    padded = np.concatenate((np.full(_OVERLAP - 1, -1, np.int8), decisions, np.full(steps, -1, np.int8)))
    covering = np.lib.stride_tricks.sliding_window_view(padded, _OVERLAP)[:steps]
    speech = (covering == SPEECH).any(axis=1)
    last = len(decisions) - 1
    kinds = decisions[np.clip(np.arange(steps) - _OVERLAP // 2 + 1, 0, last)].copy()
    undecided = kinds == SPEECH
    kinds[undecided] = decisions[np.clip(np.arange(steps), 0, last)][undecided]
    kinds[kinds == SPEECH] = NOISE
    # The last steps, which no decision covers, continue the one before.
    speech[last + _OVERLAP :] = speech[min(last + _OVERLAP - 1, steps - 1)]
    kinds[speech] = SPEECH
    if speech.any():
        for start, stop in true_runs(~speech):
            music = int((kinds[start:stop] == MUSIC).sum())
            if stop - start < _MIN_CUT and music < _MIN_MUSIC_CUT:
                kinds[start:stop] = SPEECH
    return np.repeat(kinds, STEP)[:count], np.repeat(speech, STEP)[:count]


def _resolve_music(decisions: Codes) -> Codes:
    """The decisions with `PERHAPS_MUSIC` resolved to music beside confirmed music, else to speech."""
    decisions = decisions.copy()
    music = (decisions == MUSIC) | (decisions == PERHAPS_MUSIC)
    if music.any():
        confirmed = decisions == MUSIC
        total = np.concatenate((np.zeros(_NEIGHBORHOOD + 1, np.int64), np.cumsum(confirmed)))
        total = np.concatenate((total, np.full(_NEIGHBORHOOD, total[-1])))
        confirmed &= total[2 * _NEIGHBORHOOD + 1 :] - total[: -2 * _NEIGHBORHOOD - 1] >= _MIN_MUSIC
        for start, stop in true_runs(music):
            decisions[start:stop] = MUSIC if confirmed[start:stop].any() else SPEECH
        speech = true_runs(decisions == SPEECH)
        longest = max((stop - start for start, stop in speech), default=0)
        for start, stop in speech:
            music_beside = int((decisions[max(0, start - 1) : stop + 1] == MUSIC).sum())
            short = stop - start <= _MAX_ISLAND
            if short and (music_beside == 2 or (music_beside and 2 * (stop - start) < longest)):
                decisions[start:stop] = MUSIC
    return decisions


def _add_tones(kinds: Codes, covered: Flags, tones: Flags, rows: Rows) -> Codes:
    """The kinds with tones, and without speech beside tones that is short or only filled in by smoothing."""
    kinds = kinds.copy()
    kinds[tones] = TONE
    starts, stops = runs(kinds)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        beside = (start and tones[start - 1]) or (stop < len(kinds) and tones[stop])
        if (
            kinds[start] == SPEECH
            and beside
            and (stop - start < _MIN_BESIDE_TONE or not covered[start:stop].any())
        ):
            loud = float(rows.bands[start:stop].sum(axis=2).max())
            kinds[start:stop] = SILENCE if loud < _SILENCE else NOISE
    for start, stop in true_runs(kinds != SPEECH):
        if 2 * int((kinds[start:stop] == MUSIC).sum()) > stop - start:  # tones within music are notes
            kinds[start:stop] = MUSIC
    return kinds
