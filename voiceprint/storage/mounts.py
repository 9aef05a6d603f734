"""A store's file that is a mount point of its own, as when Docker mounts a single file."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["MOUNT_THE_FOLDER", "is_mounted_alone"]

MOUNT_THE_FOLDER = "mount the folder of the store, not the file alone"


def is_mounted_alone(path: Path) -> bool:
    """Whether the file is a mount point, so that what is written beside it is not mounted with it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux: a mount of the same file system is then not told from none
        try:
            return path.stat().st_dev != path.parent.stat().st_dev
        except OSError:  # nothing is there yet
            return False
    # The fifth field; spaces and the like are written as octal numbers.
    places = (
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines
    )
    return os.fspath(path) in places
