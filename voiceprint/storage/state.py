"""The committed state of a store, or of the part of it that a transaction needs."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voiceprint.models import Finding
from voiceprint.storage.base import START, Changes, Deletion, Position, SpaceCounts
from voiceprint.storage.findings import over_limit
from voiceprint.storage.records import CallerRecord, PrintRecord, as_arrays

if TYPE_CHECKING:
    from voiceprint.storage.transaction import Transaction

# Removed voiceprints that the change feed remembers. An index further behind is rebuilt, which costs about
# as much as catching up on this many changes.
MAX_TOMBSTONES = 10_000

# Commits whose tokens the change feed remembers. An index further behind is rebuilt.
MAX_COMMITS = 10_000


class StoreState:
    """A committed state: the callers, and the data of the change feed.

    owner: voiceprint id to caller id; dimensions: embedding space to the length of its embeddings.
    identity: of the store, "" until the first write.
    revision: of the last change; next_id: the next voiceprint id to give.
    feed_floor: the feed has all changes after this revision.
    commits: the changes of voiceprints after the floor and, unless it is 0, at it, by ascending revision.
    tombstones: (revision, voiceprint id) of removals, by ascending revision.
    deletions: (key, digest) of deleted callers to the time, see `Deletion`.
    encryption: the mark of an encrypted store, see `sealing`.
    forgotten: callers whose record nobody can read any more; the next write leaves them out.
    """

    def __init__(
        self,
        callers: Iterable[CallerRecord] = (),
        *,
        identity: str = "",
        revision: int = 0,
        next_id: int = 1,
        feed_floor: int = 0,
        commits: Iterable[Position] = (),
        tombstones: Iterable[tuple[int, int]] = (),
        deletions: Iterable[Deletion] = (),
        encryption: str = "",
        forgotten: Iterable[str] = (),
    ) -> None:
        self.callers = {caller.caller_id: caller for caller in callers}
        self.owner = {p.id: caller.caller_id for caller in self.callers.values() for p in caller.voiceprints}
        self.dimensions = {p.encoder: p.embedding.size for c in self.callers.values() for p in c.voiceprints}
        self.identity = identity
        self.revision = revision
        self.next_id = next_id
        self.feed_floor = feed_floor
        self.commits = list(commits)
        self.tombstones = list(tombstones)
        self.encryption = encryption
        self.forgotten = sorted(forgotten)
        self.deletions = {(key, digest): time for key, digest, time in deletions}

    @property
    def position(self) -> Position:
        """As `Storage.position`."""
        return self.commits[-1] if self.commits else START

    def may_note_deletions(self, time: str) -> bool:  # noqa: ARG002  a store that reads them on demand uses it
        """Whether deletions are noted, of `time` or later; True where only a look-up of each can say.

        Without any, `Transaction` saves the digest of every new caller, a sixth of the time of a save.
        """
        return bool(self.deletions)

    def deleted_since(self, key: str, digest: str, time: str) -> str | None:
        """The time of this caller's noted deletion if it is `time` or later, else None."""
        noted = self.deletions.get((key, digest))
        return noted if noted is not None and noted >= time else None

    def changes(self, since: Position, encoder: str) -> Changes | None:
        """As `Storage.changes`."""
        if since == self.position:
            return self._feed([], [])
        at = bisect_left(self.commits, since)
        is_remembered = self.commits[at : at + 1] == [since]
        if not is_remembered and not (since == START and self.feed_floor == 0):
            return None
        newer = [print_ for print_ in self.prints(encoder) if print_.revision > since.revision]
        return self._feed([id_ for revision, id_ in self.tombstones if revision > since.revision], newer)

    def _feed(self, removed: list[int], prints: list[PrintRecord]) -> Changes:
        ids, embeddings = as_arrays(prints)
        groups = {print_.id: self.callers[self.owner[print_.id]].groups for print_ in prints}
        return Changes(
            self.position,
            np.array(removed, dtype=np.int64),
            ids,
            embeddings,
            groups={id_: names for id_, names in groups.items() if names},
        )

    def group_ids(self, encoder: str) -> dict[str, NDArray[np.int64]]:
        """As `Storage.group_ids`."""
        return ids_by_group(
            (name, print_.id)
            for caller in self.callers.values()
            for name in caller.groups
            for print_ in caller.voiceprints
            if print_.encoder == encoder
        )

    def restart_feed(self) -> None:
        """Draw a new position and forget the history, so that every follower rebuilds."""
        self.feed_floor = self.revision
        self.commits, self.tombstones = [Position(self.revision, new_token())], []

    def check(self, limit: int) -> list[Finding]:
        """Findings of `Storage.check` that only a damaged or hand-edited store gives."""
        return [finding for caller in self.callers.values() for finding in over_limit(caller, limit)]

    def coverage(self) -> dict[str, SpaceCounts]:
        """As `Storage.coverage`."""
        voiceprints, callers, only = Counter[str](), Counter[str](), Counter[str]()
        for caller in self.callers.values():
            spaces = Counter(print_.encoder for print_ in caller.voiceprints)
            voiceprints.update(spaces)
            callers.update(spaces.keys())
            if len(spaces) == 1:
                only.update(spaces.keys())
        return {
            space: SpaceCounts(self.dimensions[space], count, callers[space], only[space])
            for space, count in voiceprints.items()
        }

    def has_id(self, id_: int) -> bool:
        """Whether a voiceprint has this id."""
        return id_ in self.owner

    def has_prints(self, encoder: str, besides: Container[str] = ()) -> bool:
        """Whether a caller who is not in `besides` has a voiceprint of this embedding space."""
        others = (caller for caller in self.callers.values() if caller.caller_id not in besides)
        return any(print_.encoder == encoder for caller in others for print_ in caller.voiceprints)

    def prints(self, encoder: str) -> list[PrintRecord]:
        """All voiceprints of one embedding space."""
        return [p for caller in self.callers.values() for p in caller.voiceprints if p.encoder == encoder]

    def history_after(self, transaction: Transaction) -> tuple[list[Position], list[tuple[int, int]], int]:
        """Commits, tombstones and feed floor once `transaction` is applied."""
        floor = self.feed_floor
        if not transaction.changes_voiceprints:
            return self.commits, self.tombstones, floor
        commits = [*self.commits, Position(transaction.revision, transaction.token)]
        tombstones = self.tombstones + [(transaction.revision, id_) for id_ in transaction.removed]
        if len(tombstones) > MAX_TOMBSTONES:
            floor = tombstones[-MAX_TOMBSTONES - 1][0]
        if len(commits) > MAX_COMMITS:
            floor = max(floor, commits[-MAX_COMMITS].revision)
        if floor > self.feed_floor:
            tombstones = [entry for entry in tombstones if entry[0] > floor]
            commits = [commit for commit in commits if commit.revision >= floor]
        return commits, tombstones, floor

    def apply(self, transaction: Transaction) -> None:
        """Make `transaction`, whose base is this state, the committed one."""
        history = self.history_after(transaction)
        for id_ in transaction.removed:  # first: an id that left its embedding space is still the caller's
            self.owner.pop(id_, None)
        for caller_id, caller in transaction.callers.items():
            if caller is None:
                self.callers.pop(caller_id, None)
            else:
                self.callers[caller_id] = caller
                self.owner.update((print_.id, caller_id) for print_ in caller.voiceprints)
        self.dimensions.update(transaction.dimensions)
        self.deletions = transaction.all_deletions()
        self.identity = transaction.identity
        self.encryption = transaction.encryption
        self.forgotten = []
        self.revision = transaction.revision
        self.next_id = transaction.next_id
        self.commits, self.tombstones, self.feed_floor = history


def ids_by_group(pairs: Iterable[tuple[str, int]]) -> dict[str, NDArray[np.int64]]:
    """Voiceprint ids int64[n] of each group, from pairs of both."""
    found: dict[str, list[int]] = {}
    for name, id_ in pairs:
        found.setdefault(name, []).append(id_)
    return {name: np.array(ids, dtype=np.int64) for name, ids in found.items()}


def new_token() -> str:
    """The token of a commit: 64 random bits."""
    return secrets.token_hex(8)
