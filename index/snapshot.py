"""A snapshot file: named arrays and a table, each with a checksum.

magic      8 bytes b"VPINDEX4"
parts      one array after the other
table      JSON: dimension, stamp, how the trained part was trained, and name, type, shape and checksum
           (SHA-256) of each part
footer     size of the table uint64 (little-endian), 32 bytes SHA-256 of the table

Parts: `buffer_ids` int64[n] and `buffer_vectors` float16[n, d]; of a trained index also `ids` and `vectors`
of the trained part, where -1 is the id of a removed row, `projection` float32[d, p], and `ivf`, faiss's own
bytes. Files of version 1 to 3 are refused, as rows of 3 may have wrong codes: a snapshot is a cache, and the
index is built anew.

A caller may encrypt the file: `Coding` gives streams that take the place of the file's. Such a file begins
with b"VPINDEXS", and is read only with a `Coding`; with one, a plain file is refused.

The file is read into memory, not mapped: a mapped matrix cannot grow, and a file that somebody truncates
would end the process instead of raising an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint._files import open_regular, replacement
from voiceprint.index.errors import IndexCorruptError
from voiceprint.index.ivf import IVFIndex
from voiceprint.index.maintenance import Maintainer
from voiceprint.index.parts import Parts
from voiceprint.index.rows import BLOCK, NO_ID, Rows, to_half, to_single
from voiceprint.index.trained import TrainedPart

_ANY_VERSION = b"VPINDEX"
_MAGIC = _ANY_VERSION + b"4"
_FOOTER = struct.Struct("<Q32s")
MAX_DIMENSION = 65_536
_DTYPES = {"|u1", "<i8", "<f4", "<f2"}
_MAX_TABLE = 1 << 20  # bytes: a table has some hundred, and a stamp
_BYTES = 16 << 20  # that are read or written, and hashed, at a time
_UNIT = (
    2e-3  # by which the squared length of a unit vector may differ from 1: the rounding of float16 is 1e-3
)
_MAX_LISTS = 2**31  # faiss counts the lists of a search in 32 bits

Arrays = dict[str, NDArray[Any]]

CODED_KIND = _ANY_VERSION + b"S"
"""The first bytes of a snapshot that a `Coding` wrote."""


class Coding(NamedTuple):
    """Streams through which a snapshot is written and read, such as those of an encryption.

    writing: a stream whose content is written to the given one, complete once the block has ended; the first
    bytes written are `CODED_KIND`. reading: a seekable stream of the content; raises ValueError for damage.
    """

    writing: Callable[[BinaryIO], AbstractContextManager[BinaryIO]]
    reading: Callable[[BinaryIO], BinaryIO]


def write_snapshot(
    parts: Parts,
    maintainer: Maintainer,
    path: str | os.PathLike[str],
    stamp: Mapping[str, str],
    apart_from: Iterable[Path],
    coding: Coding | None = None,
) -> None:
    """Write a snapshot of this moment in place of `path`, while others search and write.

    Replaced is an index snapshot of any version, or an empty file, and nothing else. apart_from: files that
    are never written to. Raises OSError, which for a file that is not replaced is `RefusedFileError`.
    """
    table: dict[str, Any] = {"dimension": parts.dimension, "stamp": dict(stamp), "trained": None}
    with maintainer.alone():
        maintainer.merge_all()  # purges the codes of removed rows
        trained = parts.trained
        with parts.lock.writing():
            ids = np.sort(parts.buffer.ids())
            vectors = to_half(parts.buffer.vectors_at(parts.buffer.locate(ids)))
            arrays: Arrays = {"buffer_ids": ids, "buffer_vectors": vectors}
            if trained is not None:
                trained.keep_removed = True
                arrays["ids"] = np.where(trained.rows.live, trained.rows.ids, NO_ID)
                table["trained"] = {
                    "on": parts.trained_on, "nprobe": trained.nprobe, "recall": trained.recall,
                    "tuned_for": trained.tuned_for,
                }  # fmt: skip
        try:
            if trained is not None:
                arrays["vectors"] = trained.rows.vectors
                arrays |= {"projection": trained.ivf.projection, "ivf": trained.ivf.to_bytes()}
            with (
                replacement(
                    Path(path), ours=_is_snapshot, kind="an index snapshot", apart_from=apart_from
                ) as stream,
                nullcontext(stream) if coding is None else coding.writing(stream) as content,
            ):
                _write(content, table, arrays)
        finally:
            if trained is not None:
                with parts.lock.writing():
                    trained.keep_removed = False
                    trained.overwrite(np.flatnonzero(~trained.rows.live))


def _write(stream: BinaryIO, table: dict[str, Any], arrays: Arrays) -> None:
    stream.write(_MAGIC)
    entries = []
    for name, array in arrays.items():
        dtype, digest = array.dtype.newbyteorder("<"), hashlib.sha256()
        raw = np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data
        for at in range(0, len(raw), _BYTES):
            digest.update(raw[at : at + _BYTES])
            stream.write(raw[at : at + _BYTES])
        entries.append({"name": name, "dtype": dtype.str, "shape": array.shape, "digest": digest.hexdigest()})
    raw_table = json.dumps(table | {"parts": entries}).encode()
    stream.write(raw_table + _FOOTER.pack(len(raw_table), hashlib.sha256(raw_table).digest()))


class SnapshotReader:
    """Reads a snapshot: the table at once, the rest when it is asked for.

    Raises OSError, and `IndexCorruptError` for anything that is not as it was written. The checksums are no
    signature, so whatever the table says is checked: reading takes no more memory than the file's size.
    """

    def __init__(self, path: str | os.PathLike[str], coding: Coding | None = None) -> None:
        self._name = os.fspath(path)
        self._stream = open_regular(Path(path))
        try:
            if coding is not None:
                try:
                    self._stream = coding.reading(self._stream)
                except ValueError as error:
                    raise self._corrupt(f"cannot be decoded: {error}") from error
            self.table = self._read_table()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def part(self, name: str, dtype: str) -> NDArray[Any]:
        """The array under a name."""
        start = len(_MAGIC)
        for entry in self.table["parts"]:
            if (entry["name"], entry["dtype"]) == (name, dtype):
                break
            start += _size(entry)
        else:
            raise self._corrupt(f"has no part {name!r} of the type {dtype}")
        array = np.empty(entry["shape"], dtype=dtype)
        digest, raw, done = hashlib.sha256(), array.reshape(-1).view(np.uint8).data, 0
        while done < len(raw):
            more = self._read_into(raw[done : done + _BYTES], start + done)
            if not more:
                raise self._corrupt("ends too early")
            digest.update(raw[done : done + more])
            done += more
        if digest.hexdigest() != entry["digest"]:
            raise self._corrupt("is damaged: a checksum does not match")
        return array

    def _read_table(self) -> dict[str, Any]:
        size = self._stream.seek(0, os.SEEK_END)
        if self._read(len(_MAGIC), 0) != _MAGIC or size < len(_MAGIC) + _FOOTER.size:
            raise self._corrupt("is not an index snapshot of this version")
        footer = self._read(_FOOTER.size, size - _FOOTER.size)
        if len(footer) != _FOOTER.size:
            raise self._corrupt("has become shorter")
        length, digest = _FOOTER.unpack(footer)
        start = size - _FOOTER.size - length
        if start < len(_MAGIC) or length > _MAX_TABLE:
            raise self._corrupt("is not a whole snapshot")
        raw = self._read(length, start)
        if hashlib.sha256(raw).digest() != digest:
            raise self._corrupt("is damaged: the checksum of its table does not match")
        # The checksum matches: an error now means that something else wrote a file of the same form.
        try:
            table = json.loads(raw)
            sane = _is_table(table, start)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise self._corrupt("has a table that no index has") from error
        if not sane:
            raise self._corrupt("has a table that no index has")
        return cast("dict[str, Any]", table)

    def _read(self, size: int, start: int) -> bytes:
        raw = bytearray(size)
        done = 0
        while done < size and (more := self._read_into(memoryview(raw)[done:], start + done)):
            done += more
        return bytes(raw[:done])

    def _read_into(self, target: memoryview, start: int) -> int:
        try:
            self._stream.seek(start)
            return int(cast("Any", self._stream).readinto(target))
        except ValueError as error:  # of a coding: the file was changed
            raise self._corrupt(f"cannot be decoded: {error}") from error

    def _corrupt(self, what: str) -> IndexCorruptError:
        return IndexCorruptError(f"{self._name!r} {what}.")


def read_stamp(path: str | os.PathLike[str], coding: Coding | None = None) -> dict[str, str]:
    """The stamp of a snapshot, without reading the rest. Raises as `SnapshotReader`."""
    with SnapshotReader(path, coding) as reader:
        return cast("dict[str, str]", reader.table["stamp"])


def _size(part: dict[str, Any]) -> int:
    return int(math.prod(part["shape"]) * np.dtype(part["dtype"]).itemsize)


def _is_table(table: dict[str, Any], end: int) -> bool:
    """Whether the parts of a table fill the file up to `end`."""
    parts, stamp = table["parts"], table["stamp"]
    numbers = [table["dimension"], *(number for part in parts for number in part["shape"])]
    most = max(end, MAX_DIMENSION)
    return (
        all(type(number) is int and 0 <= number <= most for number in numbers)
        and 1 <= table["dimension"] <= MAX_DIMENSION
        and all(part["dtype"] in _DTYPES and len(part["shape"]) <= 2 for part in parts)
        and all(isinstance(part["digest"], str) and isinstance(part["name"], str) for part in parts)
        and len(_MAGIC) + sum(map(_size, parts)) == end
        and all(isinstance(value, str) for value in stamp.values())
        and "trained" in table
    )


def _is_snapshot(head: bytes) -> bool:
    numbered = head.startswith(_ANY_VERSION) and head[len(_ANY_VERSION) : len(_MAGIC)].isdigit()
    return numbered or head.startswith(CODED_KIND)


def fill_parts(parts: Parts, reader: SnapshotReader, *, unit: bool) -> None:
    """Fill parts that are empty. unit: vectors of another length than 1 are damage.

    Raises `IndexCorruptError`, KeyError, TypeError and ValueError for damage.
    """
    buffered, vectors, live = _vectors(reader, "buffer_", unit)
    ids, how = buffered[live], reader.table["trained"]
    if how is not None:
        parts.trained = _trained(reader, Rows.of(*_vectors(reader, "", unit)), **how)
        parts.trained_on = how["on"]
        ids = np.concatenate([parts.trained.ids(), ids])
    ids = np.sort(ids)  # np.unique takes ten times as long
    if not live.all() or (len(ids) and ids[0] < 0):
        raise ValueError("an id is below 0")
    if (ids[1:] == ids[:-1]).any():
        raise ValueError("an id comes twice")
    for start in range(0, len(buffered), BLOCK):
        parts.buffer.put(buffered[start : start + BLOCK], to_single(vectors[start : start + BLOCK]))


def _vectors(
    reader: SnapshotReader, prefix: str, unit: bool
) -> tuple[NDArray[np.int64], NDArray[np.float16], NDArray[np.bool_]]:
    """Ids, vectors, and which of them are live."""
    ids, vectors = reader.part(f"{prefix}ids", "<i8"), reader.part(f"{prefix}vectors", "<f2")
    if ids.ndim != 1 or vectors.shape != (len(ids), reader.table["dimension"]):
        raise ValueError("ids and vectors of different shapes")
    live = ids != NO_ID
    vectors[~live] = 0
    for start in range(0, len(ids), BLOCK):
        block = vectors[start : start + BLOCK]
        if (block.view(np.uint16) & 0x7C00 == 0x7C00).any():  # the exponent of both
            raise ValueError("NaN or infinite values")
        singles = to_single(block[live[start : start + BLOCK]])
        if unit and (np.abs(np.einsum("ij,ij->i", singles, singles) - 1) > _UNIT).any():
            raise ValueError("a vector whose length is not 1")
    return ids, vectors, live


def _trained(
    reader: SnapshotReader, rows: Rows, on: Any, nprobe: Any, recall: Any, tuned_for: Any
) -> TrainedPart:
    if type(on) is not int or type(nprobe) is not int or not (0 <= nprobe <= _MAX_LISTS and on >= 0):
        raise ValueError("a training that never was")
    if not all(type(share) in (int, float) and 0.0 <= share <= 1.0 for share in (recall, tuned_for)):
        raise ValueError("a recall that was never measured")
    ivf = IVFIndex.from_bytes(reader.part("projection", "<f4"), reader.part("ivf", "|u1"))
    listed = ivf.rows()
    entries = np.bincount(listed[(listed >= 0) & (listed < rows.size)], minlength=rows.size)
    if len(listed) != entries.sum() or (entries > 1).any() or (entries[rows.live] == 0).any():
        raise ValueError("an inverted file of other rows")
    if ivf.dimension != reader.table["dimension"]:
        raise ValueError("an inverted file of another dimension")
    trained = TrainedPart(rows, ivf, nprobe, recall, tuned_for)
    trained.stale = [np.flatnonzero((entries > 0) & ~rows.live)]
    return trained
