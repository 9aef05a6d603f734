"""A store of generated callers, for match.py, opening.py and others."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import timed
from tools.gallery_model import Gallery, GalleryModel
from voiceprint import SQLiteStorage, Storage, Voiceprint


def fill_file(path: Path, prints: int) -> None:
    """Fill the store at `path` with `prints` voiceprints, unless it holds any."""
    with SQLiteStorage(path) as storage:
        fill_store(storage, prints)


def fill_store(storage: Storage, prints: int) -> None:
    """Fill a store with `prints` voiceprints, unless it holds any."""
    count = storage.count()
    if count:
        print(f"{storage.location} holds {count:,} voiceprints and is used as it is", flush=True)
    else:
        seconds = timed(lambda: fill(storage, GalleryModel.load().gallery(prints)))
        print(f"{prints:,} voiceprints generated and stored in {seconds:.0f} s", flush=True)


def fill(storage: Storage, gallery: Gallery) -> None:
    """Save the gallery, a block in one transaction."""
    for block in gallery.blocks():
        pairs = zip(block.callers.tolist(), block.vectors, strict=True)
        storage.save_many(Voiceprint(caller_id(caller), vector) for caller, vector in pairs)


def caller_id(number: int) -> str:
    """The id of a generated caller."""
    return f"caller {number:08}"
