"""Snapshots: what is saved comes back, and no damaged, foreign or forged file is ever loaded in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voiceprint.index import IndexCorruptError, VectorIndex
from voiceprint.index.snapshot import write_snapshot


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    index = VectorIndex(3)
    index.add([7, 9], [[1, 2, 3], [4, 5, 6]])
    index.save(tmp_path / "snapshot")
    return tmp_path / "snapshot"


@pytest.mark.parametrize("n", [0, 1, 100])
def test_a_snapshot_gives_the_same_index_again(tmp_path: Path, n: int) -> None:
    index, rng = VectorIndex(16), np.random.default_rng(n)
    index.add(np.arange(n) * 3, rng.standard_normal((n, 16)))
    index.remove([3])
    index.save(tmp_path / "s")
    loaded = VectorIndex.load(tmp_path / "s")
    assert loaded.dimension == 16
    assert sorted(loaded.ids().tolist()) == sorted(index.ids().tolist())
    query = rng.standard_normal((4, 16))
    for one, other in zip(loaded.search(query, 5), index.search(query, 5), strict=True):
        assert np.array_equal(one, other)
    loaded.add([10**6], rng.standard_normal((1, 16)))
    assert len(loaded) == len(index) + 1


def test_saving_replaces_a_snapshot_as_a_whole_and_leaves_nothing_beside_it(snapshot: Path) -> None:
    VectorIndex(5).save(snapshot)
    assert VectorIndex.load(snapshot).dimension == 5
    assert [entry.name for entry in snapshot.parent.iterdir()] == ["snapshot"]
    assert snapshot.stat().st_mode & 0o777 == 0o600


def test_a_failing_disk_leaves_the_old_snapshot(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = snapshot.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="space"):
            VectorIndex(5).save(snapshot)
    assert snapshot.read_bytes() == content
    assert [entry.name for entry in snapshot.parent.iterdir()] == ["snapshot"]


def test_a_missing_file_and_a_folder_are_os_errors(tmp_path: Path) -> None:
    for use in (VectorIndex.load, VectorIndex(2).save):
        with pytest.raises(OSError, match=r"\S"):
            use(tmp_path / "no" / "such")
        with pytest.raises(OSError, match=r"\S"):
            use(tmp_path)


def test_a_snapshot_cut_off_at_any_byte_is_refused(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    for length in range(len(content)):
        snapshot.write_bytes(content[:length])
        with pytest.raises(IndexCorruptError):
            VectorIndex.load(snapshot)


def test_a_snapshot_with_any_byte_changed_is_refused(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    for place in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= flip
            snapshot.write_bytes(damaged)
            with pytest.raises(IndexCorruptError):
                VectorIndex.load(snapshot)


@pytest.mark.parametrize("content", [b"", b"{}", b"VPINDEX1", b"\0" * 1000, b"SQLite format 3\0" * 20])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(IndexCorruptError, match="snapshot"):
        VectorIndex.load(tmp_path / "s")


def test_more_than_the_snapshot_is_refused(snapshot: Path) -> None:
    snapshot.write_bytes(snapshot.read_bytes() + b"\0")
    with pytest.raises(IndexCorruptError):
        VectorIndex.load(snapshot)


@pytest.mark.parametrize(
    ("ids", "vectors"),
    [
        ([1, 1], np.ones((2, 3))),
        ([1, -1], np.ones((2, 3))),
        ([1], np.full((1, 3), np.nan)),
        ([], np.ones((0, 0))),
        ([], np.ones((0, 2**40))),
        ([1, 2], np.ones((1, 3))),
    ],
    ids=["id twice", "negative id", "NaN", "no dimension", "absurd dimension", "ids without vectors"],
)
def test_content_that_no_index_has_is_refused_though_its_checksum_holds(
    tmp_path: Path, ids: list[int], vectors: np.ndarray
) -> None:
    write_snapshot(tmp_path / "s", np.array(ids, dtype=np.int64), vectors.astype(np.float32))
    with pytest.raises(IndexCorruptError, match="s'"):
        VectorIndex.load(tmp_path / "s")
