"""The file of a fitted backend: a zip of plain arrays, with a version and a checksum.

    about.json      format, version, encoder, numbers, about, and the SHA-256 of all else
    NAME.npy        float32 arrays

It is read without pickle, and nothing in it is trusted before the checksum has been compared. The
checksum finds damage; it is no signature: whoever may write the file may change it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from voiceprint._files import open_regular, replacement
from voiceprint.errors import ConfigurationError
from voiceprint.validation import shown

FORMAT: Final = "voiceprint-scoring"
VERSION: Final = 2
"""1 had no power, and another tail: it is refused."""

_LARGEST: Final = 64 << 20  # bytes unpacked, far over what any encoder here needs
_LARGEST_HEADER: Final = 1 << 20
_ENTRY: Final = b"PK\1\2"  # begins each entry of a zip's directory
_MOST_ENTRIES: Final = 1_000  # as packed bytes may by chance look like one
_HEADER: Final = "about.json"
_NPY: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': (?P<by_column>True|False), "
    rb"'shape': \((?P<shape>[0-9, ]{1,40})\), \} *\n",
    re.DOTALL,
)
_SHAPES: Final = {"mean": "d", "transform": "dk", "between": "k"}
_NUMBERS: Final = {
    "plda": ("power",),
    "calibration": ("scale", "offset"),
    "tail": ("start", "share", "scale", "bend", "spread", "level", "deviation", "meeting"),
}
_POSITIVE: Final = (
    ("plda", "power"),
    ("calibration", "scale"),
    ("tail", "scale"),
    ("tail", "share"),
    ("tail", "bend"),
    ("tail", "spread"),
    ("tail", "deviation"),
)

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Kept:
    """What a file holds: checked in shape, type and range."""

    encoder: str
    arrays: Arrays
    numbers: Mapping[str, Mapping[str, float]]
    about: Mapping[str, Any]


def write_model(
    path: Path, encoder: str, arrays: Arrays, numbers: Mapping[str, Mapping[str, float]], about: Any
) -> None:
    """Write the file in one step: another process reads the old one or the new one.

    Raises OSError, and `RefusedFileError` for a file that is there and is no calibration.
    """
    members = {f"{name}.npy": _npy(array) for name, array in arrays.items()}
    header = {"format": FORMAT, "version": VERSION, "encoder": encoder, "numbers": numbers, "about": about}
    header["sha256"] = _checksum(header, members)
    members = {_HEADER: json.dumps(header, indent=1, sort_keys=True).encode()} | members
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():  # ZipInfo without a time: the same bytes for the same model
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    with replacement(path, ours=is_model, kind="a calibration") as stream:
        stream.write(packed.getvalue())


def is_model(head: bytes) -> bool:
    """Whether a file that begins so is one of `write_model`: a zip whose first member is the header."""
    return head.startswith(b"PK\x03\x04") and head[30:].startswith(_HEADER.encode())


def read_model(path: Path) -> Kept:
    """What the file holds.

    Raises:
        ConfigurationError: it cannot be read, is damaged, of something else or of a newer version.
    """
    try:
        with open_regular(path) as stream:
            raw = stream.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise _refused(path, "it is too large for one")
        members = _members(path, raw)
    except OSError as error:
        raise ConfigurationError(
            f"The scoring file {path} cannot be read: {error.strerror or error}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise _refused(path, "it is damaged, or no such file at all") from error
    try:
        header = json.loads(members.pop(_HEADER))
    except (KeyError, ValueError, RecursionError) as error:  # of JSON and UTF-8 both
        raise _refused(path, "it has no readable header") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _refused(path, "it is a file of something else")
    version = header.get("version")
    if type(version) is int and version > VERSION:
        raise _refused(path, f"its version is {version}, and this release reads up to {VERSION}; upgrade")
    if version == 1:
        raise _refused(path, "it is of an older release, which counted strangers in another way")
    if version != VERSION:
        raise _refused(path, f"its version is {shown(version)}")
    stated = header.pop("sha256", None)
    try:
        checksum = _checksum(header, members)
    except (ValueError, RecursionError) as error:  # what JSON takes in, and Python does not write again
        raise _refused(path, "it has no readable header") from error
    if stated != checksum:
        raise _refused(path, "its checksum is wrong: it is damaged")
    try:
        return _checked(header, members)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _refused(path, str(error)) from error


def _members(path: Path, raw: bytes) -> dict[str, bytes]:
    """Read the members of the zip: a few, stored or deflated, of `_LARGEST` bytes together at most."""
    if raw.count(_ENTRY) > _MOST_ENTRIES:  # each of which would take memory before it can be refused
        raise _refused(path, "it holds too many files for one")
    left, members = _LARGEST, dict[str, bytes]()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for item in archive.infolist():
            if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _refused(path, "it is packed as no scoring file is")
            if item.file_size > (_LARGEST_HEADER if item.filename == _HEADER else left):
                raise _refused(path, "it is too large for one")
            with archive.open(item) as member:
                # Of a size: without one it is all unpacked at once, and then cut to what it is stated to be.
                content = member.read(item.file_size)
            if len(content) != item.file_size:
                raise _refused(path, "it is damaged, or no such file at all")
            members[item.filename] = content
            left -= len(content)
    return members


def _checked(header: Mapping[str, Any], members: Mapping[str, bytes]) -> Kept:
    arrays, sizes = {}, dict[str, int]()
    for name, axes in _SHAPES.items():
        array = _array(members[f"{name}.npy"])
        if array is None or array.ndim != len(axes) or not np.isfinite(array).all():
            raise ValueError(f"{name} is not an array of finite float32 of {len(axes)} axes")
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size or not size:
                raise ValueError(f"{name} has the shape {array.shape}, which does not fit the others")
        arrays[name] = array
    if (arrays["between"] <= 0).any():
        raise ValueError("between has values that are not above zero")
    numbers = {
        group: {name: _number(header["numbers"][group][name], f"{group}.{name}") for name in names}
        for group, names in _NUMBERS.items()
    }
    for group, name in _POSITIVE:
        if numbers[group][name] <= 0:
            raise ValueError(f"{group}.{name} is not above zero")
    if numbers["tail"]["share"] >= 1.0:
        raise ValueError("tail.share is no share")
    if not isinstance(header["encoder"], str) or not isinstance(header["about"], dict):
        raise TypeError("it does not name its encoder and data")
    return Kept(header["encoder"], arrays, numbers, header["about"])


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is no number")
    return float(value)


def _array(raw: bytes) -> NDArray[np.float32] | None:
    """Parse the bytes of `_npy`; None for anything else, such as a shape that the bytes do not have."""
    # Not by numpy: that takes the memory for whatever shape is stated, and parses the header as Python.
    header = _NPY.match(raw)
    if header is None or 10 + int.from_bytes(raw[8:10], "little") != header.end():
        return None
    shape = tuple(int(size) for size in header["shape"].split(b",") if size.strip())
    content = memoryview(raw)[header.end() :]
    if min(shape, default=0) < 1 or 4 * math.prod(shape) != len(content):
        return None
    order: Literal["C", "F"] = "F" if header["by_column"] == b"True" else "C"
    return np.frombuffer(content, dtype="<f4").reshape(shape, order=order).astype(np.float32)


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array, dtype="<f4"), allow_pickle=False)
    return stream.getvalue()


def _checksum(header: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(members):
        digest.update(f"{name}\0{len(members[name])}\0".encode() + members[name])
    return digest.hexdigest()


def _refused(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be used as a scoring file: {reason}. `voiceprint calibrate` writes a new one"
    )
