"""Frames of MP3 files and of ADTS AAC, counted by their headers.

libsndfile estimates the length of an MP3 file without a Xing header from the bit rate of its first frame, and
reads no further: 1.81 of 5.51 s of a file of variable bit rate. This module counts the frames, and reports a
file size to libsndfile that makes it read to the end.

Sources: ISO/IEC 11172-3 and 13818-3 (frame header), 13818-7 (ADTS), id3.org (ID3v2.4, 3.1), and the layout of
the Xing header as LAME's documentation describes it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import BinaryIO, Final, NamedTuple

from voiceprint.audio.io.parts import Part, read_at, size_of
from voiceprint.errors import InvalidAudioError

_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS: Final = {
    # (first version or not, layer): kbit/s by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # fmt: skip
_HEAD: Final = 4
_CONFIRMED: Final = (
    2  # consecutive headers that identify a stream: random bytes look like a header in 1 of 2**11
)
_MAX_FRAME: Final = 1730  # bytes: 384 kbit/s at 32 kHz, layer II
_SEARCHED: Final = 1 << 16  # bytes searched for the first or the next frame
_WINDOW: Final = 1 << 20  # bytes read together
_MAX_SKIPPED: Final = 1 << 18  # bytes: a cut stream has less, and more would take seconds to search
_MAX_TAGS: Final = 20  # ID3 tags at the start
_MAX_RUNS: Final = 1000  # joined files, and tags in total: each costs a decoder, or a step


class Frame(NamedTuple):
    """A frame header of MPEG audio: `length` in bytes, `samples` per channel."""

    version: int  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    layer: int
    sample_rate: int
    channels: int
    length: int
    samples: int

    @property
    def stream(self) -> tuple[int, int, int, int]:
        """The header fields common to all frames of a stream."""
        return self.version, self.layer, self.sample_rate, self.channels

    @property
    def xing_at(self) -> int:
        """Offset of a Xing header in a frame of layer III: after the side information."""
        if self.version == 3:
            return 4 + (17 if self.channels == 1 else 32)
        return 4 + (9 if self.channels == 1 else 17)


def frame_at(data: bytes, at: int) -> Frame | None:
    """The frame with its header at `at`, or None; the unused free bit rates are not supported."""
    if len(data) - at < _HEAD or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    return _frame(data[at + 1] & 0x1F, data[at + 2], data[at + 3] >> 6 == 3)


@lru_cache(maxsize=1024)  # a file has few different headers, but 140,000 frames per hour
def _frame(second: int, third: int, is_mono: bool) -> Frame | None:
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    kbit, rate = third >> 4, third >> 2 & 3
    if version == 1 or layer == 4 or kbit in (0, 15) or rate == 3:
        return None
    sample_rate = _RATES[version][rate]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    slots = samples // 8 // slot * 1000 * _KBITS[version == 3, layer][kbit] // sample_rate
    length = (slots + (third >> 1 & 1)) * slot
    return Frame(version, layer, sample_rate, 1 if is_mono else 2, length, samples)


def after_id3(file: BinaryIO, at: int = 0) -> int:
    """The offset after the ID3v2 tags at `at`."""
    for _ in range(_MAX_TAGS):
        head = read_at(file, at, 10)
        length = _id3_length(head, 0)
        if not length:
            break
        at += length
    return at


def _id3_length(data: bytes, at: int) -> int:
    head = data[at : at + 10]
    if head[:3] != b"ID3" or len(head) < 10 or head[3] == 0xFF or max(head[6:10]) > 0x7F:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)  # with a footer


def starts(file: BinaryIO, at: int) -> bool:
    """Whether MPEG audio starts at `at`, or within the length of a frame, as in a cut stream."""
    data = read_at(file, at, 16 * 1024)
    is_end, place = at + len(data) >= size_of(file), 0
    while 0 <= place < _MAX_FRAME:
        if _confirmed(data, place, is_end):
            return True
        place = data.find(b"\xff", place + 1)
    return False


def is_adts(file: BinaryIO, at: int) -> bool:
    """Whether AAC in ADTS frames starts at `at`."""
    data = read_at(file, at, 3 * 8192)
    for _ in range(_CONFIRMED + 1):
        if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
            return False
        length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
        if length < 7:
            return False
        if length >= len(data):
            return True
        data = data[length:]
    return True


def _confirmed(data: bytes, at: int, is_end: bool) -> bool:
    """Whether frames of one stream follow each other from `at`; is_end: `data` ends with the file."""
    first = frame_at(data, at)
    frame, count = first, 0
    while first is not None and frame is not None and frame.stream == first.stream:
        at, count = at + frame.length, count + 1
        if count > _CONFIRMED or (count and is_end and at == len(data)):
            return True
        if at + 4 > len(data) or data[at : at + 3] in (b"TAG", b"ID3") or data[at : at + 8] == b"APETAGEX":
            return count > _CONFIRMED or (is_end and count > 0 and at <= len(data))
        frame = frame_at(data, at)
    return False


class Run(NamedTuple):
    """Consecutive frames of one stream, from one encoder.

    start, stop: byte range, without tags; audio: offset of the first frame, after a Xing header.
    frames: number of frames; longest: bytes of the longest.
    claimed: number of frames by the Xing header, None without one.
    """

    first: Frame
    start: int
    audio: int
    stop: int
    frames: int
    longest: int
    claimed: int | None

    @property
    def counted(self) -> bool:
        """Whether the Xing header is right; some writers include it in its count."""
        return self.claimed in (self.frames, self.frames + 1)


class Walk(NamedTuple):
    """The runs of a file; skipped: bytes between frames that are neither audio nor tags."""

    runs: list[Run]
    skipped: int


def walk(file: BinaryIO, start: int, stop: int, max_seconds: float) -> Walk:
    """Find every frame of `file` from byte `start` to `stop`.

    Each joined file is a run: tags, a Xing header or another rate start a new one.

    Raises:
        InvalidAudioError: no frame exists, the last is truncated, or the audio exceeds `max_seconds`.
    """
    return _Walker(file, stop, max_seconds).walk(start)


class _Walker:
    def __init__(self, file: BinaryIO, stop: int, max_seconds: float) -> None:
        self._file, self._stop, self._max_seconds = file, stop, max_seconds
        self._data, self._base = b"", 0
        self._runs: list[Run] = []
        self._skipped = 0
        self._seconds = 0.0
        self._frames = self._longest = 0  # of the run
        self._tags = 0

    def walk(self, at: int) -> Walk:
        run: Run | None = None
        while at < self._stop:
            data, offset = self._window(at)
            frame = frame_at(data, offset)
            if run is not None and self._stop - at < _HEAD and data[offset : offset + 1] == b"\xff":
                raise InvalidAudioError("is truncated: its last frame is cut off, copy it again")
            if frame is None or (run is None and not _confirmed(data, offset, self._ends(data))):
                self._close(run, at)
                run, at = None, self._skip(data, offset, at)
                continue
            if at + frame.length > self._stop:
                if run is None or frame.stream != run.first.stream:  # only resembles a frame
                    self._skipped += self._stop - at
                    break
                self._close(run, at)
                raise InvalidAudioError("is truncated: its last frame is cut off, copy it again")
            header = _xing(data, offset, frame)
            if run is None or header or frame.stream != run.first.stream:
                self._close(run, at)
                audio = at + frame.length if header else at
                claimed = header[0] if header else None
                run = Run(frame, at, audio, audio, 0, 0, claimed)
                self._frames, self._longest = (0 if header else 1), frame.length
            else:
                self._frames += 1
                self._longest = max(self._longest, frame.length)
            self._seconds += frame.samples / frame.sample_rate
            if self._seconds > self._max_seconds + 1:
                raise InvalidAudioError(
                    f"lasts more than {self._max_seconds:.0f} s: cut out a part where the caller speaks"
                )
            at += frame.length
        self._close(run, min(at, self._stop))
        if not self._runs:
            raise InvalidAudioError("is damaged or not an audio file that can be read (no MP3 frames)")
        return Walk(self._runs, self._skipped)

    def _window(self, at: int) -> tuple[bytes, int]:
        """Bytes around `at`, with at least 64 KB after it unless the file ends; and the index of `at`."""
        end = self._base + len(self._data)
        if at < self._base or (at > end - _SEARCHED and end < self._stop):
            self._base = at
            self._data = read_at(self._file, at, min(_WINDOW, self._stop - at))
        return self._data, at - self._base

    def _ends(self, data: bytes) -> bool:
        return self._base + len(data) >= self._stop

    def _close(self, run: Run | None, at: int) -> None:
        if run is not None and (self._frames or run.claimed):
            if len(self._runs) >= _MAX_RUNS:
                raise InvalidAudioError(f"holds more than {_MAX_RUNS} MP3 files: divide it")
            self._runs.append(run._replace(stop=at, frames=self._frames, longest=self._longest))

    def _skip(self, data: bytes, offset: int, at: int) -> int:
        """The offset after a tag or bytes that are not a frame."""
        tag = _tag_length(data, offset)
        if tag:
            self._tags += 1
            if self._tags > _MAX_RUNS:
                raise InvalidAudioError(f"has more than {_MAX_RUNS} tags between its MP3 frames: convert it")
            return at + tag
        found = offset + 1
        while True:
            found = data.find(b"\xff", found)
            if found < 0 or found - offset > _SEARCHED:
                found = min(len(data), offset + _SEARCHED)
                break
            if _confirmed(data, found, self._ends(data)):
                break
            found += 1
        if data[offset:found].strip(b"\0"):  # some writers pad blocks with zeros
            self._skipped += found - offset
            if self._skipped > _MAX_SKIPPED:
                raise InvalidAudioError("is damaged: more than 256 KB between its MP3 frames is no audio")
        return at + found - offset


def _tag_length(data: bytes, at: int) -> int:
    if data[at : at + 3] == b"TAG":
        return 128
    if data[at : at + 8] == b"APETAGEX" and len(data) - at >= 32:
        # The size excludes the header; a footer alone is the end of a tag without header.
        is_header = data[at + 23] & 0x20
        return 32 + (int.from_bytes(data[at + 12 : at + 16], "little") if is_header else 0)
    return _id3_length(data, at)


def _xing(data: bytes, at: int, frame: Frame) -> tuple[int | None] | None:
    """The number of frames by a Xing header, (None,) if unknown; None without a header."""
    if frame.layer != 3:
        return None
    place = at + frame.xing_at
    if data[place : place + 4] in (b"Xing", b"Info") and frame.length >= frame.xing_at + 12:
        counted = data[place + 7] & 1 if len(data) > place + 11 else 0
        return (int.from_bytes(data[place + 8 : place + 12], "big") if counted else None,)
    place = at + 36
    if data[place : place + 4] == b"VBRI" and frame.length >= 54:
        return (int.from_bytes(data[place + 14 : place + 18], "big"),)
    return None


def part(file: BinaryIO, run: Run) -> Part:
    """A run as a file that libsndfile reads to the end.

    Without a Xing header, mpg123 estimates the end from the size of the file and of the first frames. The
    part therefore claims a size for frames of maximum length. Adding a Xing header fails: mpg123 then removes
    the delay of an encoder.
    """
    if run.counted:
        return Part(file, run.start, run.stop)
    return Part(file, run.audio, run.stop, claimed=(run.frames + 2) * (run.longest + 1) + 256)
