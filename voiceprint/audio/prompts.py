"""Prompts in calls: announcements of a machine, the same in many calls, that are nobody's voice.

With "your call may be recorded" in the caller's channel, any stranger is like anyone whose enrollment holds
the same prompt. `KnownPrompts` finds prompts whose recordings are at hand, `PromptFinder` what the recordings
of several callers have in common. Both compare fingerprints (see `voiceprint.audio.fingerprints`).

Of 15 strangers whose recordings began with the same eight seconds of a prompt as those of 15 enrolled
callers, 15 got a name, and none with the prompt left out. Prompts of 2, 4 and 8 s by synthesizers were put
anywhere into 20 s of many speakers. Known ones were found in all calls, quieter, over a line of 300 to 3400
Hz with mu-law, in 20 dB of noise, and talked over from the middle on, with 0.05 s of speech cut beside
them; in 10 dB of noise in 76 to 90 %. Of three calls with a prompt the finder finds it in all, and in 94 to
100 % if each is in 20 dB of noise of its own. In two hours of speech without prompts neither found anything
(research/prompts.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import fingerprints
from voiceprint.audio.fingerprints import (
    SECOND,
    SPAN,
    STEP,
    Fingerprint,
    FingerprintIndex,
    RunningFingerprint,
    fingerprint,
)
from voiceprint.audio.io import folders
from voiceprint.audio.io.buffers import SAMPLE_RATE, to_mono
from voiceprint.audio.io.files import load_audio
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.errors import ConfigurationError, InvalidAudioError

SHORTEST_S: Final = 1.3
"""Seconds of a prompt that can be found: a second of fingerprints."""

_TO_THE_END: Final = SECOND // 2  # fingerprints of a prompt that are cut with the rest of it
_PLACES: Final = 256  # compared in one recording at most
_INDEXED: Final = 1 << 22  # fingerprints of many recordings: 50 MB; of more, every nth
_CALLERS: Final = 2  # others than the recording's own, in whose recordings a prompt is


Stretches = tuple[tuple[int, int], ...]


class Prompt(NamedTuple):
    """A stretch of a recording that other callers' recordings hold too, in seconds."""

    start_s: float
    stop_s: float
    callers: int
    """Other callers whose recordings hold all of it or a part."""


class KnownPrompts:
    """Finds given prompts in recordings: at any level, over a telephone line, from anywhere on.

    Keeps 250 bytes of fingerprints for a second of a prompt, and no audio.
    """

    def __init__(self, prompts: Iterable[Samples]) -> None:
        """prompts: float32[n] each, in [-1, 1] at 16 kHz; shorter ones than 1.3 s are never found."""
        self._prints = [fingerprint(audio) for audio in prompts]
        self._index = FingerprintIndex(self._prints)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KnownPrompts:
        """The prompts in a file or, at any depth, in a folder, of which hidden files are left out.

        Raises:
            ConfigurationError: there are none, or one cannot be read or is shorter than 1.3 s.
        """
        place = Path(path)
        files = [place]
        if place.is_dir():
            files = [
                file
                for file in sorted(place.rglob("*"))
                if not any(part.startswith(".") for part in file.relative_to(place).parts)
                and not folders.is_hidden(file)
                and file.is_file()
                and folders.is_recording(file)
            ]
        if not files:
            raise ConfigurationError(f"VOICE_PROMPTS is {str(path)!r}: that folder holds no recordings")
        return cls(map(_loaded, files))

    def __len__(self) -> int:
        return len(self._prints)

    def stretches(self, audio: Samples) -> Stretches:
        """Start and stop, in samples, of the prompts in float32[n] at 16 kHz, in order, none overlapping."""
        return self.found_in(fingerprint(audio), len(audio))

    def left_out_of(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n] at 16 kHz without the prompts in it."""
        kept = np.ones(len(audio), dtype=bool)
        for start, stop in self.stretches(audio):
            kept[start:stop] = False
        return audio[kept]

    def found_in(self, probe: Fingerprint, length: int) -> Stretches:
        """`stretches` of so many samples whose fingerprint is there."""
        found = []
        for _, prompt, shift in self._index.alike(probe)[:_PLACES]:
            whole = len(self._prints[prompt].bits)
            for start, stop in self._index.stretches(probe, prompt, shift):
                # Some words of a prompt alone are its voice still.
                if start + shift < _TO_THE_END:
                    start = max(0, -shift)
                if stop == len(probe.bits) or whole - (stop + shift) < _TO_THE_END:
                    stop = whole - shift
                found.append((start * STEP, min((stop - 1) * STEP + SPAN, length)))
        return tuple(_union(found))


class PromptFollower:
    """`KnownPrompts.stretches` of audio that comes in blocks."""

    def __init__(self, prompts: KnownPrompts) -> None:
        self._prompts = prompts
        self._running = RunningFingerprint()
        self._length = 0

    def add(self, audio: NDArray[np.float32]) -> None:
        """Take the next float32[n] at 16 kHz."""
        self._running.add(audio)
        self._length += len(audio)

    def stretches(self) -> Stretches:
        """Start and stop, in samples, of the prompts so far; one that goes on reaches to the end."""
        return self._prompts.found_in(self._running.so_far(), self._length)


@lru_cache(maxsize=4)
def prompts_at(path: str) -> KnownPrompts:
    """`KnownPrompts.load`, once for each path."""
    return KnownPrompts.load(path)


class PromptFinder:
    """Finds what recordings of several callers have in common, each recording as long as one likes.

    Keeps 250 bytes of fingerprints for a second of a recording, and no audio.
    """

    def __init__(self, callers: int = _CALLERS) -> None:
        """callers: others, in whose recordings a prompt is found too."""
        self._callers = callers
        self._recordings: list[tuple[str, Fingerprint]] = []

    def add(self, caller_id: str, audio: Samples) -> None:
        """Take the next recording: float32[n] in [-1, 1] at 16 kHz."""
        self._recordings.append((caller_id, fingerprint(audio)))

    def find(self) -> list[tuple[Prompt, ...]]:
        """The prompts in each recording, in the order in which these were added.

        What only recordings of one caller have in common is none.
        """
        prints = [one for _, one in self._recordings]
        every = 1 + sum(len(one.bits) for one in prints) // _INDEXED
        if every > 1:
            thinned = [one.loud & (np.arange(len(one.loud)) % every == 0) for one in prints]
            prints = [Fingerprint(one.bits, loud) for one, loud in zip(prints, thinned, strict=True)]
        # A prompt has each of its fingerprints once or twice; a tone or a hiss has few, and often.
        index = FingerprintIndex(prints, most_in_one=4 * len(prints))
        compared = FingerprintIndex([one for _, one in self._recordings]) if every > 1 else index
        return [self._prompts(caller, one, index, compared) for caller, one in self._recordings]

    def _prompts(
        self, caller: str, probe: Fingerprint, index: FingerprintIndex, compared: FingerprintIndex
    ) -> tuple[Prompt, ...]:
        by_caller: dict[str, fingerprints.Flags] = {}
        left = _PLACES
        for _, recording, shift in index.alike(probe):
            other = self._recordings[recording][0]
            if other == caller:
                continue
            left -= 1
            if left < 0:
                break
            flags = by_caller.setdefault(other, np.zeros(len(probe.bits), dtype=bool))
            for start, stop in compared.stretches(probe, recording, shift):
                flags[start:stop] = True
        shared = np.sum([*by_caller.values(), np.zeros(len(probe.bits), dtype=bool)], axis=0)
        return tuple(
            Prompt(
                start * STEP / SAMPLE_RATE,
                ((stop - 1) * STEP + SPAN) / SAMPLE_RATE,
                int(sum(flags[start:stop].any() for flags in by_caller.values())),
            )
            for start, stop in fingerprints.runs(shared >= self._callers)
            if stop - start >= SECOND // 2
        )


def find_repeated(
    recordings: Sequence[tuple[str, Samples]], callers: int = _CALLERS
) -> list[tuple[Prompt, ...]]:
    """The prompts in each of some recordings, given with the id of their caller; see `PromptFinder`."""
    finder = PromptFinder(callers)
    for caller_id, audio in recordings:
        finder.add(caller_id, audio)
    return finder.find()


def _loaded(file: Path) -> Samples:
    try:
        audio, rate = load_audio(file)
        mono = to_mono(audio, rate)
    except InvalidAudioError as error:
        raise ConfigurationError(f"VOICE_PROMPTS: {error}") from error
    if len(mono) < SHORTEST_S * SAMPLE_RATE:
        raise ConfigurationError(
            f"VOICE_PROMPTS: {file} lasts {len(mono) / SAMPLE_RATE:.1f} s: at least {SHORTEST_S} s are needed"
        )
    return mono


def _union(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined
