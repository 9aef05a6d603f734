"""The pages of OGG files: chained streams, pages that are cut off or damaged, and the end.

libsndfile reads the first of several streams that follow each other, and passes over pages with a wrong
checksum, both without a word. Source: RFC 3533.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO, Final, NamedTuple

from voiceprint.audio.io.parts import read_at, size_of
from voiceprint.errors import InvalidAudioError

_HEAD: Final = 27  # bytes of a page before its table of segments
_LONGEST: Final = _HEAD + 255 + 255 * 255
_WINDOW: Final = 1 << 20
_MOST_PAGES: Final = 500_000
"""An hour of live Opus with a page for each 20 ms has 180,000; more, empty ones, would take seconds."""
_MOST_LINKS: Final = 1000  # each costs a decoder
_FIRST, _LAST = 2, 4  # flags
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Link(NamedTuple):
    """The bytes of a stream of the chain; ended: its last page says so; lost: pages missing in it."""

    start: int
    stop: int
    ended: bool
    lost: int


class Chain(NamedTuple):
    """The streams that follow each other in a file.

    multiplexed: whether several streams run side by side, as with video.
    passed_over: bytes that are no pages.
    """

    links: list[Link]
    multiplexed: bool
    passed_over: int


def walk(file: BinaryIO) -> Chain:
    """Check every page of a file.

    Raises:
        InvalidAudioError: a page is cut off or damaged.
    """
    links: list[Link] = []
    at, end, passed_over, multiplexed = 0, size_of(file), 0, False
    data, base, pages = b"", 0, 0
    serial, number, start, lost, ended = -1, 0, 0, 0, True
    while at < end:
        if (at + _LONGEST > base + len(data) and base + len(data) < end) or at < base:
            data, base = read_at(file, at, _WINDOW), at
        offset = at - base
        length = _page_length(data, offset)
        if data[offset : offset + 4] != b"OggS":
            found = data.find(b"OggS", offset)
            skipped = (found if found >= 0 else max(offset + 1, len(data) - 3)) - offset
            if base + len(data) >= end and found < 0:
                skipped = end - at
            passed_over += skipped if data[offset : offset + skipped].strip(b"\0") else 0
            at += skipped
            continue
        pages += 1
        if pages > _MOST_PAGES:
            raise InvalidAudioError(f"has more than {_MOST_PAGES:,} OGG pages: divide it")
        if at + length > end:
            raise InvalidAudioError("is truncated: it ends within a page of its stream, copy it again")
        page = data[offset : offset + length]
        if _checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            raise InvalidAudioError(f"is damaged: the page at byte {at} has a wrong checksum, copy it again")
        its_serial = int.from_bytes(page[14:18], "little")
        its_number = int.from_bytes(page[18:22], "little")
        if page[5] & _FIRST:
            if serial >= 0 and not ended and number <= 1:
                multiplexed = True  # a second first page beside the first
            elif serial >= 0:
                links.append(Link(start, at, ended, lost))
                if len(links) > _MOST_LINKS:
                    raise InvalidAudioError(f"holds more than {_MOST_LINKS} OGG streams: divide it")
                start = at
            serial, number, lost, ended = its_serial, its_number, 0, False
        elif its_serial == serial:
            lost += max(0, its_number - number) if serial >= 0 else 0
        else:
            multiplexed = multiplexed or serial >= 0
        if its_serial == serial:
            number = its_number + 1
            ended = bool(page[5] & _LAST)
        at += length
    if serial < 0:
        raise InvalidAudioError("is damaged: its stream has no beginning, copy it again")
    links.append(Link(start, end, ended, lost))
    return Chain(links, multiplexed, passed_over)


def _page_length(data: bytes, at: int) -> int:
    """Of a page whose head may be cut off: then longer than what is there."""
    segments = data[at + 26] if len(data) > at + 26 else 255
    table = data[at + _HEAD : at + _HEAD + segments]
    return _HEAD + segments + sum(table) + (0 if len(table) == segments else 1)


def _checksum(page: bytes) -> int:
    """The CRC of RFC 3533: zlib's, with the bits of each byte and of the result the other way round."""
    # zlib begins with all bits set and inverts the end; OGG does neither.
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")
