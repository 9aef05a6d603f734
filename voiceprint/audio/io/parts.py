"""A part of a file as a file of its own: a wrong header is replaced without copying the audio."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, Final

from voiceprint.errors import InvalidAudioError

_TAG_BYTES: Final = 128
_FARTHEST: Final = 1 << 62  # a damaged header may point to where no file can be sought


class Part(io.RawIOBase):
    """`head`, then the bytes `start` to `stop` of `file`, read-only.

    claimed: bytes that the file says it has, if those are more. Reading ends where the bytes do, but the last
        128 that are claimed are zeros: mpg123 refuses a file in which it cannot look there for a tag.

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
        """The position, in bytes from the beginning of `head`."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to any place from 0 on; past the end nothing is read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._claimed}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """As of any raw file; fewer bytes than `buffer` takes only at the end."""
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
    """The bytes of a seekable file."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """`count` bytes from `offset`, fewer where the file ends."""
    if offset > _FARTHEST:
        return b""
    file.seek(offset)
    return file.read(count)


def exactly(file: BinaryIO, offset: int, count: int, what: str) -> bytes:
    """`count` bytes from `offset`.

    Raises:
        InvalidAudioError: the file ends before; says that `what` is cut off.
    """
    data = read_at(file, offset, count)
    if len(data) < count:
        raise InvalidAudioError(f"is truncated: {what} is cut off, copy it again")
    return data
