"""Changes of a caller's life: consent, refusal, groups, renaming and merging."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace

from voiceprint.consent import Consent, OptOut, check_groups
from voiceprint.errors import CallerNotFoundError, CallerOptedOutError, InvalidArgumentError
from voiceprint.storage.data_keys import KeyedChanges
from voiceprint.storage.records import CallerRecord, PrintRecord
from voiceprint.validation import check_caller_id, check_metadata, just_after


class CallerChanges(KeyedChanges):
    """The part of a `Transaction` that changes what a caller has agreed to, is in and is named."""

    revision: int
    callers: dict[str, CallerRecord | None]
    removed: list[int]
    changes_voiceprints: bool
    _now: str

    @abstractmethod
    def new_id(self, caller_id: str) -> int:
        """An id for a new voiceprint of this caller."""

    @abstractmethod
    def delete(self, caller_id: str, unless_seen_since: str | None = None) -> int:
        """As `Storage.delete`."""

    @abstractmethod
    def _new_caller(self, caller_id: str, created_at: str) -> CallerRecord:
        """A new caller, dated after the last deletion of that id."""

    @abstractmethod
    def _note_deletion(self, caller: CallerRecord) -> None:
        """Note the deletion of the caller."""

    @abstractmethod
    def _check_dimension(self, encoder: str, size: int) -> None:
        """Raise `InvalidArgumentError` for an embedding of another length than those of its space."""

    def _drop_forgotten(self) -> None:
        """Remove the records that nobody can read any more. Their deletion was noted when it was made."""
        for caller in [*self.base.callers.values()]:
            if caller.is_forgotten:
                self.callers[caller.caller_id] = None
                self.removed += [print_.id for print_ in caller.voiceprints]
                self.changes_voiceprints = True

    # Consent and refusal

    def set_consent(self, caller_id: str, consent: Consent) -> CallerRecord:
        """As `Storage.set_consent`."""
        caller = self._find_or_new(caller_id)
        refuse_opted_out(caller)
        return caller if consent == caller.consent else self._put(replace(caller, consent=consent))

    def opt_out(self, caller_id: str, reason: str | None, by: str | None) -> int:
        """As `Storage.opt_out`."""
        caller = self._find_or_new(caller_id)
        if caller.opt_out is not None:
            return 0
        self._note_deletion(caller)
        self.removed += [print_.id for print_ in caller.voiceprints]
        self.changes_voiceprints = self.changes_voiceprints or bool(caller.voiceprints)
        opt_out = OptOut(at=self._now, reason=reason, by=by)
        self._put(CallerRecord(caller.caller_id, {}, caller.created_at, None, (), opt_out=opt_out))
        return len(caller.voiceprints)

    def opt_in(self, caller_id: str) -> CallerRecord:
        """As `Storage.opt_in`."""
        caller = self.found(caller_id)
        if caller.opt_out is None:
            return caller
        # Dated after the deletion, so that no copy with the refusal or the erased voiceprints comes back.
        created_at = max(just_after(caller.opt_out.at), self._now)
        return self._put(CallerRecord(caller.caller_id, {}, created_at, None, ()))

    def _find_or_new(self, caller_id: str) -> CallerRecord:
        name = check_caller_id(caller_id)
        return self.find(name) or self._new_caller(name, self._now)

    def found(self, caller_id: str) -> CallerRecord:
        """The caller's record after this transaction so far. Raises `CallerNotFoundError`."""
        caller = self.find(check_caller_id(caller_id))
        if caller is None:
            raise CallerNotFoundError(f"There is no caller {caller_id!r} in the store.")
        return caller

    def _put(self, caller: CallerRecord) -> CallerRecord:
        if caller is not self.find(caller.caller_id):
            self.callers[caller.caller_id] = caller
        return caller

    # Groups

    def set_groups(self, caller_id: str, add: Iterable[str], remove: Iterable[str]) -> CallerRecord:
        """As `Storage.set_groups`."""
        caller = self.found(caller_id)
        refuse_opted_out(caller)
        groups = check_groups([*({*caller.groups} - {*check_groups(remove)} | {*check_groups(add)})])
        return caller if groups == caller.groups else self._put(self._with_groups(caller, groups))

    def _with_groups(self, caller: CallerRecord, groups: tuple[str, ...]) -> CallerRecord:
        """The caller in these groups. The voiceprints get a new revision, so that followers read them."""
        self.changes_voiceprints = self.changes_voiceprints or bool(caller.voiceprints)
        prints = tuple(replace(print_, revision=self.revision) for print_ in caller.voiceprints)
        return replace(caller, groups=groups, voiceprints=prints)

    # Renaming and merging

    def rename(self, caller_id: str, new_id: str) -> CallerRecord:
        """As `Storage.rename`."""
        caller, name = self.found(caller_id), check_caller_id(new_id)
        if name == caller.caller_id:
            return caller
        refuse_opted_out(caller)  # the refusal stays with the id by which the caller would be enrolled again
        self.refuse_taken(name)
        renamed = self.copy_of(caller, name)
        self.delete(caller.caller_id)
        return renamed

    def refuse_taken(self, caller_id: str) -> None:
        """Raise `InvalidArgumentError` where there is a caller of this id."""
        if self.find(caller_id) is not None:
            raise InvalidArgumentError(
                f"There is a caller {caller_id!r} already: merge the two, if they are the same person."
            )

    def copy_of(self, caller: CallerRecord, new_id: str) -> CallerRecord:
        """Add the caller under a new id, with new ids of voiceprints."""
        created_at = self._new_caller(new_id, caller.created_at or self._now).created_at
        prints = [self._readded(print_, new_id) for print_ in caller.voiceprints]
        return self._put(replace(caller, caller_id=new_id, created_at=created_at, voiceprints=tuple(prints)))

    def merge(self, caller_id: str, into: str, limit: int) -> tuple[CallerRecord, list[int]]:
        """As `Storage.merge`; gives the merged caller and the ids of the removed voiceprints."""
        caller, target = self.found(caller_id), self.found(into)
        if caller.caller_id == target.caller_id:
            raise InvalidArgumentError(f"The caller {into!r} cannot be merged with itself.")
        merged, dropped = self.absorb(caller, target, limit)
        self.delete(caller.caller_id)
        return merged, dropped

    def absorb(self, caller: CallerRecord, into: CallerRecord, limit: int) -> tuple[CallerRecord, list[int]]:
        """Add the voiceprints and data of `caller` to `into`, as `merge` does."""
        refuse_opted_out(caller)
        refuse_opted_out(into)
        stored = {
            print_.embedding.tobytes() for print_ in into.voiceprints
        }  # by a merge that was interrupted
        new = [print_ for print_ in caller.voiceprints if print_.embedding.tobytes() not in stored]
        both = sorted([*into.voiceprints, *new], key=lambda print_: print_.created_at or "")
        dropped = [print_.id for place, print_ in enumerate(both) if _newer(both, place) >= limit]
        mine = {print_.id for print_ in into.voiceprints}
        self.removed += [id_ for id_ in dropped if id_ in mine]
        merged = CallerRecord(
            into.caller_id,
            check_metadata({**caller.metadata, **into.metadata}),
            into.created_at,
            caller.last_seen if into.last_seen is None else later(caller.last_seen, into.last_seen),
            tuple(
                print_ if print_.id in mine else self._readded(print_, into.caller_id)
                for print_ in both
                if print_.id not in dropped
            ),
            _stricter_consent(caller.consent, into.consent),
            groups=into.groups,
        )
        groups = check_groups([*caller.groups, *into.groups])
        if groups != into.groups:
            merged = self._with_groups(merged, groups)
        self.changes_voiceprints = True
        return self._put(merged), dropped

    def _readded(self, print_: PrintRecord, caller_id: str) -> PrintRecord:
        self._check_dimension(print_.encoder, print_.embedding.size)
        self.changes_voiceprints = True
        return replace(print_, id=self.new_id(caller_id), revision=self.revision)


def refuse_opted_out(caller: CallerRecord) -> None:
    """Raise `CallerOptedOutError` for a caller who has opted out."""
    if caller.opt_out is not None:
        raise opted_out(caller.caller_id, caller.opt_out)


def opted_out(caller_id: str, opt_out: OptOut) -> CallerOptedOutError:
    """The error of a caller who has opted out."""
    return CallerOptedOutError(
        f"The caller {caller_id!r} has opted out at {opt_out.at}: nothing of this caller is stored. If the "
        "caller agrees again, opt in first."
    )


def _newer(prints: list[PrintRecord], place: int) -> int:
    """The number of later voiceprints of the same space."""
    return sum(print_.encoder == prints[place].encoder for print_ in prints[place + 1 :])


def _stricter_consent(one: Consent | None, other: Consent | None) -> Consent | None:
    """The consent that ends first. A caller without one does not void the other's: they are one person."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda consent: (consent.expires_at is None, consent.expires_at or ""))


def later(one: str | None, other: str) -> str:
    """The later of two times in canonical form, of which the first may be missing."""
    # Canonical times compare as text. A clock that was set back must not move `last_seen` back.
    return other if one is None else max(one, other)
