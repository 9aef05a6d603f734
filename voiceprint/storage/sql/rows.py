"""Conversion of the rows of an SQL store to records, with checks: a database may be damaged or edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import RowMapping

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.storage.codec import decode_details, decode_provenance
from voiceprint.storage.records import (
    COUNTER_END,
    CallerRecord,
    PrintRecord,
    forgotten_caller,
    forgotten_print,
)
from voiceprint.storage.sealed_codec import CallerSeals, StoreSeals, as_bytes
from voiceprint.storage.sealing import SEAL_BYTES, ForgottenKeyError, SealingError, join_seal, missing_key
from voiceprint.validation import (
    EMBEDDING_DIMENSIONS,
    MAX_METADATA_DEPTH,
    check_caller_id,
    check_time,
    nesting_depth,
)

# Tolerance for the length of a stored embedding: rounding leaves 1e-7, a changed bit mostly more than this.
_UNIT_TOLERANCE = 1e-3


class RowDecoder:
    """Decodes rows of the database `name`, and raises `StorageCorruptError` for bad ones.

    Its messages name the database and the place, and never quote a value.
    slots: slot and position of each voiceprint decoded so far, by id. seals: of the callers.
    """

    def __init__(self, name: str, seals: StoreSeals) -> None:
        self.name = name
        self.seals = seals
        self.slots: dict[int, tuple[int, int]] = {}

    def header(self, rows: Sequence[RowMapping]) -> RowMapping:
        """The one row of the table store."""
        if len(rows) != 1:
            self.corrupt("table store", f"has {len(rows)} rows where one should be")
        header = rows[0]
        for field in ("revision", "next_id", "feed_floor"):
            if type(header[field]) is not int or not 0 <= header[field] < COUNTER_END:
                self.corrupt("table store", f"has no whole number where the {field} should be")
        if not isinstance(header["identity"], str) or not header["identity"]:
            self.corrupt("table store", "has no identity")
        if header["feed_floor"] > header["revision"]:
            self.corrupt("table store", "remembers its changes from a revision that is yet to come")
        if not isinstance(header["encryption"], str | None):
            self.corrupt("table store", "has a mark of its encryption that is not text")
        return header

    def caller(self, row: Mapping[Any, Any], prints: Sequence[Mapping[Any, Any]]) -> CallerRecord:
        """A caller from its row and those of its voiceprints."""
        name = row["caller_id"]
        place = f"caller {name[:40]!r}" if isinstance(name, str) else "a caller whose id is not text"
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # here once, and not for each embedding
                check_caller_id(name)
                seals = self.seals.opening(name, row["data_key"])
                details = self._object(row["details"], place, "details")
                if seals is not None:
                    details = seals.open_details(row["sealed"] or b"")
                return CallerRecord(
                    name,
                    self._metadata(row["metadata"], place) if seals is None else details.pop("metadata", {}),
                    check_time(row["created_at"]),
                    check_time(row["last_seen"]),
                    tuple([self._print(print_, seals) for print_ in prints]),
                    *decode_details(details),
                    data_key=row["data_key"],
                )
        except ForgottenKeyError:
            return self._forgotten(row, prints)
        except (InvalidArgumentError, SealingError) as error:
            self.corrupt(place, str(error))

    def _forgotten(self, row: Mapping[Any, Any], prints: Sequence[Mapping[Any, Any]]) -> CallerRecord:
        """The record of a caller whose data key was forgotten, to be removed."""
        left = []
        for each in prints:
            self.slots[each["id"]] = each["slot"], each["position"]
            size = blob_length(each["embedding"])
            left.append(forgotten_print(each["id"], each["revision"], each["encoder"], size))
        return forgotten_caller(row["caller_id"], row["created_at"], left, row["data_key"])

    def _object(self, text: object, place: str, name: str) -> dict[str, Any]:
        """The object of a column of JSON; empty for NULL."""
        if text is None or text == "{}":
            return {}
        try:
            value = orjson.loads(text) if isinstance(text, str) else None
        except (orjson.JSONDecodeError, RecursionError):  # not chained: it quotes the text
            value = None
        if not isinstance(value, dict):
            self.corrupt(place, f"has {name} that is not a JSON object")
        return value

    def _metadata(self, text: object, place: str) -> dict[str, Any]:
        value = self._object(text if text is not None else "", place, "metadata")
        # Each level takes two characters at least.
        if len(str(text)) > 2 * MAX_METADATA_DEPTH and nesting_depth(value) > MAX_METADATA_DEPTH:
            self.corrupt(place, f"has metadata nested more than {MAX_METADATA_DEPTH} levels deep")
        return value

    def _print(self, row: Mapping[Any, Any], seals: CallerSeals | None) -> PrintRecord:
        id_, revision, space = row["id"], row["revision"], row["encoder"]
        place = f"voiceprint {id_}"
        if type(revision) is not int or revision < 0 or id_ < 1:
            self.corrupt(place, "has no whole number where the id and the revision should be")
        self.slots[id_] = row["slot"], row["position"]
        if not all(type(number) is int for number in self.slots[id_]):
            self.corrupt(place, "has no whole number where the slot and the position should be")
        if not isinstance(space, str) or not space:
            self.corrupt(place, "is of no named encoder")
        if seals is None and row["seal"] is not None:
            self.corrupt(place, "is encrypted, and its caller is not")
        blob = self._opened("embedding", id_, space, row["embedding"], row["seal"], seals)
        embedding, augmented = self._embedding(blob, space, place), None
        if row["augmented"] is not None:
            blob = self._opened("augmented", id_, space, row["augmented"], row["augmented_seal"], seals)
            augmented = self._embedding(blob, space, place)
            if augmented.size != embedding.size:
                self.corrupt(place, f"has embeddings of {embedding.size} and {augmented.size} values")
        details = self._object(row["details"], place, "details")
        if seals is not None and len(row["seal"]) > SEAL_BYTES:
            details = seals.open_provenance(id_, space, row["seal"][SEAL_BYTES:])
        provenance = decode_provenance(details)
        created_at = check_time(row["created_at"])
        return PrintRecord(id_, revision, space, created_at, embedding, augmented, provenance)

    @staticmethod
    def _opened(
        kind: str, id_: int, space: str, blob: object, seal: object, seals: CallerSeals | None
    ) -> object:
        """The bytes of an embedding from its column, which may be sealed. Raises `SealingError`."""
        if seals is None:
            return blob
        if not isinstance(blob, bytes) or not isinstance(seal, bytes) or len(seal) < SEAL_BYTES:
            raise SealingError(f"The voiceprint {id_} is not encrypted, and its caller is.")
        return seals.open_blob(kind, id_, space, join_seal(blob, seal[:SEAL_BYTES]))

    def opened(self, rows: Sequence[Any], space: str) -> list[tuple[int, bytes]]:
        """Rows of (id, embedding) from those of `SEALED_EMBEDDINGS`, or of `EMBEDDINGS` without a key."""
        if self.seals.sealing is None:
            if any(row[2] is not None for row in rows):
                raise missing_key()
            return [(row[0], row[1]) for row in rows]
        found: list[tuple[int, Any]] = []
        with self.seals.prefetched(row[4] for row in rows):
            owner, seals = None, None
            for id_, blob, seal, caller_id, data_key in rows:
                try:
                    if owner != (caller_id, data_key):
                        seals = self.seals.opening(caller_id, data_key)
                        owner = caller_id, data_key
                    if seals is None and seal is not None:
                        self.corrupt(f"voiceprint {id_}", "is encrypted, and its caller is not")
                    found.append((id_, self._opened("embedding", id_, space, blob, seal, seals)))
                except ForgottenKeyError:
                    continue
                except SealingError as error:
                    self.corrupt(f"voiceprint {id_}", str(error))
        return found

    def _embedding(self, blob: object, space: str, place: str) -> NDArray[np.float32]:
        if not isinstance(blob, bytes) or not blob or len(blob) % 4:
            self.corrupt(place, "has an embedding that is not float32 values")
        embedding = np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)
        size = EMBEDDING_DIMENSIONS.get(space, embedding.size)
        if embedding.size != size:
            self.corrupt(place, f"has an embedding of {embedding.size} values, and {size} are right")
        square = float(np.dot(embedding, embedding))
        if not abs(square - 1) <= 2 * _UNIT_TOLERANCE:  # a comparison that NaN fails too
            self.corrupt(place, "has an embedding that is not of length 1")
        return embedding

    def arrays(
        self, rows: Sequence[tuple[int, bytes]], space: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids int64[n] and embeddings float32[n, dimension] from rows of (id, embedding) of one space."""
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        if not rows:
            return ids, np.empty((0, 0), dtype=np.float32)
        blobs = [row[1] for row in rows]
        size = 4 * EMBEDDING_DIMENSIONS[space] if space in EMBEDDING_DIMENSIONS else blob_length(blobs[0])
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                matrix = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(rows), -1)
                sound = all(len(blob) == size for blob in blobs)
                norms = np.einsum("ij,ij->i", matrix, matrix)
                sound = sound and bool((np.abs(norms - 1) <= 2 * _UNIT_TOLERANCE).all())  # False for NaN too
            except (TypeError, ValueError):  # not bytes, or of different lengths
                sound = False
            if not sound:
                for id_, blob in rows:
                    self._embedding(blob, space, f"voiceprint {id_}")
                self.corrupt(f"the space {space!r}", "has embeddings of different lengths")
        return ids, matrix.astype(np.float32, copy=False)

    def corrupt(self, place: str, problem: str) -> NoReturn:
        """Raise `StorageCorruptError` for a place in the database."""
        raise StorageCorruptError(
            f"{self.name}: {place} {problem.rstrip('.')}. Nothing was changed."
        ) from None


as_blob = as_bytes


def blob_length(blob: object) -> int:
    """Length in bytes; 0 for a damaged value."""
    return len(blob) if isinstance(blob, bytes) else 0
