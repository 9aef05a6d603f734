"""The fields of a caller's record as they are sealed in every store.

details: metadata, consent, opt-out and groups, as one JSON object. Of a voiceprint: embedding and augmented
embedding as little-endian float32, and the provenance as a JSON object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint.storage.codec import details_fields, provenance_field
from voiceprint.storage.records import CallerRecord, PrintRecord
from voiceprint.storage.sealing import (
    ON,
    DataKey,
    Sealing,
    SealingError,
    check_plain,
    mark_state,
    missing_key,
    place,
)

__all__ = ["CallerSeals", "StoreSeals"]

_DETAILS = place("details")


class CallerSeals:
    """Seals and opens the fields of one caller. Opening raises `SealingError`."""

    __slots__ = ("_key",)

    def __init__(self, key: DataKey) -> None:
        self._key = key

    def details(self, record: CallerRecord) -> bytes:
        """The caller's details, sealed."""
        entry = {"metadata": record.metadata, **details_fields(record)}
        return self._key.seal(orjson.dumps(entry), _DETAILS)

    def open_details(self, sealed: bytes) -> dict[str, Any]:
        """The object of the details, with "metadata"."""
        return _json_object(self._key.open(sealed, _DETAILS))

    def embedding(self, print_: PrintRecord) -> bytes:
        """The embedding, sealed."""
        return self.blob("embedding", print_.id, print_.encoder, as_bytes(print_.embedding))

    def augmented(self, print_: PrintRecord) -> bytes | None:
        """The augmented embedding, sealed; None without one."""
        if print_.augmented is None:
            return None
        return self.blob("augmented", print_.id, print_.encoder, as_bytes(print_.augmented))

    def provenance(self, print_: PrintRecord) -> bytes | None:
        """The object with the provenance, sealed; None without one."""
        fields = provenance_field(print_)
        return self.blob("provenance", print_.id, print_.encoder, orjson.dumps(fields)) if fields else None

    def blob(self, kind: str, id_: int, space: str, data: bytes) -> bytes:
        """A field of a voiceprint, sealed."""
        return self._key.seal(data, place(kind, id_, space))

    def open_blob(self, kind: str, id_: int, space: str, sealed: bytes) -> bytes:
        """The field of `blob`."""
        return self._key.open(sealed, place(kind, id_, space))

    def open_vector(self, kind: str, id_: int, space: str, sealed: bytes) -> NDArray[np.float32]:
        """An embedding, not checked. kind: "embedding" or "augmented"."""
        raw = self.open_blob(kind, id_, space, sealed)
        if len(raw) % 4:
            raise SealingError("An embedding is not of float32 values.")
        return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)

    def open_provenance(self, id_: int, space: str, sealed: bytes) -> dict[str, Any]:
        """The object with the provenance."""
        return _json_object(self.open_blob("provenance", id_, space, sealed))


class StoreSeals:
    """The seals of the callers of one store.

    sealing: None without a key. store: its identity, read late. mark: of the store, see `sealing`.
    """

    def __init__(self, sealing: Sealing | None, store: Callable[[], str], mark: str = "") -> None:
        self.sealing = sealing
        self.mark = mark
        self._store = store

    @property
    def store(self) -> str:
        """The identity of the store; "" where none is known."""
        return self._store()

    def opening(self, caller_id: str, wrapped: object) -> CallerSeals | None:
        """The seals of a stored caller; None for a plain record, which only a plain store has.

        Raises `ConfigurationError` where a key is set and the store is plain, `EncryptionKeyError` and
        `SealingError`.
        """
        if wrapped is None and mark_state(self.mark) != ON:
            check_plain(self.sealing, self.mark)
            return None
        if not isinstance(wrapped, bytes):
            raise SealingError("The record is not encrypted, in an encrypted store.")
        return self.of(caller_id, wrapped)

    def prefetched(self, data_keys: Iterable[object]) -> AbstractContextManager[None]:
        """As `Sealing.prefetched`, for the data keys of records, which may be plain."""
        if self.sealing is None:
            return nullcontext()
        return self.sealing.prefetched(key for key in data_keys if isinstance(key, bytes))

    def of(self, caller_id: str, wrapped: bytes) -> CallerSeals:
        """The seals of a caller. Raises `EncryptionKeyError` and `SealingError`."""
        if self.sealing is None:
            raise missing_key()
        return CallerSeals(self.sealing.open_key(self._store(), caller_id, wrapped))


def as_bytes(vector: NDArray[np.float32]) -> bytes:
    """An embedding as little-endian float32."""
    return vector.astype("<f4", copy=False).tobytes()


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:  # not chained: it quotes the text
        value = None
    if not isinstance(value, dict):
        raise SealingError("A sealed object is not JSON.")
    return value
