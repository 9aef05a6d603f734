"""The groups of a gallery: which voiceprints a search is among, or leaves out."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from voiceprint.index import IdSet
    from voiceprint.storage.base import Changes

_MOST_KEPT: Final = 256
"""Scopes whose ids and number of callers stay in memory, 8 bytes an id. With fewer, a deployment that
searches more combinations of groups in turns unites and counts these again, 10 ms for 10,000 callers."""

Names = tuple[str, ...]


class Scope(NamedTuple):
    """The callers to search among: those of any of `groups` (None: all), without those of `not_groups`."""

    groups: Names | None = None
    not_groups: Names = ()

    @property
    def is_everyone(self) -> bool:
        """Whether no caller is left out."""
        return self.groups is None and not self.not_groups

    def admits(self, names: Iterable[str]) -> bool:
        """Whether to compare with a caller of these groups."""
        of_caller = set(names)
        admitted = self.groups is None or not of_caller.isdisjoint(self.groups)
        return admitted and of_caller.isdisjoint(self.not_groups)


EVERYONE: Final = Scope()
"""All callers."""


class ScopeIds(NamedTuple):
    """A scope in voiceprint ids; None for no limit. At least one of the two is None."""

    allowed: IdSet | None = None
    excluded: IdSet | None = None

    def most(self, voiceprints: int) -> int:
        """The most voiceprints that a search can find, among this many."""
        return voiceprints if self.allowed is None else min(voiceprints, len(self.allowed))


ALL_IDS: Final = ScopeIds()
"""Every voiceprint."""


class GroupMap:
    """The voiceprint ids of every group, of one embedding space, at the position of the index.

    Follows the change feed as the index does. Methods may be called from many threads.
    """

    def __init__(self, ids_of_groups: Mapping[str, NDArray[np.int64]]) -> None:
        from voiceprint.index import IdSet  # loads faiss, at the first search

        self._sets = {name: IdSet(ids) for name, ids in ids_of_groups.items() if len(ids)}
        names = defaultdict[int, list[str]](list)
        for name in sorted(self._sets):
            for id_ in self._sets[name]:
                names[id_].append(name)
        # Of each voiceprint whose caller is in a group; callers of the same groups share one tuple.
        shared: dict[Names, Names] = {}
        self._names = {id_: shared.setdefault(tuple(of_id), tuple(of_id)) for id_, of_id in names.items()}
        self._scopes: dict[Scope, ScopeIds] = {}
        self._callers: dict[Scope, tuple[IdSet, int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sets)

    def __contains__(self, name: object) -> bool:
        return name in self._sets

    def apply(self, changes: Changes) -> None:
        """Take over a page of the change feed."""
        if not self._names and not changes.groups:
            return
        from voiceprint.index import IdSet

        left, joined = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        with self._lock:
            for id_ in (*changes.removed.tolist(), *changes.ids.tolist()):
                before, after = self._names.get(id_, ()), changes.groups.get(id_, ())
                if before == after:
                    continue
                for name in set(before) - set(after):
                    left[name].append(id_)
                for name in set(after) - set(before):
                    joined[name].append(id_)
                if after:
                    self._names[id_] = after
                else:
                    del self._names[id_]
            if not left and not joined:
                return
            for name in left.keys() | joined.keys():
                ids = self._sets.pop(name, IdSet()) - IdSet(left[name]) | IdSet(joined[name])
                if len(ids):
                    self._sets[name] = ids
            self._scopes.clear()

    def ids(self, scope: Scope) -> ScopeIds:
        """The voiceprints of a scope. The same sets again until a group has changed."""
        if scope.is_everyone:
            return ALL_IDS
        with self._lock:
            found = self._scopes.get(scope)
            if found is None:
                if len(self._scopes) >= _MOST_KEPT:
                    self._scopes.clear()
                found = self._scopes[scope] = self._ids(scope)
            return found

    def _ids(self, scope: Scope) -> ScopeIds:
        excluded = self._union(scope.not_groups)
        if scope.groups is None:
            return ScopeIds(excluded=excluded)
        allowed = self._union(scope.groups)
        return ScopeIds(allowed - excluded if len(excluded) else allowed)

    def _union(self, names: Names) -> IdSet:
        from voiceprint.index import IdSet

        found = [self._sets[name] for name in names if name in self._sets]
        if len(found) == 1:
            return found[0]  # itself, whose vectors the index may have copied together
        return IdSet(np.concatenate([ids.ids for ids in found])) if found else IdSet()

    def counted(self, scope: Scope) -> tuple[IdSet, int] | None:
        """The ids of a scope and their number of callers when they were last counted."""
        return self._callers.get(scope)

    def note_count(self, scope: Scope, ids: IdSet, callers: int) -> None:
        """Keep a number of callers."""
        with self._lock:
            if len(self._callers) >= _MOST_KEPT:
                self._callers.clear()
            self._callers[scope] = ids, callers

    def check(self, ids_of_groups: Mapping[str, NDArray[np.int64]]) -> list[tuple[str, int]]:
        """Each group whose voiceprints differ from these of the store, with the number of differences."""
        from voiceprint.index import IdSet

        found = []
        for name in sorted(self._sets.keys() | ids_of_groups.keys()):
            mine, its = self._sets.get(name, IdSet()), IdSet(ids_of_groups.get(name, ()))
            differences = len(mine - its) + len(its - mine)
            if differences:
                found.append((name, differences))
        return found
