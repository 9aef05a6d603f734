"""A snapshot file: ids, vectors and cells together, so that they cannot disagree, each part checksummed.

magic      8 bytes b"VPINDEX2"
parts      one after the other, each where the table says
table      JSON: dimension, stamp, tuning, and for each part its place, size and checksum (SHA-256)
footer     place of the table uint64, size of the table uint64 (little-endian), 32 bytes SHA-256 of the table

Parts are blocks of rows (ids int64[n], then vectors float32[n, d]), copied one after the other while others
went on writing; then the rows that changed meanwhile, to be put over those of the blocks; then the cells.
So writing a snapshot stops nobody, and it is still of one moment: its end.

It is read into memory, not mapped. Mapping a gigabyte and checking it takes half the time of reading it (1.1
against 2.4 s), but a mapped matrix cannot grow: the first enrollment would copy it while searches wait. And a
file that somebody truncates would end the process instead of raising an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint._files import open_regular, replacement
from voiceprint.index.errors import IndexCorruptError

_ANY_VERSION = b"VPINDEX"
_MAGIC = _ANY_VERSION + b"2"
_FOOTER = struct.Struct("<QQ32s")
MAX_DIMENSION = 65_536
_DTYPES = {"|u1", "<i8", "<f4"}
_MOST_TABLE = 4 << 20  # bytes: what 286 million vectors need
_UNIT = 1e-3  # that the squared length of a vector may be off 1
_READERS = 2  # hashing lets other threads run, and takes most of the time of reading


@contextmanager
def new_snapshot(
    path: str | os.PathLike[str], table: dict[str, Any], apart_from: Iterable[Path] = ()
) -> Iterator[SnapshotWriter]:
    """A writer whose snapshot takes the place of `path` when the block ends well.

    Replaced is an index snapshot of any version, or an empty file, and nothing else. apart_from: files that
    are never written to. Raises OSError, which for what is not replaced is `RefusedFileError`.
    """
    with replacement(
        Path(path), ours=_is_snapshot, kind="an index snapshot", apart_from=apart_from
    ) as stream:
        writer = SnapshotWriter(stream, table)
        yield writer
        writer.end()


class SnapshotWriter:
    """Writes a snapshot into a stream that is empty."""

    def __init__(self, stream: BinaryIO, table: dict[str, Any]) -> None:
        self._stream = stream
        self._table = table | {"blocks": [], "parts": {}}
        self._stream.write(_MAGIC)

    def block(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add rows."""
        self._table["blocks"].append(self._write(ids, vectors) | {"rows": len(ids)})

    def part(self, name: str, array: NDArray[Any]) -> None:
        """Add an array under a name."""
        self._table["parts"][name] = self._write(array) | {
            "dtype": array.dtype.newbyteorder("<").str,
            "shape": array.shape,
        }

    def tell(self, **entries: Any) -> None:
        """Add entries to the table."""
        self._table |= entries

    def end(self) -> None:
        """Add the table and the footer: the snapshot is whole."""
        table = json.dumps(self._table).encode()
        start = self._stream.tell()
        self._stream.write(table + _FOOTER.pack(start, len(table), _digest(table)))

    def _write(self, *arrays: NDArray[Any]) -> dict[str, Any]:
        start, digest = self._stream.tell(), hashlib.sha256()
        for array in arrays:
            raw = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).view(np.uint8).data
            digest.update(raw)
            self._stream.write(raw)
        return {"start": start, "size": self._stream.tell() - start, "digest": digest.hexdigest()}


class SnapshotReader:
    """Reads a snapshot: the table at once, the rest when it is asked for.

    Raises OSError, and `IndexCorruptError` for anything that is not as it was written. The checksums are no
    signature, so that whatever the table says is checked: it takes no more memory than the file's size.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fspath(path)
        self._stream = open_regular(Path(path))
        self._file = self._stream.fileno()
        try:
            self.table = self._read_table()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def rows(self, *, unit: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids int64[n] and vectors float32[n, d], as they were at the end of writing.

        unit: whether vectors have length 1; another is `IndexCorruptError`, as one that is not finite is.
        """
        blocks, dimension, count = self.table["blocks"], self.table["dimension"], self.table["vectors"]
        counts = [block["rows"] for block in blocks]
        changed, patch_ids, patch = (
            self.part("changed", "<i8"), self.part("changed_ids", "<i8"),
            self.part("changed_vectors", "<f4"),
        )  # fmt: skip
        self._check_patch(sum(counts), changed, patch_ids, patch)
        self._check_vectors(patch, unit)
        ids = np.empty(sum(counts), dtype="<i8")
        vectors = np.empty((sum(counts), dimension), dtype="<f4")
        ends = np.cumsum(counts).tolist()

        def read(block: dict[str, Any], end: int) -> None:
            rows = slice(end - block["rows"], end)
            self._fill([ids[rows], vectors[rows]], block)
            self._check_vectors(vectors[rows], unit)

        with ThreadPoolExecutor(_READERS) as pool:
            for _ in pool.map(read, blocks, ends):
                pass
        # In place: rows that went are cut off at the end, room is made for those that came.
        ids.resize(count, refcheck=False)
        vectors.resize((count, dimension), refcheck=False)
        ids[changed], vectors[changed] = patch_ids, patch
        if count and int(ids.min()) < 0:
            raise self._corrupt("holds an id below 0")
        return ids, vectors

    def _check_patch(
        self, copied: int, changed: NDArray[Any], ids: NDArray[Any], vectors: NDArray[Any]
    ) -> None:
        """Whether the rows that changed are rows, and the blocks and they give every row a vector."""
        count, dimension = self.table["vectors"], self.table["dimension"]
        shapes = (changed.shape, ids.shape, vectors.shape)
        if shapes != ((len(changed),), (len(changed),), (len(changed), dimension)):
            raise self._corrupt("has rows that changed without the vectors of these")
        if len(changed) and not 0 <= int(changed.min()) <= int(changed.max()) < count:
            raise self._corrupt("has rows that changed beyond the rows that it has")
        if len(set(changed[changed >= copied].tolist())) < count - copied:
            raise self._corrupt("has fewer rows than it states")

    def _check_vectors(self, vectors: NDArray[np.float32], unit: bool) -> None:
        if unit:
            squared = np.einsum("ij,ij->i", vectors, vectors)
            if not (np.abs(squared - 1) <= _UNIT).all():  # not "any above": NaN is neither
                raise self._corrupt("holds a vector whose length is not 1")
        elif not np.isfinite(vectors).all():
            raise self._corrupt("holds NaN or infinite values")

    def part(self, name: str, dtype: str) -> NDArray[Any]:
        """The array under a name."""
        entry = self.table["parts"].get(name)
        if entry is None or entry["dtype"] != dtype:
            raise self._corrupt(f"has no part {name!r} of the type {dtype}")
        array = np.empty(entry["shape"], dtype=dtype)
        self._fill([array], entry)
        return array

    def _fill(self, arrays: list[NDArray[Any]], entry: dict[str, Any]) -> None:
        digest, place = hashlib.sha256(), entry["start"]
        for array in arrays:
            raw = array.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(raw):  # the system reads 2 GB at a time at most
                more = os.preadv(self._file, [raw[done:]], place + done)
                if not more:
                    raise self._corrupt("ends too early")
                done += more
            digest.update(raw)
            place += len(raw)
        if digest.hexdigest() != entry["digest"]:
            raise self._corrupt("is damaged: a checksum does not hold")

    def _read_table(self) -> dict[str, Any]:
        size = os.fstat(self._file).st_size
        if os.pread(self._file, len(_MAGIC), 0) != _MAGIC or size < len(_MAGIC) + _FOOTER.size:
            raise self._corrupt("is not an index snapshot of this version")
        footer = os.pread(self._file, _FOOTER.size, size - _FOOTER.size)
        if len(footer) != _FOOTER.size:
            raise self._corrupt("has become shorter")
        start, length, digest = _FOOTER.unpack(footer)
        if start + length + _FOOTER.size != size or length > _MOST_TABLE:
            raise self._corrupt("is not a whole snapshot")
        raw = os.pread(self._file, length, start)
        if _digest(raw) != digest:
            raise self._corrupt("is damaged: the checksum of its table does not hold")
        # The checksum holds: what is wrong now was written by something else that uses the same form.
        try:
            table = json.loads(raw)
            sane = _is_table(table, start)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise self._corrupt("has a table that no index has") from error
        if not sane:
            raise self._corrupt("has a table that no index has")
        return cast("dict[str, Any]", table)

    def _corrupt(self, what: str) -> IndexCorruptError:
        return IndexCorruptError(f"{self._name!r} {what}.")


def read_stamp(path: str | os.PathLike[str]) -> dict[str, str]:
    """What the snapshot was stamped with, without reading the rest of it. Raises as `SnapshotReader`."""
    with SnapshotReader(path) as reader:
        return cast("dict[str, str]", reader.table["stamp"])


def _is_table(table: dict[str, Any], end: int) -> bool:
    """Check that the blocks and parts of a table fill the file up to `end`, each once."""
    dimension, blocks, parts = table["dimension"], table["blocks"], list(table["parts"].values())
    numbers = [dimension, table["vectors"], table["trained_on"]]
    numbers += [number for part in parts for number in part["shape"]]
    numbers += [block["rows"] for block in blocks]
    numbers += [entry[name] for entry in blocks + parts for name in ("start", "size")]
    most = max(end, MAX_DIMENSION)
    if not all(type(number) is int and 0 <= number <= most for number in numbers):
        return False
    if not all(part["dtype"] in _DTYPES and len(part["shape"]) <= 2 for part in parts):
        return False
    sizes = [block["rows"] * (8 + 4 * dimension) for block in blocks]
    sizes += [math.prod(part["shape"]) * np.dtype(part["dtype"]).itemsize for part in parts]
    # In the order of writing, without a gap: what overlaps would be read twice, and take memory twice.
    starts = list(accumulate(sizes, initial=len(_MAGIC)))
    return (
        1 <= dimension <= MAX_DIMENSION
        and starts.pop() == end
        and all(entry["size"] == size for entry, size in zip(blocks + parts, sizes, strict=True))
        and all(entry["start"] == start for entry, start in zip(blocks + parts, starts, strict=True))
        and all(isinstance(entry["digest"], str) for entry in blocks + parts)
        and all(isinstance(value, str) for value in table["stamp"].values())
        and "approximation" in table
    )


def _is_snapshot(head: bytes) -> bool:
    return head.startswith(_ANY_VERSION) and head[len(_ANY_VERSION) : len(_MAGIC)].isdigit()


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()
