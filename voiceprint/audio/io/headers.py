"""AIFF, AU and CAF files of uncompressed samples; the sizes in their headers are claims, see `claims`.

Sources: Apple's AIFF-C (1991) and Core Audio Format specifications, Sun's audio(4) header.
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO, Final

from voiceprint.audio.io.chunks import are_chunks, chunks
from voiceprint.audio.io.claims import UNKNOWN_FROM, Extent, extent, without_headers
from voiceprint.audio.io.layout import Layout
from voiceprint.audio.io.parts import damaged, read_at, read_exactly, size_of

_AIFF: Final = {
    b"fl32": "f32be", b"FL32": "f32be", b"fl64": "f64be", b"FL64": "f64be", b"ulaw": "mulaw",
    b"ULAW": "mulaw", b"alaw": "alaw", b"ALAW": "alaw", b"in24": "s24be", b"in32": "s32be",
    b"23ni": "s32le", b"raw ": "u8",
}  # fmt: skip
_AU: Final = {
    1: "mulaw", 2: "s8", 3: "s16be", 4: "s24be", 5: "s32be", 6: "f32be", 7: "f64be", 27: "alaw",
}  # fmt: skip


def parse(file: BinaryIO) -> Layout | None:
    """The layout of the samples in an AIFF, AU or CAF file; None if compressed.

    Raises:
        InvalidAudioError: the header is damaged, or the audio truncated.
    """
    magic = read_at(file, 0, 4)
    return {b"FORM": _aiff, b".snd": _au, b"caff": _caf}[magic](file)


def _aiff(file: BinaryIO) -> Layout | None:
    common, at = b"", None
    for chunk in chunks(file, 12, "big"):
        if chunk.name == b"COMM":
            if chunk.size < 18:
                raise damaged("its COMM chunk is too short")
            common = read_exactly(file, chunk.start, min(chunk.size, 22), "its header")
        elif chunk.name == b"SSND":
            skipped = int.from_bytes(read_exactly(file, chunk.start, 8, "its header")[:4], "big")
            at = chunk.start + 8 + skipped, chunk.size - 8 - skipped
        if common and at:
            break
    if not common or at is None:
        raise damaged("there is no COMM and SSND chunk")
    channels, frames, bits = struct.unpack(">hLh", common[:8])
    coding = _aiff_coding(common[18:22], -(-bits // 8))
    if coding is None:
        return None
    start, claimed = at
    available = size_of(file) - start
    # Into a pipe, SoX claims frames of 0x7F000000 bytes; other writers leave both numbers at 0.
    rest = max(0, claimed) + start
    size = extent(max(0, claimed), available, start, rest_is_chunks=bool(frames) and _are_chunks(file, rest))
    return _layout(coding, _extended(common[8:18]), channels, start, size)


def _are_chunks(file: BinaryIO, at: int) -> bool:
    return are_chunks(file, at + at % 2, "big")


def _aiff_coding(compression: bytes, width: int) -> str | None:
    if compression in (b"", b"NONE", b"twos", b"sowt"):
        order = "le" if compression == b"sowt" else "be"
        return {1: "s8", 2: f"s16{order}", 3: f"s24{order}", 4: f"s32{order}"}.get(width)
    return _AIFF.get(compression)


def _extended(number: bytes) -> float:
    """Convert an 80-bit extended float."""
    exponent = int.from_bytes(number[:2], "big") & 0x7FFF
    if exponent > 16383 + 64:
        return math.inf
    return math.ldexp(int.from_bytes(number[2:], "big"), exponent - 16383 - 63)


def _au(file: BinaryIO) -> Layout | None:
    start, claimed, encoding, rate, channels = struct.unpack(">5L", read_exactly(file, 4, 20, "its header"))
    coding = _AU.get(encoding)
    if coding is None:
        return None
    if start < 24 or start > size_of(file):
        raise damaged("its header says that the audio begins outside the file")
    unknown = claimed == 0xFFFFFFFF
    size = extent(None if unknown else claimed, size_of(file) - start, start, rest_is_chunks=False)
    return _layout(coding, rate, channels, start, size)


def _caf(file: BinaryIO) -> Layout | None:
    description = b""
    for chunk in chunks(file, 8, "big", length_bytes=8, align=1):
        if chunk.name == b"desc":
            description = read_exactly(file, chunk.start, 32, "its header")
        elif chunk.name == b"data":
            if not description:
                break
            return _caf_samples(file, description, chunk.start, chunk.size)
        elif chunk.size >= 1 << 62:
            break
    raise damaged("there is no desc and data chunk")


def _caf_samples(file: BinaryIO, description: bytes, start: int, claimed: int) -> Layout | None:
    rate, kind, flags, _, _, channels, bits = struct.unpack(">d4s5L", description)
    order = "le" if flags & 2 else "be"
    if kind == b"lpcm":
        widths = {32: f"f32{order}", 64: f"f64{order}"} if flags & 1 else {
            8: "s8", 16: f"s16{order}", 24: f"s24{order}", 32: f"s32{order}",
        }  # fmt: skip
        coding = widths.get(bits)
    else:
        coding = {b"ulaw": "mulaw", b"alaw": "alaw"}.get(kind)
    if coding is None:
        return None
    start, available = without_headers(file, start + 4)  # after the edit count
    known = 4 < claimed < UNKNOWN_FROM << 8
    size = extent(claimed - 4 if known else None, available, start)
    return _layout(coding, rate, channels, start, size)


def _layout(coding: str, rate: float, channels: int, start: int, size: Extent) -> Layout:
    if channels < 1:
        raise damaged("its header says that it has no channels")
    # 0 for a rate that is not a number, which the reader refuses.
    whole = int(rate) if math.isfinite(rate) and abs(rate) < 1e9 else 0
    return Layout(coding, whole, channels, start, size.size, size.warning)
