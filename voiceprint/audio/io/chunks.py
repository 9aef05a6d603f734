"""Chunks of WAV, AIFF and CAF files: a name, a length and content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final, Literal, NamedTuple

from voiceprint.audio.io.parts import read_at, size_of
from voiceprint.errors import InvalidAudioError

MAX_CHUNKS: Final = 1000
"""Chunks before the audio. Files have up to about 20; 64 MB of empty ones would take 10 s to parse."""

_MAX_PADDING: Final = 1 << 16  # bytes: file systems and recorders have blocks of up to 64 KB
_KNOWN: Final = (
    b"LIST",
    b"id3 ",
    b"ID3 ",
    b"bext",
    b"fact",
    b"cue ",
    b"smpl",
    b"iXML",
    b"_PMX",
    b"JUNK",
    b"PAD ",
)
"""Names of chunks after the audio, recognized even if truncated."""


class Chunk(NamedTuple):
    """A chunk: `start` is the offset of its content, `size` the declared length."""

    name: bytes
    start: int
    size: int


def chunks(
    file: BinaryIO, at: int, order: Literal["little", "big"], *, length_bytes: int = 4, align: int = 2
) -> Iterator[Chunk]:
    """The chunks from byte `at` on, up to one that exceeds the file.

    Raises:
        InvalidAudioError: more than `MAX_CHUNKS` chunks.
    """
    head_bytes = 4 + length_bytes
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, head_bytes)
        if len(head) < head_bytes:
            return
        size = int.from_bytes(head[4:], order)
        yield Chunk(head[:4], at + head_bytes, size)
        at += head_bytes + size + -size % align
    raise InvalidAudioError(f"has more than {MAX_CHUNKS} chunks before its audio: convert it, such as by SoX")


def are_chunks(
    file: BinaryIO, at: int, order: Literal["little", "big"], *, length_bytes: int = 4, align: int = 2
) -> bool:
    """Whether the bytes from `at` to the end of the file are chunks, or anything else but audio.

    Tags are not audio (ID3v1 is 128 bytes at the end), nor are zeros that pad a block, nor fewer bytes than
    the header of a chunk.
    """
    end = size_of(file)
    rest = read_at(file, at, min(end - at, _MAX_PADDING)) if at < end else b""
    if len(rest) < 8 or rest[:3] in (b"TAG", b"ID3") or rest[:4] in _KNOWN:
        return True
    if end - at <= _MAX_PADDING and not rest.strip(b"\0"):
        return True
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 4 + length_bytes)
        if len(head) < 4 + length_bytes:
            return not head.strip(b"\0")
        name, size = head[:4], int.from_bytes(head[4:], order)
        # Four printable characters, by chance in 1 of 50 places of audio; the length must fit as well.
        if not all(0x20 <= byte < 0x7F for byte in name) or at + len(head) + size > end + 1:
            return False
        at += len(head) + size + -size % align
        if at >= end:
            return True
    return False
