"""Replacing a file as a whole, so that a crash or a full disk leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

_SUFFIX = ".tmp"


def replace_file(path: Path, content: bytes) -> int:
    """Put `content`, flushed to the disk, in the place of `path`; gives the new file, open.

    The new file is readable for its owner alone. Raises OSError, and then `path` is as it was.
    The rename itself is durable only after `sync_folder`.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=_prefix(path), suffix=_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # the first error is the one to tell
            Path(temporary).unlink()
        raise
    return descriptor


def sync_folder(folder: Path) -> None:
    """Flush to the disk what was renamed in `folder`. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` left behind when they were killed. Only while none is at work."""
    # Exactly what mkstemp made for this file: a longer name may be the one of a neighbour at work.
    leftover = re.compile(re.escape(_prefix(path)) + r"[a-z0-9_]{8}" + re.escape(_SUFFIX))
    for entry in path.parent.iterdir():
        if leftover.fullmatch(entry.name):
            entry.unlink()


def _prefix(path: Path) -> str:
    return f".{path.name}."
