"""Recordings in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from voiceprint._files import open_regular
from voiceprint.audio.io import formats, raw

SUFFIXES: Final = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".m4a", ".mp4", ".3gp", ".webm", ".mka", ".amr", ".awb", ".aac", ".wma",
    ".spx", ".voc", ".sph", *raw.SUFFIXES,
)  # fmt: skip
"""The suffixes of recordings, in lower case. Files with another suffix are recordings if their content is."""

NOT_AUDIO: Final = "is not an audio file: move it elsewhere, or convert it, such as by ffmpeg -i IN OUT.wav"
"""The reason for skipping a file that is not a recording."""

_DOCUMENTS: Final = frozenset({".md", ".rst", ".txt", ".csv", ".tsv", ".json", ".html", ".pdf"})
_SYSTEM_FILES: Final = frozenset({"thumbs.db", "desktop.ini"})


def is_hidden(path: Path) -> bool:
    """Whether the name is one that operating systems create, such as ._x.wav or .DS_Store."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def describes_folder(path: Path) -> bool:
    """Whether the file is a document about the folder, such as README.md or speakers.tsv."""
    return path.suffix.lower() in _DOCUMENTS or path.name.upper() in ("README", "LICENSE")


def is_recording(path: Path) -> bool:
    """Whether the file has the suffix of a recording, or its content."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_regular(path) as file:
            found = formats.identify(file)
    except OSError:  # unreadable, or a pipe: without a suffix, not a recording
        return False
    return found is not None and found.decoder != "none"


def sorted_files(folder: Path) -> list[Path]:
    """The files in a folder, also by links, except hidden ones; sorted by name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    return [path for path in (folder / name for name in names) if not is_hidden(path)]


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder at any depth, also by links, except hidden files and folders; in no order.

    Raises OSError where the folder itself cannot be read.
    """
    os.scandir(folder).close()
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a symbolic link to a parent
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (file for file in sorted(Path(place, name) for name in names) if not is_hidden(file))
