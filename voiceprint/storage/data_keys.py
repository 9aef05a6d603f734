"""The part of a transaction that gives data keys to the callers of an encrypted store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from voiceprint.errors import StorageCorruptError
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.sealing import (
    ON,
    Sealing,
    SealingError,
    check_mark,
    mark_state,
    new_mark,
    not_encrypted,
    rewrapped_mark,
)

if TYPE_CHECKING:
    from voiceprint.storage.state import StoreState

__all__ = ["KeyedChanges"]


class KeyedChanges(ABC):
    """Changes of callers, with the data keys of those.

    encryption: the mark of the store after the changes, see `sealing`; sealing: gives the keys, None without.
    """

    base: StoreState
    identity: str
    callers: dict[str, CallerRecord | None]
    encryption: str
    sealing: Sealing | None

    @abstractmethod
    def find(self, caller_id: str) -> CallerRecord | None:
        """The caller's record after the changes so far."""

    def _begin_sealing(self, sealing: Sealing | None, *, is_new: bool) -> None:
        """is_new: whether the store is created, and then encrypted from the start on.

        Raises `EncryptionKeyError` where the store needs another key.
        """
        self.sealing = sealing
        self.encryption = self.base.encryption
        self._rewrapped: dict[str, bytes] = {}
        self._resealed = False
        try:
            check_mark(sealing, self.identity, self.encryption)
        except SealingError as error:
            raise StorageCorruptError(f"{error} Nothing was changed.") from error
        if sealing is not None and is_new and not self.encryption:
            self.encryption = new_mark(sealing, self.identity, ON)

    def set_encryption(self, state: str) -> None:
        """Mark the store as encrypted, or being encrypted, under the current master key."""
        assert self.sealing is not None  # noqa: S101  checked by the caller
        if mark_state(self.base.encryption) != state:
            self.encryption = new_mark(self.sealing, self.identity, state)
            self._resealed = True

    def rewrap_mark(self) -> None:
        """Bring the mark under the current master key."""
        assert self.sealing is not None  # noqa: S101  checked by the caller
        mark = rewrapped_mark(self.sealing, self.identity, self.encryption) if self.encryption else None
        if mark is not None:
            self.encryption, self._resealed = mark, True

    def reseal(self, caller_id: str) -> bool:
        """Encrypt a plain record, or bring its data key under the current master key; False: it is so."""
        caller = self.find(caller_id)
        if caller is None or self.sealing is None:
            return False
        if caller.data_key is None:
            # New objects, as a store writes only those voiceprints that are others than before.
            prints = tuple(replace(print_) for print_ in caller.voiceprints)
            self.callers[caller.caller_id] = replace(caller, voiceprints=prints)
        else:
            key = self.sealing.rewrap(self.identity, caller.caller_id, caller.data_key)
            if key is None:
                return False
            self._rewrapped[caller.caller_id] = key
            self.callers[caller.caller_id] = replace(caller)
        self._resealed = True
        return True

    def drop_forgotten(self, caller_ids: list[str]) -> None:  # noqa: ARG002  every change drops its own
        """Remove the unreadable records of these callers."""
        self._resealed = True  # a store in one file may have no other change to write

    def give_data_keys(self) -> list[bytes]:
        """Give each changed caller of an encrypted store a data key, before the commit.

        Returns the keys that are of no use after it, which are to be forgotten then: of deleted callers, and
        of those who opted out. Raises `ConfigurationError` where a key is set and the store is plain.
        """
        if self.sealing is None:
            return []
        if not self.encryption and self.callers:
            raise not_encrypted()
        unused, keyless = [], []
        for caller_id, record in self.callers.items():
            before = self.base.callers.get(caller_id)
            stored = None if before is None else before.data_key
            key = None if record is None else self._rewrapped.get(caller_id) or stored
            if record is not None and (key is None or _begins_anew(before, record)):
                keyless.append(caller_id)
                key = None
            elif record is not None:
                self.callers[caller_id] = replace(record, data_key=key)
            if stored is not None and key != stored and caller_id not in self._rewrapped:
                unused.append(stored)
        for caller_id, key in zip(keyless, self.sealing.new_keys(self.identity, keyless), strict=True):
            record = self.callers[caller_id]
            assert record is not None  # noqa: S101  as above
            self.callers[caller_id] = replace(record, data_key=key)
        self.sealing.will_forget(unused)
        return unused


def _begins_anew(before: CallerRecord | None, record: CallerRecord) -> bool:
    """Whether the record must not have the data key of the one before it."""
    if before is None:
        return True
    return before.is_forgotten or (record.opt_out is not None and before.opt_out is None)
