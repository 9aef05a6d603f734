"""A disk that is full or fails: the old state stays, the error is typed, and the next save works."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from processes import fill_disk
from stores import Follower, forget_json_files, state, voiceprint

from voiceprint import JSONStorage, StorageUnavailableError


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.parent.iterdir()}


@pytest.mark.parametrize("call", ["os.fsync", "os.fdopen", "tempfile.mkstemp", "pathlib.Path.replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_old_state(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint(metadata={"a": 1}))
    before, content, names = state(storage), path.read_bytes(), _names(path)
    follower = Follower()
    follower.assert_in_step(storage)
    revision = storage.revision()

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    for change in (
        lambda: storage.save(voiceprint("bob")),
        lambda: storage.delete("alice"),
        lambda: storage.update_metadata("alice", {"a": 2}),
        lambda: storage.touch("alice"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(call, fail)
            with pytest.raises(StorageUnavailableError, match=os.strerror(code)) as caught:
                change()
            assert isinstance(caught.value.__cause__, OSError)
        assert (state(storage), storage.revision(), path.read_bytes()) == (before, revision, content)
        assert _names(path) == names
    storage.save(voiceprint("bob"))
    follower.assert_in_step(storage)
    forget_json_files()
    assert list(state(JSONStorage(path))) == ["alice", "bob"]


def test_a_change_that_the_disk_did_not_confirm_is_told_and_known(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint())

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("voiceprint.storage.json.file.sync_folder", fail)
        with pytest.raises(StorageUnavailableError, match="did not confirm"):
            storage.save(voiceprint("bob"))
    # The rename has happened: memory and file must agree on it.
    assert list(state(storage)) == ["alice", "bob"]
    forget_json_files()
    assert list(state(JSONStorage(path))) == ["alice", "bob"]


def test_a_file_size_limit_is_told_and_leaves_the_old_state(path: Path) -> None:
    JSONStorage(path).save(voiceprint())
    assert fill_disk(f"json:{path}", 50_000, 100).split() == ["told", "1"]
    assert list(state(JSONStorage(path))) == ["alice", "late"]


def test_what_killed_writers_left_is_removed_by_the_next_writer_and_no_more(path: Path) -> None:
    leftover = path.parent / f".{path.name}.abcd_123.tmp"
    others = [
        path.parent / name
        for name in (
            f".{path.name}.index.abcd1234.tmp",
            f".other{path.name}.abcd1234.tmp",
            f"{path.name}.abcd1234.tmp",
            f".{path.name}.abcd1234.tmp.bak",
        )
    ]
    for file in (leftover, *others):
        file.write_bytes(b"{")
    storage = JSONStorage(path)
    assert storage.count() == 0
    assert leftover.exists()
    storage.save(voiceprint())
    assert not leftover.exists()
    assert all(other.exists() for other in others)


@pytest.mark.slow
def test_a_lock_that_another_process_holds_too_long_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    monkeypatch.setattr("voiceprint.storage.json.store.LOCK_TIMEOUT_S", 0.05)
    storage = JSONStorage(path)
    storage.save(voiceprint())
    with FileLock(f"{path}.lock"):
        with pytest.raises(StorageUnavailableError, match="lock"):
            storage.save(voiceprint("bob"))
        assert storage.count() == 1  # readers go on
    storage.save(voiceprint("bob"))
    assert storage.count() == 2


def test_a_touch_waits_for_less_than_a_save_as_the_match_behind_it_has_its_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    monkeypatch.setattr("voiceprint.storage.json.store.LOCK_TIMEOUT_S", 3600)
    monkeypatch.setattr("voiceprint.storage.json.store.TOUCH_TIMEOUT_S", 0.05)
    storage = JSONStorage(path)
    storage.save(voiceprint())
    with FileLock(f"{path}.lock"), pytest.raises(StorageUnavailableError, match="lock"):
        storage.touch("alice")


def test_threads_that_wait_too_long_for_a_writing_thread_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiceprint.storage.json.store.TOUCH_TIMEOUT_S", 0.05)
    storage = JSONStorage(path)
    storage.save(voiceprint())
    told: list[Exception] = []

    def touch() -> None:
        try:
            storage.touch("alice")
        except StorageUnavailableError as error:
            told.append(error)

    with storage._writing():
        thread = threading.Thread(target=touch)
        thread.start()
        thread.join()
    assert len(told) == 1
    assert storage.touch("alice")
