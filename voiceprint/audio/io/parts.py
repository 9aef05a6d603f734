"""A part of a file as a file object: replaces a wrong header without copying the audio."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, Final

from voiceprint.errors import InvalidAudioError

_TAG_BYTES: Final = 128
_MAX_OFFSET: Final = 1 << 62  # a damaged header may point beyond any seekable offset


class Part(io.RawIOBase):
    """`head`, then the bytes `start` to `stop` of `file`, read-only.

    claimed: reported size in bytes, if larger. Reading ends with the actual bytes, except that the last 128
        claimed bytes are zeros: mpg123 refuses a file in which it cannot look for a tag there.

    A part moves the position of `file`, which several parts may share in one thread. Closing a part leaves
    `file` open.
    """

    def __init__(self, file: BinaryIO, start: int, stop: int, head: bytes = b"", *, claimed: int = 0) -> None:
        self._file, self._start, self._head = file, start, head
        self._size = len(head) + max(0, stop - start)
        self._claimed = max(claimed, self._size)
        self._zeros_from = (
            self._claimed - _TAG_BYTES if self._claimed >= self._size + _TAG_BYTES else self._claimed
        )
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position, in bytes from the start of `head`."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to any position from 0 on; reads past the end return nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._claimed}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """As for any raw file; fills less than `buffer` only at the end."""
        view = memoryview(buffer).cast("B")
        if self._zeros_from <= self._position < self._claimed and self._zeros_from >= self._size:
            zeros = min(len(view), self._claimed - self._position)
            view[:zeros] = bytes(zeros)
            self._position += zeros
            return zeros
        filled = 0
        if self._position < len(self._head):
            piece = self._head[self._position : self._position + len(view)]
            view[: len(piece)] = piece
            filled = len(piece)
        wanted = min(len(view), self._size - self._position) - filled
        if wanted > 0:
            self._file.seek(self._start + self._position + filled - len(self._head))
            piece = self._file.read(wanted)
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += filled
        return filled


def size_of(file: BinaryIO) -> int:
    """The size of a seekable file in bytes."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """`count` bytes from `offset`, fewer at the end of the file."""
    if offset > _MAX_OFFSET:
        return b""
    file.seek(offset)
    return file.read(count)


def read_exactly(file: BinaryIO, offset: int, count: int, what: str) -> bytes:
    """`count` bytes from `offset`.

    Raises:
        InvalidAudioError: the file ends before; the message says that `what` is cut off.
    """
    data = read_at(file, offset, count)
    if len(data) < count:
        raise InvalidAudioError(f"is truncated: {what} is cut off, copy it again")
    return data


def damaged(why: str) -> InvalidAudioError:
    """The error for a file whose header or content is invalid."""
    return InvalidAudioError(
        f"is damaged or not an audio file that can be read ({why}): copy it again, or convert it"
    )
