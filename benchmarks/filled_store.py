"""A SQLite store of generated callers, for the benchmarks of what stands over the index."""

from __future__ import annotations

from pathlib import Path

from gallery_model import Gallery, GalleryModel
from measuring import timed

from voiceprint import SQLiteStorage, Storage, Voiceprint


def filled(path: Path, prints: int, seed: int = 1) -> Gallery:
    """Fill the store at `path` with so many prints, or leave it if it holds any; says which."""
    gallery = GalleryModel.load().gallery(prints, seed)
    with SQLiteStorage(path) as storage:
        there = storage.count()
        if there:
            print(f"{path}: used with the {there:,} voiceprints that it holds", flush=True)
        else:
            seconds = timed(lambda: fill(storage, gallery))
            print(f"{prints:,} voiceprints made and stored in {seconds:.0f} s", flush=True)
    return gallery


def fill(storage: Storage, gallery: Gallery) -> None:
    """Save the gallery, a block in one change."""
    for block in gallery.blocks():
        pairs = zip(block.callers.tolist(), block.vectors, strict=True)
        storage.save_many(Voiceprint(name(caller), vector) for caller, vector in pairs)


def name(caller: int) -> str:
    """The id of the caller of this number."""
    return f"caller {caller:08}"
