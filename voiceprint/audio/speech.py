"""Where the speech is in a recording, and what else there is: tones, music, noise, silence.

Decided before anything is measured on the whole, and from what lies within a second alone: a beep, a
ring-back or minutes of hiss say nothing about the level of the speech beside them. Speech is what is left
when the rest was recognized; pauses up to two seconds belong to it, so that an ordinary recording is one
segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.mono import Samples, blocks
from voiceprint.audio.spectrogram import FRAMES, ROW, Floats, Rows, Spectrogram
from voiceprint.audio.vad import BLOCK

Kind = Literal["speech", "tone", "music", "noise", "silence", "prompt"]
"""What a segment holds."""

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

_KINDS: Final[tuple[Kind, ...]] = ("speech", "tone", "music", "noise", "silence")
_SPEECH, _TONE, _MUSIC, _NOISE, _SILENCE = range(5)
_PERHAPS_MUSIC: Final = 5  # while it is decided

_STEP: Final = 4  # rows of 60 ms: decisions are 0.24 s apart
_SPAN: Final = 16  # rows of a second: what a decision looks at
_LEAST_ROWS: Final = 8  # half a second: less is not told from speech
_COVERED: Final = _SPAN // _STEP  # decisions that look at a place

# Within a second: see benchmarks/speech.py for how speech and the rest lie on both sides of these.
_SILENCE_DB: Final = -35.0  # energy of the loudest frame in dB: a noise of -80 dBFS
_LEAST_VARIETY_DB: Final = 2.2  # steady noise has 1.2, speech 5 dB over noise 2.5 and more
_LEAST_SPREAD: Final = 0.25  # of the bands: a tone that glides has less
_LEAST_MODULATION_DB: Final = 1.2
_MUSIC_STEADINESS: Final = (
    0.27  # of the rows: 0.3 % of the speech of children has more, quick music at the telephone
)
_NEAR_MUSIC: Final = 0.15  # beside such: 1 % to 4 % of speech have more, and most of quick music
_SURE_MUSIC: Final = 6  # decisions for music, of 4 s around one of them, that are no chance
_AROUND: Final = 8  # decisions to either side, 2 s
_ISLAND: Final = 2  # decisions for speech between music that are none
_PRIOR_ROWS: Final = 3
_STEADY: Final = 0.75  # correlation of harmonics 60 ms apart
_ACTIVE: Final = 10**-2.5  # frames down to 25 dB under the loud ones are looked at
_TINY: Final = 1e-20

# Decisions in a row. As one that hears speech speaks for all of its second, a stretch without is seen 0.7 s
# shorter than it is.
_LEAST_CUT: Final = 8  # of noise or silence: 2.6 s
_LEAST_MUSIC: Final = 3  # 1.4 s

# Tones. In 27 minutes of speech no vowel reached any of the three: see benchmarks/speech.py.
_PAIR: Final = 0.9
_CONSTANT: Final = 0.98
_LONG_TONE: Final = 4  # rows
_LOWEST_TONE_HZ: Final = (
    330.0  # below is no tone of any telephone, but the vowel of a child that stands alone
)
_DTMF_LOW: Final = (697.0, 770.0, 852.0, 941.0)
_DTMF_HIGH: Final = (1209.0, 1336.0, 1477.0, 1633.0)
_DTMF_SHARE: Final = 0.85
_DTMF_TOLERANCE: Final = 0.02
_BEEP_SHARE: Final = 0.95
_BEEP_STEP: Final = 0.003  # a beep's frequency changes by less from frame to frame
_BEEP_LEVEL_DB: Final = 1.0
_BEEP_EDGE_DB: Final = 15.0  # and around it is silence
_LEAST_BETWEEN: Final = 5  # rows of anything beside a tone, 0.3 s, that are worth keeping


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
        ready = (self._spectrogram.count - _SPAN - self._next) // _STEP + 1
        if ready > 0:
            rows = self._spectrogram.rows()
            for first in range(0, ready, _AT_ONCE):
                count = min(_AT_ONCE, ready - first)
                self._decided.append(_decisions(rows, self._next, count, _SPAN))
                self._next += count * _STEP

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
            decided = _decisions(rows, 0, 1, count)
        else:
            decided = np.zeros(1, dtype=np.int8)
        kinds, heard = _smoothed(decided, count)
        tones = _tones(rows)
        if tones.any():
            kinds = _with_tones(kinds, heard, tones, rows)
        return self._as_segments(kinds, rows)

    def _as_segments(self, kinds: Codes, rows: Rows) -> tuple[Segment, ...]:
        found = []
        starts, stops = _runs(kinds)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            last = stop == len(kinds)
            frequency = None
            if kinds[start] == _TONE:
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


_AT_ONCE: Final = 24  # seconds that are looked at together: arrays over 128 KiB are slow, see Spectrogram


def _decisions(rows: Rows, start: int, count: int, span: int) -> Codes:
    """The kind of `count` stretches of `span` rows, one each `_STEP` rows from row `start` on."""
    stop = start + (count - 1) * _STEP + span
    bands = rows.bands[start:stop]
    seconds = np.lib.stride_tricks.sliding_window_view(bands, span, axis=0)[::_STEP]
    frames = seconds.transpose(0, 3, 1, 2).reshape(count, span * FRAMES, -1)

    near = _seconds(_momentary_tones(rows, start, stop), span)
    tones = near.copy()  # and the rows beside, which a tone fills in part
    tones[:, 1:] |= near[:, :-1]
    tones[:, :-1] |= near[:, 1:]
    likeness = _seconds(rows.likeness[start:stop], span)
    power = _seconds(rows.harmonic_power[start:stop], span)
    with np.errstate(all="ignore"):  # the state is the caller's; with "raise" an underflow would escape
        return _classify(frames, likeness, power, tones)


Each = TypeVar("Each", bound=np.generic)


def _seconds(values: npt.NDArray[Each], span: int) -> npt.NDArray[Each]:
    """Stretches of `span` rows, one each `_STEP`, [k, span]."""
    return np.lib.stride_tricks.sliding_window_view(values, span)[::_STEP]


def _classify(frames: Floats, likeness: Floats, power: Floats, tones: Flags) -> Codes:
    """Kinds of seconds: by energies of frames [k, t, 20], and likeness, power and tones of rows [k, r]."""
    usable = ~np.repeat(tones, FRAMES, axis=1)
    level = frames.sum(axis=2) * usable
    loud = _third(level)
    # Evened out over 60 ms: the chance of noise, and not syllables.
    smoothed = frames[:, 2:] + frames[:, 1:-1] + frames[:, :-2]
    usable = usable[:, 2:] & usable[:, 1:-1] & usable[:, :-2]
    levels = smoothed.sum(axis=2) * usable
    top = _third(levels)
    active = (levels > (top * _ACTIVE + _TINY)[:, None]).astype(np.float32)
    number = np.maximum(active.sum(axis=1), 1.0)
    shape = np.log10(smoothed + (top * np.float32(1e-5) + np.float32(_TINY))[:, None, None])
    shape -= shape.mean(axis=2, keepdims=True)
    shape *= active[:, :, None]
    mean = shape.sum(axis=1) / number[:, None]
    square = np.einsum("ktf,ktf->kf", shape, shape) / number[:, None]
    variety = 10.0 * np.sqrt(np.maximum(square - mean * mean, 0.0)).mean(axis=1)
    in_db = 10.0 * np.log10(levels + (top * np.float32(1e-5) + np.float32(_TINY))[:, None])
    weight = usable.astype(np.float32)
    total = np.maximum(weight.sum(axis=1), 1.0)
    average = (in_db * weight).sum(axis=1) / total
    modulation = np.sqrt((np.square(in_db - average[:, None]) * weight).sum(axis=1) / total)
    spread = _spread(frames, level, loud)
    lesser = np.minimum(power[:, 1:], power[:, :-1]) * ~(tones[:, 1:] | tones[:, :-1])
    counted = lesser > lesser.max(axis=1, keepdims=True) * np.float32(1e-3)
    # As if some rows of speech were there besides, or one vowel beside a tone would be music.
    steadiness = ((likeness[:, 1:] > _STEADY) & counted).sum(axis=1) / (counted.sum(axis=1) + _PRIOR_ROWS)
    kinds = np.full(len(frames), _SPEECH, dtype=np.int8)
    kinds[(variety < _LEAST_VARIETY_DB) | (modulation < _LEAST_MODULATION_DB)] = _NOISE
    kinds[spread < _LEAST_SPREAD] = _TONE
    kinds[(kinds == _SPEECH) & (steadiness > _NEAR_MUSIC)] = _PERHAPS_MUSIC
    kinds[steadiness > _MUSIC_STEADINESS] = _MUSIC
    kinds[10.0 * np.log10(loud + _TINY) < _SILENCE_DB] = _SILENCE
    # Nothing but tones: those are found by themselves, and the gaps between them hold nothing.
    kinds[number < 5] = _SILENCE
    return kinds


def _third(levels: Floats) -> Floats:
    """The third highest of each row: a click is no level."""
    return np.asarray(np.partition(levels, -3, axis=1)[:, -3])


def _spread(frames: Floats, level: Floats, loud: Floats) -> Floats:
    """As `spectrum.Spectrum.spread`, of each second."""
    floor = np.float32(3.0) * np.partition(frames, frames.shape[1] // 10, axis=1)[:, frames.shape[1] // 10]
    risen = np.maximum(frames - floor[:, None, :], 0.0)
    risen *= (level > (loud * _ACTIVE + _TINY)[:, None])[:, :, None]
    reach = risen.max(axis=2, keepdims=True) * np.float32(1e-3)
    reached = risen > np.maximum(reach, np.float32(_TINY))
    telling = reached | ((floor[:, None, :] < reach) & (reach > 0.0))
    return np.asarray(reached.sum(axis=(1, 2)) / np.maximum(telling.sum(axis=(1, 2)), 1), dtype=np.float32)


def _momentary_tones(rows: Rows, start: int, stop: int) -> Flags:
    """Rows that sound like a tone by themselves."""
    return _steady(rows, start, stop) | _dtmf(rows, start, stop).any(axis=1)


def _steady(rows: Rows, start: int, stop: int) -> Flags:
    """Rows whose power is in two peaks, which were there 60 ms before."""
    found: Flags = (rows.pair_share[start:stop] > _PAIR) & (rows.constancy[start:stop] > _CONSTANT)
    return found & (rows.strongest_hz[start:stop] > _LOWEST_TONE_HZ)


def _dtmf(rows: Rows, start: int, stop: int) -> Flags:
    """Frames [r, 3] whose two strongest peaks are those of a key."""
    found: Flags = rows.two_shares[start:stop] > _DTMF_SHARE
    if found.any():
        one, two = rows.peak_hz[start:stop], rows.second_hz[start:stop]
        for peak, keys in ((np.minimum(one, two), _DTMF_LOW), (np.maximum(one, two), _DTMF_HIGH)):
            near = np.zeros_like(found)
            for key in keys:
                near |= np.abs(peak - np.float32(key)) < np.float32(key * _DTMF_TOLERANCE)
            found = found & near
    return found


def _smoothed(decided: Codes, count: int) -> tuple[Codes, Flags]:
    """The kind of each of `count` rows, and where speech was heard for itself."""
    decided = _with_all_music(decided)
    places = max(-(-count // _STEP), len(decided))
    # A place is speech where any decision that looks at it is; else what the middle one says.
    padded = np.concatenate((np.full(_COVERED - 1, -1, np.int8), decided, np.full(places, -1, np.int8)))
    looking = np.lib.stride_tricks.sliding_window_view(padded, _COVERED)[:places]
    heard = (looking == _SPEECH).any(axis=1)
    last = len(decided) - 1
    kinds = decided[np.clip(np.arange(places) - _COVERED // 2 + 1, 0, last)].copy()
    other = kinds == _SPEECH
    kinds[other] = decided[np.clip(np.arange(places), 0, last)][other]
    kinds[kinds == _SPEECH] = _NOISE
    # The last places, which no decision looks at, go on as the one before.
    heard[last + _COVERED :] = heard[min(last + _COVERED - 1, places - 1)]
    kinds[heard] = _SPEECH
    if heard.any():
        starts, stops = _runs(heard)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            if heard[start]:
                continue
            music = int((kinds[start:stop] == _MUSIC).sum())
            if not (stop - start >= _LEAST_CUT or music >= _LEAST_MUSIC):
                kinds[start:stop] = _SPEECH
    return np.repeat(kinds, _STEP)[:count], np.repeat(heard, _STEP)[:count]


def _with_all_music(decided: Codes) -> Codes:
    """The decisions, with those settled that took a second for music only beside music."""
    decided = decided.copy()
    music = (decided == _MUSIC) | (decided == _PERHAPS_MUSIC)
    if music.any():
        sure = decided == _MUSIC
        total = np.concatenate((np.zeros(_AROUND + 1, np.int64), np.cumsum(sure)))
        total = np.concatenate((total, np.full(_AROUND, total[-1])))
        sure &= total[2 * _AROUND + 1 :] - total[: -2 * _AROUND - 1] >= _SURE_MUSIC
        for first, last in _long_runs(music, 1):
            run = decided[first:last]
            run[:] = _MUSIC if sure[first:last].any() else _SPEECH
        for first, last in _long_runs(decided == _SPEECH, 1):
            beside = decided[max(0, first - 1) : last + 1]
            if last - first <= _ISLAND and (beside == _MUSIC).sum() == 2:
                decided[first:last] = _MUSIC
    return decided


def _tones(rows: Rows) -> Flags:
    """The rows that tones lie in."""
    count = len(rows.likeness)
    found = np.zeros(count, dtype=np.bool_)
    for start, stop in _long_runs(_steady(rows, 0, count), _LONG_TONE):
        found[_grown(rows, start, stop)] = True
    for start, stop in _long_runs(_dtmf(rows, 0, count).reshape(-1), 2):
        found[max(0, start - 1) // FRAMES : -(-(stop + 1) // FRAMES)] = True
    for start, stop in _beeps(rows):
        found[max(0, start - 1) // FRAMES : -(-(stop + 1) // FRAMES)] = True
    return found


def _grown(rows: Rows, start: int, stop: int) -> slice:
    """A tone's rows with those at its ends that it fills in part."""
    frequency = rows.strongest_hz[(start + stop) // 2]
    for _ in range(2):
        if (
            start
            and abs(rows.strongest_hz[start - 1] - frequency) < 20.0
            and rows.pair_share[start - 1] > 0.5
        ):
            start -= 1
        if (
            stop < len(rows.likeness)
            and abs(rows.strongest_hz[stop] - frequency) < 20.0
            and rows.pair_share[stop] > 0.5
        ):
            stop += 1
    return slice(start, stop)


def _beeps(rows: Rows) -> list[tuple[int, int]]:
    """Short single tones with silence around, in frames."""
    share = rows.peak_share.reshape(-1)
    candidates = share > _BEEP_SHARE
    if not candidates.any():
        return []
    frequency = rows.peak_hz.reshape(-1)
    level = 10.0 * np.log10(rows.power.reshape(-1) + _TINY)
    same = candidates[1:] & candidates[:-1] & (frequency[1:] > _LOWEST_TONE_HZ)
    same &= np.abs(np.diff(frequency)) < _BEEP_STEP * frequency[1:]
    same &= np.abs(np.diff(level)) < _BEEP_LEVEL_DB
    found = []
    for start, stop in _long_runs(same, 2):
        before = level[max(0, start - 4) : max(1, start - 1)].min()
        after = level[stop + 2 : stop + 5].min(initial=np.inf)
        own = float(np.median(level[start : stop + 1]))
        if max(before, after) < own - _BEEP_EDGE_DB:
            found.append((start, stop + 1))
    return found


def _with_tones(kinds: Codes, heard: Flags, tones: Flags, rows: Rows) -> Codes:
    """The kinds with the tones, and without the crumbs of speech between them in which none was heard."""
    kinds = kinds.copy()
    kinds[tones] = _TONE
    starts, stops = _runs(kinds)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        beside = (start and tones[start - 1]) or (stop < len(kinds) and tones[stop])
        if (
            kinds[start] == _SPEECH
            and beside
            and (stop - start < _LEAST_BETWEEN or not heard[start:stop].any())
        ):
            loud = float(rows.bands[start:stop].sum(axis=2).max())
            kinds[start:stop] = _SILENCE if 10.0 * np.log10(loud + _TINY) < _SILENCE_DB else _NOISE
    return kinds


def _runs(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First places of runs of equal values, and the places after them."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate(([0], changes)), np.concatenate((changes, [len(values)]))


def _long_runs(flags: Flags, least: int) -> list[tuple[int, int]]:
    """Runs of at least so many set flags."""
    if not flags.any():
        return []
    starts, stops = _runs(flags)
    wanted = flags[starts] & (stops - starts >= least)
    return list(zip(starts[wanted].tolist(), stops[wanted].tolist(), strict=True))
