"""Recordings of known speakers, cut into the pieces that callers are enrolled from and found by.

A session is one call, or one sitting: DIR/SPEAKER/SESSION/*.wav, and its files are joined. A file directly in
DIR/SPEAKER counts as a session of its own. Pieces of one session share the room, the line and the day, so a
probe of the session that its caller was enrolled from is much easier to recognize than the next call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE
from voiceprint.audio.io.folders import NOT_AUDIO, describes_folder, is_hidden, is_recording
from voiceprint.audio.speech import vad
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation.report import Skip

Audio = NDArray[np.float32]


class Speaker(NamedTuple):
    """The recordings of one folder.

    sessions: the files of each session, in the order of their paths, by the name of the speaker's sub-folder
        that holds them, at any depth; a file in no sub-folder is a session of its own name.
    """

    name: str
    sessions: dict[str, tuple[Path, ...]]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all sessions."""
        return tuple(file for files in self.sessions.values() for file in files)


class Place(NamedTuple):
    """A piece: the index of the speaker's session, and of the piece in it."""

    session: int
    piece: int


class Division(NamedTuple):
    """The pieces of a speaker by their use.

    same_session: the probes come from the session of the enrollment, the only one with a piece; they are
        easier to recognize than another call.
    """

    enrollment: tuple[Place, ...]
    probes: tuple[Place, ...]
    same_session: bool


def find_speakers(folders: Sequence[Path], skipped: list[Skip] | None = None) -> list[Speaker]:
    """The speakers of DIR/SPEAKER/SESSION/**/*, in the order of their names.

    A recording is what `load_audio` takes, by its suffix or how it begins. Files of speakers that are none,
    and recordings in no speaker's folder, are appended to `skipped`. Hidden files are passed over.

    Raises:
        InvalidArgumentError: a folder cannot be read, two folders have a speaker of one name, or there
            is none with a recording.
    """
    found: dict[str, Speaker] = {}
    skipped = [] if skipped is None else skipped
    for folder in folders:
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise InvalidArgumentError(f"cannot read the folder {folder}: {error.strerror}") from error
        for entry in entries:
            sessions: dict[str, tuple[Path, ...]] = {}
            if not entry.is_dir() and not is_hidden(entry) and is_recording(entry):
                skipped.append(Skip(str(entry), f"{entry} lies in no speaker's folder"))
            for file in _recordings(entry, skipped) if entry.is_dir() else ():
                session = file.relative_to(entry).parts[0]
                sessions[session] = (*sessions.get(session, ()), file)
            if not sessions:
                continue
            if entry.name in found:
                raise InvalidArgumentError(
                    f"The speaker {entry.name!r} is in two of the folders: rename one, or put their "
                    "recordings together"
                )
            found[entry.name] = Speaker(entry.name, sessions)
    if not found:
        raise InvalidArgumentError(
            f"No recording in {', '.join(map(str, folders))}: a folder for each speaker is wanted, "
            "DIR/SPEAKER/*.wav (or .flac, .ogg, .mp3 and the like)"
        )
    return [found[name] for name in sorted(found)]


def find_calls(folders: Sequence[Path], skipped: list[Skip] | None = None) -> list[Speaker]:
    """The recordings of the folders, at any depth, each as if of a speaker of its own, named by its path.

    Files that are no recordings are appended to `skipped`. Hidden files are passed over, as are documents at
    the top of a folder.

    Raises:
        InvalidArgumentError: a folder cannot be read, or none holds a recording.
    """
    found: dict[Path, None] = {}
    skipped = [] if skipped is None else skipped
    for folder in folders:
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise InvalidArgumentError(f"cannot read the folder {folder}: {error.strerror}") from error
        found.update(dict.fromkeys(_recordings(folder, skipped, folders)))
    if not found:
        raise InvalidArgumentError(
            f"No recording in {', '.join(map(str, folders))} (.wav, .flac, .ogg, .mp3 and the like), "
            "at any depth"
        )
    return [Speaker(str(file), {file.name: (file,)}) for file in found]


def _recordings(folder: Path, skipped: list[Skip], described: Sequence[Path] = ()) -> Iterable[Path]:
    """The recordings in a folder, at any depth; documents in the folders `described` are passed over."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in sorted(Path(place, name) for name in names):
            if is_hidden(file):
                continue
            if is_recording(file):
                found.append(file)
            elif file.parent not in described or not describes_folder(file):
                skipped.append(Skip(str(file), f"{file} {NOT_AUDIO}"))
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
    """Choose a speaker's enrollment pieces and probes, never from one session where several have a piece.

    Args:
        pieces: how many each of the sessions gives.
        prints: how many enrollment pieces are wanted, each from a session of its own where possible.
        most_probes: how many probes are taken at most, spread over the sessions.
        rng: decides which sessions are used for what.

    Returns:
        None where there are too few pieces for `prints` and a probe of another session, or, where one
        session alone has pieces, for `prints` and a probe of it.
    """
    order = [int(session) for session in rng.permutation(len(pieces)) if pieces[session]]
    if len(order) == 1:
        places = in_turns(order, pieces)
        if len(places) <= prints:
            return None
        return Division(tuple(places[:prints]), tuple(places[prints : prints + most_probes]), True)
    # No more sessions than are needed go into the enrollment; the longest, where those drawn do not do.
    for ranked in (order, sorted(order, key=lambda session: -pieces[session])):
        for count in range(max(1, min(prints, len(ranked) - 1)), len(ranked)):
            enrollment = in_turns(ranked[:count], pieces)[:prints]
            if len(enrollment) == prints:
                return Division(
                    tuple(enrollment), tuple(in_turns(ranked[count:], pieces)[:most_probes]), False
                )
    return None


def in_turns(sessions: Sequence[int], pieces: Sequence[int]) -> list[Place]:
    """The first piece of each session, then the second ones, and so on; pieces: how many each has."""
    each = [[Place(session, piece) for piece in range(pieces[session])] for session in sessions]
    return [place for turn in zip_longest(*each) for place in turn if place is not None]
