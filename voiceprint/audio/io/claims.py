"""The size of the audio in a file: the header's claim, checked against the file."""

from __future__ import annotations

from typing import BinaryIO, Final, NamedTuple

from voiceprint.audio.io.parts import read_at, size_of
from voiceprint.errors import InvalidAudioError

UNKNOWN_FROM: Final = 0x7F000000
"""The lowest size that means "unknown". A writer into a pipe cannot seek back to write the size, and claims
about 2 or 4 GB: 0x7F000000 (SoX into AIFF), 0x7FFF0000 (GStreamer), 0x7FFFF000 (SoX), 0x80000000 (arecord),
0xFFFFFFFF (FFmpeg), each possibly less the length of the header. Audio of 2.1 GB exceeds the accepted length,
except for wide samples of many channels at high rates."""


class Extent(NamedTuple):
    """The size of the audio in bytes, and a warning if the header contradicts it."""

    size: int
    warning: str | None = None


def without_headers(file: BinaryIO, start: int) -> tuple[int, int]:
    """The actual offset and size of audio with the declared offset `start`.

    Into a pipe, libsndfile (and so SoX) repeats the header of a CAF or W64 file before and after the audio.
    """
    magic, stop, header = read_at(file, 0, 12), size_of(file), start
    if read_at(file, start, 12) == magic:
        start += header
    if stop - start >= header and read_at(file, stop - header, 12) == magic:
        stop -= header
    return start, max(0, stop - start)


def extent(claimed: int | None, available: int, offset: int, *, rest_is_chunks: bool = True) -> Extent:
    """The size of the audio, by the header and the file.

    Args:
        claimed: bytes by the header; None if declared unknown.
        available: bytes from the start of the audio to the end of the file.
        offset: of the audio in the file, by which a header that counts itself claims too much.
        rest_is_chunks: whether only chunks of the container, or nothing, follow the claimed bytes.

    Raises:
        InvalidAudioError: the claim is plausible, but the file is shorter: a truncated upload.
    """
    if claimed is None:
        return Extent(available)
    if claimed == available or (claimed < available and rest_is_chunks):
        return Extent(claimed)
    if claimed < available:
        if claimed == 0:
            return Extent(
                available, "the header says that there is no audio, as of a writer that did not end: "
            )
        return Extent(
            available, f"the header counts {claimed:,} bytes of audio and {available:,} are there: "
        )
    if claimed >= UNKNOWN_FROM:
        return Extent(available, "the header does not say how long the audio is: ")
    if claimed - available <= offset:
        return Extent(available, f"the header counts {claimed - available:,} bytes too many: ")
    raise InvalidAudioError(f"is truncated: {available} of {claimed} bytes of audio are there, copy it again")
