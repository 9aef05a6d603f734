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
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint._files import replace_file
from voiceprint.errors import ConfigurationError

FORMAT: Final = "voiceprint-scoring"
VERSION: Final = 2
"""1 had no power, and another tail: it is refused."""

_LARGEST: Final = 64 << 20  # bytes unpacked, far over what any encoder here needs
_HEADER: Final = "about.json"
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
    """Write the file in one step: another process reads the old one or the new one. Raises OSError."""
    members = {f"{name}.npy": _npy(array) for name, array in arrays.items()}
    header = {"format": FORMAT, "version": VERSION, "encoder": encoder, "numbers": numbers, "about": about}
    header["sha256"] = _checksum(header, members)
    members = {_HEADER: json.dumps(header, indent=1, sort_keys=True).encode()} | members
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():  # ZipInfo without a time: the same bytes for the same model
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    os.close(replace_file(path, packed.getvalue()))


def read_model(path: Path) -> Kept:
    """What the file holds.

    Raises:
        ConfigurationError: it cannot be read, is damaged, of something else or of a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > _LARGEST:
                raise _refused(path, "it is too large for one")
            members = {item.filename: archive.read(item) for item in archive.infolist()}
    except OSError as error:
        raise ConfigurationError(
            f"The scoring file {path} cannot be read: {error.strerror or error}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise _refused(path, "it is damaged, or no such file at all") from error
    try:
        header = json.loads(members.pop(_HEADER))
    except (KeyError, ValueError) as error:  # of JSON and UTF-8 both
        raise _refused(path, "it has no readable header") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _refused(path, "it is a file of something else")
    version = header.get("version")
    if type(version) is int and version > VERSION:
        raise _refused(path, f"its version is {version}, and this release reads up to {VERSION}; upgrade")
    if version == 1:
        raise _refused(path, "it is of an older release, which counted strangers in another way")
    if version != VERSION:
        raise _refused(path, f"its version is {version!r}")
    if header.pop("sha256", None) != _checksum(header, members):
        raise _refused(path, "its checksum is wrong: it is damaged")
    try:
        return _checked(header, members)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, f"{error}") from error


def _checked(header: Mapping[str, Any], members: Mapping[str, bytes]) -> Kept:
    arrays, sizes = {}, dict[str, int]()
    for name, axes in _SHAPES.items():
        array = np.load(io.BytesIO(members[f"{name}.npy"]), allow_pickle=False)
        if array.dtype != np.float32 or array.ndim != len(axes) or not np.isfinite(array).all():
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
