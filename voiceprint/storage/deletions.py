"""Noted deletions: a store recognizes a deleted caller in an old copy without keeping the caller's id."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Caller
from voiceprint.storage.base import Deletion
from voiceprint.validation import check_time

__all__ = ["DeletionList", "check_deletion", "deletion_digest"]


class DeletionList:
    """Looks callers up in the noted deletions of a store: `DeletionList(storage.deletions())`."""

    def __init__(self, deletions: Iterable[Deletion]) -> None:
        self._times = {(key, digest): time for key, digest, time in deletions}
        self._keys = sorted({key for key, _ in self._times})

    def __len__(self) -> int:
        return len(self._times)

    def entries(self, caller_id: str) -> list[Deletion]:
        """The noted deletions of this caller, earliest first."""
        found = []
        for key in self._keys:
            digest = deletion_digest(key, caller_id)
            if (key, digest) in self._times:
                found.append(Deletion(key, digest, self._times[key, digest]))
        return sorted(found, key=lambda entry: entry.deleted_at)

    def covers(self, caller: Caller) -> bool:
        """Whether this record is an old copy: the caller was deleted after it was created.

        A record without `created_at` counts as an old copy, as nothing shows that it is newer.
        """
        entries = self.entries(caller.caller_id)
        return bool(entries) and (caller.created_at is None or entries[-1].deleted_at >= caller.created_at)


def deletion_digest(key: str, caller_id: str) -> str:
    """The digest of this caller's `Deletion` by the store of identity `key`."""
    return hmac.new(key.encode(), caller_id.encode(), hashlib.sha256).hexdigest()[:32]


def check_deletion(deletion: Deletion) -> Deletion:
    """The deletion with its time in canonical form. Raises `InvalidArgumentError`."""
    sound, when = False, None
    if isinstance(deletion, Deletion) and all(isinstance(part, str) for part in deletion):
        sound = re.fullmatch(r"[\w-]{1,100} [0-9a-f]{32}", " ".join(deletion[:2]), re.ASCII) is not None
        when = check_time(deletion.deleted_at)
    if not sound or when is None:
        raise InvalidArgumentError(
            "A noted deletion is malformed: give a Deletion with a key, 32 hexadecimal digits and a time."
        )
    return deletion._replace(deleted_at=when)
