"""Snapshots: what is saved comes back, of one moment, and a file is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectors import D, assert_like, made, made_trained, vectors

from voiceprint._files import NewFile, RefusedFileError
from voiceprint.index import IndexCorruptError, VectorIndex, read_stamp

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
TRAINED: dict[str, Any] = {"exact_up_to": 200}


@pytest.mark.usefixtures("every_candidate")
@pytest.mark.parametrize("n", [0, 1, 100, 300, 20_000])
def test_a_snapshot_gives_the_same_index_again(tmp_path: Path, n: int) -> None:
    options = TRAINED if n == 300 else {}
    index, model = made(n, **options)
    index.remove([30])
    model.pop(30, None)
    index.save(tmp_path / "s", stamp={"revision": "17", "store": "ö"})
    loaded = VectorIndex.load(tmp_path / "s", **options)
    assert read_stamp(tmp_path / "s") == loaded.stamp == {"revision": "17", "store": "ö"}
    assert loaded.status() == index.status()
    if n <= 300:
        assert_like(loaded, model)
    queries = vectors(5, 4)
    for one, other in zip(loaded.search(queries, 5), index.search(queries, 5), strict=True):
        assert np.array_equal(one, other)
    loaded.add([7], queries[:1])
    assert loaded.search(queries[0], 1)[1] == 7


def test_an_unstamped_snapshot_has_an_empty_stamp(tmp_path: Path) -> None:
    VectorIndex(D).save(tmp_path / "s")
    assert read_stamp(tmp_path / "s") == VectorIndex.load(tmp_path / "s").stamp == {}


@pytest.mark.usefixtures("every_candidate")
def test_options_of_loading_are_heeded_whatever_the_snapshot_was_tuned_for(tmp_path: Path) -> None:
    index, model = made_trained(1_000)
    index.save(tmp_path / "s")
    few = VectorIndex.load(tmp_path / "s", **(TRAINED | {"recall": 0.5}))
    assert few.wait(60)
    assert few.status().recall_target == 0.5
    for options in ({"exact_up_to": 1_000}, {"recall": 1.0, "exact_up_to": 200}):
        loaded = VectorIndex.load(tmp_path / "s", **options)
        assert not loaded.status().training
        assert_like(loaded, model)
    with pytest.raises(ValueError, match="recall"):
        VectorIndex.load(tmp_path / "s", recall=2.0)


def test_a_snapshot_without_a_trained_part_is_trained_when_it_is_large(tmp_path: Path) -> None:
    made(300)[0].save(tmp_path / "s")
    loaded = VectorIndex.load(tmp_path / "s", **TRAINED)
    assert loaded.wait(60)
    assert loaded.status().structure == "ivf"


def test_a_snapshot_that_is_written_amid_changes_is_of_one_moment(tmp_path: Path) -> None:
    """The vector of an id says which id and which round it is of: a torn row or a wrong id would show."""
    index, done = VectorIndex(2), threading.Event()
    fixed = np.arange(1_000, 1_900)
    index.add(fixed, np.stack([fixed, np.zeros(len(fixed))], axis=1))
    rounds = [0]

    def write() -> None:
        while not done.is_set():
            round_ = rounds[0] + 1
            ids = np.array([(round_ * 7 + n) % 40 for n in range(10)])
            index.add(ids, np.stack([ids, np.full(10, round_)], axis=1))
            index.remove([(round_ * 11 + n) % 40 for n in range(9)])
            rounds[0] = round_

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for n in range(8):
                before = rounds[0]
                index.save(tmp_path / "s")
                after = rounds[0] + 1
                loaded = VectorIndex.load(tmp_path / "s", recall=1.0)
                ids = loaded.ids()
                found = loaded.vectors_of(ids)[1]
                assert np.array_equal(found[:, 0], ids)
                assert len(np.intersect1d(ids, fixed)) == len(fixed)
                latest = found[ids < 40, 1].max(initial=before)
                assert before <= latest <= after, n
        finally:
            done.set()
        writing.result(30)


def test_a_reader_never_sees_half_of_a_snapshot(tmp_path: Path) -> None:
    one, other, done = made(50)[0], made_trained(700)[0], threading.Event()
    one.save(tmp_path / "s", stamp={"n": "50"})

    def write() -> None:
        while not done.is_set():
            other.save(tmp_path / "s", stamp={"n": "700"})
            one.save(tmp_path / "s", stamp={"n": "50"})

    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(write) for _ in range(2)]
        try:
            for _ in range(100):
                loaded = VectorIndex.load(tmp_path / "s")
                assert len(loaded) == int(loaded.stamp["n"])
                assert read_stamp(tmp_path / "s")["n"] in ("50", "700")
        finally:
            done.set()
        for each in writing:
            each.result(30)
    assert os.listdir(tmp_path) == ["s"]  # noqa: PTH208


def test_a_snapshot_is_for_its_owner_alone(tmp_path: Path) -> None:
    VectorIndex(5).save(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_a_missing_file_and_a_folder_are_os_errors(tmp_path: Path) -> None:
    for use in (VectorIndex.load, read_stamp, VectorIndex(2).save):
        for place in (tmp_path / "no" / "such", tmp_path):
            with pytest.raises(OSError, match=r"\S"):
                use(place)
    assert list(tmp_path.iterdir()) == []


FAILING = """
import ctypes, os, sys
from pathlib import Path
from voiceprint.index import VectorIndex
library, folder, code = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, sys.argv[4])
from vectors import made_trained
index, faults = made_trained()[0], ctypes.CDLL(library)
VectorIndex(5).save(folder / "s")
failed = renamed = 0
while True:
    before = (folder / "s").read_bytes()
    faults.fault_arm(failed + 1, code)
    try:
        index.save(folder / "s")
    except OSError as error:
        assert error.errno == code, error
        if (folder / "s").read_bytes() != before:  # renamed, and the disk did not confirm that
            assert len(VectorIndex.load(folder / "s")) == 300
            renamed += 1
    fired = faults.fault_disarm()
    assert os.listdir(folder) == ["s"], os.listdir(folder)
    if not fired:
        break
    failed += 1
assert len(VectorIndex.load(folder / "s")) == 300
assert renamed == 1
print(failed)
"""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_old_snapshot_and_nothing_else(tmp_path: Path, code: int) -> None:
    library, folder = tmp_path / "faults.so", tmp_path / "folder"
    folder.mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, TESTS / "faults.c", "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", FAILING, library, folder, str(code), TESTS],
        env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 3  # writes, a flush and a rename


@pytest.mark.parametrize("name", ["index-1.snapshot", "index-2.snapshot"])
def test_a_golden_snapshot_of_an_older_version_is_refused_as_such(name: str) -> None:
    for use in (VectorIndex.load, read_stamp):
        with pytest.raises(IndexCorruptError, match="not an index snapshot of this version"):
            use(GOLDEN / name)


def test_a_golden_snapshot_loads_as_it_did() -> None:
    loaded = VectorIndex.load(GOLDEN / "index-4.snapshot", exact_up_to=20)
    assert (loaded.status().structure, loaded.status().nlist, loaded.stamp) == ("ivf", 6, {"revision": "7"})
    assert sorted(loaded.ids().tolist()) == list(range(0, 120, 3))
    wanted = np.random.default_rng(20250101).standard_normal((40, 4)).astype(np.float16)
    assert np.array_equal(loaded.vectors_of(np.arange(0, 120, 3))[1], wanted)
    assert loaded.check() == []


def test_nothing_of_a_removed_vector_is_in_a_snapshot(tmp_path: Path) -> None:
    index, model = made_trained(600)
    gone = sorted(model)[:20]
    index.remove(gone)
    index.save(tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    for id_ in gone:
        assert model[id_].astype(np.float16).tobytes() not in content
    assert model[sorted(model)[30]].astype(np.float16).tobytes() in content
    loaded = VectorIndex.load(tmp_path / "s", **TRAINED)
    assert loaded.check() == []
    assert not set(gone) & set(loaded.ids().tolist())


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    for name in (".snapshot.abc12345.tmp", ".other.abc12345.tmp"):
        (tmp_path / name).write_bytes(b"half")
    writing = NewFile(tmp_path / "snapshot")  # by another process, at this moment
    VectorIndex(4).save(tmp_path / "snapshot")
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"snapshot", ".other.abc12345.tmp", writing.temporary.name}
    writing.discard()


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\0" + bytes(84), b"{}", b"VPINDEX", b"VPINDEXES are", b"\0"]
)
def test_what_is_no_snapshot_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RefusedFileError, match="is there already and is not an index snapshot"):
        VectorIndex(4).save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", (GOLDEN / "index-1.snapshot").read_bytes(), b"VPINDEX9" + bytes(5)])
def test_a_snapshot_of_any_version_and_an_empty_file_are_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    VectorIndex(4).save(tmp_path / "s")
    assert len(VectorIndex.load(tmp_path / "s")) == 0


def test_files_that_are_never_written_to_are_not_though_they_be_empty(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "link").symlink_to("lock")
    for name in ("lock", "link", "log"):
        with pytest.raises(RefusedFileError, match="belongs to the store"):
            VectorIndex(4).save(tmp_path / name, apart_from=[tmp_path / "lock", tmp_path / "log"])
    assert (tmp_path / "lock").read_bytes() == b""
    assert not (tmp_path / "log").exists()


def test_a_device_and_a_pipe_stay_what_they_are_and_nobody_waits_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    device = Path("/dev/null")
    if os.geteuid() == 0:  # who could replace that one
        device = tmp_path / "null"
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for place in (tmp_path / "pipe", device):
        for use in (VectorIndex.load, read_stamp, VectorIndex(4).save):
            with pytest.raises(RefusedFileError, match="not a file"):
                use(place)
    assert (tmp_path / "pipe").is_fifo()
    assert device.is_char_device()
