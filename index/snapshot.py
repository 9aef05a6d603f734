"""A snapshot file: ids and vectors together, so that they cannot disagree, under one checksum.

magic        8 bytes  b"VPINDEX1"
count        uint64   little-endian, as all that follows
dimension    uint64
ids          int64[count]
vectors      float32[count, dimension]
checksum     32 bytes, BLAKE2b of all that comes before
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.errors import IndexCorruptError

_MAGIC = b"VPINDEX1"
_HEAD = struct.Struct("<8sQQ")
_DIGEST_SIZE = 32


def write_snapshot(
    path: str | os.PathLike[str], ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    """Write `ids` int64[n] and `vectors` float32[n, d] to `path`, replacing it as a whole."""
    target = Path(path)
    head = _HEAD.pack(_MAGIC, *vectors.shape)
    parts = [head, ids.astype("<i8", copy=False).tobytes(), vectors.astype("<f4", copy=False).tobytes()]
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(parts)
            stream.write(_digest(parts))
            stream.flush()
            os.fsync(descriptor)
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            Path(temporary).unlink()
        raise


def read_snapshot(path: str | os.PathLike[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ids int64[n] and vectors float32[n, d] of the snapshot at `path`."""
    content = Path(path).read_bytes()
    if not content.startswith(_MAGIC) or len(content) < _HEAD.size + _DIGEST_SIZE:
        raise IndexCorruptError(f"{os.fspath(path)!r} is not an index snapshot of this version.")
    body, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if _digest([body]) != digest:
        raise IndexCorruptError(f"{os.fspath(path)!r} is damaged: its checksum does not hold.")
    _, count, dimension = _HEAD.unpack_from(body)
    ids_end = _HEAD.size + 8 * count
    if dimension < 1 or len(body) != ids_end + 4 * count * dimension:
        raise IndexCorruptError(f"{os.fspath(path)!r} has not the length that it states.")
    ids = np.frombuffer(body[_HEAD.size : ids_end], dtype="<i8")
    return ids, np.frombuffer(body[ids_end:], dtype="<f4").reshape(count, dimension)


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for part in parts:
        digest.update(part)
    return digest.digest()
