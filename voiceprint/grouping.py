"""`Grouping`: the groups of a recognizer's callers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from voiceprint._audited import audited, note
from voiceprint.consent import check_groups
from voiceprint.storage.base import DEFAULT_PAGE

if TYPE_CHECKING:
    from voiceprint.models import Caller
    from voiceprint.storage import Storage


class Grouping:
    """The methods of a recognizer for groups. docs/groups.md explains them."""

    storage: Storage

    def groups(self) -> dict[str, int]:
        """The number of callers with a voiceprint in each group, in the order of names."""
        return {name: sum(1 for _ in self._members(name, ids)) for name, ids in self._group_ids().items()}

    @audited("read")
    def members(self, group: str) -> Iterator[Caller]:
        """The callers with a voiceprint who are in a group, in the order of their voiceprints."""
        (name,) = check_groups([group])
        note(detail=f"members of {name}")
        return self._members(name, self._group_ids().get(name, []))

    def _group_ids(self) -> dict[str, list[int]]:
        """The voiceprint ids of each group, of all embedding spaces; both in order."""
        found = defaultdict[str, list[int]](list)
        for space in self.storage.spaces():
            for name, ids in self.storage.group_ids(encoder=space).items():
                found[name] += ids.tolist()
        return {name: sorted(found[name]) for name in sorted(found)}

    def _members(self, name: str, ids: list[int]) -> Iterator[Caller]:
        read = set[str]()
        for start in range(0, len(ids), DEFAULT_PAGE):
            for caller in self.storage.callers_of(ids[start : start + DEFAULT_PAGE]):
                if name in caller.groups and caller.caller_id not in read:
                    read.add(caller.caller_id)
                    yield caller

    def add_to_group(self, caller_id: str, *groups: str) -> Caller:
        """Add a caller to groups, which come into being with their first caller; return the caller.

        Holds for the next match of every process. Raises `CallerNotFoundError`, and `CallerOptedOutError`.
        """
        return self.storage.set_groups(caller_id, add=groups)

    def remove_from_group(self, caller_id: str, *groups: str) -> Caller:
        """Remove a caller from groups, also from groups that the caller is not in; return the caller.

        Raises `CallerNotFoundError`.
        """
        return self.storage.set_groups(caller_id, remove=groups)

    def set_groups(self, caller_id: str, groups: Iterable[str]) -> Caller:
        """Put a caller into these groups, and into no other; return the caller.

        Raises `CallerNotFoundError`, and `CallerOptedOutError`.
        """
        wanted = check_groups(groups)
        caller = self.storage.get(caller_id)
        before = () if caller is None else caller.groups
        return self.storage.set_groups(caller_id, add=wanted, remove={*before} - {*wanted})
