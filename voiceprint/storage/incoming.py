"""The one check of callers who come with ids of their own, by import, copy or restore, before any store
sees them."""

from __future__ import annotations

from collections.abc import Iterable

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Caller, Voiceprint
from voiceprint.storage.records import MAX_ID
from voiceprint.validation import check_caller_id, shown

__all__ = ["check_incoming"]


def check_incoming(callers: Iterable[Caller]) -> list[Caller]:
    """The callers, each of whom has voiceprints with ids that nobody else among them has.

    Raises `InvalidArgumentError` for something other than a caller, and for an id that is missing, out of
    range, or there twice.
    """
    given = list(callers)
    owners: dict[int, str] = {}
    for caller in given:
        if not isinstance(caller, Caller):
            raise InvalidArgumentError(f"A Caller is restored, not {type(caller).__name__}.")
        caller_id = check_caller_id(caller.caller_id)
        ids: set[int] = set()
        for print_ in caller.voiceprints:
            id_ = _checked_id(print_, caller_id)
            if id_ in ids:
                raise InvalidArgumentError(f"The caller {caller_id!r} has the voiceprint id {id_} twice.")
            ids.add(id_)
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
