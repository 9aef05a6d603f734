"""Finds the changes that remove personal data, and the index snapshots that still hold it."""

from __future__ import annotations

import errno
import glob
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from voiceprint._files import open_regular, remove_leftovers
from voiceprint.storage.records import Change

__all__ = ["SNAPSHOT_MAGIC", "erase_snapshots", "removes", "removes_voiceprints", "snapshots_at"]

log = logging.getLogger(__name__)

SNAPSHOT_MAGIC = b"VPINDEX"
"""The first bytes of every snapshot of an index, of any version."""


def removes_voiceprints(change: Change) -> bool:
    """Whether the change removes or replaces an embedding."""
    for name, after in change.callers.items():
        before = change.base.callers.get(name)
        if before is not None and before is not after:
            kept = set() if after is None else {id(print_) for print_ in after.prints}
            if not {id(print_) for print_ in before.prints} <= kept:
                return True
    return False


def removes(change: Change) -> bool:
    """Whether the change removes or replaces an embedding or a value of the metadata."""
    if removes_voiceprints(change):
        return True
    for name, after in change.callers.items():
        before = change.base.callers.get(name)
        if before is None or before is after:
            continue
        known = {} if after is None else after.metadata
        if any(key not in known or known[key] != value for key, value in before.metadata.items()):
            return True
    return False


def snapshots_at(places: Iterable[Path]) -> list[Path]:
    """The snapshots at these places, and beside each those of other embedding spaces.

    Also files of their names that cannot be read, which may be some.
    """
    return [path for place in places for path in _candidates(place) if _is_snapshot(path) is not False]


def _candidates(place: Path) -> list[Path]:
    spaces = f"{glob.escape(place.stem)}.{'[0-9a-f]' * 16}{glob.escape(place.suffix)}"
    return [place, *sorted(place.parent.glob(spaces))]


def _is_snapshot(path: Path) -> bool | None:
    """None where the file cannot be read."""
    try:
        with open_regular(path) as stream:
            return stream.read(len(SNAPSHOT_MAGIC)) == SNAPSHOT_MAGIC
    except PermissionError:
        return None
    except OSError:  # there is none, or it is something else
        return False


def erase_snapshots(places: Iterable[Path]) -> bool:
    """Remove the snapshots at these places, as they hold an embedding that is no more; False where one stays.

    The index in memory goes on, and another is written from it later.
    """
    done = True
    for place in places:
        for path in snapshots_at([place]):
            try:
                if _is_snapshot(path) is None:  # not ours to remove unseen
                    raise PermissionError(errno.EACCES, "it cannot be read")
                path.unlink(missing_ok=True)
            except OSError as error:  # the change itself is committed, and the file may be removed later
                done = False
                log.warning(
                    "%s holds embeddings that were removed from the store, and cannot be removed (%s): "
                    "remove it.",
                    path,
                    error.strerror,
                )
        with suppress(OSError):  # there is no such folder
            remove_leftovers(place)
    return done
