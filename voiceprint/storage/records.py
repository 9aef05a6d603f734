"""The records of a store that holds them all in memory, and the one set of rules that changes them.

`Records` is a committed state. A `Change` is made on top of one without touching it, so that a store
can write it to disk first and `apply` it only when that has succeeded.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint.errors import CallerNotFoundError, InvalidArgumentError, StorageCorruptError
from voiceprint.models import Caller, Finding, Voiceprint
from voiceprint.storage.base import START, Changes, Deletion, Position
from voiceprint.validation import (
    check_augmented,
    check_caller_id,
    check_embedding,
    check_metadata,
    check_time,
    just_after,
    now,
)

# Deletions that the change feed remembers. An index that is further behind is rebuilt, which at
# this many changes costs about as much as catching up.
MAX_TOMBSTONES = 10_000

# Commits whose tokens are remembered. An index that is further behind is rebuilt.
MAX_COMMITS = 10_000

# What no counter of a sound store reaches: Redis takes 15 digits for one, as Lua counts in floats.
COUNTER_END = 10**15

# The greatest id: any store takes it from any other, whichever gave it.
MAX_ID = COUNTER_END - 1

# The last id that is counted to, 280 million million. No number of saves comes so far, but an import with
# such an id does. From there ids are drawn at random, up to MAX_ID: a counter that followed the import would
# come to ids that no store takes.
LAST_COUNTED_ID = 2**48


@dataclass(frozen=True)
class PrintRecord:
    """A voiceprint as stored."""

    id: int
    revision: int
    encoder: str
    created_at: str | None
    embedding: NDArray[np.float32] = field(repr=False)
    augmented: NDArray[np.float32] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CallerRecord:
    """A caller as stored; `prints` in the order of their enrollment, the oldest first."""

    caller_id: str
    metadata: dict[str, Any] = field(repr=False)
    created_at: str | None
    last_seen: str | None
    prints: tuple[PrintRecord, ...]

    def voiceprint(self, print_: PrintRecord) -> Voiceprint:
        """One of this caller's prints as the public model, with a copy of the metadata."""
        return Voiceprint.model_construct(
            caller_id=self.caller_id,
            encoder=print_.encoder,
            embedding=print_.embedding,
            augmented=print_.augmented,
            metadata=_copy_json(self.metadata),
            created_at=print_.created_at,
            last_seen=self.last_seen,
            id=print_.id,
            revision=print_.revision,
        )

    def caller(self) -> Caller:
        """This caller as the public model, with copies of the metadata."""
        return Caller.model_construct(
            caller_id=self.caller_id,
            metadata=_copy_json(self.metadata),
            created_at=self.created_at,
            last_seen=self.last_seen,
            voiceprints=tuple(self.voiceprint(print_) for print_ in self.prints),
        )


class Records:
    """A committed state: the callers, and what the change feed needs.

    owner: voiceprint id to caller id; dimensions: embedding space to the length of its embeddings.
    identity: of the store, "" until the first write gives it one.
    revision: of the last change.
    next_id: voiceprint id to be given next.
    feed_floor: the feed knows all changes after this revision.
    commits: the changes of voiceprints after the floor and, if it is not 0, at it, in the order of revisions.
    tombstones: (revision, voiceprint id) of deletions, in the order of revisions.
    deletions: of callers: key and digest to the time, see `Deletion`.
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
    ) -> None:
        self.callers = {caller.caller_id: caller for caller in callers}
        self.owner = {print_.id: c.caller_id for c in self.callers.values() for print_ in c.prints}
        self.dimensions = {p.encoder: p.embedding.size for c in self.callers.values() for p in c.prints}
        self.identity = identity
        self.revision = revision
        self.next_id = next_id
        self.feed_floor = feed_floor
        self.commits = list(commits)
        self.tombstones = list(tombstones)
        self.deletions = {(key, digest): time for key, digest, time in deletions}

    @property
    def position(self) -> Position:
        """As `Storage.position`."""
        return self.commits[-1] if self.commits else START

    def deleted_since(self, key: str, digest: str, time: str) -> str | None:
        """When this caller was deleted, if that was noted for this time or later."""
        noted = self.deletions.get((key, digest))
        return noted if noted is not None and noted >= time else None

    def changes(self, since: Position, encoder: str) -> Changes | None:
        """As `Storage.changes`."""
        if since == self.position:
            return self._feed([], [])
        at = bisect_left(self.commits, since)
        known = self.commits[at : at + 1] == [since]
        if not known and not (since == START and self.feed_floor == 0):
            return None
        newer = [
            print_
            for caller in self.callers.values()
            for print_ in caller.prints
            if print_.revision > since.revision and print_.encoder == encoder
        ]
        return self._feed([id_ for revision, id_ in self.tombstones if revision > since.revision], newer)

    def _feed(self, removed: list[int], prints: list[PrintRecord]) -> Changes:
        ids, embeddings = as_arrays(prints)
        return Changes(self.position, np.array(removed, dtype=np.int64), ids, embeddings)

    def restart_feed(self) -> None:
        """Take another position, and forget what came before: every follower will rebuild."""
        self.feed_floor = self.revision
        self.commits, self.tombstones = [Position(self.revision, new_token())], []

    def check(self, limit: int) -> list[Finding]:
        """What no state should have and a damaged or hand-edited one may."""
        return [
            Finding(
                code="too_many_voiceprints",
                place=f"caller {caller.caller_id!r}",
                message=f"{len(caller.prints)} voiceprints, and {limit} are the limit: "
                "the next enrollment removes the oldest.",
            )
            for caller in self.callers.values()
            if len(caller.prints) > limit
        ]

    def has_id(self, id_: int) -> bool:
        """Whether there is a voiceprint of this id."""
        return id_ in self.owner

    def has_prints(self, encoder: str, besides: Container[str] = ()) -> bool:
        """Whether any caller that is not among `besides` has a voiceprint of this embedding space."""
        others = (caller for caller in self.callers.values() if caller.caller_id not in besides)
        return any(print_.encoder == encoder for caller in others for print_ in caller.prints)

    def prints(self, encoder: str) -> list[PrintRecord]:
        """All voiceprints of one embedding space."""
        return [p for caller in self.callers.values() for p in caller.prints if p.encoder == encoder]

    def apply(self, change: Change) -> None:
        """Make `change`, which was made on top of this very state, the committed one."""
        for id_ in change.removed:  # first: one that left its embedding space is still the caller's
            self.owner.pop(id_, None)
        for caller_id, caller in change.callers.items():
            if caller is None:
                self.callers.pop(caller_id, None)
            else:
                self.callers[caller_id] = caller
                self.owner.update((print_.id, caller_id) for print_ in caller.prints)
        self.dimensions.update(change.dimensions)
        self.identity = change.identity
        self.revision = change.revision
        self.next_id = change.next_id
        self.commits, self.tombstones, self.feed_floor = change.history()
        self.deletions = change.all_deletions()


class Change:
    """A change on top of `base`: what will be different once it is committed.

    callers: the new record of each caller that differs, None for one that is removed.
    removed: ids of voiceprints that go, or leave the embedding space that they were in.
    owners: the callers of the voiceprints that were restored.
    deletions: of callers that are noted with this change, as in `Records`; restored: the callers that were
        restored, with their `created_at`: notes of later deletions of them are dropped.
    """

    def __init__(self, base: Records) -> None:
        if base.revision + 1 >= COUNTER_END:
            raise StorageCorruptError(
                f"The store has come to revision {base.revision}, after which none can be told from others. "
                "No number of changes does that: it is damaged, or was edited. It can still be read: copy it "
                "into a new store. Nothing was changed."
            )
        self.base = base
        self.identity = base.identity or uuid.uuid4().hex
        self.token = new_token()
        self.revision = base.revision + 1
        self.next_id = base.next_id
        self.callers: dict[str, CallerRecord | None] = {}
        self.removed: list[int] = []
        self.owners: dict[int, str] = {}
        self.dimensions: dict[str, int] = {}
        self.deletions: dict[tuple[str, str], str] = {}
        self.restored: dict[str, str | None] = {}
        self.touches_prints = False
        self._time = now()

    def __bool__(self) -> bool:
        return bool(self.callers or self.deletions)

    def find(self, caller_id: str) -> CallerRecord | None:
        """The caller's record as this change leaves it."""
        if caller_id in self.callers:
            return self.callers[caller_id]
        return self.base.callers.get(caller_id)

    def history(self) -> tuple[list[Position], list[tuple[int, int]], int]:
        """The commits and the deletions to remember after this change, and the floor of the feed."""
        commits, entries = self.base.commits, self.base.tombstones
        floor = self.base.feed_floor
        if not self.touches_prints:
            return commits, entries, floor
        commits = [*commits, Position(self.revision, self.token)]
        entries = entries + [(self.revision, id_) for id_ in self.removed]
        if len(entries) > MAX_TOMBSTONES:
            floor = entries[-MAX_TOMBSTONES - 1][0]
        if len(commits) > MAX_COMMITS:
            floor = max(floor, commits[-MAX_COMMITS].revision)
        if floor > self.base.feed_floor:
            entries = [entry for entry in entries if entry[0] > floor]
            commits = [commit for commit in commits if commit.revision >= floor]
        return commits, entries, floor

    def all_deletions(self) -> dict[tuple[str, str], str]:
        """The noted deletions after this change."""
        if not self.deletions and not self.restored:
            return self.base.deletions
        noted = {**self.base.deletions, **self.deletions}
        for key in {key for key, _ in noted}:
            for caller_id, created_at in self.restored.items():
                entry = key, deletion_digest(key, caller_id)
                if entry in noted and (created_at is None or noted[entry] >= created_at):
                    del noted[entry]
        return noted

    def note_deletions(self, deletions: Iterable[Deletion], known: Mapping[tuple[str, str], str]) -> int:
        """As `Storage.note_deletions`; known: those of them that are noted already."""
        before = len(self.deletions)
        for deletion in deletions:
            key, digest, time = check_deletion(deletion)
            entry = key, digest
            if max(known.get(entry, ""), self.deletions.get(entry, "")) < time:
                self.deletions[entry] = time
        return len(self.deletions) - before

    def save(self, voiceprint: Voiceprint, limit: int) -> Voiceprint:
        """As `Storage.save`."""
        if not isinstance(voiceprint, Voiceprint):
            raise InvalidArgumentError(f"A Voiceprint is saved, not {type(voiceprint).__name__}.")
        caller_id = check_caller_id(voiceprint.caller_id)
        created_at = check_time(voiceprint.created_at) or self._time
        seen = check_time(voiceprint.last_seen) or self._time
        caller = self.find(caller_id) or self._new_caller(caller_id, created_at)
        embedding = check_embedding(voiceprint.embedding, voiceprint.encoder)
        self._check_dimension(voiceprint.encoder, embedding.size)
        replaced = next((print_ for print_ in caller.prints if print_.id == voiceprint.id), None)
        if replaced is not None:
            id_ = replaced.id
            if replaced.encoder != voiceprint.encoder:
                self.removed.append(id_)
        else:
            id_ = self.new_id(caller_id)
        augmented = check_augmented(voiceprint.augmented, voiceprint.encoder, embedding)
        record = PrintRecord(id_, self.revision, voiceprint.encoder, created_at, embedding, augmented)
        if replaced is not None:
            prints = [record if print_ is replaced else print_ for print_ in caller.prints]
        else:
            prints = [*caller.prints, record]
        # The oldest give way, but never to the print that is being saved: it may be an old one replaced.
        others = [print_ for print_ in prints if print_ is not record]
        surplus = {print_.id for print_ in others[: max(0, len(prints) - limit)]}
        self.removed += sorted(surplus)
        caller = replace(
            caller,
            metadata=check_metadata({**caller.metadata, **voiceprint.metadata}),
            last_seen=_later(caller.last_seen, seen),
            prints=tuple(print_ for print_ in prints if print_.id not in surplus),
        )
        self.callers[caller_id] = caller
        self.touches_prints = True
        return caller.voiceprint(record)

    def new_id(self, caller_id: str) -> int:
        """An id for a new voiceprint of this caller."""
        if self.next_id <= LAST_COUNTED_ID:
            id_, self.next_id = self.next_id, self.next_id + 1
        else:
            id_ = _drawn_id()
            while id_ in self.owners or self.base.has_id(id_):
                id_ = _drawn_id()
        self.owners[id_] = caller_id
        return id_

    def _new_caller(self, caller_id: str, created_at: str) -> CallerRecord:
        """A caller who is created after the last deletion of that id, also where a clock went ahead since:
        or else `DeletionList.covers` would take the new caller for a copy of the old one."""
        entry = self.identity, deletion_digest(self.identity, caller_id)
        noted = self.deletions.get(entry) or self.base.deleted_since(*entry, created_at)
        if noted is not None and noted >= created_at:
            created_at = just_after(noted)
        return CallerRecord(caller_id, {}, created_at, None, ())

    def _check_dimension(self, encoder: str, size: int) -> None:
        known = self.dimensions.get(encoder, self.base.dimensions.get(encoder, size))
        if size != known and self._has_prints(encoder):
            raise InvalidArgumentError(
                f"The embedding has {size} values; those of the space {encoder!r} in this store have {known}."
            )
        self.dimensions[encoder] = size

    def _has_prints(self, encoder: str) -> bool:
        changed = [caller for caller in self.callers.values() if caller is not None]
        return any(print_.encoder == encoder for caller in changed for print_ in caller.prints) or (
            self.base.has_prints(encoder, besides=self.callers)
        )

    def restore(self, caller: Caller) -> bool:
        """As `Storage.restore_many` for one caller, who was checked; gives whether that changes anything."""
        caller_id = check_caller_id(caller.caller_id)
        known = self.find(caller_id)
        record = CallerRecord(
            caller_id,
            check_metadata(caller.metadata),
            check_time(caller.created_at),
            check_time(caller.last_seen),
            tuple(self._restored(voiceprint, caller_id, known) for voiceprint in caller.voiceprints),
        )
        if known is not None and _same_caller(record, known):
            return False
        before = {print_.id: print_ for print_ in known.prints} if known is not None else {}
        for print_ in record.prints:
            previous = before.pop(print_.id, None)
            if previous is not None and previous.encoder != print_.encoder:
                self.removed.append(print_.id)
        self.removed += sorted(before)
        self.callers[caller_id] = record
        self.restored[caller_id] = record.created_at
        self.touches_prints = True
        return True

    def _restored(self, voiceprint: Voiceprint, caller_id: str, known: CallerRecord | None) -> PrintRecord:
        id_ = voiceprint.id
        assert id_ is not None  # noqa: S101  it was checked
        if self._owner(id_) not in (caller_id, None):
            raise InvalidArgumentError(
                f"The voiceprint id {id_} of the caller {caller_id!r} is another caller's in this store, "
                "which was filled by itself: bring callers into an empty store, and enroll others after that."
            )
        embedding = check_embedding(voiceprint.embedding, voiceprint.encoder)
        self._check_dimension(voiceprint.encoder, embedding.size)
        self.next_id = next_id_after(id_, self.next_id)
        self.owners[id_] = caller_id
        created_at = check_time(voiceprint.created_at)
        augmented = check_augmented(voiceprint.augmented, voiceprint.encoder, embedding)
        record = PrintRecord(id_, self.revision, voiceprint.encoder, created_at, embedding, augmented)
        for print_ in known.prints if known is not None else ():
            if _same_print(record, print_):
                return print_  # keeps its revision: no follower need take it in again
        return record

    def _owner(self, id_: int) -> str | None:
        """The caller who has this voiceprint after the change so far."""
        return self.owners.get(id_, None if id_ in self.removed else self.base.owner.get(id_))

    def delete(self, caller_id: str, unless_seen_since: str | None = None) -> int:
        """As `Storage.delete`."""
        caller = self.find(check_caller_id(caller_id))
        if caller is None:
            return 0
        since = check_time(unless_seen_since)
        if since is not None and caller.last_seen is not None and caller.last_seen >= since:
            return 0
        self.callers[caller.caller_id] = None
        self.restored.pop(caller.caller_id, None)
        # Not before the creation, which another machine's clock may have dated ahead.
        noted = max(self._time, caller.created_at or "")
        self.deletions[self.identity, deletion_digest(self.identity, caller.caller_id)] = noted
        self.removed += [print_.id for print_ in caller.prints]
        self.touches_prints = True
        return len(caller.prints)

    def update_metadata(self, caller_id: str, metadata: dict[str, Any], put: bool) -> CallerRecord:
        """As `Storage.update_metadata`; `put`: in place of the old one, instead of merging."""
        caller = self.find(check_caller_id(caller_id))
        if caller is None:
            raise CallerNotFoundError(f"There is no caller {caller_id!r} in the store.")
        metadata = check_metadata(metadata)
        merged = metadata if put else check_metadata({**caller.metadata, **metadata})
        if _same_json(merged, caller.metadata):
            return caller
        updated = replace(caller, metadata=merged)
        self.callers[updated.caller_id] = updated
        return updated

    def touch(self, caller_id: str, when: str | None) -> bool:
        """As `Storage.touch`."""
        caller = self.find(check_caller_id(caller_id))
        if caller is None:
            return False
        seen = _later(caller.last_seen, check_time(when) or self._time)
        if seen != caller.last_seen:
            self.callers[caller.caller_id] = replace(caller, last_seen=seen)
        return True


def deletion_digest(key: str, caller_id: str) -> str:
    """The digest of a `Deletion` of this caller, by a store of this identity."""
    return hmac.new(key.encode(), caller_id.encode(), hashlib.sha256).hexdigest()[:32]


def check_deletion(deletion: Deletion) -> Deletion:
    """A noted deletion, its time in canonical form. Raises `InvalidArgumentError`."""
    sound, when = False, None
    if isinstance(deletion, Deletion) and all(isinstance(part, str) for part in deletion):
        sound = re.fullmatch(r"[\w-]{1,100} [0-9a-f]{32}", " ".join(deletion[:2]), re.ASCII) is not None
        when = check_time(deletion.deleted_at)
    if not sound or when is None:
        raise InvalidArgumentError("A noted deletion is not one: it has a key, a digest and a time.")
    return deletion._replace(deleted_at=when)


def new_token() -> str:
    """The token of a commit: 64 random bits."""
    return secrets.token_hex(8)


def next_id_after(id_: int, next_id: int) -> int:
    """The id to be given next where this one is taken, and `next_id` was to be next."""
    return max(next_id, id_ + 1) if id_ <= LAST_COUNTED_ID else next_id


def _drawn_id() -> int:
    return LAST_COUNTED_ID + 1 + secrets.randbelow(MAX_ID - LAST_COUNTED_ID)


def as_arrays(prints: list[PrintRecord]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids int64[n] and embeddings float32[n, dimension] of prints of one embedding space."""
    ids = np.array([print_.id for print_ in prints], dtype=np.int64)
    if not prints:
        return ids, np.empty((0, 0), dtype=np.float32)
    return ids, np.stack([print_.embedding for print_ in prints])


def _same_print(one: PrintRecord, other: PrintRecord) -> bool:
    return (
        (one.id, one.encoder, one.created_at) == (other.id, other.encoder, other.created_at)
        and one.embedding.tobytes() == other.embedding.tobytes()
        and _bytes(one.augmented) == _bytes(other.augmented)
    )


def _bytes(vector: NDArray[np.float32] | None) -> bytes:
    return b"" if vector is None else vector.tobytes()


def _same_caller(one: CallerRecord, other: CallerRecord) -> bool:
    return (
        (one.created_at, one.last_seen) == (other.created_at, other.last_seen)
        and _same_json(one.metadata, other.metadata)
        and len(one.prints) == len(other.prints)
        and all(_same_print(mine, its) for mine, its in zip(one.prints, other.prints, strict=True))
    )


def _copy_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_json(item) for item in value]
    return value


def _same_json(one: dict[str, Any], other: dict[str, Any]) -> bool:
    # Not ==, to which True, 1 and 1.0 are the same.
    return orjson.dumps(one) == orjson.dumps(other)


def _later(one: str | None, other: str) -> str:
    # Canonical times compare as text. A clock that was set back must not undo a sighting.
    return other if one is None else max(one, other)
