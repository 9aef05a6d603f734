"""How many bytes of audio a file has: its header's size is a claim, which is compared with what is there."""

from __future__ import annotations

from typing import BinaryIO, Final, NamedTuple

from voiceprint.audio.io.parts import read_at, size_of
from voiceprint.errors import InvalidAudioError

UNKNOWN_FROM: Final = 0x7F000000
"""A writer into a pipe cannot go back to write the size. It claims one of about 2 or 4 GB, different with
each: 0x7F000000 is the least (SoX into AIFF), others 0x7FFF0000 (GStreamer), 0x7FFFF000 (SoX), 0x80000000
(arecord), 0xFFFFFFFF (FFmpeg), and those less the length of the header. Audio of 2.1 GB is longer than is
accepted, but for wide samples of many channels at high rates."""


class Extent(NamedTuple):
    """The bytes of audio, and a warning where the header says something else."""

    size: int
    warning: str | None = None


def without_headers(file: BinaryIO, start: int) -> tuple[int, int]:
    """Where the audio really begins, and how many bytes it has, if it claims to begin at `start`.

    libsndfile, and so SoX, writes the header of a CAF or W64 file again where the audio begins and behind it,
    if the file is a pipe.
    """
    magic, stop, header = read_at(file, 0, 12), size_of(file), start
    if read_at(file, start, 12) == magic:
        start += header
    if stop - start >= header and read_at(file, stop - header, 12) == magic:
        stop -= header
    return start, max(0, stop - start)


def extent(claimed: int | None, there: int, offset: int, *, rest_is_chunks: bool = True) -> Extent:
    """How many bytes to read, of a header that claims `claimed`, in a file with `there` more bytes.

    Args:
        claimed: None where the header says that it does not know.
        there: bytes from the first of the audio to the end of the file.
        offset: of the audio in the file: so many bytes too many a header claims that counts itself in.
        rest_is_chunks: whether what follows the claimed bytes are chunks of the container, or nothing.

    Raises:
        InvalidAudioError: the size is a likely one, and less is there: an upload that was cut off.
    """
    if claimed is None:
        return Extent(there)
    if claimed == there or (claimed < there and rest_is_chunks):
        return Extent(claimed)
    if claimed < there:
        if claimed == 0:
            return Extent(there, "the header says that there is no audio, as of a writer that did not end: ")
        return Extent(there, f"the header counts {claimed:,} bytes of audio and {there:,} are there: ")
    if claimed >= UNKNOWN_FROM:
        return Extent(there, "the header does not say how long the audio is: ")
    if claimed - there <= offset:
        return Extent(there, f"the header counts {claimed - there:,} bytes too many: ")
    raise InvalidAudioError(f"is truncated: {there} of {claimed} bytes of audio are there, copy it again")
