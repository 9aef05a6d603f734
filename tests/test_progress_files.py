"""The notes of interrupted runs that earlier versions wrote are read, and only those of the same kind."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from voiceprint import InvalidArgumentError, JSONStorage, MemoryStorage, StorageCorruptError
from voiceprint.enrollment.manifest import ManifestRow
from voiceprint.enrollment.progress import EnrollmentProgress
from voiceprint.identification.archive_progress import ArchiveProgress

GOLDEN = Path(__file__).parent / "golden"
Open = Callable[[Path], object]


def change(path: Path, *statements: tuple[str, tuple[str, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(*statement)


def archive(path: Path, key: str = "key") -> ArchiveProgress:
    return ArchiveProgress(path, key, again=False, apart_from=())


def test_the_notes_of_an_enrollment_are_read(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    shutil.copy(GOLDEN / "enrollment-1.progress", path)
    shutil.copy(GOLDEN / "format-6.json", tmp_path / "calls.json")
    rows = [ManifestRow(line, tmp_path, "alice", f"{line}.wav") for line in (2, 3, 4)]
    with JSONStorage(tmp_path / "calls.json") as store:
        change(path, ("UPDATE storing SET location = ?", (store.location,)))
        with EnrollmentProgress(path, store, "tiny") as progress:
            alice = store.get("alice")
            assert alice is not None
            # The second was in a change that the store has.
            assert [progress.get(row) for row in rows] == [7, alice.voiceprints[0].id, None]
            progress.begin([(rows[2], "2026-01-01T00:00:00Z")])
            progress.end([(rows[2], 9)])
            assert progress.get(rows[2]) == 9


def test_the_notes_of_an_archive_are_read(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    shutil.copy(GOLDEN / "archive-0.progress", path)
    accepted = ("accepted", "alice", 0.9, 0.001, "same_recording spoof_suspected")
    with archive(path) as progress:
        assert progress.get("a.wav", "1:2") == accepted
        assert progress.get("a.wav", "another") is None
        assert progress.get("b.wav", "3:4") == ("not_enrolled", None, None, None, "")
        progress.add([("c.wav", "5:6", accepted)])
    with archive(path) as progress:
        assert progress.get("c.wav", "5:6") == accepted
    with pytest.raises(InvalidArgumentError, match="holds the answers of an interrupted run with another"):
        archive(path, "another key")


def enrollment(path: Path) -> EnrollmentProgress:
    return EnrollmentProgress(path, MemoryStorage(), "tiny")


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [("enrollment-1.progress", enrollment, archive), ("archive-0.progress", archive, enrollment)],
)
def test_a_file_of_another_kind_or_version_stays_as_it_is(
    tmp_path: Path, name: str, own: Open, other: Open
) -> None:
    path = tmp_path / "notes"
    shutil.copy(GOLDEN / name, path)
    with pytest.raises(InvalidArgumentError, match="is there already, and is not the progress of an"):
        other(path)
    assert path.read_bytes() == (GOLDEN / name).read_bytes()
    change(path, ("PRAGMA user_version = 99", ()))
    newer = path.read_bytes()
    with pytest.raises(InvalidArgumentError, match="is there already, and is not the progress of an"):
        own(path)
    assert path.read_bytes() == newer


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("ALTER TABLE answered RENAME COLUMN reasons TO why", "no such column: reasons"),
        ("UPDATE answered SET verdict = 'perhaps'", "an answer of another form"),
        ("UPDATE answered SET caller_id = x'00'", "an answer of another form"),
        ("UPDATE answered SET similarity = 'high'", "an answer of another form"),
    ],
)
def test_the_notes_of_an_archive_that_others_changed_are_damaged(
    tmp_path: Path, statement: str, reason: str
) -> None:
    path = tmp_path / "notes"
    shutil.copy(GOLDEN / "archive-0.progress", path)
    change(path, (statement, ()))
    words = rf"notes is damaged \({reason}\): remove it, and all recordings are identified again"
    with archive(path) as progress, pytest.raises(StorageCorruptError, match=words):
        progress.get("a.wav", "1:2")
