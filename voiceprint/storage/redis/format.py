"""What a Redis store keeps of a caller, and what OpusAgent kept.

A record is one string of three parts: a line that tells one version of it from any other,

    2 REVISION CHECKSUM        (the revision in 16 digits, 16 hexadecimal digits of the SHA-1 of the rest)

a line of JSON,

    {"caller_id": "alice", "metadata": {...}, "created_at": "...Z", "last_seen": "...Z",
     "voiceprints": [{"id": 1, "revision": 1, "encoder": "resemblyzer", "created_at": "...Z", "size": 256,
                      "simulated": true}]}

and the embeddings, one after the other, as little-endian float32. A voiceprint whose revision is null is
of the record's own: the server gives it at the commit, when the record is already written. With
"simulated", which is absent otherwise, the embedding is followed by that for simulated lines. The first
line of such a record begins with 3, so that an older library refuses it, which would drop that one.
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

FORMATS = ("2", "3")  # of a store; 3: its commits have tokens, which an older library would not write
_READ = (b"2 ", b"3 ")
TOKEN_LENGTH = 35
_HEAD_LENGTH = 19  # the token without the checksum


def record_format(caller: CallerRecord) -> str:
    """The least version that reads the record of a caller without loss."""
    return "3" if any(print_.augmented is not None for print_ in caller.prints) else "2"


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
                **({} if print_.augmented is None else {"simulated": True}),
            }
            for print_ in caller.prints
        ],
    }
    vectors = [vector for print_ in caller.prints for vector in (print_.embedding, print_.augmented)]
    raw = [vector.astype("<f4", copy=False).tobytes() for vector in vectors if vector is not None]
    return b"".join([orjson.dumps(entry), b"\n", *raw])


def decode_record(value: bytes, caller_id: str, key: str) -> CallerRecord:
    """The record of `caller_id` that `key` holds. Raises `StorageCorruptError`, naming the key."""
    head, checksum = value[:_HEAD_LENGTH], value[_HEAD_LENGTH:TOKEN_LENGTH]
    body = value[TOKEN_LENGTH + 1 :]
    if value[TOKEN_LENGTH : TOKEN_LENGTH + 1] != b"\n" or head[:2] not in _READ:
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
        counts = [2 if print_.get("simulated") is True else 1 for print_ in entries]
        wanted = [size for size, count in zip(sizes, counts, strict=True) for _ in range(count)]
        if any(type(size) is not int or size < 1 for size in sizes) or 4 * sum(wanted) != len(raw):
            corrupt(key, f"has {len(raw)} bytes of embeddings, and {wanted} values are to be there")
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
            prints.append(PrintRecord(id_, given, encoder, print_["created_at"], embedding, augmented))
        if not isinstance(entry["metadata"], dict):
            corrupt(key, "has metadata that is not an object")
        return CallerRecord(
            caller_id, entry["metadata"], entry["created_at"], entry["last_seen"], tuple(prints)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # By its kind alone: the text of the error may quote the record.
        corrupt(key, f"holds no readable record ({type(error).__name__})")


def _check_stored(embedding: NDArray[np.float32], key: str) -> None:
    # Comparing this way round also refuses NaN.
    if not abs(float(embedding @ embedding) - 1.0) < 1e-3:
        corrupt(key, "has an embedding that is no unit vector")


def token_of(value: bytes | None) -> bytes:
    """What tells this version of a record from every other; empty when there is none."""
    return value[:TOKEN_LENGTH] if value is not None else b""


def decode_old_record(value: bytes, caller_id: str, key: str, revision: int) -> CallerRecord:
    """The caller whom OpusAgent kept under `key`, with one print, which has no id yet (0)."""
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
        corrupt(key, f"cannot be taken over ({str(error).rstrip('.')})")


def corrupt(key: str, what: str) -> NoReturn:
    """Raise `StorageCorruptError` for a key."""
    raise StorageCorruptError(f"The Redis key {key!r} {what}. It was left as it is.")
