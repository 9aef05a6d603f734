"""Removed callers are gone from the disk, and receipts say which files were searched."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from redis_server import RedisServer, fresh_database, shared_server
from stores import unit, voiceprint

from voiceprint import (
    CallerNotFoundError,
    JSONStorage,
    OpusAgentVoiceRecognizer,
    RedisStorage,
    SQLiteStorage,
    Storage,
    VoiceFingerprintConfig,
)
from voiceprint._files import open_regular
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings
from voiceprint.index import VectorIndex
from voiceprint.privacy.erasure import delete_or_prove, delete_with_receipt, remains_of
from voiceprint.storage import prune_callers, prune_space
from voiceprint.storage.backup import back_up, restore
from voiceprint.storage.snapshot_files import SNAPSHOT_MAGIC, snapshots_at

KINDS = {"json": JSONStorage, "sqlite": SQLiteStorage}


@pytest.fixture(params=sorted(KINDS))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with KINDS[request.param](tmp_path / "store") as opened:
        yield opened


def _indexed(storage: Storage, setting: str | None = None) -> Path:
    """A snapshot of an index over the store, as a recognizer leaves it."""
    shared = SharedIndex("resemblyzer", 256, IndexSettings(setting))
    Gallery(storage, shared).refresh()
    Gallery(storage, shared).write_snapshot()
    path = Gallery(storage, shared).snapshot_path()
    assert path is not None
    assert path.exists()
    return path


def _found(folder: Path, vector: np.ndarray) -> list[str]:
    raw, half = vector.astype("<f4").tobytes(), vector.astype("<f2").tobytes()  # snapshots hold the latter
    text = json.dumps([float(str(number)) for number in vector[:4]])[1:-1].replace(" ", "").encode()
    return [
        entry.name
        for entry in folder.rglob("*")
        if entry.is_file() and any(form in entry.read_bytes() for form in (raw, half, text))
    ]


REMOVALS: dict[str, Callable[[Storage, Path], object]] = {
    "delete": lambda storage, _: storage.delete("alice"),
    "a fourth print": lambda storage, _: storage.save_many([voiceprint(seed=n) for n in (2, 3, 4)]),
    "replace": lambda storage, _: storage.save(voiceprint(seed=9, id=1)),
    "prune": lambda storage, _: _prune(storage),
    "prune a space": lambda storage, _: _prune_space(storage),
    "restore": lambda storage, folder: _restore(storage, folder),
}


def _prune(storage: Storage) -> None:
    from datetime import timedelta

    assert prune_callers(storage, timedelta(days=30), dry_run=False).caller_ids == ("alice",)


def _prune_space(storage: Storage) -> None:
    for name in ("alice", "bob"):
        storage.save(voiceprint(name, 3, encoder="other"))
    storage.delete_voiceprints(["bob"], encoder="other")
    assert prune_space(storage, "resemblyzer", delete_callers=False, dry_run=False).callers == 1


def _restore(storage: Storage, folder: Path) -> None:
    with KINDS["sqlite"](folder / "other") as other:
        other.save(voiceprint(seed=7))
        back_up(other, folder / "backup")
    for path in folder.glob("other*"):
        path.unlink()
    restore(storage, folder / "backup", overwrite=True)


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_removed_embedding_is_in_no_file_when_the_call_returns(
    storage: Storage, tmp_path: Path, removal: str
) -> None:
    old = "2020-01-01T00:00:00Z"
    storage.save(voiceprint(seed=1, created_at=old, last_seen=old))
    storage.save(voiceprint("bob", 8))
    _indexed(storage)
    assert len(_found(tmp_path, unit(1))) == 2 or len(_found(tmp_path, unit(1))) == 3
    (tmp_path / "elsewhere").mkdir()
    REMOVALS[removal](storage, tmp_path / "elsewhere")
    assert _found(tmp_path, unit(1)) == []
    assert _found(tmp_path, unit(8)) != []


def test_the_snapshot_elsewhere_goes_with_the_removal_too(storage: Storage, tmp_path: Path, quick) -> None:
    place = tmp_path / "indexes" / "callers.index"
    place.parent.mkdir()
    config = VoiceFingerprintConfig(index_path=str(place))
    recognizer = OpusAgentVoiceRecognizer(storage, config=config)
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    assert _indexed(storage, str(place)) == place
    recognizer.delete_caller("alice")
    assert not place.exists()


def test_the_snapshots_of_other_spaces_go_too(storage: Storage) -> None:
    storage.save(voiceprint("alice", 1))
    path = _indexed(storage)
    other = path.parent / f"{path.stem}.{'0a' * 8}{path.suffix}"
    shutil.copy(path, other)
    assert sorted(snapshots_at(storage.snapshot_places)) == sorted([path, other])
    storage.delete("alice")
    assert not path.exists()
    assert not other.exists()


def test_nothing_but_a_snapshot_is_removed_from_its_place(storage: Storage) -> None:
    (place,) = storage.snapshot_places
    place.write_text("a letter")
    storage.save(voiceprint("alice", 1))
    storage.delete("alice")
    assert place.read_text() == "a letter"


def test_every_snapshot_begins_with_what_is_looked_for(storage: Storage) -> None:
    storage.save(voiceprint("alice", 1))
    assert _indexed(storage).read_bytes().startswith(SNAPSHOT_MAGIC)
    for golden in (Path(__file__).parent / "golden").glob("*.snapshot"):
        assert golden.read_bytes().startswith(SNAPSHOT_MAGIC)


def test_a_change_that_removes_no_embedding_leaves_the_snapshot(storage: Storage) -> None:
    storage.save(voiceprint("alice", 1, metadata={"a": 1}))
    path = _indexed(storage)
    storage.save(voiceprint("alice", 2))
    storage.save(voiceprint("bob", 3))
    storage.update_metadata("alice", {"a": 2})
    storage.touch("alice")
    assert path.exists()


def test_a_snapshot_that_another_process_knows_of_goes_with_its_next_search(
    storage: Storage, tmp_path: Path
) -> None:
    place = tmp_path / "apart.index"
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    shared = SharedIndex("resemblyzer", 256, IndexSettings(str(place)))
    Gallery(storage, shared).refresh()
    Gallery(storage, shared).write_snapshot()
    storage.delete("alice")  # by a process that does not know where the snapshot lies
    assert place.exists()
    Gallery(storage, shared).refresh()
    assert not place.exists()
    Gallery(storage, shared).close()  # which writes another
    assert place.exists()
    assert _found(tmp_path, unit(1)) == []


def test_a_snapshot_that_is_being_written_during_a_removal_is_not_left(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    shared = SharedIndex("resemblyzer", 256, IndexSettings(None))
    Gallery(storage, shared).refresh()
    save = VectorIndex.save

    def slow_save(self: VectorIndex, *given: object, **options: object) -> None:
        save(self, *given, **options)
        storage.delete("alice")
        Gallery(storage, shared).refresh()

    monkeypatch.setattr(VectorIndex, "save", slow_save)
    Gallery(storage, shared).write_snapshot()
    assert _found(tmp_path, unit(1)) == []


@pytest.mark.parametrize("removal", ["delete", "replace", "rewind"])
def test_a_snapshot_that_is_being_written_while_another_process_removes_is_not_left(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removal: str
) -> None:
    saved = storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    shared = SharedIndex("resemblyzer", 256, IndexSettings(None))
    Gallery(storage, shared).refresh()
    save = VectorIndex.save

    def slow_save(self: VectorIndex, *given: object, **options: object) -> None:
        if removal == "delete":
            storage.delete("alice")
        elif removal == "replace":
            storage.save(voiceprint("alice", 3, id=saved[0].id))
        else:
            monkeypatch.setattr(storage, "changes", lambda *_, **__: None)
        save(self, *given, **options)

    monkeypatch.setattr(VectorIndex, "save", slow_save)
    Gallery(storage, shared).close()
    assert snapshots_at(storage.snapshot_places) == []


def test_enrollments_while_a_snapshot_is_being_written_leave_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    shared = SharedIndex("resemblyzer", 256, IndexSettings(None))
    Gallery(storage, shared).refresh()
    save = VectorIndex.save

    def slow_save(self: VectorIndex, *given: object, **options: object) -> None:
        save(self, *given, **options)
        storage.save(voiceprint("carol", 3))
        Gallery(storage, shared).refresh()  # another thread has a match
        storage.save(voiceprint("dora", 4))

    monkeypatch.setattr(VectorIndex, "save", slow_save)
    Gallery(storage, shared).write_snapshot()
    assert snapshots_at(storage.snapshot_places) == [*storage.snapshot_places]


def test_a_store_that_is_closed_while_a_snapshot_is_being_written_leaves_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    shared = SharedIndex("resemblyzer", 256, IndexSettings(None))
    Gallery(storage, shared).refresh()
    save = VectorIndex.save

    def slow_save(self: VectorIndex, *given: object, **options: object) -> None:
        save(self, *given, **options)
        storage.close()

    monkeypatch.setattr(VectorIndex, "save", slow_save)
    Gallery(storage, shared).write_snapshot()
    assert snapshots_at(storage.snapshot_places) == [*storage.snapshot_places]


def test_an_encoder_of_another_space_in_another_process_leaves_no_deleted_caller(
    storage: Storage, tmp_path: Path
) -> None:
    """Two processes, each with an encoder and a snapshot of its own; one of them deletes the caller."""
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    storage.save_many([voiceprint(name, seed, encoder="other") for name, seed in (("alice", 3), ("bob", 4))])
    with type(storage)(tmp_path / "store") as second:
        other = SharedIndex("other", 8, IndexSettings(None))
        Gallery(second, other).refresh()
        Gallery(second, other).write_snapshot()
        snapshot = Gallery(second, other).snapshot_path()
        assert snapshot is not None
        left = snapshot.with_name(f".{snapshot.name}.abcdefgh.tmp")  # of a writer that was killed
        left.write_bytes(snapshot.read_bytes())
        own = _indexed(storage)
        assert set(_found(tmp_path, unit(3, 8))) >= {snapshot.name, left.name}
        receipt = delete_with_receipt(storage, "alice")
        assert receipt.complete
        assert {str(own), str(snapshot)} <= {one.place for one in receipt.places}
        for seed, dimension in ((1, 256), (3, 8)):
            assert _found(tmp_path, unit(seed, dimension)) == []
        Gallery(second, other).close()  # which has not read the deletion
        assert _found(tmp_path, unit(3, 8)) == []
        Gallery(second, other).refresh()
        Gallery(second, other).write_snapshot()
        assert snapshot.exists()
        assert _found(tmp_path, unit(3, 8)) == []
        assert remains_of(storage, "alice").findings == ()


def test_a_handle_without_a_recognizer_erases_the_snapshots_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with shared_server().client(fresh_database()) as client:
        with RedisStorage(client) as storage:
            storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
            path = _indexed(storage)
            assert tmp_path in path.parents
        with RedisStorage(client) as storage:
            storage.delete("alice")
    assert not path.exists()


def test_a_snapshot_that_cannot_be_removed_is_told_of(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage.save(voiceprint("alice", 1))
    path = _indexed(storage)
    unlink = Path.unlink

    def refuse(self: Path, *given: object, **options: object) -> None:
        if self == path:
            raise PermissionError(1, "Operation not permitted")
        unlink(self, *given, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.WARNING):
        assert storage.delete("alice") == 1
    assert "holds embeddings that were removed" in caplog.text
    monkeypatch.undo()
    assert [finding.code for finding in remains_of(storage, "alice").findings] == ["stale_snapshot"]


# Receipts


def test_a_receipt_says_what_was_removed_and_where_a_check_looked(storage: Storage) -> None:
    storage.save_many([voiceprint("alice", n, metadata={"plan": "gold, of course"}) for n in range(2)])
    storage.save(voiceprint("bob", 5))
    _indexed(storage)
    receipt = delete_with_receipt(storage, "alice")
    assert receipt.complete
    assert (receipt.caller_id, receipt.voiceprints) == ("alice", 2)
    assert receipt.deleted_at <= receipt.checked_at
    places = {one.place: one.state for one in receipt.places}
    assert set(places.values()) == {"erased"}
    assert places.keys() >= {storage.location, str(storage.files()[0])}
    assert json.loads(receipt.model_dump_json())["complete"] is True
    assert "gold" not in receipt.model_dump_json()
    with pytest.raises(CallerNotFoundError):
        delete_with_receipt(storage, "alice")


def test_a_receipt_tells_what_it_finds(storage: Storage, tmp_path: Path, monkeypatch) -> None:
    storage.save(voiceprint("alice", 1))
    storage.save(voiceprint("bob", 2))
    path = _indexed(storage)
    monkeypatch.setattr("voiceprint.storage.json.store.erase_snapshots", lambda _: True)
    monkeypatch.setattr("voiceprint.storage.sql.store.erase_snapshots", lambda _: True)
    receipt = delete_with_receipt(storage, "alice")
    assert not receipt.complete
    assert {one.place for one in receipt.places if one.state == "remains"} == {str(path)}


def test_a_reader_that_holds_up_the_log_is_told_of_in_the_receipt(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "store") as storage:
        storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
        reader = sqlite3.connect(tmp_path / "store")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM voiceprints").fetchall()
        try:
            receipt = delete_with_receipt(storage, "alice", timeout_s=0.5)
            assert not receipt.complete
            assert "delayed" in " ".join(one.detail for one in receipt.places)
        finally:
            reader.close()
        assert storage.flush_removals()
        assert _found(tmp_path, unit(1)) == []
        assert remains_of(storage, "alice").findings == ()


def test_delete_caller_gives_a_receipt_when_asked(storage: Storage) -> None:
    recognizer = OpusAgentVoiceRecognizer(storage)
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
    assert recognizer.delete_caller("bob") == 1
    assert recognizer.delete_caller("alice", receipt=True).complete


# Looking for remains afterwards


def test_a_deletion_that_was_done_already_is_proven_by_the_id(storage: Storage) -> None:
    storage.save_many([voiceprint("alice@example.org", 1), voiceprint("bob", 2)])
    assert delete_or_prove(storage, "alice@example.org").voiceprints == 1
    again = delete_or_prove(storage, "alice@example.org")
    assert again.voiceprints == 0
    assert {place.state for place in again.places} <= {"erased", "kept_by_server"}
    with pytest.raises(CallerNotFoundError):
        delete_or_prove(storage, "carol")


def test_a_deleted_caller_leaves_no_remains(storage: Storage) -> None:
    storage.save_many([voiceprint("alice@example.org", 1, metadata={"a": 1}), voiceprint("bob", 2)])
    assert [finding.code for finding in remains_of(storage, "alice@example.org").findings] == ["enrolled"]
    storage.delete("alice@example.org")
    assert remains_of(storage, "alice@example.org").findings == ()
    assert [finding.code for finding in remains_of(storage, "carol").findings] == ["no_deletion"]


def test_remains_in_a_file_of_the_store_are_found(storage: Storage) -> None:
    storage.save_many([voiceprint("alice@example.org", 1), voiceprint("bob", 2)])
    storage.delete("alice@example.org")
    left = storage.files()[0].with_name(f".{storage.files()[0].name}.abcdefgh.tmp")
    left.write_bytes(b"\0 alice@example.org \0")
    findings = remains_of(storage, "alice@example.org").findings
    assert [(finding.code, finding.place) for finding in findings] == [("remains", str(left))]


def test_an_id_that_stands_in_other_records_is_told_to_be_untellable(storage: Storage) -> None:
    storage.save_many([voiceprint("al", 1), voiceprint("alice", 2), voiceprint("bob", 3)])
    storage.delete("al")
    assert [finding.code for finding in remains_of(storage, "al").findings] == ["not_told"]


def test_the_commands_give_a_receipt_and_search_for_remains(storage: Storage, run) -> None:
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2), voiceprint("carol", 3)])
    url = storage.location
    code, out, _ = run("callers", "delete", "alice", "--yes", "--receipt", "--store", url)
    assert code == 0
    assert "Deleted alice with 1 voiceprint at" in out
    assert "erased" in out
    code, out, _ = run("callers", "delete", "bob", "--yes", "--receipt", "--json", "--store", url)
    assert json.loads(out)["complete"] is True
    assert run("check", "--erased", "alice", "--store", url)[0] == 0
    code, out, _ = run("check", "--erased", "carol", "--store", url)
    assert (code, "enrolled" in out) == (1, True)


# Redis


def test_a_receipt_of_redis_says_what_the_server_keeps_and_has_it_rewritten(tmp_path: Path) -> None:
    server = RedisServer("--appendonly", "yes", "--rdbcompression", "no")
    try:
        with server.client() as client, RedisStorage(client) as storage:
            storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2), voiceprint("carol", 3)])
            receipt = delete_with_receipt(storage, "alice")
            assert [one.state for one in receipt.places] == ["erased", "kept_by_server", "kept_by_server"]
            assert not receipt.complete
            assert any(unit(1).tobytes() in path.read_bytes() for path in _files_of(server))
            check = remains_of(storage, "alice")
            assert [finding.code for finding in check.findings] == ["kept_by_server", "kept_by_server"]
            assert check.deleted_at is not None
            receipt = delete_with_receipt(storage, "bob", rewrite=True)
            assert receipt.complete
            for seed in (1, 2):
                assert not any(unit(seed).tobytes() in path.read_bytes() for path in _files_of(server))
            assert any(unit(3).tobytes() in path.read_bytes() for path in _files_of(server))
            assert storage.check() == []
    finally:
        server.end()


def _files_of(server: RedisServer) -> list[Path]:
    return [path for path in server.folder.rglob("*") if path.is_file()]


def test_an_erased_caller_is_not_in_the_memory_file_of_another_process(tmp_path: Path) -> None:
    """A process that opens the store after the deletion does not bring the embedding back to the disk."""
    with SQLiteStorage(tmp_path / "store") as storage:
        storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
        _indexed(storage)
        storage.delete("alice")
    script = (
        "import sys\nfrom voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage\n"
        "with OpusAgentVoiceRecognizer(SQLiteStorage(sys.argv[1])) as recognizer:\n"
        "    recognizer.rebuild_index()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], check=True)
    assert _found(tmp_path, unit(1)) == []


def test_the_search_releases_no_lock_of_sqlite(tmp_path: Path) -> None:
    """SQLite's locks belong to the process: closing another descriptor of the file would release them all."""
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
    )
    with SQLiteStorage(tmp_path / "store") as storage:
        storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
        holder = sqlite3.connect(tmp_path / "store", isolation_level=None)
        holder.execute("PRAGMA journal_mode")
        holder.execute("BEGIN IMMEDIATE")
        try:
            assert remains_of(storage, "carol").findings != ()
            second = subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / "store")], capture_output=True, text=True
            )
            assert "database is locked" in second.stderr
        finally:
            holder.close()


def test_a_snapshot_that_may_not_be_read_is_told_of_and_named_in_the_receipt(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage.save(voiceprint("alice", 1))
    path = _indexed(storage)

    def refuse(name: Path) -> None:
        if name == path:  # as to another user; the tests may run as root, who may read all
            raise PermissionError(13, "Permission denied")
        return open_regular(name)

    for module in ("voiceprint.storage.snapshot_files", "voiceprint._files"):
        monkeypatch.setattr(f"{module}.open_regular", refuse)
    receipt = delete_with_receipt(storage, "alice")
    assert path.exists()
    assert "it cannot be read" in caplog.text
    assert [one.place for one in receipt.places if one.state == "not_searched"] == [str(path)]
    assert not receipt.complete
