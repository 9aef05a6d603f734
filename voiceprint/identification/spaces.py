"""The embedding spaces of a store: the callers that each covers, and the snapshot of its index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from voiceprint.identification.snapshots import Stamp, changes_since, snapshot_coding, snapshot_path
from voiceprint.models import SnapshotState, SnapshotStatus, SpaceCoverage

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder
    from voiceprint.storage import Storage

__all__ = ["other_spaces", "snapshot_statuses", "space_coverage"]


def space_coverage(
    storage: Storage, primary: Encoder, secondary: Encoder | None = None
) -> list[SpaceCoverage]:
    """The coverage of each space of the store and of these encoders; theirs first, then by callers."""
    counts = storage.coverage()
    total = storage.count_enrolled()
    uses = {encoder.name: encoder for encoder in (primary, secondary) if encoder is not None}
    others = sorted(counts.keys() - uses.keys(), key=lambda space: (-counts[space].callers, space))
    found = []
    for space in (*uses, *others):
        dimension, voiceprints, callers, only = (
            counts[space] if space in counts else (uses[space].dimension, 0, 0, 0)
        )
        found.append(
            SpaceCoverage(
                encoder=space,
                dimension=dimension,
                voiceprints=voiceprints,
                callers=callers,
                only=only,
                share=callers / total if total else 0.0,
                use=None if space not in uses else "primary" if space == primary.name else "secondary",
            )
        )
    return found


def other_spaces(storage: Storage, encoder: str) -> str | None:
    """A sentence on the callers who have voiceprints of other spaces and none of this encoder's; None for
    none."""
    counts = storage.spaces()
    others = {space: count for space, count in counts.items() if space != encoder}
    if not others:
        return None
    total = storage.count_enrolled()
    missing = total - (storage.coverage()[encoder].callers if encoder in counts else 0)
    if missing <= 0:
        return None
    named = ", ".join(f"{count:,} of {space!r}" for space, count in sorted(others.items())[:5])
    return (
        f"{missing:,} of {total:,} callers have no voiceprint of the encoder {encoder!r} and are not found "
        f"by it: the store has voiceprints of other encoders ({named}). Set VOICE_ENCODER to the one that "
        "enrolled them, or enroll the callers anew."
    )


def snapshot_statuses(storage: Storage, setting: str | None, encoder: str) -> list[SnapshotStatus]:
    """The snapshot of each space of the store and of this encoder, which comes first.

    setting: as `VOICE_INDEX_PATH`.
    """
    counts = storage.spaces()
    found = []
    for space in (encoder, *sorted(counts.keys() - {encoder})):
        path = snapshot_path(storage, setting, space)
        state, changes = _state(storage, path, space)
        try:
            size = None if path is None else path.stat().st_size
        except OSError:  # not written yet, or not accessible
            size = None
        found.append(
            SnapshotStatus(
                encoder=space,
                voiceprints=counts.get(space, 0),
                path=None if path is None else str(path),
                size=size,
                changes=changes,
                state=state,
            )
        )
    return found


def _state(storage: Storage, path: Path | None, space: str) -> tuple[SnapshotState, int | None]:
    """The state of the snapshot at a path, and the number of changes since."""
    from voiceprint.index import IndexCorruptError, read_stamp

    if path is None:
        return "off", None
    try:
        stamp = Stamp.from_text(read_stamp(path, snapshot_coding(storage)))
    except FileNotFoundError:
        return "not_written", None
    except (IndexCorruptError, OSError, KeyError, ValueError):  # damaged, of another version or program
        return "unusable", None
    if (stamp.store, stamp.encoder) != (storage.identity(), space):
        return "unusable", None
    changed = 0
    for changes in changes_since(storage, stamp):
        if changes is None or len(changes.removed):
            return "outdated", None
        changed += len(changes.ids)
    return ("behind" if changed else "current"), changed
