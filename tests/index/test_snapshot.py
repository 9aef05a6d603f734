"""Snapshots of the index: a round trip, of one moment, and any damage told."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceprint.index import IndexCorruptError, VectorIndex, read_stamp

DIMENSION = 16


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def filled(count: int, exact_up_to: int = 10**6) -> VectorIndex:
    index = VectorIndex(DIMENSION, exact_up_to=exact_up_to)
    index.add(np.arange(count) * 3, vectors(count))
    index.wait()
    return index


def assert_same(one: VectorIndex, other: VectorIndex) -> None:
    ids = np.sort(one.ids())
    assert np.array_equal(ids, np.sort(other.ids()))
    assert np.array_equal(one.reconstruct(ids), other.reconstruct(ids))
    queries = vectors(20, seed=9)
    assert np.array_equal(one.search(queries, 5)[1], other.search(queries, 5)[1])


@pytest.mark.parametrize("count", [0, 1, 500, 20_000])
def test_an_exact_index_comes_back_as_it_was(tmp_path: Path, count: int) -> None:
    index = filled(count)
    index.save(tmp_path / "snapshot", stamp={"store": "some"})
    loaded = VectorIndex.load(tmp_path / "snapshot", exact_up_to=10**6)
    assert_same(index, loaded)
    assert read_stamp(tmp_path / "snapshot") == {"store": "some"}
    loaded.add([1], vectors(1))
    assert loaded.remove([1]) == 1


def test_an_index_with_cells_comes_back_with_them(tmp_path: Path) -> None:
    index = VectorIndex(DIMENSION, exact_up_to=500, probes=20, depth=64)
    index.add(np.arange(3_000), vectors(3_000))
    index.wait()
    assert index.status().structure == "cells"
    index.save(tmp_path / "snapshot")
    loaded = VectorIndex.load(tmp_path / "snapshot", exact_up_to=500, probes=20, depth=64)
    assert loaded.status().structure == "cells"
    assert_same(index, loaded)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    filled(3).save(tmp_path / "snapshot")
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600


def test_a_snapshot_beside_a_writer_is_of_one_moment(tmp_path: Path) -> None:
    index = filled(20_000)
    done = threading.Event()

    def write() -> None:
        n = 0
        while not done.is_set():
            # Always as many: one comes, one goes, one is replaced; of each id, the vector is known.
            index.add([10**6 + n], vectors(1, seed=n + 1))
            index.remove([3 * n])
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(3):
            path = tmp_path / f"snapshot {turn}"
            index.save(path)
            loaded = VectorIndex.load(path, exact_up_to=10**6)
            assert len(loaded) in (20_000, 20_001)
            new = np.sort(loaded.ids()[loaded.ids() >= 10**6]) - 10**6
            assert np.array_equal(new, np.arange(len(new)))  # in the order in which they came, none missing
            gone = np.setdiff1d(np.arange(20_000), loaded.ids()[loaded.ids() < 10**6] // 3)
            assert np.array_equal(gone, np.arange(len(gone)))
            assert len(new) - len(gone) in (0, 1)
            for n in new[-5:].tolist():
                assert np.array_equal(loaded.reconstruct([10**6 + n]), vectors(1, seed=n + 1))
    finally:
        done.set()
        writer.join()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("snapshot") / "snapshot"
    index = VectorIndex(DIMENSION, exact_up_to=500, probes=20, depth=64)
    index.add(np.arange(1_000), vectors(1_000))
    index.wait()
    index.save(path, stamp={"store": "some"})
    return path.read_bytes()


def assert_refused(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    with pytest.raises(IndexCorruptError):
        VectorIndex.load(path, exact_up_to=500, probes=20, depth=64)


def test_a_flipped_bit_anywhere_is_told(tmp_path: Path, content: bytes) -> None:
    chance = np.random.default_rng(7)
    places = {*range(8), *range(len(content) - 400, len(content))}
    places |= set(chance.integers(len(content), size=500).tolist())
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(chance.integers(8))
        assert_refused(tmp_path / "snapshot", bytes(flipped))


def test_a_snapshot_that_is_cut_off_or_longer_is_told(tmp_path: Path, content: bytes) -> None:
    for length in {0, 1, 8, 40, len(content) // 2, len(content) - 1, len(content) - 48}:
        assert_refused(tmp_path / "snapshot", content[:length])
    assert_refused(tmp_path / "snapshot", content + b"\0")


@pytest.mark.parametrize("version", [b"VPINDEX1", b"VPINDEX3", b"SQLite f"])
def test_another_version_and_another_file_are_told(tmp_path: Path, content: bytes, version: bytes) -> None:
    assert_refused(tmp_path / "snapshot", version + content[8:])


def test_a_missing_file_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        VectorIndex.load(tmp_path / "snapshot")


def test_a_save_that_fails_leaves_the_old_snapshot_and_nothing_else(tmp_path: Path) -> None:
    index = filled(10)
    (tmp_path / "snapshot").mkdir()  # a file cannot take the place of a folder
    with pytest.raises(OSError, match="snapshot"):
        index.save(tmp_path / "snapshot")
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".snapshot.abc12345.tmp").write_bytes(b"half")
    (tmp_path / ".other.abc12345.tmp").write_bytes(b"half")
    filled(3).save(tmp_path / "snapshot")
    assert {entry.name for entry in tmp_path.iterdir()} == {"snapshot", ".other.abc12345.tmp"}
