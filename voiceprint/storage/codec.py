"""A caller as a JSON object: the one layout of JSON stores, exports, backups and Redis records.

    {"caller_id": "alice", "metadata": {...}, "created_at": "...Z", "last_seen": "...Z",
     "voiceprints": [{"id": 1, "encoder": "resemblyzer", "created_at": "...Z", ...}]}

Each format adds its own fields to a voiceprint. `augmented`, named "simulated" by older versions, is absent
from a voiceprint that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        "voiceprints": [
            {
                "id": print_.id,
                "encoder": print_.encoder,
                "created_at": print_.created_at,
                **fields(print_),
            }
            for print_ in caller.voiceprints
        ],
    }


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
        voiceprints=tuple(_decode_print(caller_id, print_, decode) for print_ in prints),
    )


def _decode_print(caller_id: str, entry: Any, decode: Callable[[Any], Any]) -> Voiceprint:
    if not isinstance(entry, dict) or type(entry.get("id")) is not int:
        raise InvalidArgumentError("a voiceprint has no id.")
    augmented = augmented_field(entry)
    fields = {name: entry[name] for name in ("id", "encoder", "created_at") if name in entry}
    return Voiceprint(
        caller_id,
        decode(entry.get("embedding")),
        augmented=None if augmented is None else decode(augmented),
        **fields,
    )
