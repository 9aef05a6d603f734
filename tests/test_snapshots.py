"""The index's snapshot: found again, caught up with, and never believed when it is of something else."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from galleries import best
from processes import unknown_user
from redis_server import fresh_database, shared_server
from stores import forget_json_files, unit, voiceprint

from voiceprint import (
    ConfigurationError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    RedisStorage,
    SQLiteStorage,
    Storage,
    VoiceFingerprintConfig,
    Voiceprint,
)
from voiceprint.identification import snapshots
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import OFF, IndexSettings, snapshot_path
from voiceprint.index import VectorIndex

COUNT = 300
Opened = Callable[[], Storage]


@pytest.fixture(params=[JSONStorage, SQLiteStorage])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens the one store of this test, each time by a new handle."""
    return lambda: request.param(tmp_path / "store")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "store.index"


@pytest.fixture
def filled(opened: Opened) -> Iterator[Storage]:
    with opened() as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(COUNT)])
        yield storage


def new_index(path: str | None = None, encoder: str = "resemblyzer") -> SharedIndex:
    """A shared as a new process would have it."""
    return SharedIndex(encoder, 256, IndexSettings(path))


def named(shared: SharedIndex, storage: Storage, *seeds: int) -> list[str | None]:
    """The ids of the callers with these seeds' voices; None for a voice without a caller."""
    answers = [best(Gallery(storage, shared), unit(seed), 1) for seed in seeds]
    return [a[0].caller_id if a and a[0].similarity > 0.99 else None for a in answers]


WITHOUT_HOME = f"""
import os, pwd, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    pass
else:
    sys.exit("the user is in the list of users")
from galleries import best
from stores import unit, voiceprint
from voiceprint import VoiceFingerprintConfig, OpusAgentVoiceRecognizer, open_storage
config = VoiceFingerprintConfig(index_path=None if sys.argv[2] == "None" else sys.argv[2])
with OpusAgentVoiceRecognizer(open_storage(sys.argv[1]), config=config) as recognizer:
    recognizer.storage.save(voiceprint("c0", 0))
    recognizer.index_status()
    recognizer.rebuild_index()
    gallery = recognizer._built.gallery
    assert best(gallery, unit(0), 1)[0].caller_id == "c0"
print("found")
"""


def close_gallery(storage: Storage) -> None:
    """Build the index and leave its snapshot."""
    shared = new_index()
    Gallery(storage, shared).refresh()
    Gallery(storage, shared).close()


@pytest.fixture
def no_scan(monkeypatch: pytest.MonkeyPatch) -> Callable[[Storage], None]:
    """Fails the test when the index is built from this store."""

    def scan(**_: Any) -> None:
        pytest.fail("the index is built anew")

    return lambda storage: monkeypatch.setattr(storage, "scan", scan)


def test_a_closed_gallery_leaves_a_snapshot_that_the_next_one_starts_from(
    filled: Storage, snapshot: Path, no_scan: Callable[[Storage], None]
) -> None:
    close_gallery(filled)
    assert snapshot.stat().st_mode & 0o777 == 0o600
    no_scan(filled)
    shared = new_index()
    assert named(shared, filled, 0, 7, COUNT) == ["c0", "c7", None]
    assert len(Gallery(filled, shared).refresh()) == COUNT


def test_what_changed_since_the_snapshot_is_caught_up_with(
    filled: Storage, no_scan: Callable[[Storage], None]
) -> None:
    close_gallery(filled)
    filled.save(voiceprint("new", 1000))
    filled.save(Voiceprint("c5", unit(2000)))
    no_scan(filled)
    assert named(new_index(), filled, 1000, 5, 2000, 6) == ["new", "c5", "c5", "c6"]


def test_a_snapshot_with_what_was_removed_since_is_no_more(filled: Storage) -> None:
    close_gallery(filled)
    path = Gallery(filled, new_index()).snapshot_path()
    assert path.exists()
    filled.delete("c3")
    assert not path.exists()
    known = filled.get("c5")
    filled.save(Voiceprint("c5", unit(2000), id=known.voiceprints[0].id))
    assert named(new_index(), filled, 3, 5, 2000, 6) == [None, None, "c5", "c6"]


def test_a_thousand_changes_of_another_process_are_caught_up_with(filled: Storage, opened: Opened) -> None:
    close_gallery(filled)
    with opened() as other:
        other.save_many([voiceprint(f"new {n}", 1000 + n) for n in range(1000)])
    shared = new_index()
    assert named(shared, filled, 1000, 1999, 4) == ["new 0", "new 999", "c4"]
    assert Gallery(filled, shared).check() == []


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "another version"])
def test_a_damaged_snapshot_is_told_of_and_the_index_built_anew(
    filled: Storage, snapshot: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    close_gallery(filled)
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    made = {"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b"", "another version": b"VPINDEX9"}
    snapshot.write_bytes(made[damage])
    shared = new_index()
    assert named(shared, filled, 0, 7) == ["c0", "c7"]
    assert Gallery(filled, shared).check() == []
    assert "building it anew" in caplog.text
    Gallery(filled, shared).close()
    caplog.clear()
    named(new_index(), filled, 0)
    assert caplog.text == ""


def test_the_snapshot_of_another_store_is_not_taken(
    filled: Storage, snapshot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with type(filled)(tmp_path / "other") as other:  # type: ignore[call-arg]
        other.save_many([voiceprint(f"o{n}", n) for n in range(COUNT)])
        close_gallery(other)
    (tmp_path / "other.index").replace(snapshot)
    assert named(new_index(), filled, 0, 7) == ["c0", "c7"]
    assert "another store" in caplog.text


@pytest.mark.parametrize("setting", [None, "somewhere.index"])
def test_each_embedding_space_has_a_snapshot_of_its_own(
    filled: Storage,
    tmp_path: Path,
    setting: str | None,
    no_scan: Callable[[Storage], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    filled.save_many([Voiceprint(f"o{n}", unit(3000 + n), encoder="other") for n in range(COUNT)])
    path = None if setting is None else str(tmp_path / setting)
    for _ in range(2):
        for encoder in ("resemblyzer", "other"):
            shared = new_index(path, encoder)
            Gallery(filled, shared).refresh()
            Gallery(filled, shared).close()
        no_scan(filled)  # from here on
    found = {file.name for file in tmp_path.glob("*.index")}
    assert len(found) == 2
    assert (setting or "store.index") in found
    assert named(new_index(path), filled, 7, 3007) == ["c7", None]
    assert named(new_index(path, "other"), filled, 7, 3007) == [None, "o7"]
    assert caplog.text == ""


def test_the_snapshot_of_another_space_that_earlier_versions_left_in_the_usual_place_is_removed(
    filled: Storage, snapshot: Path
) -> None:
    shared = new_index(encoder="other")
    index = Gallery(filled, shared).refresh()
    index.save(snapshot, stamp=Gallery(filled, shared)._stamped()[1].as_text())
    Gallery(filled, new_index(encoder="other")).refresh()
    assert not snapshot.exists()
    close_gallery(filled)
    Gallery(filled, new_index(encoder="other")).refresh()
    assert snapshot.exists()


def test_the_file_of_another_program_in_the_place_of_the_snapshot_is_told_of_and_left(
    filled: Storage, snapshot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot.write_bytes(b"{}" * 500)
    shared = new_index()
    assert named(shared, filled, 0, 7) == ["c0", "c7"]
    Gallery(filled, shared).close()
    assert "not an index snapshot" in caplog.text
    assert "Change VOICE_INDEX_PATH" in caplog.text
    with pytest.raises(ConfigurationError, match=r"not an index snapshot.*Change VOICE_INDEX_PATH"):
        Gallery(filled, shared).rebuild()
    assert snapshot.read_bytes() == b"{}" * 500


def kept(folder: Path) -> dict[str, bytes]:
    """The files in a folder, but for what SQLite's readers write."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


@pytest.mark.parametrize("name", ["store", "store-link", "store-twin", "store.lock"])
def test_the_files_of_the_store_are_no_place_for_its_snapshot(
    filled: Storage, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store-link").symlink_to("store")
    (tmp_path / "store-twin").hardlink_to(tmp_path / "store")
    before = kept(tmp_path)
    shared = new_index(str(tmp_path / name))
    assert named(shared, filled, 0) == ["c0"]
    Gallery(filled, shared).close()
    assert "belongs to the store" in caplog.text
    with pytest.raises(ConfigurationError, match=r"belongs to the store.*Change VOICE_INDEX_PATH"):
        Gallery(filled, shared).write_snapshot()
    config = VoiceFingerprintConfig(index_path=tmp_path / name)
    with pytest.raises(ConfigurationError, match=r"belongs to the store.*Change VOICE_INDEX_PATH"):
        OpusAgentVoiceRecognizer(filled, config=config)
    assert kept(tmp_path) == before


def test_a_pipe_as_snapshot_is_told_of_and_nobody_waits_for_it(
    filled: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe")
    shared = new_index(str(tmp_path / "pipe"))
    assert named(shared, filled, 0) == ["c0"]
    Gallery(filled, shared).close()
    assert caplog.text.count("is a pipe") == 2
    assert (tmp_path / "pipe").is_fifo()


def test_a_snapshot_whose_vectors_are_no_embeddings_is_not_taken(
    filled: Storage, snapshot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    close_gallery(filled)
    index = VectorIndex.load(snapshot)
    ids = index.ids()
    index.add(ids, 2 * index.vectors_of(ids)[1])
    index.save(snapshot, stamp=index.stamp)
    assert named(new_index(), filled, 0, 7) == ["c0", "c7"]
    assert "length is not 1" in caplog.text


@pytest.mark.resemblyzer
@pytest.mark.redis
@pytest.mark.parametrize("setting", [None, "~nobody-of-this-name/index"])
def test_without_a_home_folder_no_snapshot_is_kept_and_that_is_a_warning(
    setting: str | None, tmp_path: Path
) -> None:
    store = f"unix://{shared_server().path}?db={fresh_database()}" if setting is None else "sqlite:store"
    done = subprocess.run(
        [*unknown_user(), sys.executable, "-c", WITHOUT_HOME, store, str(setting)],
        env={name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr
    assert "No snapshot of the index is kept" in done.stderr
    assert "home folder" in done.stderr
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("~")]


@pytest.mark.resemblyzer
@pytest.mark.redis
def test_a_home_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o555)
    store = f"unix://{shared_server().path}?db={fresh_database()}"
    done = subprocess.run(
        [*unknown_user(), sys.executable, "-c", WITHOUT_HOME, store, "None"],
        env=os.environ | {"HOME": str(tmp_path / "home")}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr
    assert "could not be written" in done.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_a_snapshot_that_is_ahead_of_a_restored_backup_is_not_taken(
    opened: Opened, tmp_path: Path, snapshot: Path
) -> None:
    with opened() as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(COUNT)])
    backup = (tmp_path / "store").read_bytes()
    with opened() as storage:
        storage.delete("c1")
        storage.save(voiceprint("later", 1000))
        close_gallery(storage)
    for name in ("store", "store-wal", "store-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "store").write_bytes(backup)
    forget_json_files()
    assert snapshot.exists()
    with opened() as storage:
        shared = new_index()
        assert named(shared, storage, 1, 2, 1000) == ["c1", "c2", None]
        assert Gallery(storage, shared).check() == []


def test_closing_writes_only_when_enough_has_changed(filled: Storage, snapshot: Path) -> None:
    close_gallery(filled)
    written = snapshot.stat().st_mtime_ns
    shared = new_index()
    filled.save(voiceprint("one more", 1000))
    Gallery(filled, shared).refresh()
    Gallery(filled, shared).close()
    assert snapshot.stat().st_mtime_ns == written
    filled.save_many([voiceprint(f"more {n}", 2000 + n) for n in range(3)])
    Gallery(filled, shared).refresh()
    Gallery(filled, shared).close()
    assert snapshot.stat().st_mtime_ns > written


def test_much_change_is_written_in_the_background(
    filled: Storage, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_BACKGROUND", 10)
    Gallery(filled, new_index()).refresh()
    for thread in threading.enumerate():
        if thread.name == "voiceprint-snapshot":
            thread.join()
    assert snapshot.exists()


def test_a_snapshot_that_cannot_be_written_costs_a_warning(
    filled: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    shared = new_index(str(tmp_path / "file" / "index"))
    assert named(shared, filled, 0) == ["c0"]
    Gallery(filled, shared).close()
    assert "could not be written" in caplog.text


@pytest.mark.parametrize("path", [OFF, None])
def test_no_snapshot_is_kept_when_off_or_of_what_lives_in_memory(
    tmp_path: Path, path: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage() if path is None else JSONStorage(tmp_path / "store.json")
    caplog.set_level(logging.DEBUG, "voiceprint")
    storage.save(voiceprint("alice", 1))
    shared = new_index(path)
    assert named(shared, storage, 1) == ["alice"]
    Gallery(storage, shared).close()
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".index")] == []
    assert Gallery(storage, shared).snapshot_path() is None


def test_the_snapshot_of_a_redis_store_lies_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = shared_server()
    paths = []
    for database in (fresh_database(), fresh_database()):
        with server.client(db=database) as client, RedisStorage(client) as storage:
            path = snapshot_path(storage, None)
            assert path is not None
            assert tmp_path in path.parents
            assert path.name.removesuffix(".index").isalnum()
            paths.append(path)
    assert paths[0] != paths[1]


def test_nodes_that_share_the_place_of_a_snapshot_read_a_whole_one_whoever_wrote_it(
    filled: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared_place = str(tmp_path / "shared" / "index")
    nodes = [Gallery(filled, new_index(shared_place)) for _ in range(2)]
    for node in nodes:
        node.refresh()
        node.write_snapshot()

    def write(node: Gallery) -> None:
        for _ in range(10):
            node.refresh()
            node.write_snapshot()

    writers = [threading.Thread(target=write, args=(node,)) for node in nodes]
    for writer in writers:
        writer.start()
    number = 0
    while any(writer.is_alive() for writer in writers):
        number += 1
        filled.save(voiceprint(f"new {number}", 1000 + number))
        assert named(new_index(shared_place), filled, 0, 1000 + number) == ["c0", f"new {number}"]
    assert caplog.text == ""
    filled.delete("c3")
    for node in nodes:  # also the one that has not taken the deletion in yet
        node.write_snapshot()
        assert named(new_index(shared_place), filled, 3, 4) == [None, "c4"]
    assert [path.name for path in (tmp_path / "shared").iterdir() if path.suffix == ".tmp"] == []


def test_check_finds_where_index_and_store_differ(filled: Storage) -> None:
    shared = new_index(OFF)
    index = Gallery(filled, shared).refresh()
    ids = [filled.get(f"c{n}").voiceprints[0].id for n in range(2)]  # type: ignore[union-attr]
    index.remove(ids[:1])
    index.add(ids[1:], unit(5000)[None])
    index.add([10**9], unit(6000)[None])
    found = {(finding.code, finding.place) for finding in Gallery(filled, shared).check()}
    assert found == {
        ("not_indexed", f"voiceprint {ids[0]}"),
        ("indexed_otherwise", f"voiceprint {ids[1]}"),
        ("not_stored", f"voiceprint {10**9}"),
    }
    Gallery(filled, shared).rebuild()
    assert Gallery(filled, shared).check() == []
