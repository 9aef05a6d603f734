"""Callers and voiceprints as the stores hold them, and the range of voiceprint ids."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint._model import construct, copy_json
from voiceprint.consent import Consent, OptOut, Provenance
from voiceprint.models import Caller, Voiceprint

# Limit of every counter of a store: Redis takes 15 digits, as Lua counts in floats.
COUNTER_END = 10**15

# The greatest voiceprint id. Every store accepts it from every other.
MAX_ID = COUNTER_END - 1

# The last id given by counting (2.8 * 10**14). Only an import with such an id comes so far. Ids above it are
# drawn at random up to MAX_ID: a counter that followed the import would reach ids that no store accepts.
LAST_COUNTED_ID = 2**48


@dataclass(frozen=True)
class PrintRecord:
    """A voiceprint as stored. embedding, augmented: read-only float32[n], unit length."""

    id: int
    revision: int
    encoder: str
    created_at: str | None
    embedding: NDArray[np.float32] = field(repr=False)
    augmented: NDArray[np.float32] | None = field(default=None, repr=False)
    provenance: Provenance | None = field(default=None, repr=False)

    def has_content_of(self, other: PrintRecord) -> bool:
        """Whether the two are equal but for their revision."""
        return (
            (self.id, self.encoder, self.created_at) == (other.id, other.encoder, other.created_at)
            and self.provenance == other.provenance
            and self.embedding.tobytes() == other.embedding.tobytes()
            and _bytes(self.augmented) == _bytes(other.augmented)
        )


@dataclass(frozen=True)
class CallerRecord:
    """A caller as stored; `voiceprints` in the order of enrollment, oldest first.

    opt_out: of a caller who refused, and then has neither voiceprints nor metadata, groups and consent.
    data_key: the wrapped data key, of a record that is stored encrypted, see `sealing`.
    is_forgotten: whether that key was forgotten. The embeddings are then zeros, and the details are missing.
    """

    caller_id: str
    metadata: dict[str, Any] = field(repr=False)
    created_at: str | None
    last_seen: str | None
    voiceprints: tuple[PrintRecord, ...]
    consent: Consent | None = field(default=None, repr=False)
    opt_out: OptOut | None = None
    groups: tuple[str, ...] = ()
    data_key: bytes | None = field(default=None, repr=False)
    is_forgotten: bool = False

    def voiceprint(self, record: PrintRecord) -> Voiceprint:
        """One of this caller's voiceprints as the public model, with a copy of the metadata."""
        return construct(
            Voiceprint,
            {
                "caller_id": self.caller_id,
                "encoder": record.encoder,
                "embedding": record.embedding,
                "augmented": record.augmented,
                "metadata": copy_json(self.metadata),
                "created_at": record.created_at,
                "last_seen": self.last_seen,
                "id": record.id,
                "revision": record.revision,
                "consent": self.consent,
                "groups": self.groups,
                "provenance": record.provenance,
            },
        )

    def caller(self) -> Caller:
        """This caller as the public model, with copies of the metadata."""
        return construct(
            Caller,
            {
                "caller_id": self.caller_id,
                "metadata": copy_json(self.metadata),
                "created_at": self.created_at,
                "last_seen": self.last_seen,
                "voiceprints": tuple([self.voiceprint(print_) for print_ in self.voiceprints]),
                "consent": self.consent,
                "opt_out": self.opt_out,
                "groups": self.groups,
            },
        )

    def has_content_of(self, other: CallerRecord) -> bool:
        """Whether the two are equal but for the revisions of their voiceprints."""
        return (
            (self.created_at, self.last_seen, self.consent, self.opt_out, self.groups)
            == (other.created_at, other.last_seen, other.consent, other.opt_out, other.groups)
            and same_json(self.metadata, other.metadata)
            and len(self.voiceprints) == len(other.voiceprints)
            and all(
                mine.has_content_of(its)
                for mine, its in zip(self.voiceprints, other.voiceprints, strict=True)
            )
        )


def as_arrays(prints: list[PrintRecord]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids int64[n] and embeddings float32[n, dimension] of voiceprints of one embedding space."""
    ids = np.array([print_.id for print_ in prints], dtype=np.int64)
    if not prints:
        return ids, np.empty((0, 0), dtype=np.float32)
    return ids, np.stack([print_.embedding for print_ in prints])


def next_id_after(id_: int, next_id: int) -> int:
    """The next id to give once `id_` is taken; `next_id`: the one planned so far."""
    return max(next_id, id_ + 1) if id_ <= LAST_COUNTED_ID else next_id


def random_id() -> int:
    """An id above those given by counting."""
    return LAST_COUNTED_ID + 1 + secrets.randbelow(MAX_ID - LAST_COUNTED_ID)


def same_json(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two JSON objects are equal, with True, 1 and 1.0 told apart, unlike `==`."""
    return orjson.dumps(one) == orjson.dumps(other)


def _bytes(vector: NDArray[np.float32] | None) -> bytes:
    return b"" if vector is None else vector.tobytes()


def forgotten_print(id_: int, revision: int, encoder: str, size: int) -> PrintRecord:
    """A voiceprint that nobody can read any more; size: bytes of its embedding."""
    return PrintRecord(id_, revision, encoder, None, np.zeros(size // 4, dtype=np.float32))


def forgotten_caller(
    caller_id: str, created_at: str | None, prints: Iterable[PrintRecord], data_key: bytes | None
) -> CallerRecord:
    """The record of a caller whose data key was forgotten."""
    return CallerRecord(caller_id, {}, created_at, None, tuple(prints), data_key=data_key, is_forgotten=True)
