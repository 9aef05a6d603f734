"""What a Redis store keeps of a caller, and what OpusAgent kept.

A record is one string of three parts: a line that tells one version of it from any other,

    2 REVISION CHECKSUM        (the revision in 16 digits, 16 hexadecimal digits of the SHA-1 of the rest)

a line of JSON,

    {"caller_id": "alice", "metadata": {...}, "created_at": "...Z", "last_seen": "...Z",
     "voiceprints": [{"id": 1, "revision": 1, "encoder": "resemblyzer", "created_at": "...Z", "size": 256}]}

and the embeddings, one after the other, as little-endian float32. A voiceprint whose revision is null is
of the record's own: the server gives it at the commit, when the record is already written.
"""

from __future__ import annotations

import hashlib
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.records import CallerRecord, PrintRecord
from voiceprint.validation import check_caller_id, check_embedding, check_metadata, check_time

FORMAT = "2"
TOKEN_LENGTH = 35
_HEAD_LENGTH = 19  # the token without the checksum


def encode_record(caller: CallerRecord, revision: int) -> bytes:
    """A record without its first line; prints of `revision` are those of the coming commit."""
    entry = {
        "caller_id": caller.caller_id,
        "metadata": caller.metadata,
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        "voiceprints": [
            {
                "id": print_.id,
                "revision": None if print_.revision == revision else print_.revision,
                "encoder": print_.encoder,
                "created_at": print_.created_at,
                "size": print_.embedding.size,
            }
            for print_ in caller.prints
        ],
    }
    embeddings = [print_.embedding.astype("<f4", copy=False).tobytes() for print_ in caller.prints]
    return b"".join([orjson.dumps(entry), b"\n", *embeddings])


def decode_record(value: bytes, caller_id: str, key: str) -> CallerRecord:
    """The record of `caller_id` that `key` holds. Raises `StorageCorruptError`, naming the key."""
    head, checksum = value[:_HEAD_LENGTH], value[_HEAD_LENGTH:TOKEN_LENGTH]
    body = value[TOKEN_LENGTH + 1 :]
    if value[TOKEN_LENGTH : TOKEN_LENGTH + 1] != b"\n" or head[:2] != b"2 ":
        corrupt(key, "holds no record of this version")
    if hashlib.sha1(head + body, usedforsecurity=False).hexdigest()[:16].encode() != checksum:
        corrupt(key, "is damaged: its checksum is another")
    try:
        line, _, raw = body.partition(b"\n")
        entry, revision = orjson.loads(line), int(head[2:])
        if entry["caller_id"] != caller_id:
            corrupt(key, "holds the record of another caller")
        entries = entry["voiceprints"]
        sizes = [print_["size"] for print_ in entries]
        if any(type(size) is not int or size < 1 for size in sizes) or 4 * sum(sizes) != len(raw):
            corrupt(key, f"has {len(raw)} bytes of embeddings, and {sizes} values are to be there")
        vectors = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
        vectors.flags.writeable = False
        prints, start = [], 0
        for print_, size in zip(entries, sizes, strict=True):
            embedding = vectors[start : start + size]
            start += size
            _check_stored(embedding, key)
            given = revision if print_["revision"] is None else int(print_["revision"])
            prints.append(
                PrintRecord(int(print_["id"]), given, str(print_["encoder"]), print_["created_at"], embedding)
            )
        if not isinstance(entry["metadata"], dict):
            corrupt(key, "has metadata that is not an object")
        return CallerRecord(
            caller_id, entry["metadata"], entry["created_at"], entry["last_seen"], tuple(prints)
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # By its kind alone: the text of the error may quote the record.
        corrupt(key, f"holds no readable record ({type(error).__name__})")


def _check_stored(embedding: NDArray[np.float32], key: str) -> None:
    # Comparing this way round also refuses NaN.
    if not abs(float(embedding @ embedding) - 1.0) < 1e-3:
        corrupt(key, "has an embedding that is no unit vector")


def token_of(value: bytes | None) -> bytes:
    """What tells this version of a record from every other; empty when there is none."""
    return value[:TOKEN_LENGTH] if value is not None else b""


def decode_old_record(value: bytes, caller_id: str, key: str, id_: int, revision: int) -> CallerRecord:
    """The caller whom OpusAgent kept under `key`, with one print, which gets `id_`."""
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
            (PrintRecord(id_, revision, RESEMBLYZER_SPACE, created_at, embedding),),
        )
    except InvalidArgumentError as error:
        corrupt(key, f"cannot be taken over ({str(error).rstrip('.')})")


def corrupt(key: str, what: str) -> NoReturn:
    """Raise `StorageCorruptError` for a key."""
    raise StorageCorruptError(f"The Redis key {key!r} {what}. It was left as it is.")
