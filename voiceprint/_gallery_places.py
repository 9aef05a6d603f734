"""Checks that no two galleries share a store or a file, nor one uses a name of another's files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from voiceprint.config import NO_PATHS, VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError
from voiceprint.storage.arguments import snapshot_path_beside
from voiceprint.storage.urls import configured_location

__all__ = ["PLACE_OF", "check_apart"]

PLACE_OF: Final = {
    "json": "storage_path",
    "sqlite": "storage_path",
    "postgresql": "database_url",
    "redis": "redis_url",
}

# Names of the files that this package and SQLite write beside a file, each with the name of that file.
_BESIDE: Final = (
    # Locks, the logs of SQLite, snapshots of the index, progress of a list, and rotated audit logs.
    re.compile(r"(.+)(?:\.lock|-wal|-shm|-journal|\.index|\.progress|\.[0-9]{12})", re.DOTALL),
    re.compile(r"(.+)\.[0-9a-f]{16}(\.[^.]+)?", re.DOTALL),  # snapshots of other embedding spaces
    re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL),  # new content, until it is renamed
)


def check_apart(path: Path, configs: Mapping[str, VoiceFingerprintConfig]) -> None:
    """Raise `ConfigurationError` where two galleries have one store, or write to one file.

    Also where a file of one has a name that is for files beside one of the other, such as a rotated log.
    """
    owners: dict[object, tuple[str, str]] = {}
    for gallery, config in configs.items():
        for key, use in _uses(path, gallery, config):
            owner, other_use = owners.setdefault(key, (gallery, use))
            if owner != gallery:
                raise ConfigurationError(
                    f"{path}: {use} of the gallery {gallery!r} is {other_use} of {owner!r}: give each "
                    "gallery its own."
                )
    for place, (gallery, use) in owners.items():
        for main in _written_beside(place):
            owner, other_use = owners.get(main, (gallery, use))
            if owner != gallery:
                raise ConfigurationError(
                    f"{path}: {use} of the gallery {gallery!r} has the name of a file that belongs to "
                    f"{other_use} of {owner!r} ({Path(main).name}): give each gallery a folder of its own."
                )


def _written_beside(place: object) -> Iterator[str]:
    """The paths beside which a file at `place` would be written, if the name is of that form."""
    folder, _, name = place.rpartition("/") if isinstance(place, str) else ("", "", "")
    for pattern in _BESIDE:
        if match := pattern.fullmatch(name):
            yield f"{folder}/{''.join(part or '' for part in match.groups())}"


def _uses(path: Path, gallery: str, config: VoiceFingerprintConfig) -> Iterator[tuple[object, str]]:
    """The places that a gallery shares with no other: a key, equal for equal places, and the use."""
    files = {"the index_path": config.index_path, "the audit log": config.audit}
    if PLACE_OF[config.storage_backend] == "storage_path":
        files["the store"] = config.storage_path
        if config.index_path is None:
            files["the index's snapshot"] = str(snapshot_path_beside(Path(config.storage_path)))
    else:
        try:
            yield configured_location(config), "the store"
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: [galleries.{gallery}] {error}") from error
    for use, place in files.items():
        if place is None or place in NO_PATHS:
            continue
        real = os.path.realpath(os.path.expanduser(place))  # noqa: PTH111 - as the stores do
        yield real, use
        with suppress(OSError):  # no such file yet, or opening it reports the reason
            found = Path(real).stat()
            yield (found.st_dev, found.st_ino), use  # a hard link is another name of one file
