"""Audio that is converted while it is read, so that an hour of it needs no memory but what it came in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers

LONG_S: Final = 120.0
"""Seconds from which audio is not converted as a whole: up to here that is quicker, and takes 8 MB."""

_BLOCK_S: Final = 15  # resampled together
_NOTHING: Final = np.zeros(0, dtype=np.float32)


class LazyAudio:
    """What `to_mono` gives, of which `audio[start:stop]` is made when it is asked for, to the same values.

    pcm: as from `buffers.as_pcm`, of more than a few samples. Meant to be read forwards, as each step back
    begins the resampling anew; and by one thread.
    """

    def __init__(
        self, pcm: npt.NDArray[Any], sample_rate: int, target_rate: int = buffers.SAMPLE_RATE
    ) -> None:
        self._native, self._read = buffers.scaled_reader(pcm, sample_rate)
        self._rates = int(sample_rate), target_rate
        self._length = int(self._native * target_rate / int(sample_rate) + 0.5)  # as many as soxr gives
        self._held: npt.NDArray[np.float32] = _NOTHING
        self._rewind()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> npt.NDArray[np.float32]:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError("Only whole parts can be read, without a step.")
        if self._rates[0] == self._rates[1]:
            return self._read(start, stop)
        if start < self._first:
            self._rewind()
        while self._first + len(self._held) < stop:
            # What lies before `start` is not needed again, unless somebody goes back.
            passed = min(max(0, start - self._first), len(self._held))
            self._held = np.concatenate((self._held[passed:], self._next()))
            self._first += passed
        return np.array(self._held[start - self._first : stop - self._first])

    def _rewind(self) -> None:
        import soxr

        self._resampler: Any = soxr.ResampleStream(*self._rates, 1, dtype="float32", quality="HQ")
        self._fed = self._first = 0
        self._held = _NOTHING

    def _next(self) -> npt.NDArray[np.float32]:
        start, self._fed = self._fed, min(self._native, self._fed + _BLOCK_S * self._rates[0])
        block = self._resampler.resample_chunk(self._read(start, self._fed), last=self._fed == self._native)
        resampled: npt.NDArray[np.float32] = np.clip(block, -1.0, 1.0)  # as `buffers.resample`
        return resampled


class Samples(Protocol):
    """Mono audio, float32[n]: an array, or audio that is made while it is read."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.float32]:
        """Samples start to stop, without a step."""


class Spliced:
    """Parts of audio, one after the other; read as they are needed.

    parts: (start, stop) of each in samples, in order, without overlap.
    """

    def __init__(self, audio: Samples, parts: Sequence[tuple[int, int]]) -> None:
        self._audio, self._parts = audio, [*parts]
        lengths = [stop - start for start, stop in self._parts]
        self._starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, part: slice) -> npt.NDArray[np.float32]:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("Only whole parts can be read, without a step.")
        pieces = [_NOTHING]
        first = max(0, int(np.searchsorted(self._starts, start, "right")) - 1)
        for number in range(first, len(self._parts)):
            place, (begin, end) = int(self._starts[number]), self._parts[number]
            if place >= stop:
                break
            pieces.append(self._audio[begin + max(0, start - place) : min(end, begin + stop - place)])
        return np.concatenate(pieces)


def samples(pcm: npt.NDArray[Any], sample_rate: int, target_rate: int = buffers.SAMPLE_RATE) -> Samples:
    """`to_mono` of an array as from `as_pcm`; long audio is converted while it is read."""
    if buffers.duration(pcm, sample_rate) < LONG_S:
        return buffers.to_mono(pcm, sample_rate, target_rate)
    return LazyAudio(pcm, sample_rate, target_rate)


def blocks(audio: Samples, size: int) -> Iterator[npt.NDArray[np.float32]]:
    """All of it, `size` samples at a time."""
    for start in range(0, len(audio), size):
        yield audio[start : start + size]
