"""Which files of a folder are recordings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from voiceprint._files import open_regular
from voiceprint.audio.io import formats, raw

SUFFIXES: Final = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".m4a", ".mp4", ".3gp", ".webm", ".mka", ".amr", ".awb", ".aac", ".wma",
    ".spx", ".voc", ".sph", *raw.SUFFIXES,
)  # fmt: skip
"""The suffixes of recordings, in lower case. A file with one is read or named with the reason; one without
is a recording if it begins like one."""

NOT_AUDIO: Final = "is not an audio file: move it elsewhere, or convert it, such as by ffmpeg -i IN OUT.wav"
"""Why a file that is no recording is left out."""

_DOCUMENTS: Final = frozenset({".md", ".rst", ".txt", ".csv", ".tsv", ".json", ".html", ".pdf"})
_OF_SYSTEMS: Final = frozenset({"thumbs.db", "desktop.ini"})


def is_hidden(path: Path) -> bool:
    """True for names that operating systems create, such as ._x.wav or .DS_Store."""
    return path.name.startswith(".") or path.name.lower() in _OF_SYSTEMS


def describes_folder(path: Path) -> bool:
    """True for a document at the top of a folder, such as README.md or speakers.tsv: no recording is
    missing if it is passed over."""
    return path.suffix.lower() in _DOCUMENTS or path.name.upper() in ("README", "LICENSE")


def is_recording(path: Path) -> bool:
    """True for a file with the suffix of a recording, or that begins like one."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_regular(path) as file:
            found = formats.identify(file)
    except OSError:  # it cannot be read, or is a pipe: without a suffix that says so it is no recording
        return False
    return found is not None and found.decoder != "none"


def sorted_files(folder: Path) -> list[Path]:
    """The files in a folder that are not hidden, in the order of their names; links to files count."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    return [path for path in (folder / name for name in names) if not is_hidden(path)]
