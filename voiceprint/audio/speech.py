"""Where in a recording the speech is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["speech", "tone", "music", "noise", "silence"]


class Segment(NamedTuple):
    """A stretch of audio, in samples at 16 kHz."""

    start: int
    stop: int
    kind: Kind
    frequency_hz: float | None = None


class Segmenter:
    """Finds segments of audio that comes in pieces."""

    def __init__(self) -> None:
        self._length = 0

    def add(self, audio: NDArray[np.float32]) -> None:
        """The next piece, float32[n]."""
        self._length += len(audio)

    def segments(self) -> tuple[Segment, ...]:
        """The segments so far; they cover all audio."""
        return (Segment(0, self._length, "speech"),)


def speech_parts(segments: Iterable[Segment]) -> tuple[tuple[int, int], ...]:
    """Start and stop of the stretches of speech, with those that touch made one."""
    parts: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind != "speech":
            continue
        if parts and parts[-1][1] == segment.start:
            parts[-1] = parts[-1][0], segment.stop
        else:
            parts.append((segment.start, segment.stop))
    return tuple(parts)
