"""The part of the storage contract that encrypts existing records, and follows a change of the master key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

from voiceprint.models import Finding
from voiceprint.storage.data_keys import KeyedChanges
from voiceprint.storage.sealing import Sealing

__all__ = ["EncryptedStorage"]

T = TypeVar("T")

_PAGE = 500  # callers of one change, for which other writers wait


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

    @abstractmethod
    def identity(self) -> str:
        """As `Storage.identity`."""

    def forgotten_callers(self) -> list[str]:
        """The callers whose record is stored and whose data key was forgotten: an older copy was restored."""
        if self.sealing is None or not self.sealing.keeps_keys_apart:
            return []
        found: list[str] = []
        for page in self._pages_of_keys():
            keys = {caller_id: key for caller_id, key in page if key is not None}
            with self.sealing.prefetched(keys.values()):
                found += [caller_id for caller_id, key in keys.items() if self.sealing.is_forgotten(key)]
        return found

    def _pages_of_keys(self) -> Iterator[list[tuple[str, bytes | None]]]:
        after = ""
        while page := self.data_keys(after=after):
            yield page
            after = page[-1][0]

    def check_keys(self, *, fix: bool) -> list[Finding]:
        """Findings of `Storage.check` on data keys that are kept outside of the records.

        fix: remove the records of forgotten callers, and forget the keys of interrupted removals.
        """
        forgotten = self.forgotten_callers()
        if forgotten and fix:
            for start in range(0, len(forgotten), _PAGE):
                self._change_keys(
                    forgotten[start : start + _PAGE], lambda changes: changes.drop_forgotten(forgotten)
                )
            forgotten = []
        findings = [
            Finding(
                code="forgotten",
                place=f"caller {caller_id[:40]!r}",
                message="The record is of a copy from before the caller was removed, and its data key was "
                "forgotten, so nobody can read it: remove it with `check --fix`.",
            )
            for caller_id in forgotten
        ]
        unused = self._unused_keys()
        if unused and fix and self.sealing is not None:
            self.sealing.forget(unused)
        elif unused:
            findings.append(
                Finding(
                    code="key_left",
                    place="the key store",
                    message=f"Removals of callers were interrupted before {len(unused)} data keys were "
                    "forgotten, so copies of their records can still be read: run `check --fix`.",
                )
            )
        return findings

    def _unused_keys(self) -> list[bytes]:
        """The noted keys that no record has: of interrupted removals."""
        noted = [] if self.sealing is None else self.sealing.unfinished(self.identity())
        if not noted:
            return []
        used = {key for page in self._pages_of_keys() for _, key in page}
        return [key for key in noted if key not in used]

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
