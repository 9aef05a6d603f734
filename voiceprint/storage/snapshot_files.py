"""Finds and removes the index snapshots beside a store: they hold embeddings that the store has removed."""

from __future__ import annotations

import errno
import glob
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from voiceprint._files import leftovers, open_regular, remove_leftovers

__all__ = ["SNAPSHOT_MAGIC", "erase_snapshots", "snapshot_leftovers", "snapshots_at"]

log = logging.getLogger(__name__)

SNAPSHOT_MAGIC = b"VPINDEX"
"""The first bytes of every snapshot of an index, of any version."""


def snapshots_at(places: Iterable[Path]) -> list[Path]:
    """The snapshots at these places, and beside each those of other embedding spaces.

    A file of such a name that cannot be read is included, as it may be a snapshot.
    """
    return [path for place in places for path in _candidates(place) if _is_snapshot(path) is not False]


def snapshot_leftovers(place: Path) -> list[Path]:
    """The files that writers of the snapshots at this place, of all spaces, are writing or left behind."""
    return [*leftovers(place), *leftovers(place, pattern=_of_other_spaces(place))]


def _candidates(place: Path) -> list[Path]:
    return [place, *sorted(place.parent.glob(_of_other_spaces(place)))]


def _of_other_spaces(place: Path) -> str:
    """Pattern of the names that `voiceprint.identification.snapshots` gives to all spaces but the first."""
    return f"{glob.escape(place.stem)}.{'[0-9a-f]' * 16}{glob.escape(place.suffix)}"


def _is_snapshot(path: Path) -> bool | None:
    """None if the file cannot be read."""
    try:
        with open_regular(path) as stream:
            return stream.read(len(SNAPSHOT_MAGIC)) == SNAPSHOT_MAGIC
    except PermissionError:
        return None
    except OSError:  # missing, or not a regular file
        return False


def erase_snapshots(places: Iterable[Path]) -> bool:
    """Remove the snapshots at these places; False if one remains.

    The index in memory is not affected, and writes another snapshot later.
    """
    done = True
    for place in places:
        for path in snapshots_at([place]):
            try:
                if _is_snapshot(path) is None:  # perhaps not a snapshot: not ours to remove
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
        with suppress(OSError):  # the folder does not exist
            remove_leftovers(place)
            remove_leftovers(place, pattern=_of_other_spaces(place))
    return done
