"""Prompts: recorded announcements that many calls share.

With "your call may be recorded" in the caller's channel, a stranger matches any caller whose enrollment holds
the same prompt. `KnownPrompts` detects prompts from their recordings, `PromptFinder` stretches that the
recordings of several callers share. Both compare fingerprints (see `voiceprint.audio.fingerprints`).

With the same eight seconds of a prompt at the start of 15 enrollments and of the calls of 15 strangers, all
15 strangers were accepted, and none after exclusion of the prompt. Synthesized prompts of 2, 4 and 8 s were
inserted into 20 s of many speakers. `KnownPrompts` detected all of them, also quieter, over a mu-law line of
300 to 3400 Hz, in 20 dB of noise, and with speech over the second half, at a cost of 0.05 s of adjacent
speech; in 10 dB of noise, 76 to 90 %. `PromptFinder` detects a prompt in all of three calls, and in 94 to
100 % with independent noise at 20 dB. In two hours of speech without prompts, both had no false alarm
(research/prompts.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.fingerprints import (
    SECOND,
    SPAN,
    STEP,
    Fingerprint,
    FingerprintIndex,
    Flags,
    RunningFingerprint,
    fingerprint,
)
from voiceprint.audio.io import folders
from voiceprint.audio.io.buffers import SAMPLE_RATE, to_mono
from voiceprint.audio.io.files import load_audio
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.runs import true_runs, union
from voiceprint.errors import ConfigurationError, InvalidAudioError

SHORTEST_S: Final = 1.3
"""Seconds of the shortest detectable prompt: a second of fingerprints."""

_EXTENSION: Final = SECOND // 2  # fingerprints by which a match extends to the ends of the prompt
_MAX_CANDIDATES: Final = 256  # compared per recording
_MAX_INDEXED: Final = 1 << 22  # fingerprints of all recordings, 50 MB; more are thinned
_MIN_CALLERS: Final = 2  # other callers that share a prompt

Stretches = tuple[tuple[int, int], ...]


class Prompt(NamedTuple):
    """A stretch of a recording, in seconds, that recordings of other callers share."""

    start_s: float
    stop_s: float
    callers: int
    """Number of other callers whose recordings hold at least a part of it."""


class KnownPrompts:
    """Detects prompts in recordings: at any level, over a telephone line, whole or in part.

    Stores 250 bytes of fingerprints per second of a prompt, and no audio.
    """

    def __init__(self, prompts: Iterable[Samples]) -> None:
        """prompts: float32[n] each, in [-1, 1] at 16 kHz, of at least 1.3 s."""
        self._prints = [fingerprint(audio) for audio in prompts]
        self._index = FingerprintIndex(self._prints)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KnownPrompts:
        """Load the prompts from a file, or from all recordings in a folder except hidden ones, at any depth.

        Raises:
            ConfigurationError: no recording exists, or one is unreadable or shorter than 1.3 s.
        """
        root = Path(path)
        files = [root]
        if root.is_dir():
            files = [
                file
                for file in sorted(root.rglob("*"))
                if not any(part.startswith(".") for part in file.relative_to(root).parts)
                and not folders.is_hidden(file)
                and file.is_file()
                and folders.is_recording(file)
            ]
        if not files:
            raise ConfigurationError(f"VOICE_PROMPTS is {str(path)!r}: that folder holds no recordings")
        return cls(map(_load, files))

    def __len__(self) -> int:
        return len(self._prints)

    def stretches(self, audio: Samples) -> Stretches:
        """Start and stop, in samples, of the prompts in float32[n] at 16 kHz, in order, without overlap."""
        return self.match(fingerprint(audio), len(audio))

    def remove_from(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n] at 16 kHz without its prompts."""
        mask = np.ones(len(audio), dtype=bool)
        for start, stop in self.stretches(audio):
            mask[start:stop] = False
        return audio[mask]

    def match(self, probe: Fingerprint, length: int) -> Stretches:
        """`stretches` in `length` samples, by their fingerprint."""
        stretches = []
        for prompt, shift in self._index.candidates(probe)[:_MAX_CANDIDATES]:
            prompt_length = len(self._prints[prompt].bits)
            for start, stop in self._index.stretches(probe, prompt, shift):
                # Unmatched words at either end are the prompt's voice as well.
                if start + shift < _EXTENSION:
                    start = max(0, -shift)
                if stop == len(probe.bits) or prompt_length - (stop + shift) < _EXTENSION:
                    stop = prompt_length - shift
                stretches.append((start * STEP, min((stop - 1) * STEP + SPAN, length)))
        return union(stretches)


class PromptFollower:
    """`KnownPrompts.stretches` of audio that arrives in blocks."""

    def __init__(self, prompts: KnownPrompts) -> None:
        self._prompts = prompts
        self._running = RunningFingerprint()
        self._length = 0

    def add(self, audio: NDArray[np.float32]) -> None:
        """Process the next float32[n] at 16 kHz."""
        self._running.add(audio)
        self._length += len(audio)

    def stretches(self) -> Stretches:
        """Start and stop, in samples, of the prompts so far; an unfinished one extends to the end."""
        return self._prompts.match(self._running.fingerprint(), self._length)


@lru_cache(maxsize=4)
def prompts_at(path: str) -> KnownPrompts:
    """`KnownPrompts.load`, cached by path."""
    return KnownPrompts.load(path)


class PromptFinder:
    """Finds stretches that recordings of several callers share; recordings may have any length.

    Stores 250 bytes of fingerprints per second of a recording, and no audio.
    """

    def __init__(self, callers: int = _MIN_CALLERS) -> None:
        """callers: the number of other callers that must share a prompt."""
        self._min_callers = callers
        self._recordings: list[tuple[str, Fingerprint]] = []

    def add(self, caller_id: str, audio: Samples) -> None:
        """Add a recording: float32[n] in [-1, 1] at 16 kHz."""
        self._recordings.append((caller_id, fingerprint(audio)))

    def find(self) -> list[tuple[Prompt, ...]]:
        """The prompts in each recording, in order of addition; recordings of one caller share none."""
        prints = [recording for _, recording in self._recordings]
        every = 1 + sum(len(each.bits) for each in prints) // _MAX_INDEXED
        thinned = [
            Fingerprint(each.bits, each.loud & (np.arange(len(each.loud)) % every == 0)) for each in prints
        ]
        # A prompt repeats a fingerprint once or twice; a tone or a hiss has few fingerprints, many times.
        index = FingerprintIndex(thinned, max_occurrences=4 * len(prints))
        full_index = FingerprintIndex(prints) if every > 1 else index
        return [self._prompts(caller, probe, index, full_index) for caller, probe in self._recordings]

    def _prompts(
        self, caller: str, probe: Fingerprint, index: FingerprintIndex, full_index: FingerprintIndex
    ) -> tuple[Prompt, ...]:
        by_caller: dict[str, Flags] = {}
        candidates = (
            (self._recordings[recording][0], recording, shift)
            for recording, shift in index.candidates(probe)
            if self._recordings[recording][0] != caller
        )
        for other, recording, shift in islice(candidates, _MAX_CANDIDATES):
            flags = by_caller.setdefault(other, np.zeros(len(probe.bits), dtype=bool))
            for start, stop in full_index.stretches(probe, recording, shift):
                flags[start:stop] = True
        callers = np.sum([*by_caller.values(), np.zeros(len(probe.bits), dtype=bool)], axis=0)
        return tuple(
            Prompt(
                start * STEP / SAMPLE_RATE,
                ((stop - 1) * STEP + SPAN) / SAMPLE_RATE,
                int(sum(flags[start:stop].any() for flags in by_caller.values())),
            )
            for start, stop in true_runs(callers >= self._min_callers, SECOND // 2)
        )


def _load(file: Path) -> Samples:
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
