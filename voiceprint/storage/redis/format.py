"""The record of a caller in a Redis store, and the record of OpusAgent.

A record is one string of three parts: a line that differs for every version of the record,

    2 REVISION CHECKSUM        (16 digits; the first 16 hexadecimal digits of the SHA-1 of all else)

a line of JSON in the layout of codec.py, with "revision", "size" and, where there is an augmented voiceprint,
"augmented": true in the object of a voiceprint; and the embeddings, each followed by its augmented one, as
little-endian float32. A null revision is that of the record itself: the server gives it at the commit, when
the JSON is already written.

The first line of a record with an augmented voiceprint begins with 4, and of one with a consent, an opt-out,
groups or a provenance with 5, so that older libraries refuse it and do not drop these. Records that begin
with 3 call "augmented" "simulated".

An encrypted record begins with 6. Its JSON has "data_key", the wrapped key, and "sealed", in place of the
metadata, consent, opt-out and groups; a voiceprint has "seal", the nonce and tag of each of its embeddings,
and perhaps a sealed "provenance", all in Base64. The embeddings are ciphertext of the same length.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint.errors import ConfigurationError, InvalidArgumentError, StorageCorruptError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.codec import (
    AUGMENTED,
    Print,
    augmented_field,
    caller_entry,
    decode_details,
    decode_provenance,
    details_fields,
)
from voiceprint.storage.records import CallerRecord, PrintRecord, forgotten_caller, forgotten_print
from voiceprint.storage.sealed_codec import CallerSeals, StoreSeals
from voiceprint.storage.sealing import SEAL_BYTES, ForgottenKeyError, SealingError, join_seal, split_seal
from voiceprint.validation import check_caller_id, check_embedding, check_metadata, check_time

FORMATS = ("2", "3")  # of a store; 3: its commits have tokens, which an older library would not write
_READABLE = (b"2 ", b"3 ", b"4 ", b"5 ", b"6 ")  # of a record
VERSION_LENGTH = 35  # of the first line
_HEAD_LENGTH = 19  # of the first line without the checksum


def record_format(caller: CallerRecord) -> str:
    """The oldest format of a record that reads this caller without loss."""
    if caller.data_key is not None:
        return "6"
    if details_fields(caller) or any(print_.provenance is not None for print_ in caller.voiceprints):
        return "5"
    return "4" if any(print_.augmented is not None for print_ in caller.voiceprints) else "2"


def encode_record(caller: CallerRecord, revision: int, seals: StoreSeals) -> bytes:
    """A record without its first line; revision: of the coming commit."""

    def fields(print_: Print) -> dict[str, Any]:
        return {
            "revision": None if print_.revision == revision else print_.revision,
            "size": print_.embedding.size,
            **({} if print_.augmented is None else {AUGMENTED: True}),
        }

    if caller.data_key is not None:
        return _sealed_record(caller, fields, seals.of(caller.caller_id, caller.data_key))
    vectors = [vector for print_ in caller.voiceprints for vector in (print_.embedding, print_.augmented)]
    raw = [vector.astype("<f4", copy=False).tobytes() for vector in vectors if vector is not None]
    return b"".join([orjson.dumps(caller_entry(caller, fields)), b"\n", *raw])


def _sealed_record(
    caller: CallerRecord, fields: Callable[[PrintRecord], dict[str, Any]], seals: CallerSeals
) -> bytes:
    raw: list[bytes] = []

    def entry(print_: PrintRecord) -> dict[str, Any]:
        seal = b""
        for sealed in (seals.embedding(print_), seals.augmented(print_)):
            if sealed is not None:
                ciphertext, rest = split_seal(sealed)
                raw.append(ciphertext)
                seal += rest
        provenance = seals.provenance(print_)
        return {
            "id": print_.id,
            "encoder": print_.encoder,
            "created_at": print_.created_at,
            **fields(print_),
            "seal": _as_base64(seal),
            **({} if provenance is None else {"provenance": _as_base64(provenance)}),
        }

    line = {
        "caller_id": caller.caller_id,
        "data_key": _as_base64(caller.data_key or b""),
        "sealed": _as_base64(seals.details(caller)),
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        "voiceprints": [entry(print_) for print_ in caller.voiceprints],
    }
    return b"".join([orjson.dumps(line), b"\n", *raw])


def _as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _opened(entry: dict[str, Any], raw: bytes, seals: CallerSeals) -> tuple[dict[str, Any], bytes]:
    """The JSON and the embeddings of an encrypted record, as of a plain one. Raises ValueError."""
    opened = {**entry, **seals.open_details(_from_base64(entry["sealed"]))}
    prints, vectors, start = [], [], 0
    for print_ in entry["voiceprints"]:
        id_, space, seal = int(print_["id"]), str(print_["encoder"]), _from_base64(print_["seal"])
        for number, kind in enumerate(["embedding", "augmented"][: 1 + (augmented_field(print_) is True)]):
            ciphertext = raw[start : start + 4 * print_["size"]]
            start += len(ciphertext)
            part = seal[number * SEAL_BYTES : (number + 1) * SEAL_BYTES]
            vectors.append(seals.open_blob(kind, id_, space, join_seal(ciphertext, part)))
        plain = dict(print_)
        if "provenance" in print_:
            plain |= seals.open_provenance(id_, space, _from_base64(print_["provenance"]))
        prints.append(plain)
    return {**opened, "voiceprints": prints}, b"".join(vectors) + raw[start:]


def decode_record(value: bytes, caller_id: str, key: str, seals: StoreSeals) -> CallerRecord:
    """The record of `caller_id` in the value of `key`.

    Raises `StorageCorruptError`, naming the key, and `EncryptionKeyError`.
    """
    head, checksum = value[:_HEAD_LENGTH], value[_HEAD_LENGTH:VERSION_LENGTH]
    body = value[VERSION_LENGTH + 1 :]
    if value[VERSION_LENGTH : VERSION_LENGTH + 1] != b"\n" or head[:2] not in _READABLE:
        corrupt(key, "holds no record of this version")
    if hashlib.sha1(head + body, usedforsecurity=False).hexdigest()[:16].encode() != checksum:
        corrupt(key, "is damaged: its checksum is another")
    try:
        line, _, raw = body.partition(b"\n")
        entry, revision = orjson.loads(line), int(head[2:])
        if entry["caller_id"] != caller_id:
            corrupt(key, "holds the record of another caller")
        data_key = _from_base64(entry["data_key"]) if "data_key" in entry else None
        opening = seals.opening(caller_id, data_key)
        if opening is not None:
            entry, raw = _opened(entry, raw, opening)
        entries = entry["voiceprints"]
        sizes = [print_["size"] for print_ in entries]
        counts = [2 if augmented_field(print_) is True else 1 for print_ in entries]
        wanted = [size for size, count in zip(sizes, counts, strict=True) for _ in range(count)]
        if any(type(size) is not int or size < 1 for size in sizes) or 4 * sum(wanted) != len(raw):
            corrupt(key, f"has {len(raw)} bytes of embeddings, not {4 * sum(wanted)}")
        vectors = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
        vectors.flags.writeable = False
        stored = iter(np.split(vectors, np.cumsum(wanted)[:-1]))
        prints = []
        for print_, count in zip(entries, counts, strict=True):
            embedding, augmented = next(stored), next(stored) if count == 2 else None
            _check_stored(embedding, key)
            if augmented is not None:
                _check_stored(augmented, key)
            given = revision if print_["revision"] is None else int(print_["revision"])
            id_, encoder = int(print_["id"]), str(print_["encoder"])
            provenance = decode_provenance(print_)
            prints.append(
                PrintRecord(id_, given, encoder, print_["created_at"], embedding, augmented, provenance)
            )
        if not isinstance(entry["metadata"], dict):
            corrupt(key, "has metadata that is not an object")
        return CallerRecord(
            caller_id,
            entry["metadata"],
            entry["created_at"],
            entry["last_seen"],
            tuple(prints),
            *decode_details(entry),
            data_key=data_key,
        )
    except ForgottenKeyError:
        return _forgotten(entry, revision)
    except ConfigurationError:  # of the key: a ValueError, and no damage
        raise
    except SealingError as error:
        corrupt(key, f"does not open ({str(error).rstrip('.')})")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # Without its text, which may quote the record.
        corrupt(key, f"holds no readable record ({type(error).__name__})")


def data_key_of(value: bytes | None) -> bytes | None:
    """The wrapped data key in a record; None for a plain or a damaged one."""
    try:
        entry = orjson.loads((value or b"").split(b"\n", 2)[1])
        return _from_base64(entry["data_key"])
    except (ValueError, TypeError, KeyError, IndexError):  # damage, which decoding the record reports
        return None


def _forgotten(entry: dict[str, Any], revision: int) -> CallerRecord:
    """The record of a caller whose data key was forgotten, to be removed."""
    left = [
        forgotten_print(
            int(each["id"]),
            revision if each["revision"] is None else int(each["revision"]),
            str(each["encoder"]),
            4 * int(each["size"]),
        )
        for each in entry["voiceprints"]
    ]
    return forgotten_caller(entry["caller_id"], entry["created_at"], left, _from_base64(entry["data_key"]))


def _check_stored(embedding: NDArray[np.float32], key: str) -> None:
    # Comparing this way round also refuses NaN.
    if not abs(float(embedding @ embedding) - 1.0) < 1e-3:
        corrupt(key, "has an embedding that is no unit vector")


def version_of(value: bytes | None) -> str:
    """The first line of a record, which differs for every version of it; "" without a record."""
    return value[:VERSION_LENGTH].decode() if value is not None else ""


def decode_old_record(value: bytes, caller_id: str, key: str, revision: int) -> CallerRecord:
    """The caller in OpusAgent's record under `key`, with one voiceprint, whose id is still 0."""
    try:
        entry: Any = orjson.loads(value)
    except (orjson.JSONDecodeError, RecursionError):
        corrupt(key, "holds no JSON: it is damaged or not OpusAgent's")
    if not isinstance(entry, dict):
        corrupt(key, "does not hold a JSON object")
    if entry.get("caller_id", caller_id) != caller_id:
        corrupt(key, "holds the record of another caller")
    if not isinstance(entry.get("embedding"), list):
        corrupt(key, "has no embedding")
    try:
        created_at = check_time(entry.get("created_at"))
        embedding = check_embedding(entry["embedding"], RESEMBLYZER_SPACE)
        return CallerRecord(
            check_caller_id(caller_id),
            check_metadata(entry.get("metadata")),
            created_at,
            check_time(entry.get("last_seen")),
            (PrintRecord(0, revision, RESEMBLYZER_SPACE, created_at, embedding),),
        )
    except InvalidArgumentError as error:
        corrupt(key, f"cannot be adopted ({str(error).rstrip('.')})")


def corrupt(key: str, problem: str) -> NoReturn:
    """Raise `StorageCorruptError` for a key."""
    raise StorageCorruptError(f"The Redis key {key!r} {problem}. It was left as it is.")
