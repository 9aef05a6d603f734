"""`voiceprint prompts`, and the prompts that `enroll-dir` leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.audio.io import folders
from voiceprint.audio.prompts import SHORTEST_S, KnownPrompts, Prompt, PromptFinder
from voiceprint.cli.audio import ChannelOption, EncodingOption, RateOption, caller_folders, read
from voiceprint.cli.common import JsonOption, plural, print_error, print_json, print_lines, table, track
from voiceprint.errors import InvalidArgumentError, InvalidAudioError

File = tuple[str, Path]
"""A caller's id, and a recording of the caller."""

Found = dict[Path, tuple[Prompt, ...]]

_COVERED: Final = 0.8  # share of a prompt that occurs in another one, which makes them equal


def prompts(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With a folder per caller: DIR/CALLER/*.wav")],
    write: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write each prompt once to this folder, for VOICE_PROMPTS."),
    ] = None,
    callers: Annotated[
        int, typer.Option(min=1, help="Fewest other callers with a prompt in their recordings.")
    ] = 2,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the prompts, such as announcements, that occur in recordings of several callers.

    A prompt occurs in recordings of at least two other callers, at any level and over any line. Audio that
    only recordings of one caller share is no prompt, nor is a whole recording, which is a copy.

    Exit code 1 when a recording could not be read.
    """
    files = [
        (path.parent.name, path)
        for caller in caller_folders(folder)
        for path in folders.sorted_files(caller)
        if folders.is_recording(path)
    ]

    read_file = partial(read, encoding=encoding, rate=rate, channel=channel)
    count = len({caller_id for caller_id, _ in files})
    if count <= callers:
        raise InvalidArgumentError(
            f"{str(folder)!r} holds recordings of {plural(count, 'caller')}: a prompt is in those of "
            f"{callers + 1} and more (--callers {callers})."
        )
    if write is not None:
        _check_empty(write)
    unreadable: list[InvalidAudioError] = []
    found = find_prompts(files, read_file, callers, unreadable)
    rows = [
        {"caller_id": path.parent.name, "file": str(path), **prompt._asdict()}
        for path, several in found.items()
        for prompt in several
    ]
    if as_json:
        print_json(rows)
    elif rows:
        shown = [(r["file"], f"{r['start_s']:.1f} s", f"{r['stop_s']:.1f} s", r["callers"]) for r in rows]
        table("File", "From", "To", "Other callers", rows=shown, right=("From", "To", "Other callers"))
    else:
        compared = plural(len(files) - len(unreadable), "recording")
        print_lines(f"No prompts: {compared} of several callers have nothing in common.")
    if write is not None and found:
        _write(distinct(found, read_file), write, quiet=as_json)
    for error in unreadable:
        print_error(f"Left out: {error}")
    if unreadable:
        raise typer.Exit(1)


def find_prompts(
    files: list[File],
    read: Callable[[Path], Recording],
    callers: int = 2,
    unreadable: list[InvalidAudioError] | None = None,
) -> Found:
    """The prompts of each file with a prompt; unreadable: receives the errors of unreadable files."""
    finder, lengths = PromptFinder(callers), {}
    if len({caller_id for caller_id, _ in files}) <= callers:
        return {}
    for caller_id, path in track("Looking for prompts", files):
        try:
            audio = read(path).mono
        except InvalidAudioError as error:  # of enroll-dir, it is the result of this file
            if unreadable is not None:
                unreadable.append(error)
            continue
        finder.add(caller_id, audio)
        lengths[path] = len(audio) / SAMPLE_RATE
    found = zip(lengths.items(), finder.find(), strict=True)
    return {
        path: several
        for (path, length_s), several in found
        if several and _left_s(length_s, several) >= SHORTEST_S
    }


def distinct(found: Found, read: Callable[[Path], Recording]) -> list[NDArray[np.float32]]:
    """The audio of each prompt once, float32[n] at 16 kHz, the longest first."""
    places = [(prompt, path) for path, several in found.items() for prompt in several]
    audios: list[NDArray[np.float32]] = []
    for prompt, path in sorted(places, key=lambda place: place[0].start_s - place[0].stop_s):
        audio = read(path).mono[round(prompt.start_s * SAMPLE_RATE) : round(prompt.stop_s * SAMPLE_RATE)]
        stretches = KnownPrompts(audios).stretches(audio)
        if sum(stop - start for start, stop in stretches) < _COVERED * len(audio):
            audios.append(audio)
    return audios


def _left_s(length_s: float, several: Iterable[Prompt]) -> float:
    """Seconds of a recording outside prompts."""
    return length_s - sum(prompt.stop_s - prompt.start_s for prompt in several)


def _check_empty(folder: Path) -> None:
    """Create the folder. Raises `InvalidArgumentError` if that fails, or the folder is not empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise InvalidArgumentError(
            f"--write {str(folder)!r}: {error.strerror}: give another folder."
        ) from error
    if not is_empty:  # VOICE_PROMPTS uses all files of the folder
        raise InvalidArgumentError(f"--write {str(folder)!r}: it holds files already: give an empty folder.")


def _write(audios: list[NDArray[np.float32]], folder: Path, *, quiet: bool) -> None:
    import soundfile

    for number, audio in enumerate(audios, 1):
        soundfile.write(folder / f"prompt-{number}.flac", audio, SAMPLE_RATE)
    if not quiet:
        print_lines(f"{plural(len(audios), 'prompt')} written to {folder}: set VOICE_PROMPTS={folder}.")
