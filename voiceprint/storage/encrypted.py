"""The part of the storage contract that encrypts existing records, and follows a change of the master key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from voiceprint.storage.data_keys import KeyedChanges
from voiceprint.storage.sealing import Sealing

__all__ = ["EncryptedStorage"]

T = TypeVar("T")


class EncryptedStorage(ABC):
    """Base of every store; sealing: gives the data keys, None without a key."""

    sealing: Sealing | None

    @abstractmethod
    def encryption_mark(self) -> str:
        """Whether the store is encrypted, see `sealing.mark_state`; needs no key."""

    @abstractmethod
    def data_keys(self, *, after: str = "", limit: int = 1_000) -> list[tuple[str, bytes | None]]:
        """One page of callers with their wrapped data keys, None for a plain record, as `callers` pages."""

    @abstractmethod
    def data_key(self, caller_id: str) -> bytes | None:
        """The wrapped data key of a caller; None for a plain record, or without one."""

    @abstractmethod
    def _change_keys(self, caller_ids: list[str], work: Callable[[KeyedChanges], T]) -> list[T]:
        """The results of `work` on the changes of these callers, committed; several where one cannot be."""

    def reseal(self, caller_ids: list[str]) -> int:
        """Encrypt the plain records of these callers, and bring the others under the current master key.

        Returns the number of changed ones. Embeddings, times and revisions stay; data keys stay, too.
        """
        return sum(
            self._change_keys(
                caller_ids, lambda changes: sum(changes.reseal(caller_id) for caller_id in caller_ids)
            )
        )

    def set_encryption(self, state: str) -> None:
        """Mark the store: `sealing.ENCRYPTING` refuses plain changes, `sealing.ON` plain records too."""
        self._change_keys([], lambda changes: changes.set_encryption(state))

    def rewrap_mark(self) -> None:
        """Bring the mark under the current master key."""
        self._change_keys([], lambda changes: changes.rewrap_mark())
