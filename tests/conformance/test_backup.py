"""Backups: of every store, as of one moment, verified, and without bringing deleted callers back."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from harness import Harness
from stores import Follower, state, unit, voiceprint

from voiceprint import Caller, InvalidArgumentError, MemoryStorage, Storage, StorageCorruptError, Voiceprint
from voiceprint.storage import copy_callers, export_callers, import_callers
from voiceprint.storage.backup import back_up, read_backup, restore


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "callers.backup"


def _fill(storage: Storage) -> None:
    storage.save_many([voiceprint(f"c{n % 7}", n, metadata={"n": n, "täg": ["x", None]}) for n in range(15)])
    storage.save(voiceprint("Zoë\n", 30, augmented=unit(31)))
    storage.save(Voiceprint("other", [1.0, 2.0, 3.0], encoder="tiny"))
    storage.save(voiceprint("gone", 40))
    storage.delete("gone")


def _without_revisions(storage: Storage) -> dict[str, object]:
    callers = state(storage)
    for caller in callers.values():
        caller["voiceprints"] = [(id_, *rest) for id_, _, *rest in caller["voiceprints"]]
    return callers


def test_a_store_is_restored_from_its_backup_with_ids_times_and_deletions(
    harness: Harness, file: Path
) -> None:
    _fill(harness.storage)
    report = back_up(harness.storage, file)
    assert (report.callers, report.voiceprints, report.deletions) == (9, 17, 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_backup(file) == report
    with MemoryStorage() as other:
        done = restore(other, file)
        assert (done.callers, done.voiceprints, done.changed, done.left_out, done.kept) == (9, 17, 9, 0, 0)
        assert _without_revisions(other) == _without_revisions(harness.storage)
        assert other.deletions() == harness.storage.deletions()
        assert other.save(voiceprint("new", 99)).id > max(print_.id for print_ in harness.storage.get_all())


def test_every_store_takes_the_backup_of_another_and_restoring_again_changes_nothing(
    harness: Harness, file: Path
) -> None:
    with MemoryStorage() as other:
        _fill(other)
        back_up(other, file)
        assert restore(harness.storage, file).changed == 9
        assert restore(harness.storage, file).changed == 0
        for storage in harness.both():
            assert _without_revisions(storage) == _without_revisions(other)
            assert storage.check() == []


def test_a_store_with_callers_is_restored_into_only_when_that_is_asked_for(
    harness: Harness, file: Path
) -> None:
    _fill(harness.storage)
    back_up(harness.storage, file)
    harness.storage.save(voiceprint("c1", 50))
    harness.storage.save(voiceprint("later", 51))
    before = state(harness.storage)
    with pytest.raises(InvalidArgumentError, match="holds 10 callers"):
        restore(harness.storage, file)
    assert state(harness.storage) == before
    done = restore(harness.storage, file, overwrite=True)
    assert (done.callers, done.changed, done.kept) == (9, 1, 1)
    for storage in harness.both():
        assert storage.get("later") is not None
        assert storage.get("c1").metadata["n"] == 8


def test_callers_deleted_after_the_backup_stay_deleted_unless_asked_for(harness: Harness, file: Path) -> None:
    _fill(harness.storage)
    back_up(harness.storage, file)
    for name in ("c1", "c2", "other"):
        harness.storage.delete(name)
    harness.storage.save(voiceprint("c2", 60))  # enrolled anew: another person, perhaps
    anew = harness.storage.get("c2")
    done = restore(harness.storage, file, overwrite=True)
    assert (done.left_out, done.callers) == (3, 6)
    assert harness.storage.get("c1") is None
    assert harness.storage.get("c2") == anew
    assert restore(harness.storage, file, overwrite=True, include_deleted=True).callers == 9
    assert harness.reopen().get("c1") is not None
    back_up(
        harness.storage, file
    )  # who was brought back is in the next backup, and in what is restored of it
    assert restore(harness.storage, file, overwrite=True).left_out == 0


def test_an_old_export_and_a_copy_bring_nobody_back_who_was_deleted(harness: Harness, tmp_path: Path) -> None:
    _fill(harness.storage)
    with (tmp_path / "export").open("wb") as stream:
        export_callers(harness.storage, stream)
    with MemoryStorage() as copy:
        copy_callers(harness.storage, copy)
        harness.storage.delete("c1")
        lines = (tmp_path / "export").read_bytes().splitlines()
        assert import_callers(harness.storage, lines).left_out == 1
        assert copy_callers(copy, harness.storage).left_out == 1
        assert harness.storage.get("c1") is None
        assert import_callers(harness.storage, lines, include_deleted=True).left_out == 0
        assert harness.storage.get("c1") is not None


def test_a_copy_hands_on_what_was_deleted(harness: Harness) -> None:
    _fill(harness.storage)
    harness.storage.save(voiceprint("c9", 70))
    with MemoryStorage() as old, MemoryStorage() as new:
        copy_callers(harness.storage, old)
        harness.storage.delete("c1")
        harness.storage.delete("c9")
        known = voiceprint("c9", 71, id=1_000, created_at="2020-01-01T00:00:00Z")
        new.restore_many([Caller(caller_id="c9", created_at=known.created_at, voiceprints=(known,))])
        copy_callers(harness.storage, new)
        assert copy_callers(old, new).left_out == 1
        assert new.get("c1") is None
        with MemoryStorage() as last:  # whom the new store knows by itself is not taken for deleted
            assert copy_callers(new, last).left_out == 0
            assert last.get("c9") is not None


def test_a_backup_is_of_one_moment_while_others_write(harness: Harness, file: Path) -> None:
    """Writers move one voiceprint after the other from c0 to c1: at every moment there are as many."""
    with closing(harness.open()) if harness.persists else nullcontext(harness.storage) as writer:
        writer.save_many([voiceprint(f"c{n}", n) for n in range(400)])
        stop = threading.Event()
        failed: list[BaseException] = []

        def write() -> None:
            step = 0
            try:
                while not stop.is_set():
                    writer.save_many([voiceprint("a", step), voiceprint("zz", step)])
                    if step % 3 == 2:
                        writer.delete(f"c{step % 400}")
                        writer.save(voiceprint(f"c{step % 400}", step))
                    step += 1
            except Exception as error:  # noqa: BLE001  told below
                failed.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(5):
                assert back_up(harness.storage, file).callers >= 399
                with MemoryStorage() as restored:
                    restore(restored, file)
                    first, last = restored.get("a"), restored.get("zz")
                    # Both are enrolled by the same change.
                    assert (first is None) == (last is None)
                    if first is not None:
                        pairs = zip(first.voiceprints, last.voiceprints, strict=True)
                        assert all((one.embedding == other.embedding).all() for one, other in pairs)
                    assert restored.check() == []
                    Follower().assert_in_step(restored)
        finally:
            stop.set()
            thread.join()
    assert failed == []


def test_nothing_but_a_backup_is_replaced(storage: Storage, file: Path) -> None:
    _fill(storage)
    file.write_text("a letter")
    with pytest.raises(InvalidArgumentError, match="is not a backup"):
        back_up(storage, file)
    assert file.read_text() == "a letter"
    for own in storage.files():
        with pytest.raises(InvalidArgumentError, match="belongs to the store"):
            back_up(storage, own)
    file.unlink()
    back_up(storage, file)
    back_up(storage, file)
    assert [entry.name for entry in file.parent.iterdir() if "backup" in entry.name] == [file.name]


def test_a_damaged_backup_is_refused_and_changes_nothing(storage: Storage, file: Path) -> None:
    _fill(storage)
    back_up(storage, file)
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = state(storage)
    cases = [
        whole[:-1][: len(whole) // 2],
        b"".join(lines[:-1]),
        b"".join(lines[:1] + lines[2:]),
        b"".join(lines[:2] + lines[1:]),
        whole.replace(b'"c3"', b'"c8"', 1),
        whole + lines[1],
        lines[0] + b"[" * 100_000,
        lines[0].replace(b'"revision":', b'"revision":"x",'),
        whole.replace(lines[1][-40:-30], b"AAAAAAAAAA", 1),
        lines[0] + b"\xff\xfe\n",
    ]
    for case in cases:
        file.write_bytes(case)
        with pytest.raises(StorageCorruptError, match="damaged"):
            restore(storage, file, overwrite=True)
    for case, what in [
        (b"", "cut off"),
        (b"{}", "not a backup"),
        (b'{"voiceprint_backup":9}', "update"),
    ]:
        file.write_bytes(case)
        with pytest.raises((InvalidArgumentError, StorageCorruptError), match=what):
            restore(storage, file, overwrite=True)
    assert state(storage) == before


def test_a_missing_backup_and_a_pipe_are_told_at_once(storage: Storage, file: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        restore(storage, file)
    os.mkfifo(file)
    with pytest.raises(InvalidArgumentError, match="is a pipe"):
        restore(storage, file)


def test_no_error_about_a_backup_quotes_what_is_in_it(storage: Storage, file: Path) -> None:
    storage.save(voiceprint("alice", metadata={"secret": "hunter2"}))
    back_up(storage, file)
    lines = file.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[1])
    entry["created_at"] = "hunter2"
    file.write_bytes(lines[0] + json.dumps(entry).encode() + b"\n")
    with pytest.raises(StorageCorruptError) as error:
        restore(storage, file)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_an_empty_store_has_a_backup(harness: Harness, file: Path) -> None:
    assert back_up(harness.storage, file).callers == 0
    with MemoryStorage() as other:
        assert restore(other, file).callers == 0


def test_a_restore_takes_no_caller_of_the_store_for_deleted(harness: Harness, file: Path) -> None:
    with MemoryStorage() as other:
        other.save_many([voiceprint("x", 1), voiceprint("y", 2)])
        other.delete("x")
        back_up(other, file)
    known = voiceprint("x", 3, id=1_000, created_at="2020-01-01T00:00:00Z")
    harness.storage.restore_many([Caller(caller_id="x", created_at=known.created_at, voiceprints=(known,))])
    restore(harness.storage, file, overwrite=True)
    back_up(harness.storage, file)
    assert restore(harness.storage, file, overwrite=True).left_out == 0
    assert harness.storage.get("x") is not None


def test_a_device_is_written_to_without_being_verified(storage: Storage) -> None:
    storage.save(voiceprint())
    assert back_up(storage, Path("/dev/null")).callers == 1


def test_a_clock_that_was_ahead_brings_nobody_back_and_loses_nobody(harness: Harness, file: Path) -> None:
    """The caller was enrolled by a machine whose clock was years ahead, and deleted by one that was right."""
    ahead = "2999-01-01T00:00:00Z"
    harness.storage.save_many([voiceprint("a", 1, created_at=ahead), voiceprint("b", 2)])
    back_up(harness.storage, file)
    harness.storage.delete("a")
    assert restore(harness.storage, file, overwrite=True).left_out == 1
    harness.storage.save(voiceprint("a", 3))  # enrolled anew, by the right clock
    anew = harness.storage.get("a")
    back_up(harness.storage, file)
    assert restore(harness.storage, file, overwrite=True).left_out == 0
    for storage in harness.both():
        assert storage.get("a").voiceprints == anew.voiceprints
        with MemoryStorage() as other:
            assert copy_callers(storage, other).left_out == 0
            assert other.get("a") is not None
