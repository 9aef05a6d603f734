"""The pages of OGG files: chained streams, truncated or damaged pages, and missing ends.

libsndfile silently reads only the first of chained streams, and skips pages with a wrong checksum. Source:
RFC 3533.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO, Final, NamedTuple

from voiceprint.audio.io.parts import read_at, size_of
from voiceprint.errors import InvalidAudioError

_HEAD: Final = 27  # bytes of a page before its segment table
_MAX_PAGE: Final = _HEAD + 255 + 255 * 255
_WINDOW: Final = 1 << 20
_MAX_PAGES: Final = 500_000  # an hour of live Opus with a page per 20 ms has 180,000
_MAX_LINKS: Final = 1000  # each costs a decoder
_FIRST, _LAST = 2, 4  # flags
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Link(NamedTuple):
    """Byte range of a stream; ended: whether it has an end page; lost: number of missing pages."""

    start: int
    stop: int
    ended: bool
    lost: int


class Chain(NamedTuple):
    """The consecutive streams of a file.

    multiplexed: whether streams overlap, as with video.
    skipped: bytes outside of pages.
    """

    links: list[Link]
    multiplexed: bool
    skipped: int


def walk(file: BinaryIO) -> Chain:
    """Check every page of a file.

    Raises:
        InvalidAudioError: a page is truncated or damaged.
    """
    links: list[Link] = []
    at, end, skipped, multiplexed = 0, size_of(file), 0, False
    data, base, pages = b"", 0, 0
    serial, number, start, lost, ended = -1, 0, 0, 0, True
    while at < end:
        if (at + _MAX_PAGE > base + len(data) and base + len(data) < end) or at < base:
            data, base = read_at(file, at, _WINDOW), at
        offset = at - base
        length = _page_length(data, offset)
        if data[offset : offset + 4] != b"OggS":
            found = data.find(b"OggS", offset)
            gap = (found if found >= 0 else max(offset + 1, len(data) - 3)) - offset
            if base + len(data) >= end and found < 0:
                gap = end - at
            skipped += gap if data[offset : offset + gap].strip(b"\0") else 0
            at += gap
            continue
        pages += 1
        if pages > _MAX_PAGES:
            raise InvalidAudioError(f"has more than {_MAX_PAGES:,} OGG pages: divide it")
        if at + length > end:
            raise InvalidAudioError("is truncated: it ends within a page of its stream, copy it again")
        page = data[offset : offset + length]
        if _checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            raise InvalidAudioError(f"is damaged: the page at byte {at} has a wrong checksum, copy it again")
        page_serial = int.from_bytes(page[14:18], "little")
        page_number = int.from_bytes(page[18:22], "little")
        if page[5] & _FIRST:
            if serial >= 0 and not ended and number <= 1:
                multiplexed = True  # a second start page directly after the first
            elif serial >= 0:
                links.append(Link(start, at, ended, lost))
                if len(links) > _MAX_LINKS:
                    raise InvalidAudioError(f"holds more than {_MAX_LINKS} OGG streams: divide it")
                start = at
            serial, number, lost, ended = page_serial, page_number, 0, False
        elif page_serial == serial:
            lost += max(0, page_number - number) if serial >= 0 else 0
        else:
            multiplexed = multiplexed or serial >= 0
        if page_serial == serial:
            number = page_number + 1
            ended = bool(page[5] & _LAST)
        at += length
    if serial < 0:
        raise InvalidAudioError("is damaged: its stream has no beginning, copy it again")
    links.append(Link(start, end, ended, lost))
    return Chain(links, multiplexed, skipped)


def _page_length(data: bytes, at: int) -> int:
    """The length of a page; beyond the end of `data` if its header is truncated."""
    segments = data[at + 26] if len(data) > at + 26 else 255
    table = data[at + _HEAD : at + _HEAD + segments]
    return _HEAD + segments + sum(table) + (0 if len(table) == segments else 1)


def _checksum(page: bytes) -> int:
    """The CRC of RFC 3533: zlib's with the bits of each byte and of the result reversed."""
    # zlib starts with all bits set and inverts the result; OGG does neither.
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")
