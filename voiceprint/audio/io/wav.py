"""WAV files and their relatives: RIFX (big-endian), RF64 and BW64 (beyond 4 GB) and W64.

The sizes in a header are claims, see `claims`: unknown to writers into a pipe, missing after a crash of the
writer, and sometimes including the header.

Sources: Microsoft's RIFF and WAVEFORMATEX, EBU Tech 3306 (RF64), Sony's W64 as libsndfile reads it.
"""

from __future__ import annotations

from typing import BinaryIO, Final, Literal, NamedTuple

from voiceprint.audio.io.chunks import MAX_CHUNKS, Chunk, are_chunks, chunks
from voiceprint.audio.io.claims import Extent, extent, without_headers
from voiceprint.audio.io.layout import SAMPLE_BYTES, Layout
from voiceprint.audio.io.parts import damaged, read_at, read_exactly, size_of
from voiceprint.errors import InvalidAudioError

MP3: Final = 0x0055
_EXTENSIBLE: Final = 0xFFFE
_PCM, _FLOAT, _ALAW, _MULAW = 1, 3, 6, 7
TAGS: Final = {
    0x0002: "MS ADPCM", 0x0011: "IMA ADPCM", 0x0014: "G.723 ADPCM", 0x0022: "TrueSpeech", 0x0028: "LPC-10",
    0x0031: "GSM 6.10", 0x0040: "G.721", 0x0042: "G.723.1", 0x0045: "G.726", 0x0050: "MP2", 0x0055: "MP3",
    0x0064: "G.726", 0x0065: "G.722", 0x0083: "G.729", 0x00FF: "AAC", 0x0160: "WMA", 0x0161: "WMA",
    0x028F: "G.722", 0x704F: "Opus", 0xA109: "Speex", 0xF1AC: "FLAC",
}  # fmt: skip
_MAX_FMT_BYTES: Final = 0x40  # of a fmt chunk
_W64_CHUNK: Final = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # after the name, except of "riff"


class Compressed(NamedTuple):
    """Compressed audio in a WAV file.

    tag: the codec by the fmt chunk; fmt: the content of that chunk.
    """

    tag: int
    fmt: bytes
    start: int
    size: int
    warning: str | None

    @property
    def codec(self) -> str:
        """The name of the codec."""
        return TAGS.get(self.tag, f"codec 0x{self.tag:04x}")

    @property
    def header(self) -> bytes:
        """A WAV header with the actual size, to precede the audio."""
        fmt = b"fmt " + len(self.fmt).to_bytes(4, "little") + self.fmt + bytes(len(self.fmt) % 2)
        data = b"data" + self.size.to_bytes(4, "little")
        return b"RIFF" + (4 + len(fmt) + 8 + self.size).to_bytes(4, "little") + b"WAVE" + fmt + data


def parse(file: BinaryIO) -> Layout | Compressed:
    """Locate the audio in a WAV, RIFX, RF64, BW64 or W64 file.

    Raises:
        InvalidAudioError: the header is truncated, damaged or not of audio, or the audio is truncated.
    """
    magic = read_at(file, 0, 4)
    if magic == b"riff":
        fmt, start, size = _w64(file)
        order: Literal["little", "big"] = "little"
    else:
        order = "big" if magic == b"RIFX" else "little"
        fmt, start, size = _riff(file, order)
    return _audio(fmt, order, start, size)


def _riff(file: BinaryIO, order: Literal["little", "big"]) -> tuple[bytes, int, Extent]:
    fmt, long_size = b"", None
    for chunk in chunks(file, 12, order):
        if chunk.name == b"fmt ":
            fmt = _fmt(file, chunk)
        elif chunk.name == b"ds64":
            sizes = read_exactly(file, chunk.start, 16, "its header")
            long_size = int.from_bytes(sizes[8:], "little")
        elif chunk.name == b"data":
            claimed: int | None = chunk.size
            if long_size is not None and chunk.size == 0xFFFFFFFF:
                claimed = long_size if 0 < long_size < 1 << 63 else None
            available = size_of(file) - chunk.start
            rest = chunk.start + (claimed or 0)
            whole = claimed is None or rest >= available + chunk.start or _are_chunks(file, rest, order)
            return fmt, chunk.start, extent(claimed, available, chunk.start, rest_is_chunks=whole)
        elif chunk.start + chunk.size > size_of(file):
            raise InvalidAudioError("is truncated: its header is cut off or damaged, copy it again")
    raise damaged("there is no data chunk")


def _are_chunks(file: BinaryIO, at: int, order: Literal["little", "big"]) -> bool:
    # Some writers omit the padding byte after an odd length.
    return are_chunks(file, at + at % 2, order) or (at % 2 == 1 and are_chunks(file, at, order))


def _w64(file: BinaryIO) -> tuple[bytes, int, Extent]:
    fmt, at = b"", 40
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 24)
        if len(head) < 24:
            break
        name, size = head[:4], int.from_bytes(head[16:], "little")  # including the header
        if name == b"fmt ":
            fmt = _fmt(file, Chunk(name, at + 24, size - 24))
        elif name == b"data" and head[4:16] == _W64_CHUNK:
            start, available = without_headers(file, at + 24)
            # An unknown size is 0, the 24 bytes of the header, or beyond any file.
            claimed = size - 24 if 24 < size < 1 << 62 else None
            return fmt, start, extent(claimed, available, start)
        if size < 24:
            break
        at += size + -size % 8
    raise damaged("there is no data chunk")


def _fmt(file: BinaryIO, chunk: Chunk) -> bytes:
    if chunk.size < 14:
        raise damaged("its fmt chunk is too short")
    return read_exactly(file, chunk.start, min(chunk.size, _MAX_FMT_BYTES), "its header")


def _audio(fmt: bytes, order: Literal["little", "big"], start: int, size: Extent) -> Layout | Compressed:
    if not fmt:
        raise damaged("there is no fmt chunk before the data")

    def number(at: int, count: int) -> int:
        return int.from_bytes(fmt[at : at + count], order)

    tag, channels, rate, align, bits = number(0, 2), number(2, 2), number(4, 4), number(12, 2), number(14, 2)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        tag = number(24, 2)
    if channels == 0:
        raise damaged("its header says that it has no channels")
    # 20-bit samples fill the upper bits of three bytes: the frame length gives the width.
    width = align // channels if align and align % channels == 0 else -(-bits // 8)
    coding = _coding(tag, width, "le" if order == "little" else "be")
    if coding is not None:
        if align not in (0, SAMPLE_BYTES[coding] * channels):
            raise damaged(f"its header says {align} bytes a frame, for {channels} channels of {bits} bits")
        return Layout(coding, rate, channels, start, size.size, size.warning)
    if tag in (_PCM, _FLOAT):
        raise damaged(f"its samples have {bits} bits")
    if order == "big":
        raise damaged("it is big-endian, and of compressed audio")
    # With an unknown length, the padding byte of the chunk is not audio.
    padded = size.warning is not None and align > 1 and size.size % align == 1
    return Compressed(tag, fmt, start, size.size - padded, size.warning)


def _coding(tag: int, width: int, order: str) -> str | None:
    if tag == _PCM:
        return {1: "u8", 2: f"s16{order}", 3: f"s24{order}", 4: f"s32{order}"}.get(width)
    if tag == _FLOAT:
        return {4: f"f32{order}", 8: f"f64{order}"}.get(width)
    return {_MULAW: "mulaw", _ALAW: "alaw"}.get(tag)
