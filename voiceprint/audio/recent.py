"""`RecentRecordings`: whether a recording is a copy of one before it.

Live speech is never the same twice, also of the same words; a recording that is played into a line keeps the
fingerprints of the original (`voiceprint.audio.fingerprints`). docs/spoofing.md has the figures.
"""

from __future__ import annotations

import threading
import time
from typing import ClassVar, Final, NamedTuple

import numpy as np

from voiceprint import _fork
from voiceprint._keyed_cache import KeyedCache
from voiceprint.audio.fingerprints import SECOND, STEP, Fingerprint, FingerprintIndex, Flags
from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.recording import Recording

SAME_SHARE: Final = 0.5
"""Share of a recording's speech that an earlier one has, from which it is a copy. Live speech shares none,
and copies over a telephone line with noise at 20 dB share 0.6 and more. Halved, an announcement that the
prompts of the settings lack makes copies of more calls; at 0.9, noisy copies are not found."""

RECENT_S: Final = 4 * 3600.0
"""Seconds of recordings that are remembered for a store, about 11 MB. Doubled, twice the memory, and a copy
is found for twice as long."""

_SEGMENTS: Final = 8  # that hold all recordings; doubled, a comparison takes longer, and forgetting is finer
_CANDIDATES: Final = 8  # compared for each segment: copies of one recording; by chance there is seldom one
_IDLE: Final = 4  # stores without a recognizer, whose recordings stay in memory: as `IDLE_INDEXES`


class _Segment(NamedTuple):
    """Consecutive recordings. times: of each, when it was compared, seconds; replaced: by longer ones.

    length: fingerprints of all.
    """

    lookup: FingerprintIndex
    prints: list[Fingerprint]
    times: list[float]
    replaced: set[int]
    length: int

    @classmethod
    def of(cls, prints: list[Fingerprint], times: list[float]) -> _Segment:
        """A tone or a hiss has few fingerprints, many times: these are ignored."""
        lookup = FingerprintIndex(prints, max_occurrences=4 * len(prints))
        return cls(lookup, prints, times, set(), sum(len(one.bits) for one in prints))

    def joined(self, later: _Segment) -> _Segment:
        """Both, without recordings that were replaced."""
        kept = [
            (one, time)
            for segment in (self, later)
            for number, (one, time) in enumerate(zip(segment.prints, segment.times, strict=True))
            if number not in segment.replaced
        ]
        return _Segment.of([one for one, _ in kept], [time for _, time in kept])


class RecentRecordings:
    """The fingerprints of the recordings that a process has compared last, for one store.

    Fingerprints identify recordings, not voices. They are in memory alone. Thread-safe.
    """

    _of_process: ClassVar[KeyedCache[str, RecentRecordings]] = KeyedCache(_IDLE)

    def __init__(self, seconds: float = RECENT_S) -> None:
        """seconds: of recordings to remember."""
        self._most = round(seconds * SAMPLE_RATE / STEP)  # fingerprints
        self.reset()

    @classmethod
    def of_process(cls, location: str) -> RecentRecordings:
        """The process's one memory of recordings for the store at this location."""
        return cls._of_process.get(location, cls)

    def reset(self) -> None:
        """Forget all recordings, which nothing may compare at the moment."""
        self._segments: list[_Segment] = []  # the oldest first
        self._lock = threading.Lock()

    def is_copy(self, recording: Recording, *, duration_s: float | None = None) -> bool:
        """Whether an earlier recording has the speech of this one, which is added for later calls.

        A recording can be played only once it has ended: the answer is False where this one may have begun
        before the other was compared, which is then the same call, asked about again.

        duration_s: of the call so far, where the recording is a part of it; None is the recording's.
        """
        return self.has(recording.fingerprint, duration_s or recording.duration_s, time.monotonic())

    def has(self, probe: Fingerprint, duration_s: float, now: float) -> bool:
        """`is_copy` of a fingerprint at the time `now`, seconds of any clock."""
        significant = int(probe.loud.sum())
        if significant < SECOND:  # too short for a comparison
            return False
        with self._lock:
            copied = False
            for segment in self._segments:
                for number, share in _shares(segment, probe, significant):
                    if share < SAME_SHARE:
                        continue
                    if segment.times[number] <= now - duration_s:
                        copied = True
                    elif len(segment.prints[number].bits) <= len(probe.bits):
                        segment.replaced.add(number)  # the same call, of which this is more
            self._add(probe, now)
        return copied

    def _add(self, probe: Fingerprint, now: float) -> None:
        segments = self._segments
        segments.append(_Segment.of([probe], [now]))
        # As in a binary counter, so that few segments hold all, and each recording is sorted a few times.
        while (
            len(segments) > 1
            and len(segments[-2].prints) <= len(segments[-1].prints)
            and segments[-2].length + segments[-1].length <= self._most // _SEGMENTS
        ):
            last = segments.pop()
            segments[-1] = segments[-1].joined(last)
        while len(segments) > 1 and sum(segment.length for segment in segments) > self._most:
            del segments[0]

    @classmethod
    def _reset_all(cls) -> None:
        # Another thread of the parent may have held a lock.
        for recent in cls._of_process.values():
            recent.reset()
        cls._of_process.renew_lock()


_fork.register(_fork.Step.INDEX, in_child=RecentRecordings._reset_all)


def _shares(segment: _Segment, probe: Fingerprint, significant: int) -> list[tuple[int, float]]:
    """The recordings with stretches of the probe, by number, and the share of its speech that each has."""
    matched: dict[int, Flags] = {}
    for number, shift in segment.lookup.candidates(probe)[:_CANDIDATES]:
        flags = matched.setdefault(number, np.zeros(len(probe.bits), dtype=bool))
        for start, stop in segment.lookup.stretches(probe, number, shift):
            flags[start:stop] = True
    return [(number, int((flags & probe.loud).sum()) / significant) for number, flags in matched.items()]
