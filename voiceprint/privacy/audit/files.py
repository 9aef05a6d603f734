"""`AuditFile`: the audit log as JSON Lines in a file, shared by processes, and rotated by its size.

A rotated file has the number of its first line at the end of its name: `audit.jsonl.000000000001`. Its lines
stay as they were; the chain goes on in the next file. Writers lock the file, so that each continues from the
last line of all. A line that a crash cut stays too: the next writer ends it with a line break and names it in
a line of its own.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from voiceprint._files import RefusedFileError, kind_of, open_descriptor, open_regular, sync_folder
from voiceprint.privacy.audit.chain import Head, Line, chained, continued, cut_line_detail
from voiceprint.privacy.audit.event import Event, new_event_id
from voiceprint.validation import now

logger = logging.getLogger(__name__)

_DIGITS: Final = 12  # of the number of the first line in the name of a rotated file: names sort by age
_START: Final = b'{"seq":'  # of every line
_BLOCK: Final = 64 << 10  # bytes read at once, in search of the last line


class AuditFile:
    """Appends events to the log at `path`, and reads it. For one thread at a time.

    fsync: flush every append to the disk. rotate_bytes: size from which the next append begins a new file.
    Raises OSError.
    """

    def __init__(self, path: Path, *, fsync: bool, rotate_bytes: int) -> None:
        self.path = path
        self.place = str(path)
        self._fsync = fsync
        self._rotate_bytes = rotate_bytes
        self._descriptor: int | None = None
        self._size = -1  # after the last append; another size shows the append of another process
        self._head = Head()

    def append(self, events: Sequence[Event]) -> None:
        """Append the lines of events, durable if `fsync`; all, or none."""
        with self._locked() as descriptor:
            size = os.fstat(descriptor).st_size
            marks: list[Event] = []
            head, separator = self._head, b""
            if size != self._size:
                head, remains = self._find_head(descriptor, size)
                if remains:
                    marks.append(_mark("log_repaired", len(remains), cut_line_detail(remains)))
                    separator = b"" if remains.endswith(b"\n") else b"\n"
                elif size and os.pread(descriptor, 1, size - 1) != b"\n":
                    separator = b"\n"  # the crash cut only the line break
            if not size and head.seq:
                marks.append(_mark("log_rotated", head.seq, None))
            lines = [separator]
            for event in [*marks, *events]:
                line, head = chained(event, head)
                lines.append(line)
            self._write(descriptor, b"".join(lines), size)
            self._size, self._head = os.fstat(descriptor).st_size, head

    def _write(self, descriptor: int, content: bytes, size: int) -> None:
        try:
            written = os.write(descriptor, content)
            while written < len(content):  # a full disk: the next write raises
                written += os.write(descriptor, content[written:])
            if self._fsync:
                os.fsync(descriptor)
        except OSError:
            self._size = -1
            try:  # no line of these was reported as written
                os.ftruncate(descriptor, size)
            except OSError as error:  # an append-only file: the next append marks the remains
                logger.debug("The part of a line in %s stays: %s", self.path, error)
            raise

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The descriptor of the present file, locked; the file is rotated first if it is large."""
        while True:
            descriptor = self._open()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if not self._is_present(descriptor):
                    continue  # another process has rotated it
                if os.fstat(descriptor).st_size >= self._rotate_bytes and self._rotate(descriptor):
                    continue
                yield descriptor
                return
            finally:
                # Explicitly: a child that was forked meanwhile shares the lock until it closes the file.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                if not self._is_present(descriptor):
                    self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            descriptor = os.open(self.path, flags, 0o600)
            try:
                _check_ours(self.path, descriptor)
            except OSError:
                os.close(descriptor)
                raise
            self._descriptor, self._size = descriptor, -1
        return self._descriptor

    def _is_present(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self, descriptor: int) -> bool:
        """Rename the file to its first line's number; False where that is not possible."""
        first = next(_lines_of(descriptor, os.fstat(descriptor).st_size), b"")
        line = Line.parse(first)
        number = 0 if line is None else line.seq
        target = self.path.with_name(f"{self.path.name}.{number:0{_DIGITS}}")
        try:
            if target.exists():
                raise RefusedFileError(f"{target} is there already, of another log.")
            os.fsync(descriptor)
            self.path.rename(target)
            sync_folder(self.path.parent)
        except OSError as error:
            # Or an append-only file, or a folder without the right to rename: the log goes on in this file.
            logger.warning("The audit log %s cannot be rotated: %s", self.path, error)
            self._rotate_bytes *= 2
            return False
        return True

    def _find_head(self, descriptor: int, size: int) -> tuple[Head, bytes]:
        """The head to continue from, and the remains of lines after it."""
        line, remains = _last_line(descriptor, size)
        head = Head() if line is None else line.head
        if line is None:
            for path in reversed(rotated_files(self.path)):
                with open_regular(path) as stream:
                    line, _ = _last_line(stream.fileno(), os.fstat(stream.fileno()).st_size)
                if line is not None:
                    head = line.head
                    break
        return continued(head, self._head, self.place), remains

    def reset(self) -> None:
        """Called in a forked child, whose parent goes on writing: open the file anew."""
        self.close()
        self._size, self._head = -1, Head()

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def head(self) -> Head:
        """The last line of the log. Raises FileNotFoundError where there is none."""
        for path in reversed(self._files()):
            with open_for_reading(path) as (descriptor, size):
                line, _ = _last_line(descriptor, size)
            if line is not None:
                return line.head
        return Head()

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """All lines, with their line breaks, and the place of each, as of this moment.

        Raises FileNotFoundError where there is no log.
        """
        for path in self._files():
            with open_for_reading(path) as (descriptor, size):
                for number, line in enumerate(_lines_of(descriptor, size), 1):
                    yield f"{path.name}, line {number}", line

    def _files(self) -> list[Path]:
        """The files of the log, the oldest first."""
        rotated = rotated_files(self.path)
        if self.path.exists() or not rotated:
            return [*rotated, self.path]
        return rotated  # between a rotation and the next append

    def backward(self) -> Iterator[bytes]:
        """All lines without their line breaks, the newest first."""
        for path in reversed(self._files()):
            with open_for_reading(path) as (descriptor, size):
                for _, line in _backward(descriptor, size):
                    if line:
                        yield line.removesuffix(b"\n")


def _mark(action: str, count: int, detail: str | None) -> Event:
    return Event(new_event_id(), now(), action, count=count, detail=detail)


def rotated_files(path: Path) -> list[Path]:
    """The rotated files of the log at `path`, the oldest first."""
    pattern = re.compile(rf"{re.escape(path.name)}\.\d{{{_DIGITS}}}")
    try:
        return sorted(entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name))
    except FileNotFoundError:
        return []


@contextmanager
def open_for_reading(path: Path) -> Iterator[tuple[int, int]]:
    """The descriptor of a file of the log and its size, at which no writer is in the middle of a line."""
    descriptor = open_descriptor(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_ours(path, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        size = os.fstat(descriptor).st_size
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        yield descriptor, size
    finally:
        os.close(descriptor)


def _check_ours(path: Path, descriptor: int) -> None:
    """Raise `RefusedFileError` unless it is a file that is empty or begins with a line, or part of one."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise RefusedFileError(f"{path} is {kind_of(mode)}, not a file: choose another for the audit log.")
    start = os.pread(descriptor, len(_START), 0)
    if not _START.startswith(start):
        raise RefusedFileError(f"{path} is there already and is not an audit log: choose another file.")


def _lines_of(descriptor: int, size: int) -> Iterator[bytes]:
    """The lines with their line breaks, in order; the last may have none."""
    rest, start = b"", 0
    while start < size:
        block = os.pread(descriptor, min(_BLOCK, size - start), start)
        if not block:  # cut meanwhile
            break
        start += len(block)
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _backward(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The offset of each line, and the line with its line break, the last first."""
    rest, end = b"", size
    while end > 0:
        start = max(end - _BLOCK, 0)
        rest = os.pread(descriptor, end - start, start) + rest
        end = start
        first, *others = re.findall(rb"[^\n]*\n|[^\n]+", rest)
        offset = start + len(rest)
        for line in reversed(others):
            offset -= len(line)
            yield offset, line
        rest = first
    if rest:
        yield 0, rest


def _last_line(descriptor: int, size: int) -> tuple[Line | None, bytes]:
    """The last whole line with a right digest, None without one, and all bytes after it."""
    for offset, text in _backward(descriptor, size):
        line = Line.parse(text)
        if line is not None:
            end = offset + len(text)
            return line, os.pread(descriptor, size - end, end)
    return None, os.pread(descriptor, size, 0)
