"""Looks callers up in the deletions that a store has noted, so that old copies bring nobody back."""

from __future__ import annotations

from collections.abc import Iterable

from voiceprint.models import Caller
from voiceprint.storage.base import Deletion
from voiceprint.storage.records import deletion_digest

__all__ = ["DeletionList"]


class DeletionList:
    """The deletions that a store has noted, to look up callers in: `DeletionList(storage.deletions())`."""

    def __init__(self, deletions: Iterable[Deletion]) -> None:
        self._times = {(key, digest): time for key, digest, time in deletions}
        self._keys = sorted({key for key, _ in self._times})

    def __len__(self) -> int:
        return len(self._times)

    def entries(self, caller_id: str) -> list[Deletion]:
        """The notes that are of this caller, the earliest first."""
        found = []
        for key in self._keys:
            digest = deletion_digest(key, caller_id)
            if (key, digest) in self._times:
                found.append(Deletion(key, digest, self._times[key, digest]))
        return sorted(found, key=lambda entry: entry.deleted_at)

    def covers(self, caller: Caller) -> bool:
        """Whether the caller was deleted after this record was created, so that it is an old copy.

        A record without `created_at` is one, as it cannot be shown to be newer.
        """
        entries = self.entries(caller.caller_id)
        return bool(entries) and (caller.created_at is None or entries[-1].deleted_at >= caller.created_at)
