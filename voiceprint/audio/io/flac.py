"""The length of FLAC files by their last frame: the header of a writer into a pipe lacks it.

libsndfile fails at the end of such a file, and reads only the first of joined files. Source: RFC 9639.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO, Final, NamedTuple

from voiceprint.audio.io.parts import Part, read_at, read_exactly, size_of
from voiceprint.errors import InvalidAudioError

_MAGIC: Final = b"fLaC\0\0\0\x22"  # with the header of the mandatory first block, not the last
_MAGIC_LAST: Final = b"fLaC\x80\0\0\x22"  # with the first block as the last
_MAX_BLOCKS: Final = 1000
_WINDOW: Final = 1 << 20
_MAX_TAIL: Final = 1 << 22  # the longest frame is 2 MB: 65,535 samples of 8 channels and 32 bits
_PADDING: Final = 1 << 16  # zero bytes after the last frame: file systems have blocks of up to 64 KB
_MAX_CANDIDATES: Final = 200
_MAX_CHECKED: Final = 1 << 22  # bytes of candidates for the last frame: 0.4 s
_MAX_STREAMS: Final = 1000
_FIXED_SIZES: Final = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{
    code: 256 << code - 8 for code in range(8, 16)
}}  # fmt: skip


class Stream(NamedTuple):
    """A FLAC file, or one of several joined ones.

    start, audio, stop: byte offsets of its start, its first frame and its end.
    claimed: samples by its header, 0 if unknown; counted: by its last frame, None if that is incomplete.
    """

    start: int
    audio: int
    stop: int
    sample_rate: int
    channels: int
    claimed: int
    counted: int | None

    @property
    def frames(self) -> int:
        """Samples of each channel."""
        return self.counted or self.claimed


def walk(file: BinaryIO) -> list[Stream]:
    """The streams of a file; several if files were joined.

    Raises:
        InvalidAudioError: a header is damaged, or the audio truncated.
    """
    starts = [0, *_find_joined(file, 4)]
    return [_stream(file, at, stop) for at, stop in zip(starts, [*starts[1:], size_of(file)], strict=True)]


def part(file: BinaryIO, stream: Stream) -> Part:
    """A stream as a file with the actual length in the header."""
    if stream.frames == stream.claimed:
        return Part(file, stream.start, stream.stop)
    info = bytearray(read_exactly(file, stream.start, 42, "its header"))
    total = info[21] >> 4 << 36 | stream.frames
    info[21:26] = total.to_bytes(5, "big")
    info[26:42] = bytes(16)  # the checksum of the audio, also unknown
    return Part(file, stream.start + 42, stream.stop, bytes(info))


def _find_joined(file: BinaryIO, start: int) -> list[int]:
    starts, at, end = [], start, size_of(file)
    while at < end:
        data = read_at(file, at, _WINDOW)
        for magic in (_MAGIC, _MAGIC_LAST):
            place = data.find(magic)
            while place >= 0:
                starts.append(at + place)
                if len(starts) > _MAX_STREAMS:
                    raise InvalidAudioError(f"holds more than {_MAX_STREAMS} FLAC files: divide it")
                place = data.find(magic, place + 1)
        at += max(1, len(data) - len(_MAGIC) + 1) if at + len(data) < end else len(data)
    return sorted(set(starts))


def _stream(file: BinaryIO, start: int, stop: int) -> Stream:
    info = read_exactly(file, start, 42, "its header")
    if info[:8] not in (_MAGIC, _MAGIC_LAST):
        raise InvalidAudioError(
            "is damaged or not an audio file that can be read (its header): copy it again"
        )
    packed = int.from_bytes(info[18:26], "big")
    sample_rate, channels, claimed = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    at, last = start + 4, False
    for _ in range(_MAX_BLOCKS):
        head = read_exactly(file, at, 4, "its header")
        last, at = head[0] >= 0x80, at + 4 + int.from_bytes(head[1:], "big")
        if last:
            break
    if not last or at > stop:
        raise InvalidAudioError("is truncated: its header is cut off or damaged, copy it again")
    block, longest = int.from_bytes(info[8:10], "big"), int.from_bytes(info[15:18], "big")
    if read_at(file, max(at, stop - 128), 3) == b"TAG":  # ID3v1
        stop -= 128
    counted, begun = _count(file, at, stop, block, longest)
    if not counted and not claimed and stop > at:
        raise InvalidAudioError("is truncated: its last frame is cut off or damaged, copy it again")
    if begun and begun < claimed:
        raise InvalidAudioError(f"is truncated: {begun} of {claimed} samples are there, copy it again")
    return Stream(start, at, stop, sample_rate, channels, claimed, counted)


def _count(file: BinaryIO, start: int, stop: int, block: int, longest: int) -> tuple[int | None, int]:
    """Samples up to the end of a frame that ends at `stop`, or None; and to that of the last frame header."""
    size = min(2 * longest + _PADDING if longest else _MAX_TAIL, _MAX_TAIL, stop - start)
    tail = read_at(file, stop - size, size).rstrip(b"\0") if size > 0 else b""
    # A checksum may end in zeros, like the padding of the file.
    tail += bytes(min(2, size - len(tail)))
    checked = begun = 0
    for zeros in range(3):
        frames = tail[: len(tail) - zeros] if zeros else tail
        if zeros and not tail.endswith(bytes(zeros)):
            break
        for at in _frames_from_end(frames):
            end = _frame_end(frames, at, block)
            if end is None:
                continue
            begun = begun or end
            checked += len(frames) - at
            if checked > _MAX_CHECKED:
                return None, begun
            if _crc16(frames[at:]) == 0:
                return end, end
    return None, begun


def _frames_from_end(data: bytes) -> Iterator[int]:
    """Offsets of possible frame headers, the last first."""
    at = len(data)
    for _ in range(_MAX_CANDIDATES):
        at = max(data.rfind(b"\xff\xf8", 0, at), data.rfind(b"\xff\xf9", 0, at))
        if at < 0:
            return
        yield at


def _frame_end(data: bytes, at: int, block: int) -> int | None:
    """The number of the sample after the frame at `at`; None if that is not a frame."""
    head = data[at : at + 16]
    if len(head) < 6 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] & 1:
        return None
    first = head[4]
    more = 0 if first < 0x80 else f"{first:08b}".index("0") - 1 if first < 0xFF else -1
    if more < 0 or (more == 0 and first >= 0x80) or len(head) < 5 + more + 1:
        return None
    number = first if not more else first & (1 << 6 - more) - 1
    for byte in head[5 : 5 + more]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    position, code = 5 + more, head[2] >> 4
    width = {6: 1, 7: 2}.get(code, 0)
    samples = _FIXED_SIZES.get(code, 0) or int.from_bytes(head[position : position + width], "big") + 1
    position += width + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if position >= len(head) or _crc8(head[:position]) != head[position]:
        return None
    return number + samples if head[1] & 1 else number * block + samples


@lru_cache(maxsize=2)
def _table(width: int, polynomial: int) -> list[int]:
    """CRC of `width` bits for each byte value."""
    table, top = [], 1 << width - 1
    for byte in range(256):
        crc = byte << width - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & (1 << width) - 1
        table.append(crc)
    return table


def _crc8(data: bytes) -> int:
    table, crc = _table(8, 0x07), 0
    for byte in data:
        crc = table[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    """CRC-16; 0 for data that ends in its own checksum."""
    table, crc = _table(16, 0x8005), 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ byte]
    return crc
