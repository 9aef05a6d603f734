"""Recordings of known speakers, cut into the pieces that callers are enrolled from and found by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, vad
from voiceprint.errors import InvalidArgumentError

SUFFIXES: Final = (".wav", ".flac", ".ogg", ".mp3")
"""The suffixes, in any case, of the files that are read."""

Audio = NDArray[np.float32]


class Speaker(NamedTuple):
    """One folder: a name and the recordings in it, at any depth, in the order of their paths."""

    name: str
    files: tuple[Path, ...]


class Place(NamedTuple):
    """A piece: which of the speaker's files, and which piece of it."""

    file: int
    piece: int


class Division(NamedTuple):
    """The pieces of a speaker by their use.

    same_recording: whether a probe comes from a recording that an enrolment piece comes from too, which
        makes it easier to recognise.
    """

    enrolment: tuple[Place, ...]
    probes: tuple[Place, ...]
    same_recording: bool


def find_speakers(folders: Sequence[Path]) -> list[Speaker]:
    """The speakers of DIR/SPEAKER/**/*.wav (flac, ogg, mp3), in the order of their names.

    Raises:
        InvalidArgumentError: a folder cannot be read, two folders have a speaker of one name, or there
            is none with a recording.
    """
    found: dict[str, Speaker] = {}
    for folder in folders:
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise InvalidArgumentError(f"cannot read the folder {folder}: {error.strerror}") from error
        for entry in entries:
            files = tuple(_recordings(entry)) if entry.is_dir() else ()
            if not files:
                continue
            if entry.name in found:
                raise InvalidArgumentError(
                    f"The speaker {entry.name!r} is in two of the folders: rename one, or put their "
                    "recordings together"
                )
            found[entry.name] = Speaker(entry.name, files)
    if not found:
        raise InvalidArgumentError(
            f"No recording in {', '.join(map(str, folders))}: a folder for each speaker is wanted, "
            f"DIR/SPEAKER/*{SUFFIXES[0]} ({', '.join(SUFFIXES[1:])})"
        )
    return [found[name] for name in sorted(found)]


def _recordings(folder: Path) -> Iterable[Path]:
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return sorted(found)


def cut(audio: Audio, seconds: float, *, net: bool = True) -> list[tuple[int, int]]:
    """Cut a recording into as many pieces as it gives, one after the other.

    Args:
        audio: float32[n] at 16 kHz.
        seconds: of each piece, above 0.
        net: whether `seconds` are of speech, as the VAD hears it; else by the clock, pauses included.

    Returns:
        (start, end) in samples of each piece; a net one starts with speech, and ends when it has enough.
    """
    wanted = max(1, round(seconds * SAMPLE_RATE))
    if not net:
        return [(start, start + wanted) for start in range(0, len(audio) - wanted + 1, wanted)]
    spoken = np.flatnonzero(vad.speech_mask(audio))
    return [
        (int(spoken[first]), int(spoken[first + wanted - 1]) + 1)
        for first in range(0, len(spoken) - wanted + 1, wanted)
    ]


def divide(pieces: Sequence[int], prints: int, most_probes: int, rng: np.random.Generator) -> Division | None:
    """Choose a speaker's enrolment pieces and probes, from different recordings where there are several.

    Args:
        pieces: how many each of the recordings gives.
        prints: how many enrolment pieces are wanted, each from a recording of its own where possible.
        most_probes: how many probes are taken at most, spread over the recordings.
        rng: decides which recordings are used for what.

    Returns:
        None where there are too few pieces for `prints` and a probe.
    """
    order = [int(file) for file in rng.permutation(len(pieces)) if pieces[file]]
    # No more recordings than are needed go into enrolment, and one at least stays for the probes.
    for count in range(max(1, min(prints, len(order) - 1)), len(order)):
        enrolment = in_turns(order[:count], pieces)[:prints]
        if len(enrolment) == prints:
            return Division(tuple(enrolment), tuple(in_turns(order[count:], pieces)[:most_probes]), False)
    places = in_turns(order, pieces)
    if len(places) <= prints:
        return None
    return Division(tuple(places[:prints]), tuple(places[prints : prints + most_probes]), True)


def in_turns(files: Sequence[int], pieces: Sequence[int]) -> list[Place]:
    """The first piece of each file, then the second ones, and so on."""
    each = [[Place(file, piece) for piece in range(pieces[file])] for file in files]
    return [place for turn in zip_longest(*each) for place in turn if place is not None]
