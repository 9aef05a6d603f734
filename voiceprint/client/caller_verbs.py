"""Calls on callers and groups.

Arguments are checked here as the recognizer does, so that a wrong one is the same error, without a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from voiceprint.client import answers
from voiceprint.client.calls import Call, id_part, part
from voiceprint.consent import CallerState, Consent, check_groups
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import (
    Caller,
    DeletionReceipt,
)
from voiceprint.validation import check_caller_id, check_metadata, shown

if TYPE_CHECKING:
    pass

_LONGEST_PAGE: Final = 1000
"""Most callers of a page of the service."""


def get_caller(caller_id: str) -> Call[Caller | None]:
    """The caller with metadata and voiceprints, or None."""
    path = f"callers/{id_part(caller_id)}"
    return Call("GET", path, answers.caller, has_voiceprints=True, none_if_missing=True)


def caller_state(caller_id: str) -> Call[CallerState | None]:
    """The state of a caller, see `CallerState`; None for an id that the store does not have."""
    path = f"callers/{id_part(caller_id)}"
    return Call("GET", path, lambda found: found["state"], none_if_missing=True)


def callers(*, after: str = "", limit: int | None = None) -> Call[answers.Page]:
    """A page of callers, in the order of their ids."""
    query = _query(after=after or None, limit=limit)
    return Call("GET", "callers", answers.page, has_voiceprints=True, query=query)


def find_callers(metadata: Mapping[str, Any], *, after: str, limit: int) -> Call[answers.Page]:
    """A page of the callers whose metadata has these values."""
    fields = {"metadata": check_metadata(dict(metadata)), "after": after, "limit": min(limit, _LONGEST_PAGE)}
    return Call("POST", "callers/search", answers.page, has_voiceprints=True, fields=fields)


def delete_caller(caller_id: str) -> Call[int]:
    """Remove a caller with all voiceprints and metadata; return the number of voiceprints."""
    path = f"callers/{id_part(caller_id)}"
    return Call("DELETE", path, _voiceprints, changes=True, query={"receipt": "false"})


def delete_with_receipt(caller_id: str) -> Call[DeletionReceipt]:
    """`delete_caller` with a receipt."""
    path = f"callers/{id_part(caller_id)}"
    return Call("DELETE", path, answers.receipt, changes=True, query={"receipt": "true"})


def delete_voiceprint(voiceprint_id: int) -> Call[bool]:
    """Remove one voiceprint; False for an unknown id. Its caller stays, also without another."""
    if isinstance(voiceprint_id, bool) or not isinstance(voiceprint_id, (int, np.integer)):
        raise InvalidArgumentError(f"The voiceprint id is {shown(voiceprint_id)}: give a whole number.")
    return Call("DELETE", f"voiceprints/{int(voiceprint_id)}", lambda found: found["deleted"], changes=True)


def update_metadata(caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Call[Caller]:
    """Merge `metadata` into the caller's, new keys winning, or `replace` it all; return the caller.

    Raises `CallerNotFoundError`, and `CallerOptedOutError`.
    """
    fields = {"metadata": check_metadata(metadata), "replace": replace}
    return _change("PATCH", f"callers/{id_part(caller_id)}", fields)


def rename_caller(caller_id: str, new_id: str) -> Call[Caller]:
    """Give a caller another id; return the caller. The voiceprints get new ids, the times stay.

    Raises `CallerNotFoundError`, and `InvalidArgumentError` where there is a caller of the new id.
    """
    return _change("PATCH", f"callers/{id_part(caller_id)}", {"caller_id": check_caller_id(new_id)})


def merge_callers(source: str, into: str) -> Call[tuple[Caller, list[int]]]:
    """Make one caller of two who are the same person: `OpusAgentVoiceRecognizer.merge_callers`."""
    return Call(
        "POST",
        f"callers/{id_part(source)}/merge",
        answers.merged,
        changes=True,
        has_voiceprints=True,
        fields={"into": check_caller_id(into)},
    )


def set_consent(caller_id: str, consent: Consent) -> Call[Caller]:
    """Store a caller's consent in place of an earlier one; return the caller.

    Before the enrollment, this makes a caller without voiceprints. Raises `CallerOptedOutError`.
    """
    if not isinstance(consent, Consent):
        raise InvalidArgumentError(f"The consent is {shown(consent)}: give a Consent.")
    return _change("PUT", f"callers/{id_part(caller_id)}/consent", consent.model_dump())


def opt_out(caller_id: str, *, reason: str | None = None, by: str | None = None) -> Call[int]:
    """Erase all voiceprints and data of a caller who refuses, and note the refusal; return the number of
    voiceprints."""
    path, fields = f"callers/{id_part(caller_id)}/opt-out", {"reason": reason, "by": by}
    return Call("POST", path, _voiceprints, changes=True, query={"receipt": "false"}, fields=fields)


def opt_out_with_receipt(
    caller_id: str, *, reason: str | None = None, by: str | None = None
) -> Call[DeletionReceipt]:
    """`opt_out` with a receipt."""
    path, fields = f"callers/{id_part(caller_id)}/opt-out", {"reason": reason, "by": by}
    return Call("POST", path, answers.receipt, changes=True, query={"receipt": "true"}, fields=fields)


def opt_in(caller_id: str) -> Call[Caller]:
    """End the refusal of a caller, who can be enrolled again; return the caller, without voiceprints.

    Raises `CallerNotFoundError` for an id that the store does not have.
    """
    return _change("POST", f"callers/{id_part(caller_id)}/opt-in", None)


def groups() -> Call[dict[str, int]]:
    """The number of callers with a voiceprint in each group, in the order of names."""
    return Call("GET", "groups", lambda found: found["groups"])


def members(group: str, *, after: str = "", limit: int | None = None) -> Call[answers.Page]:
    """A page of the callers with a voiceprint who are in a group."""
    (name,) = check_groups([group])
    query = _query(after=after or None, limit=limit)
    return Call("GET", f"groups/{part(name)}/members", answers.page, has_voiceprints=True, query=query)


def add_to_group(caller_id: str, *groups: str) -> Call[Caller]:
    """Add a caller to groups, which come into being with their first caller; return the caller.

    Raises `CallerNotFoundError`, and `CallerOptedOutError`.
    """
    return _change("POST", f"callers/{id_part(caller_id)}/groups", {"groups": list(check_groups(groups))})


def remove_from_group(caller_id: str, *groups: str) -> Call[Caller]:
    """Remove a caller from groups, also from groups that the caller is not in; return the caller.

    Raises `CallerNotFoundError`.
    """
    path, named = f"callers/{id_part(caller_id)}/groups", list(check_groups(groups))
    return Call("DELETE", path, answers.caller, changes=True, has_voiceprints=True, query={"group": named})


def set_groups(caller_id: str, groups: Iterable[str]) -> Call[Caller]:
    """Put a caller into these groups, and into no other; return the caller.

    Raises `CallerNotFoundError`, and `CallerOptedOutError`.
    """
    return _change("PUT", f"callers/{id_part(caller_id)}/groups", {"groups": list(check_groups(groups))})


def _query(**values: object) -> dict[str, str | list[str]]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _voiceprints(found: Mapping[str, Any]) -> int:
    return int(found["voiceprints"])


def _change(method: str, path: str, fields: Mapping[str, Any] | None) -> Call[Caller]:
    """A change of a caller, who is the answer."""
    return Call(method, path, answers.caller, changes=True, has_voiceprints=True, fields=fields)
