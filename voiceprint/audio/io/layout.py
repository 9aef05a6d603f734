"""Uncompressed samples in a file: location, coding and decoder."""

from __future__ import annotations

from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import g711
from voiceprint.audio.io.parts import read_at

SAMPLE_BYTES: Final = {
    "u8": 1, "s8": 1, "s16le": 2, "s16be": 2, "s24le": 3, "s24be": 3, "s32le": 4, "s32be": 4,
    "f32le": 4, "f32be": 4, "f64le": 8, "f64be": 8, "mulaw": 1, "alaw": 1,
}  # fmt: skip
"""Bytes per sample of each coding, by FFmpeg's names."""

_DTYPES: Final = {
    "u8": "u1", "s8": "i1", "s16le": "<i2", "s16be": ">i2", "s32le": "<i4", "s32be": ">i4",
    "f32le": "<f4", "f32be": ">f4", "f64le": "<f8", "f64be": ">f8",
}  # fmt: skip


class Layout(NamedTuple):
    """Location and coding of uncompressed samples.

    coding: a key of `SAMPLE_BYTES`.
    start, size: offset and size of the samples in the file, bytes.
    warning: the start of a warning about a wrong header, to end with the number of samples read; or None.
    """

    coding: str
    sample_rate: int
    channels: int
    start: int
    size: int
    warning: str | None = None


class PcmDecoder:
    """Reads samples of a `Layout`."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self._frame_bytes = SAMPLE_BYTES[layout.coding] * layout.channels
        self._at = layout.start
        self.sample_rate, self.channels = layout.sample_rate, layout.channels
        self.frames: int | None = layout.size // self._frame_bytes
        self.is_16_bit = layout.coding in ("u8", "s8", "s16le", "s16be", "mulaw", "alaw")
        self.is_float = layout.coding[0] == "f"
        self.warnings: tuple[str, ...] = ()

    def read(self, frames: int) -> npt.NDArray[Any]:
        """The next samples [n, channels], int16, or float32 for over 16 bits; n = 0 at the end."""
        stop = self._layout.start + self._layout.size
        wanted = min(frames * self._frame_bytes, max(0, stop - self._at))
        data = read_at(self._file, self._at, wanted - wanted % self._frame_bytes)
        data = data[: len(data) - len(data) % self._frame_bytes]
        self._at += len(data)
        return decode(data, self._layout.coding).reshape(-1, self.channels)

    def close(self) -> None:
        """No resources to release."""


def decode(data: bytes, coding: str) -> npt.NDArray[Any]:
    """Decode bytes to int16[n] if exact, else float32[n] in [-1, 1); floats keep their scale."""
    if coding in ("mulaw", "alaw"):
        return g711.decode(np.frombuffer(data, np.uint8), coding)  # type: ignore[arg-type]
    if coding in ("s24le", "s24be"):
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        packed = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide[:, 1:] = packed if coding == "s24le" else packed[:, ::-1]
        return _scale_int32(wide.view("<i4")[:, 0])
    samples = np.frombuffer(data, dtype=_DTYPES[coding])
    if coding == "u8":
        return ((samples.astype(np.int16) - 128) << 8).astype(np.int16)
    if coding == "s8":
        return samples.astype(np.int16) << 8
    if coding[0] == "f":
        with np.errstate(all="ignore"):  # values beyond float32 become infinite, and the reader refuses them
            return samples.astype(np.float32)
    return _scale_int32(samples) if coding in ("s32le", "s32be") else samples.astype(np.int16)


def _scale_int32(samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(samples.astype(np.float32) * np.float32(2.0**-31))
