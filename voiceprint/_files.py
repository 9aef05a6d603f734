"""The one writer of files: a file is replaced as a whole, or stays as it was.

A new file is written beside the old one (mode 0600, a fresh name, no link followed), flushed to the disk,
and renamed over it, so that a crash or a full disk leaves the old file or the new one. `replacement` refuses
files that are not of the kind that the caller writes.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MOUNT_THE_FOLDER = "mount the folder of the store, not the file alone"

_SUFFIX = ".tmp"
_HEAD_BYTES = 64  # of an existing file, which show its kind
# The files that SQLite has locked in this process, by device and inode.
_guarded: dict[tuple[int, int], Path] = {}
_READER_S = 10.0  # how long a named pipe may be without a reader


class RefusedFileError(OSError):
    """A file is not replaced or read, as it is of another kind than expected; the message says why."""

    def __init__(self, message: str, number: int = errno.EEXIST) -> None:
        super().__init__(number, message)

    def __str__(self) -> str:
        return str(self.strerror)


class NewFile:
    """A new file beside `path`: `stream` takes its content, `commit` puts it in place.

    It is locked until then, so that `remove_leftovers` can distinguish it from leftovers of killed processes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        while True:
            descriptor, name = tempfile.mkstemp(prefix=_prefix(path), suffix=_SUFFIX, dir=path.parent)
            self._temporary = Path(name)
            try:
                self.stream: BinaryIO = os.fdopen(descriptor, "w+b")
            except BaseException:  # no memory
                os.close(descriptor)
                self._temporary.unlink()
                raise
            with suppress(OSError):  # a file system without locks: its leftovers stay
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Before the lock another process may have taken it for a leftover.
            if _same(self._temporary, os.fstat(descriptor)):
                return
            self.stream.close()

    @property
    def temporary(self) -> Path:
        """Path of the content until `commit`."""
        return self._temporary

    def commit(self, *, durable: bool = True, close_first: bool = False) -> None:
        """Flush (to the disk, if `durable`) and put in place. The rename is durable after `sync_folder`.

        close_first: for a database, which others may open and lock as soon as it is in place.
        """
        self.stream.flush()
        if durable:
            os.fsync(self.stream.fileno())
        if close_first:
            self.stream.close()
        self._temporary.replace(self.path)
        self.stream.close()

    def discard(self) -> None:
        """Remove the new file, unless it was put in place."""
        with suppress(OSError):  # the first error is the one to report
            self.stream.close()
        with suppress(OSError):
            self._temporary.unlink()


@contextmanager
def replacement(
    path: Path,
    *,
    ours: Callable[[bytes], bool] | None = None,
    kind: str = "a file of this kind",
    apart_from: Iterable[Path] = (),
    pipes: bool = False,
) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends without an error.

    ours: whether the first bytes of a file are of the written kind; other files are not replaced, except
        empty ones. None replaces any regular file.
    kind: name of that kind for messages ("an export").
    apart_from: files that are never written to, such as those of the exported store.
    pipes: whether a named pipe or a character device (/dev/stdout) is written to; a pipe without a reader for
        10 s is refused. Without it, both are.

    Raises `RefusedFileError` and other OSErrors; `path` is then unchanged, unless the disk did not confirm
    the rename: then it is the new file, whole.
    """
    found = check_replaceable(path, ours=ours, kind=kind, apart_from=apart_from, pipes=pipes)
    if found is not None and not stat.S_ISREG(found.st_mode):
        with _through(path, found) as stream:  # by its name: the target of /dev/stdout may have none
            yield stream
        return
    target = Path(os.path.realpath(path))  # a rename over a link would replace the link
    remove_leftovers(target)
    new = NewFile(target)
    try:
        yield new.stream
        # Again: the caller may have written for long.
        check_replaceable(target, ours=ours, kind=kind, apart_from=apart_from)
        new.commit()
    finally:
        new.discard()
    sync_folder(target.parent)


def check_replaceable(
    path: Path,
    *,
    ours: Callable[[bytes], bool] | None = None,
    kind: str = "a file of this kind",
    apart_from: Iterable[Path] = (),
    pipes: bool = False,
) -> os.stat_result | None:
    """Status of the file at `path`, None for none. Raises `RefusedFileError` as `replacement` does."""
    check_apart(path, apart_from)
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        if pipes and (stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode)):
            return found
        raise RefusedFileError(f"{path} is {kind_of(found.st_mode)}, not a file: choose another.")
    if ours is not None and found.st_size and not ours(_head(path)):
        raise RefusedFileError(
            f"{path} is there already and is not {kind}: choose another file, or remove it."
        )
    return found


def check_apart(path: Path, files: Iterable[Path]) -> None:
    """Raise `RefusedFileError` where `path` is one of the files, under whatever name."""
    for other in files:
        with suppress(FileNotFoundError):
            if os.path.realpath(path) == os.path.realpath(other) or other.samefile(path):
                raise RefusedFileError(f"{path} belongs to the store: choose another file.")


@contextmanager
def _through(path: Path, found: os.stat_result) -> Iterator[BinaryIO]:
    deadline = time.monotonic() + _READER_S
    while True:
        try:
            # Without O_NONBLOCK, opening a pipe that nobody reads would wait for ever.
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise RefusedFileError(f"{path} is a pipe that nobody reads.", errno.ENXIO) from error
        time.sleep(0.02)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as stream:
        if not os.path.samestat(os.fstat(descriptor), found):
            raise RefusedFileError(f"{path} was replaced meanwhile.")
        yield stream


def guard_locks(path: Path) -> None:
    """Refuse to open the file at `path` from here on, as SQLite locks it.

    The locks belong to the process: closing any descriptor of the file releases all of them, and another
    process may then remove the log that this one writes to.
    """
    with suppress(FileNotFoundError):
        status = path.stat()
        _guarded[status.st_dev, status.st_ino] = path


def open_descriptor(path: str | os.PathLike[str], flags: int) -> int:
    """As `os.open`, but raises `RefusedFileError` for the files of `guard_locks`."""
    place = Path(path)
    with suppress(FileNotFoundError):
        _check_guarded(place, place.stat())
    if place.name.endswith("-shm"):  # the locks of a database with a log
        database = place.with_name(place.name.removesuffix("-shm"))
        with suppress(FileNotFoundError):
            _check_guarded(place, database.stat())
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    # If it was put there in between, the descriptor stays open: closing it would do the harm.
    _check_guarded(place, os.fstat(descriptor))
    return descriptor


def _check_guarded(path: Path, status: os.stat_result) -> None:
    guarded = _guarded.get((status.st_dev, status.st_ino))
    if guarded is not None and _same(guarded, status):
        raise RefusedFileError(f"{path} belongs to a database that this process has open.", errno.EBUSY)


def open_regular(path: Path) -> BinaryIO:
    """`path`, opened to read. Raises `RefusedFileError` for a pipe, a device and the like, at once."""
    return _open_regular(path, os.O_RDONLY)


def _open_regular(path: Path, access: int) -> BinaryIO:
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    descriptor = open_descriptor(path, access | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise RefusedFileError(f"{path} is {kind_of(mode)}, not a file.", errno.EINVAL)
    return os.fdopen(descriptor, "rb")


@contextmanager
def reading_descriptor(path: Path) -> Iterator[int]:
    """The descriptor of `open_regular`, for `os.pread`."""
    with open_regular(path) as stream:
        yield stream.fileno()


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> int:
    """Replace `path` by `content`, flushed to the disk if `durable`; returns a descriptor of the new file.

    Raises OSError; `path` is then unchanged. The rename itself is durable only after `sync_folder`.
    """
    new = NewFile(path)
    try:
        new.stream.write(content)
        new.stream.flush()
        descriptor = os.dup(new.stream.fileno())
        try:
            new.commit(durable=durable)
        except BaseException:
            os.close(descriptor)
            raise
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # which the two descriptors share
        return descriptor
    finally:
        new.discard()


def sync_folder(folder: Path) -> None:
    """Flush the renames in `folder` to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(path: Path, *, pattern: str | None = None) -> list[Path]:
    """The files that writers of `path` are writing, or left when they were killed.

    pattern: of the names of files beside `path`, in the form of `glob`, whose leftovers are meant instead.
    """
    name = glob.escape(path.name) if pattern is None else pattern
    return sorted(path.parent.glob(f".{name}.{'[a-z0-9_]' * 8}{_SUFFIX}"))


def remove_leftovers(path: Path, *, pattern: str | None = None) -> None:
    """Remove the `leftovers` of `path` or of the pattern, except those that are being written."""
    for entry in leftovers(path, pattern=pattern):
        with suppress(OSError), _open_regular(entry, os.O_RDWR) as stream:  # NFS locks no file opened to read
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its writer is at work
            entry.unlink()


def is_mounted_alone(path: Path) -> bool:
    """Whether the file is a mount point, so that files beside it are not mounted with it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux: a bind mount within one file system cannot be recognized there
        try:
            return path.stat().st_dev != path.parent.stat().st_dev
        except OSError:  # the file does not exist yet
            return False
    # The fifth field, with spaces and the like as octal numbers.
    places = (
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines
    )
    return os.fspath(path) in places


def cache_folder() -> Path:
    """The package's folder in the user's cache. Raises OSError for a user who has no home folder."""
    import platformdirs

    # HOME is not set, and the user is in no list of users: some versions raise, others give "~/.cache".
    with suppress(RuntimeError):
        folder = Path(platformdirs.user_cache_path("opusagent-voiceprint"))
        if folder.is_absolute():
            return folder
    raise FileNotFoundError(errno.ENOENT, "there is no home folder to keep a cache in: set HOME")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with "~" replaced. Raises OSError for a user without a home folder, and a null byte."""
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "no path can have a null byte")
    whole = Path(os.path.expanduser(path))  # noqa: PTH111 - which raises RuntimeError
    if str(whole).startswith("~"):
        raise FileNotFoundError(errno.ENOENT, f"there is no home folder for {whole.parts[0]}")
    return whole


def kind_of(mode: int) -> str:
    """Name of the kind of file with this mode, for messages: "a directory"."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "a file",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _head(path: Path) -> bytes:
    with open_regular(path) as stream:
        return stream.read(_HEAD_BYTES)


def _same(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), status)
    except FileNotFoundError:
        return False


def _prefix(path: Path) -> str:
    return f".{path.name}."
