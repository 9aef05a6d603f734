"""An excerpt of a file, in seconds from its start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from voiceprint.audio.io.buffers import MAX_SECONDS
from voiceprint.errors import InvalidAudioError
from voiceprint.validation import is_number, shown

ROUNDING_S: Final = 0.05
"""Seconds by which the end of an excerpt may exceed the file: half of 0.1 s, to which people round times.
Doubled, a typing error of a tenth of a second passes unnoticed."""

_LEAST_S: Final = 0.001  # shorter than every sample period with its rounding


class Excerpt(NamedTuple):
    """The audio from `start_s` to `end_s`, in seconds from the start of a file; None is its end."""

    start_s: float = 0.0
    end_s: float | None = None

    @classmethod
    def checked(cls, start_s: object, end_s: object) -> Excerpt:
        """The excerpt. Raises `InvalidAudioError` unless 0 <= start_s < end_s <= an hour."""
        start = _seconds("start", 0.0 if start_s is None else start_s)
        end = None if end_s is None else _seconds("end", end_s)
        if end is not None and end <= start:
            raise InvalidAudioError(f"start is {start:g} s and end is {end:g} s: end must be later")
        return cls(start, end)

    def check_within(self, seconds: float) -> None:
        """Raise `InvalidAudioError` where a file of this length does not hold the excerpt."""
        if self.start_s and seconds - self.start_s < _LEAST_S:
            raise InvalidAudioError(
                f"is {seconds:.2f} s long: start is {self.start_s:g} s, give an earlier one"
            )
        if self.end_s is not None and self.end_s > seconds + ROUNDING_S:
            raise InvalidAudioError(f"is {seconds:.2f} s long: end is {self.end_s:g} s, give an earlier one")

    def check_not_empty(self, sample_rate: int) -> None:
        """Raise `InvalidAudioError` where no sample at this rate (Hz) lies in the excerpt."""
        if self.end_s is not None and round(self.end_s * sample_rate) <= round(self.start_s * sample_rate):
            raise InvalidAudioError(
                f"has no sample at {sample_rate} Hz between start ({self.start_s!r} s) and end "
                f"({self.end_s!r} s): give a later end"
            )

    def cut(self, blocks: Iterator[npt.NDArray[Any]], sample_rate: int) -> Iterator[npt.NDArray[Any]]:
        """The excerpt of all blocks of a file, [n, channels] each; reads no block after it."""
        self.check_not_empty(sample_rate)
        first = round(self.start_s * sample_rate)
        end = None if self.end_s is None else round(self.end_s * sample_rate)
        position = 0
        for block in blocks:
            part = block[max(0, first - position) : None if end is None else end - position]
            position += len(block)
            if len(part):
                yield part
            if end is not None and position >= end:
                return
        self.check_within(position / sample_rate)


WHOLE: Final = Excerpt()
"""The whole file."""


def _seconds(name: str, value: object) -> float:
    if not is_number(value) or not 0.0 <= value <= MAX_SECONDS:
        raise InvalidAudioError(
            f"{name} is {shown(value)}: give seconds from the start of the file, 0 to {MAX_SECONDS:g}"
        )
    return float(value)
