"""Recordings of known speakers, cut into enrollment pieces and probes.

A session is one call, or one sitting: DIR/SPEAKER/SESSION/*.wav, with its files joined. A file directly in
DIR/SPEAKER counts as a session of its own. Pieces of one session share the room, the line and the day, so a
probe of the session of enrollment is much easier to recognize than the next call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.audio.io.folders import NOT_AUDIO, describes_folder, files_below, is_hidden, is_recording
from voiceprint.audio.speech import vad
from voiceprint.errors import InvalidArgumentError, InvalidAudioError
from voiceprint.evaluation.report import Skip

Audio = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the items done, and the items in all."""

_LISTED = 3  # files in a message


class Speaker(NamedTuple):
    """The recordings of a speaker.

    sessions: the files of each session, sorted, by the name of the speaker's sub-folder; a file in no
        sub-folder is a session of its own name.
    """

    name: str
    sessions: dict[str, tuple[Path, ...]]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all sessions."""
        return tuple(file for files in self.sessions.values() for file in files)


class Place(NamedTuple):
    """The index of a session of the speaker, and of a piece in the session."""

    session: int
    piece: int


class Division(NamedTuple):
    """The enrollment pieces and probes of a speaker.

    same_session: whether the probes come from the session of the enrollment, the only one with pieces.
    """

    enrollment: tuple[Place, ...]
    probes: tuple[Place, ...]
    same_session: bool


def find_speakers(folders: Sequence[Path], skipped: list[Skip] | None = None) -> list[Speaker]:
    """The speakers of DIR/SPEAKER/SESSION/**/*, sorted by name.

    Recordings are recognized by suffix or first bytes. Other files of speakers, and recordings in no
    speaker's folder, are appended to `skipped`. Hidden files are ignored.

    Raises:
        InvalidArgumentError: a folder cannot be read, two folders have a speaker of one name, or no speaker
            has a recording.
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
                skipped.append(Skip(str(entry), f"{entry} is in no speaker's folder"))
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
            f"No recording in {', '.join(map(str, folders))}: each speaker needs a folder, "
            "DIR/SPEAKER/*.wav (or .flac, .ogg, .mp3 and the like)"
        )
    return [found[name] for name in sorted(found)]


def find_calls(folders: Sequence[Path], skipped: list[Skip] | None = None) -> list[Speaker]:
    """The recordings of the folders, at any depth, each as a speaker of its own, named by its path.

    Other files are appended to `skipped`. Hidden files, and documents at the top of a folder, are ignored.

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
    """The recordings in a folder, at any depth; documents in the folders `described` are ignored."""
    found = []
    for file in files_below(folder):
        if is_recording(file):
            found.append(file)
        elif file.parent not in described or not describes_folder(file):
            skipped.append(Skip(str(file), f"{file} {NOT_AUDIO}"))
    return sorted(found)


def check_channels(
    speakers: Sequence[Speaker], channel: int | None, progress: Progress | None = None
) -> None:
    """Refuse recordings with a different voice on each channel, unless a channel is chosen.

    Agent and caller mixed gave an EER of 16 %, the caller alone 0.9 %. Stereo recordings of one voice pass,
    and so do unreadable files, which are reported when they are loaded.

    Raises:
        InvalidAudioError: with the first such files.
    """
    if channel is not None:
        return
    files = [file for speaker in speakers for file in speaker.files]
    mixed = []
    for done, file in enumerate(files):
        if progress:
            progress("Checking channels", done, len(files))
        with suppress(InvalidAudioError):
            if Recording.open(file).channels.differ:
                mixed.append(file)
    if progress:
        progress("Checking channels", len(files), len(files))
    if mixed:
        more = f" and {len(mixed) - _LISTED} more" if len(mixed) > _LISTED else ""
        raise InvalidAudioError(
            f"{len(mixed)} of {len(files)} recordings hold a different voice on each channel, as a call "
            f"does: {', '.join(map(str, mixed[:_LISTED]))}{more}. Mixed, they would be measured as one "
            "voice: choose the speaker's with channel=0 or 1 (--channel 0 or 1)"
        )


def cut(audio: Audio, seconds: float, *, net: bool = True) -> list[tuple[int, int]]:
    """Cut a recording into consecutive pieces of equal length; the rest is dropped.

    Args:
        audio: float32[n] at 16 kHz.
        seconds: of each piece, above 0.
        net: whether `seconds` count speech alone, by the VAD; else pauses count too.

    Returns:
        (start, end) in samples of each piece; a net one starts and ends with speech.
    """
    length = max(1, round(seconds * SAMPLE_RATE))
    if not net:
        return [(start, start + length) for start in range(0, len(audio) - length + 1, length)]
    spoken = np.flatnonzero(vad.speech_mask(audio))
    return [
        (int(spoken[first]), int(spoken[first + length - 1]) + 1)
        for first in range(0, len(spoken) - length + 1, length)
    ]


def divide(pieces: Sequence[int], prints: int, most_probes: int, rng: np.random.Generator) -> Division | None:
    """Choose a speaker's enrollment pieces and probes, from different sessions where several have pieces.

    Args:
        pieces: the number of pieces of each session.
        prints: the number of enrollment pieces, each from a session of its own where possible.
        most_probes: the most probes, spread over the sessions.
        rng: orders the sessions.

    Returns:
        None where the pieces are too few for `prints` and a probe of another session, or, where only one
        session has pieces, for `prints` and a probe.
    """
    order = [int(session) for session in rng.permutation(len(pieces)) if pieces[session]]
    if len(order) == 1:
        places = in_turns(order, pieces)
        if len(places) <= prints:
            return None
        return Division(tuple(places[:prints]), tuple(places[prints : prints + most_probes]), True)
    # Enroll from as few sessions as possible; from the longest, where the drawn order has too few pieces.
    for ranked in (order, sorted(order, key=lambda session: -pieces[session])):
        for count in range(max(1, min(prints, len(ranked) - 1)), len(ranked)):
            enrollment = in_turns(ranked[:count], pieces)[:prints]
            if len(enrollment) == prints:
                return Division(
                    tuple(enrollment), tuple(in_turns(ranked[count:], pieces)[:most_probes]), False
                )
    return None


def in_turns(sessions: Sequence[int], pieces: Sequence[int]) -> list[Place]:
    """The first piece of each session, then the second ones, and so on; pieces: the number in each."""
    each = [[Place(session, piece) for piece in range(pieces[session])] for session in sessions]
    return [place for turn in zip_longest(*each) for place in turn if place is not None]
