"""The one writer of files: what it replaces, what it refuses, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from voiceprint._files import (
    NewFile,
    RefusedFileError,
    leftovers,
    open_regular,
    remove_leftovers,
    replacement,
)


def _is_ours(head: bytes) -> bool:
    return head.startswith(b"OURS")


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def _write(path: Path, content: bytes = b"OURS new", **options: object) -> None:
    with replacement(path, ours=_is_ours, kind="ours", **options) as stream:
        stream.write(content)


@pytest.mark.parametrize("before", [None, b"", b"OURS old"])
def test_a_new_an_empty_and_an_own_file_are_replaced(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
        path.chmod(0o666)
    _write(path)
    assert path.read_bytes() == b"OURS new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert _names(tmp_path) == ["file"]


def test_another_file_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a letter")
    with pytest.raises(RefusedFileError, match="is there already and is not ours"):
        _write(path)
    assert path.read_bytes() == b"a letter"
    assert _names(tmp_path) == ["file"]


def test_a_file_that_came_during_the_work_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(RefusedFileError), replacement(path, ours=_is_ours) as stream:  # noqa: PT012
        stream.write(b"OURS")
        path.write_bytes(b"a letter")
    assert path.read_bytes() == b"a letter"
    assert _names(tmp_path) == ["file"]


def test_the_files_of_the_store_are_not_replaced_under_any_name(tmp_path):
    store = tmp_path / "store"
    store.write_bytes(b"OURS")
    (tmp_path / "link").symlink_to(store)
    (tmp_path / "twin").hardlink_to(store)
    for name in ("store", "link", "twin"):
        with pytest.raises(RefusedFileError, match="belongs to the store"):
            _write(tmp_path / name, apart_from=[store])
    with pytest.raises(RefusedFileError, match="belongs to the store"):
        _write(tmp_path / "store-wal", apart_from=[tmp_path / "store-wal"])  # which is not there now
    assert store.read_bytes() == b"OURS"


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"OURS new"


def test_a_planted_link_with_a_guessed_name_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"a letter")
    for name in ("file.part", ".file.tmp", ".file.aaaaaaaa.tmp"):
        (tmp_path / name).symlink_to(victim)
    _write(tmp_path / "file")
    assert victim.read_bytes() == b"a letter"


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"OURS old")
    with pytest.raises(KeyboardInterrupt), replacement(path, ours=_is_ours) as stream:  # noqa: PT012
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"OURS old"
    assert _names(tmp_path) == ["file"]


def test_a_pipe_is_written_to_where_that_is_wanted_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    _write(path, pipes=True)
    reader.join()
    assert got == [b"OURS new"]
    assert path.is_fifo()
    with pytest.raises(RefusedFileError, match="is a pipe, not a file"):
        _write(path)


def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("voiceprint._files._READER_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedFileError, match="nobody reads"):
        _write(tmp_path / "pipe", pipes=True)


def test_a_device_is_written_to_and_stays_a_device():
    _write(Path("/dev/null"), pipes=True)
    assert Path("/dev/null").is_char_device()
    with pytest.raises(RefusedFileError, match="is a device"):
        _write(Path("/dev/null"))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(RefusedFileError, match="is a directory"):
        _write(tmp_path, pipes=True)


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_stays(tmp_path):
    path = tmp_path / "file"
    (tmp_path / ".file.abcdefgh.tmp").write_bytes(b"left")
    (tmp_path / ".file.other.abcdefgh.tmp").write_bytes(b"of a neighbor")
    os.mkfifo(tmp_path / ".file.abcdefg_.tmp")
    at_work = NewFile(path)
    remove_leftovers(path)
    assert at_work.temporary.exists()
    assert (tmp_path / ".file.other.abcdefgh.tmp").exists()
    assert not (tmp_path / ".file.abcdefgh.tmp").exists()
    at_work.discard()
    assert leftovers(path) == [tmp_path / ".file.abcdefg_.tmp"]


def test_leftovers_are_removed_where_only_a_file_that_may_be_written_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on NFS, which makes a lock of a range of bytes of it.
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)
    (tmp_path / ".file.abcdefgh.tmp").write_text("embeddings")
    remove_leftovers(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_reading_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedFileError, match="is a pipe, not a file"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(RefusedFileError, match="is a device, not a file"):
        open_regular(Path("/dev/zero"))
