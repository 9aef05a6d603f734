"""Which changes take something away that must not stay on the disk."""

from __future__ import annotations

from voiceprint.storage.records import Change

__all__ = ["removes"]


def removes(change: Change) -> bool:
    """Whether the change removes or replaces an embedding or a value of the metadata."""
    for name, after in change.callers.items():
        before = change.base.callers.get(name)
        if before is None or before is after:
            continue
        if after is None or not {id(print_) for print_ in before.prints} <= {id(p) for p in after.prints}:
            return True
        known = after.metadata
        if any(key not in known or known[key] != value for key, value in before.metadata.items()):
            return True
    return False
