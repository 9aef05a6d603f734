"""A caller as a JSON object: the one layout of JSON stores, exports, backups and Redis records.

    {"caller_id": "alice", "metadata": {...}, "created_at": "...Z", "last_seen": "...Z",
     "voiceprints": [{"id": 1, "encoder": "resemblyzer", "created_at": "...Z", ...}]}

"consent", "opt_out", "groups", and the "provenance" of a voiceprint are absent where there are none. Each
format adds its own fields to a voiceprint. `augmented`, named "simulated" by older versions, is absent from a
voiceprint that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.consent import Consent, OptOut, Provenance, check_groups
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Caller, Voiceprint
from voiceprint.storage.records import CallerRecord, PrintRecord
from voiceprint.validation import check_caller_id, check_metadata, check_time

AUGMENTED = "augmented"
_OLD_AUGMENTED = "simulated"

Print = Voiceprint | PrintRecord


def caller_entry(caller: Caller | CallerRecord, fields: Callable[[Print], dict[str, Any]]) -> dict[str, Any]:
    """The object of a caller; fields: gives those of a voiceprint that the format adds."""
    return {
        "caller_id": caller.caller_id,
        "metadata": caller.metadata,
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        **details_fields(caller),
        "voiceprints": [
            {
                "id": print_.id,
                "encoder": print_.encoder,
                "created_at": print_.created_at,
                **provenance_field(print_),
                **fields(print_),
            }
            for print_ in caller.voiceprints
        ],
    }


class CallerDetails(NamedTuple):
    """The fields of a caller that most callers do not have."""

    consent: Consent | None = None
    opt_out: OptOut | None = None
    groups: tuple[str, ...] = ()


NO_DETAILS = CallerDetails()


def details_fields(caller: Caller | CallerRecord) -> dict[str, Any]:
    """The consent, opt-out and groups of a caller, those that there are."""
    fields: dict[str, Any] = {}
    if caller.consent is not None:
        fields["consent"] = caller.consent.model_dump(exclude_none=True)
    if caller.opt_out is not None:
        fields["opt_out"] = caller.opt_out.model_dump(exclude_none=True)
    if caller.groups:
        fields["groups"] = [*caller.groups]
    return fields


def decode_details(entry: dict[str, Any]) -> CallerDetails:
    """The fields of `details_fields`. Raises `InvalidArgumentError`."""
    consent, opt_out, groups = entry.get("consent"), entry.get("opt_out"), entry.get("groups")
    if consent is None and opt_out is None and groups is None:
        return NO_DETAILS
    return CallerDetails(
        None if consent is None else Consent.of_record(_object(consent, "consent")),
        None if opt_out is None else OptOut.of_record(_object(opt_out, "opt_out")),
        () if groups is None else check_groups(groups),
    )


def provenance_field(print_: Print) -> dict[str, Any]:
    """The provenance of a voiceprint, if there is one."""
    return (
        {} if print_.provenance is None else {"provenance": print_.provenance.model_dump(exclude_none=True)}
    )


def decode_provenance(entry: dict[str, Any]) -> Provenance | None:
    """The provenance in the object of a voiceprint. Raises `InvalidArgumentError`."""
    provenance = entry.get("provenance")
    return None if provenance is None else Provenance.of_record(_object(provenance, "provenance"))


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"its {name} is not an object.")
    return value


def vector_fields(print_: Print, encode: Callable[[NDArray[np.float32]], Any]) -> dict[str, Any]:
    """The embeddings of a voiceprint, each as `encode` gives it."""
    fields = {"embedding": encode(print_.embedding)}
    if print_.augmented is not None:
        fields[AUGMENTED] = encode(print_.augmented)
    return fields


def augmented_field(entry: dict[str, Any]) -> Any:
    """The value of `augmented` in a voiceprint's object, under its old name too; None if absent."""
    return entry.get(AUGMENTED, entry.get(_OLD_AUGMENTED))


def decode_caller(entry: dict[str, Any], decode: Callable[[Any], Any]) -> Caller:
    """The caller of an object; decode: gives an embedding from the value of its field.

    Raises `InvalidArgumentError`.
    """
    caller_id = check_caller_id(entry.get("caller_id"))
    prints = entry.get("voiceprints")
    if not isinstance(prints, list):
        raise InvalidArgumentError("the caller has no list of voiceprints.")
    return Caller(
        caller_id=caller_id,
        metadata=check_metadata(entry.get("metadata")),
        created_at=check_time(entry.get("created_at")),
        last_seen=check_time(entry.get("last_seen")),
        **decode_details(entry)._asdict(),
        voiceprints=tuple(_decode_print(caller_id, print_, decode) for print_ in prints),
    )


def _decode_print(caller_id: str, entry: Any, decode: Callable[[Any], Any]) -> Voiceprint:
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise InvalidArgumentError("a voiceprint has no id.")
    augmented = augmented_field(entry)
    fields = {name: entry[name] for name in ("id", "encoder", "created_at") if name in entry}
    fields["provenance"] = decode_provenance(entry)
    return Voiceprint(
        caller_id,
        decode(entry.get("embedding")),
        augmented=None if augmented is None else decode(augmented),
        **fields,
    )
