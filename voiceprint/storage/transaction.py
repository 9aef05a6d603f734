"""The one set of rules that changes a store, whichever kind it is.

A `Transaction` is made on top of a `StoreState` without touching it, so that a store can write it to disk
first and apply it only once that has succeeded.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from voiceprint.consent import Consent, OptOut, check_consent, check_groups, check_provenance
from voiceprint.errors import (
    ConsentRequiredError,
    InvalidArgumentError,
    StorageCorruptError,
)
from voiceprint.models import Caller, Voiceprint
from voiceprint.retention import Expiry
from voiceprint.storage.base import Deletion
from voiceprint.storage.caller_changes import CallerChanges, later, refuse_opted_out
from voiceprint.storage.deletions import check_deletion, deletion_digest
from voiceprint.storage.records import (
    COUNTER_END,
    LAST_COUNTED_ID,
    MAX_ID,
    CallerRecord,
    PrintRecord,
    next_id_after,
    random_id,
    same_json,
)
from voiceprint.storage.sealing import Sealing
from voiceprint.storage.state import StoreState, new_token
from voiceprint.validation import (
    check_augmented,
    check_caller_id,
    check_embedding,
    check_metadata,
    check_time,
    just_after,
    now,
    shown,
)


class Transaction(CallerChanges):
    """The difference from `base` once it is committed. False while it changes nothing.

    callers: the new record of each caller that differs, None for a removed one.
    removed: ids of voiceprints that are removed, or leave their embedding space.
    owners: voiceprint id to caller id of the voiceprints that are new.
    deletions: deletions of callers noted by this transaction, as in `StoreState`; restored: restored callers
        with their `created_at`, whose later noted deletions are dropped.
    encryption: the mark of an encrypted store, see `sealing`; sealing: gives the data keys. A new store (by
        default one of revision 0) is encrypted from the first change on.
    """

    def __init__(
        self, base: StoreState, sealing: Sealing | None = None, *, is_new: bool | None = None
    ) -> None:
        if base.revision + 1 >= COUNTER_END:
            raise StorageCorruptError(
                f"The store has come to revision {base.revision}, the last one that a store counts to. "
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
        self.changes_voiceprints = False
        self._now = now()
        self._begin_sealing(sealing, is_new=base.revision == 0 if is_new is None else is_new)
        self._drop_forgotten()

    def __bool__(self) -> bool:
        return bool(self.callers or self.deletions or self._resealed)

    def find(self, caller_id: str) -> CallerRecord | None:
        """The caller's record after this transaction so far."""
        if caller_id in self.callers:
            return self.callers[caller_id]
        return self.base.callers.get(caller_id)

    # Removals

    def removes_voiceprints(self) -> bool:
        """Whether the transaction removes or replaces an embedding."""
        for caller_id, after in self.callers.items():
            before = self.base.callers.get(caller_id)
            if before is not None and before is not after:
                remaining = set() if after is None else _embeddings(after)
                if not _embeddings(before) <= remaining:
                    return True
        return False

    def removes_personal_data(self) -> bool:
        """Whether the transaction removes or replaces an embedding, metadata, a consent or a group."""
        if self._resealed or self.removes_voiceprints():
            return True
        for caller_id, after in self.callers.items():
            before = self.base.callers.get(caller_id)
            if before is None or before is after:
                continue
            if after is None or before.consent not in (None, after.consent):
                return True
            if not {*before.groups} <= {*after.groups} or before.opt_out not in (None, after.opt_out):
                return True
            remaining = after.metadata
            if any(key not in remaining or remaining[key] != old for key, old in before.metadata.items()):
                return True
        return False

    # Saving

    def save(self, voiceprint: Voiceprint, limit: int, *, require_consent: bool = False) -> Voiceprint:
        """As `Storage.save`."""
        if not isinstance(voiceprint, Voiceprint):
            raise InvalidArgumentError(f"A Voiceprint is saved, not {type(voiceprint).__name__}.")
        caller_id = check_caller_id(voiceprint.caller_id)
        created_at = check_time(voiceprint.created_at) or self._now
        seen = check_time(voiceprint.last_seen) or self._now
        caller = self.find(caller_id) or self._new_caller(caller_id, created_at)
        refuse_opted_out(caller)
        new_consent = check_consent(voiceprint.consent)
        consent = self._checked_consent(caller, new_consent, required=require_consent)
        replaced = next((print_ for print_ in caller.voiceprints if print_.id == voiceprint.id), None)
        id_ = self.new_id(caller_id) if replaced is None else replaced.id
        record = self._record(voiceprint, id_, created_at)
        if replaced is None:
            prints = [*caller.voiceprints, record]
        else:
            if replaced.encoder != record.encoder:
                self.removed.append(record.id)
            prints = [record if print_ is replaced else print_ for print_ in caller.voiceprints]
        # The oldest of its space give way, but never the one being saved, which may replace an old one.
        others = [print_ for print_ in prints if print_ is not record and print_.encoder == record.encoder]
        surplus = {print_.id for print_ in others[: max(0, len(others) + 1 - limit)]}
        self.removed += sorted(surplus)
        caller = CallerRecord(
            caller_id,
            check_metadata({**caller.metadata, **voiceprint.metadata}),
            caller.created_at,
            later(caller.last_seen, seen),
            tuple([print_ for print_ in prints if print_.id not in surplus]),
            consent,
            groups=caller.groups,
        )
        if not {*voiceprint.groups} <= {*caller.groups}:
            caller = self._with_groups(caller, check_groups([*caller.groups, *voiceprint.groups]))
        self.callers[caller_id] = caller
        self.changes_voiceprints = True
        return caller.voiceprint(record)

    def _checked_consent(
        self, caller: CallerRecord, new: Consent | None, *, required: bool
    ) -> Consent | None:
        """The consent after a save: that of the new voiceprint, unless the caller has a later valid one.

        Raises `ConsentRequiredError`.
        """
        consent = caller.consent
        if new is not None and (
            consent is None or not consent.is_valid_at(self._now) or consent.obtained_at <= new.obtained_at
        ):
            consent = new
        if consent is None and required:
            raise ConsentRequiredError(
                f"There is no consent of the caller {caller.caller_id!r}, which VOICE_REQUIRE_CONSENT asks "
                "for: give one with the enrollment, or store it before (`set_consent`, `voiceprint callers "
                "consent`)."
            )
        if consent is not None and not consent.is_valid_at(self._now):
            raise ConsentRequiredError(
                f"The consent of the caller {caller.caller_id!r} ended at {consent.expires_at}: give a new "
                "one."
            )
        return consent

    def _record(self, voiceprint: Voiceprint, id_: int, created_at: str | None) -> PrintRecord:
        embedding = check_embedding(voiceprint.embedding, voiceprint.encoder)
        self._check_dimension(voiceprint.encoder, embedding.size)
        augmented = check_augmented(voiceprint.augmented, voiceprint.encoder, embedding)
        return PrintRecord(
            id_,
            self.revision,
            voiceprint.encoder,
            created_at,
            embedding,
            augmented,
            check_provenance(voiceprint.provenance),
        )

    def new_id(self, caller_id: str) -> int:
        """An id for a new voiceprint of this caller."""
        if self.next_id <= LAST_COUNTED_ID:
            id_, self.next_id = self.next_id, self.next_id + 1
        else:
            id_ = random_id()
            while id_ in self.owners or self.base.has_id(id_):
                id_ = random_id()
        self.owners[id_] = caller_id
        return id_

    def _new_caller(self, caller_id: str, created_at: str) -> CallerRecord:
        """A new caller, dated after the last deletion of that id.

        Otherwise, after a clock went back, `DeletionList.covers` would take the caller for a deleted one.
        """
        if not self.deletions and not self.base.may_note_deletions(created_at):
            return CallerRecord(caller_id, {}, created_at, None, ())
        entry = self.identity, deletion_digest(self.identity, caller_id)
        deleted_at = self.deletions.get(entry) or self.base.deleted_since(*entry, created_at)
        if deleted_at is not None and deleted_at >= created_at:
            created_at = just_after(deleted_at)
        return CallerRecord(caller_id, {}, created_at, None, ())

    def _check_dimension(self, encoder: str, size: int) -> None:
        expected = self.dimensions.get(encoder, self.base.dimensions.get(encoder, size))
        if size != expected and self._has_prints(encoder):
            raise InvalidArgumentError(
                f"The embedding has {size} values; those of the space {encoder!r} in this store have "
                f"{expected}."
            )
        self.dimensions[encoder] = size

    def _has_prints(self, encoder: str) -> bool:
        changed = [caller for caller in self.callers.values() if caller is not None]
        return any(print_.encoder == encoder for caller in changed for print_ in caller.voiceprints) or (
            self.base.has_prints(encoder, besides=self.callers)
        )

    # Restoring

    def restore(self, caller: Caller) -> bool:
        """As `Storage.restore_many` for one checked caller; False if nothing changes."""
        caller_id = check_caller_id(caller.caller_id)
        current = self.find(caller_id)
        stored = current.voiceprints if current is not None else ()
        record = CallerRecord(
            caller_id,
            check_metadata(caller.metadata),
            check_time(caller.created_at),
            check_time(caller.last_seen),
            tuple(self._restored(voiceprint, caller_id, stored) for voiceprint in caller.voiceprints),
            check_consent(caller.consent),
            None if caller.opt_out is None else OptOut(**caller.opt_out.__dict__),
            check_groups(caller.groups),
        )
        if record.opt_out is not None and (
            record.voiceprints or record.metadata or record.groups or record.consent is not None
        ):
            raise InvalidArgumentError(
                f"The caller {caller_id!r} has opted out, and has voiceprints, metadata, groups or a consent."
            )
        if current is not None and current.opt_out is not None and record.opt_out is None:
            refuse_opted_out(current)  # also a later copy: only `opt_in` ends a refusal
        if current is not None and record.has_content_of(current):
            return False
        dropped = {print_.id: print_ for print_ in stored}
        for print_ in record.voiceprints:
            previous = dropped.pop(print_.id, None)
            if previous is not None and previous.encoder != print_.encoder:
                self.removed.append(print_.id)
        self.removed += sorted(dropped)
        self.callers[caller_id] = record
        self.restored[caller_id] = record.created_at
        self.changes_voiceprints = True
        return True

    def _restored(
        self, voiceprint: Voiceprint, caller_id: str, stored: tuple[PrintRecord, ...]
    ) -> PrintRecord:
        id_ = voiceprint.id
        assert id_ is not None  # noqa: S101  `check_incoming` has refused None
        if self._owner(id_) not in (caller_id, None):
            raise InvalidArgumentError(
                f"The voiceprint id {id_} of the caller {caller_id!r} is another caller's in this store, "
                "which was filled by itself: bring callers into an empty store, and enroll others after that."
            )
        record = self._record(voiceprint, id_, check_time(voiceprint.created_at))
        self.next_id = next_id_after(id_, self.next_id)
        self.owners[id_] = caller_id
        # An equal one keeps its revision, so that no follower reads it again.
        return next((print_ for print_ in stored if record.has_content_of(print_)), record)

    def _owner(self, id_: int) -> str | None:
        """The caller who has this voiceprint after this transaction so far."""
        return self.owners.get(id_, None if id_ in self.removed else self.base.owner.get(id_))

    # Deleting and updating

    def delete(self, caller_id: str, unless_seen_since: str | None = None) -> int:
        """As `Storage.delete`."""
        caller = self.find(check_caller_id(caller_id))
        if caller is None:
            return 0
        since = check_time(unless_seen_since)
        if since is not None and caller.last_seen is not None and caller.last_seen >= since:
            return 0
        self.callers[caller.caller_id] = None
        self._note_deletion(caller)
        self.removed += [print_.id for print_ in caller.voiceprints]
        self.changes_voiceprints = self.changes_voiceprints or bool(caller.voiceprints)
        return len(caller.voiceprints)

    def delete_expired(self, caller_id: str, expiry: Expiry) -> int:
        """As `Storage.delete_expired`."""
        caller = self.find(caller_id)
        if caller is None or not expiry.covers_caller(caller):
            return 0
        return self.delete(caller_id)

    def _note_deletion(self, caller: CallerRecord) -> None:
        self.restored.pop(caller.caller_id, None)
        # Not before the creation, which another machine's clock may have dated ahead.
        deleted_at = max(self._now, caller.created_at or "")
        self.deletions[self.identity, deletion_digest(self.identity, caller.caller_id)] = deleted_at

    def delete_voiceprint(self, caller_id: str, id_: int) -> bool:
        """As `Storage.delete_voiceprint`, of the caller who had it."""
        caller = self.find(caller_id)
        if caller is None or id_ not in {print_.id for print_ in caller.voiceprints}:
            return False
        remaining = tuple(print_ for print_ in caller.voiceprints if print_.id != id_)
        self._put(replace(caller, voiceprints=remaining))
        self.removed.append(id_)
        self.changes_voiceprints = True
        return True

    def delete_voiceprints(self, caller_id: str, encoder: str, *, delete_callers: bool) -> int:
        """As `Storage.delete_voiceprints` for one caller."""
        caller = self.find(caller_id)
        prints = caller.voiceprints if caller is not None else ()
        remaining = tuple(print_ for print_ in prints if print_.encoder != encoder)
        if caller is None or len(remaining) == len(prints):
            return 0
        if not remaining:
            return self.delete(caller_id) if delete_callers else 0
        self.callers[caller_id] = replace(caller, voiceprints=remaining)
        self.removed += [print_.id for print_ in prints if print_.encoder == encoder]
        self.changes_voiceprints = True
        return len(prints) - len(remaining)

    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace_all: bool) -> CallerRecord:
        """As `Storage.update_metadata`."""
        caller = self.found(caller_id)
        metadata = check_metadata(metadata)
        if metadata:
            refuse_opted_out(caller)
        merged = metadata if replace_all else check_metadata({**caller.metadata, **metadata})
        if same_json(merged, caller.metadata):
            return caller
        updated = replace(caller, metadata=merged)
        self.callers[updated.caller_id] = updated
        return updated

    def touch(self, caller_id: str, when: str | None) -> bool:
        """As `Storage.touch`."""
        caller = self.find(check_caller_id(caller_id))
        if caller is None or caller.opt_out is not None:
            return False
        seen = later(caller.last_seen, check_time(when) or self._now)
        if seen != caller.last_seen:
            self.callers[caller.caller_id] = replace(caller, last_seen=seen)
        return True

    def note_deletions(self, deletions: Iterable[Deletion], stored: Mapping[tuple[str, str], str]) -> int:
        """As `Storage.note_deletions`; stored: the times of those that the store has noted already."""
        before = len(self.deletions)
        for deletion in deletions:
            key, digest, time = check_deletion(deletion)
            entry = key, digest
            if max(stored.get(entry, ""), self.deletions.get(entry, "")) < time:
                self.deletions[entry] = time
        return len(self.deletions) - before

    def all_deletions(self) -> dict[tuple[str, str], str]:
        """The noted deletions after this transaction."""
        if not self.deletions and not self.restored:
            return self.base.deletions
        noted = {**self.base.deletions, **self.deletions}
        for key in {key for key, _ in noted}:
            for caller_id, created_at in self.restored.items():
                entry = key, deletion_digest(key, caller_id)
                if entry in noted and (created_at is None or noted[entry] >= created_at):
                    del noted[entry]
        return noted


def check_incoming(callers: Iterable[Caller]) -> list[Caller]:
    """Check the voiceprint ids of callers from an import, copy or restore, before a store reads them.

    Raises `InvalidArgumentError` for anything but a caller, and for an id that is missing, out of range, or
    present twice.
    """
    given = list(callers)
    owners: dict[int, str] = {}
    for caller in given:
        if not isinstance(caller, Caller):
            raise InvalidArgumentError(f"A Caller is restored, not {type(caller).__name__}.")
        caller_id = check_caller_id(caller.caller_id)
        ids = [_checked_id(print_, caller_id) for print_ in caller.voiceprints]
        for at, id_ in enumerate(ids):
            if id_ in ids[:at]:
                raise InvalidArgumentError(f"The caller {caller_id!r} has the voiceprint id {id_} twice.")
            owner = owners.setdefault(id_, caller_id)
            if owner != caller_id:
                raise InvalidArgumentError(
                    f"The callers {owner!r} and {caller_id!r} both have the voiceprint id {id_}."
                )
    return given


def _checked_id(print_: object, caller_id: str) -> int:
    if not isinstance(print_, Voiceprint):
        raise InvalidArgumentError(
            f"A voiceprint of the caller {caller_id!r} is of type {type(print_).__name__}: give a Voiceprint."
        )
    id_ = print_.id
    if id_ is None:
        raise InvalidArgumentError(
            f"A voiceprint of the caller {caller_id!r} has no id: save() is for new ones."
        )
    if type(id_) is not int or not 0 < id_ <= MAX_ID:
        raise InvalidArgumentError(
            f"A voiceprint of the caller {caller_id!r} has the id {shown(id_)}: a whole number from 1 to "
            f"{MAX_ID} is allowed."
        )
    return id_


def _embeddings(caller: CallerRecord) -> set[int]:
    """The identities of the arrays of a caller's embeddings, which a change that spares them shares."""
    vectors = [vector for print_ in caller.voiceprints for vector in (print_.embedding, print_.augmented)]
    return {id(vector) for vector in vectors if vector is not None}
