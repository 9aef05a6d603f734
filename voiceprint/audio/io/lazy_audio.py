"""Audio converted on reading, so that an hour takes only the memory of its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers

LONG_S: Final = 120.0
"""Seconds from which audio is converted on reading: below, 8 MB hold it, and conversion at once is faster."""

_BLOCK_S: Final = 15  # seconds resampled together
_NOTHING: Final = np.zeros(0, dtype=np.float32)


class LazyAudio:
    """The output of `to_mono`, with `audio[start:stop]` computed on demand to the same values.

    pcm: as from `buffers.as_pcm`, of more than a few samples. Read it forwards, as each step back restarts
    the resampling; not thread-safe.
    """

    def __init__(
        self, pcm: npt.NDArray[Any], sample_rate: int, target_rate: int = buffers.SAMPLE_RATE
    ) -> None:
        self._native, self._read = buffers.scaled_reader(pcm, sample_rate)
        self._rates = int(sample_rate), target_rate
        self._length = int(self._native * target_rate / int(sample_rate) + 0.5)  # as soxr rounds
        self._buffer: npt.NDArray[np.float32] = _NOTHING
        self._rewind()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> npt.NDArray[np.float32]:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError("Slices must have no step.")
        if self._rates[0] == self._rates[1]:
            return self._read(start, stop)
        if start < self._first:
            self._rewind()
        while self._first + len(self._buffer) < stop:
            # Samples before `start` are only needed again after a step back.
            passed = min(max(0, start - self._first), len(self._buffer))
            self._buffer = np.concatenate((self._buffer[passed:], self._next()))
            self._first += passed
        return np.array(self._buffer[start - self._first : stop - self._first])

    def _rewind(self) -> None:
        import soxr

        self._resampler: Any = soxr.ResampleStream(*self._rates, 1, dtype="float32", quality="HQ")
        self._consumed = self._first = 0
        self._buffer = _NOTHING

    def _next(self) -> npt.NDArray[np.float32]:
        start, self._consumed = self._consumed, min(self._native, self._consumed + _BLOCK_S * self._rates[0])
        block = self._resampler.resample_chunk(
            self._read(start, self._consumed), last=self._consumed == self._native
        )
        resampled: npt.NDArray[np.float32] = np.clip(block, -1.0, 1.0)  # as `buffers.resample`
        return resampled


class Samples(Protocol):
    """Mono audio, float32[n]: an array, or audio computed on reading."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.float32]:
        """Samples start to stop, without a step."""


class Spliced:
    """Concatenated parts of audio, read on demand.

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
            raise ValueError("Slices must have no step.")
        pieces = [_NOTHING]
        first = max(0, int(np.searchsorted(self._starts, start, "right")) - 1)
        for number in range(first, len(self._parts)):
            offset, (begin, end) = int(self._starts[number]), self._parts[number]
            if offset >= stop:
                break
            pieces.append(self._audio[begin + max(0, start - offset) : min(end, begin + stop - offset)])
        return np.concatenate(pieces)


def samples(pcm: npt.NDArray[Any], sample_rate: int, target_rate: int = buffers.SAMPLE_RATE) -> Samples:
    """`to_mono` of an array as from `as_pcm`; long audio is converted on reading."""
    if buffers.duration(pcm, sample_rate) < LONG_S:
        return buffers.to_mono(pcm, sample_rate, target_rate)
    return LazyAudio(pcm, sample_rate, target_rate)


def blocks(audio: Samples, size: int) -> Iterator[npt.NDArray[np.float32]]:
    """Consecutive blocks of `size` samples; the last may be shorter."""
    for start in range(0, len(audio), size):
        yield audio[start : start + size]
