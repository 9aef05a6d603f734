"""The database file: its place and mode, what replaces it, and how damage and a full disk are told."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy.exc
from databases import dump, sql
from processes import fill_disk
from stores import Follower, state, unit, voiceprint

from voiceprint import (
    ConfigurationError,
    InvalidArgumentError,
    SQLiteStorage,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    Voiceprint,
    open_storage,
)
from voiceprint.storage import SQLStorage
from voiceprint.storage.base import START

SECRET = "born in 1970"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voiceprints.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A store with alice (prints 1 and 3) and bob (print 2), closed."""
    with SQLiteStorage(path) as storage:
        for n, name in enumerate(("alice", "bob", "alice")):
            storage.save(Voiceprint(name, unit(n), {"secret": SECRET}))
    return path


def test_the_files_are_for_their_owner_alone_and_the_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.db"
    before = os.umask(0)
    try:
        with SQLiteStorage(path) as storage:
            storage.save(voiceprint())
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = ("store.db", "store.db-wal", "store.db-shm", "store.db.lock")
    assert modes == dict.fromkeys(names, 0o600)


def test_every_name_of_one_file_gives_the_same_location(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link.db"
    with SQLiteStorage(path) as storage:
        link.symlink_to(path)
        for other in (SQLiteStorage(link), open_storage(f"sqlite:{path}"), SQLStorage(f"sqlite:///{path}")):
            assert other.location == storage.location == f"sqlite:{path}"
            other.close()


@pytest.mark.parametrize("name", ["file:x.db", "a?mode=ro&b=%41.db", "ü #.db", ":memory:x"])
def test_a_name_with_signs_that_mean_something_to_sqlite_is_a_name(tmp_path: Path, name: str) -> None:
    with SQLiteStorage(tmp_path / name) as storage:
        storage.save(voiceprint())
        assert storage.db_path == tmp_path / name
    assert (tmp_path / name).stat().st_size > 0
    with open_storage(f"sqlite:{tmp_path / name}") as storage:
        assert storage.count() == 1


@pytest.mark.parametrize("bad", ["", ":memory:", b"bytes", "a\0b"])
def test_what_is_no_path_is_refused(bad: object) -> None:
    with pytest.raises(InvalidArgumentError, match="path"):
        SQLiteStorage(bad)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense", "sqlite:///file:x?uri=true"])
def test_what_is_no_url_of_a_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        SQLStorage(url)


def test_a_place_where_no_file_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place in (tmp_path, tmp_path / "file" / "store.db", loop, tmp_path / ("x" * 300)):
        with pytest.raises(StorageUnavailableError, match="Nothing was changed"):
            SQLiteStorage(place)


def test_a_database_put_in_the_place_of_another_is_noticed(tmp_path: Path, filled: Path) -> None:
    with SQLiteStorage(tmp_path / "other.db") as other:
        other.save(voiceprint("mallory"))
    with SQLiteStorage(filled) as storage:
        follower, identity = Follower(), storage.identity()
        follower.assert_in_step(storage)
        for suffix in ("-wal", "-shm"):
            Path(f"{filled}{suffix}").unlink(missing_ok=True)
        (tmp_path / "other.db").replace(filled)
        with pytest.raises(StorageUnavailableError, match="another store"):
            storage.get("mallory")
        with SQLiteStorage(filled) as anew:
            assert list(state(anew)) == ["mallory"]
            assert anew.identity() != identity
            follower.assert_in_step(anew)


# Damage


def _damaged(path: Path, use: Callable[[SQLiteStorage], Any], place: str) -> None:
    before = dump(path)
    with SQLiteStorage(path) as storage:
        with pytest.raises(StorageCorruptError, match=place) as caught:
            use(storage)
        assert str(path) in str(caught.value)
        assert SECRET not in str(caught.value)
        assert any(finding.code == "corrupt" and place in finding.message for finding in storage.check())
    assert dump(path) == before


BLOBS = {
    "short": unit(1).tobytes()[:1020],
    "long": unit(1).tobytes() + bytes(4),
    "odd": unit(1).tobytes()[:1023],
    "empty": b"",
    "NaN": np.full(256, np.nan, dtype=np.float32).tobytes(),
    "zero": bytes(1024),
    "not of length 1": (unit(1) * 2).tobytes(),
    "text": "x" * 1024,
    "number": 5,
}


@pytest.mark.parametrize("blob", BLOBS.values(), ids=BLOBS)
def test_a_damaged_embedding_is_told_wherever_it_is_read_and_left_alone(filled: Path, blob: object) -> None:
    connection = sqlite3.connect(filled)
    connection.execute("PRAGMA ignore_check_constraints=ON")
    connection.execute("UPDATE voiceprints SET embedding = ? WHERE id = 2", (blob,))
    connection.commit()
    connection.close()
    for use in (
        lambda s: s.get("bob"),
        lambda s: s.callers(),
        lambda s: s.get_many([2]),
        lambda s: s.callers_of([2]),
        lambda s: list(s.scan()),
        lambda s: s.changes(START),
        lambda s: s.save(voiceprint("bob")),
    ):
        _damaged(filled, use, "voiceprint 2")
    with SQLiteStorage(filled) as storage:
        assert len(storage.get("alice").voiceprints) == 2


@pytest.mark.parametrize("blob", BLOBS.values(), ids=BLOBS)
def test_a_damaged_augmented_print_is_told_and_left_alone(filled: Path, blob: object) -> None:
    sql(
        filled,
        "INSERT INTO augmented_voiceprints (voiceprint_id, revision, embedding) "
        "SELECT id, revision, ? FROM voiceprints WHERE id = 2",
        blob,
    )
    for use in (
        lambda s: s.get("bob"),
        lambda s: s.callers(),
        lambda s: s.get_many([2]),
        lambda s: s.callers_of([2]),
        lambda s: s.save(voiceprint("bob")),
    ):
        _damaged(filled, use, "voiceprint 2")
    with SQLiteStorage(filled) as storage:  # what the index lives on does not read it
        assert storage.changes(START).ids.tolist() == next(storage.scan())[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("metadata", f'{{"{SECRET}"'),
        ("metadata", f'["{SECRET}"]'),
        ("metadata", b"\x80" + SECRET.encode()),
        ("metadata", '{"a":' * 70 + "1" + "}" * 70),
        ("created_at", "yesterday"),
        ("last_seen", 5),
    ],
)
def test_a_damaged_caller_is_told_and_left_alone(filled: Path, column: str, value: object) -> None:
    sql(filled, f"UPDATE callers SET {column} = ? WHERE caller_id = 'bob'", value)
    for use in (lambda s: s.get("bob"), lambda s: s.callers(), lambda s: s.save(voiceprint("bob"))):
        _damaged(filled, use, "'bob'")


def test_text_that_is_not_utf_8_is_told_without_quoting_it(filled: Path) -> None:
    sql(
        filled,
        "UPDATE callers SET metadata = CAST(? AS TEXT) WHERE caller_id = 'bob'",
        b"\x80" + SECRET.encode(),
    )
    with SQLiteStorage(filled) as storage, pytest.raises(StorageCorruptError) as caught:
        storage.get("bob")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b" ", b"SQLite format 3\0", b"{}" * 3000])
def test_what_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StorageCorruptError, match=str(path)):
        SQLiteStorage(path)
    assert path.read_bytes() == content


def test_a_database_cut_off_anywhere_is_refused_or_told_by_check(filled: Path, tmp_path: Path) -> None:
    expected, whole = _state_of(filled), filled.read_bytes()
    for length in [1, 50, 100, *range(512, len(whole), 3 * 512)]:
        cut = tmp_path / f"{length}.db"
        cut.write_bytes(whole[:length])
        sound = False
        with contextlib.suppress(StorageCorruptError), SQLiteStorage(cut) as storage:
            sound = storage.check() == []
            assert not sound or state(storage) == expected  # what is cut off was unused
        assert not sound or len(whole) - length <= 4096


def test_flipped_bits_raise_nothing_but_ours(filled: Path, tmp_path: Path) -> None:
    whole = filled.read_bytes()
    chance = np.random.default_rng(7)
    told = 0
    for n in range(60):
        content = bytearray(whole)
        for at in chance.integers(0, len(whole), 30):
            content[at] ^= 1 << int(chance.integers(8))
        flipped = tmp_path / f"flipped {n}.db"
        flipped.write_bytes(content)
        try:
            with SQLiteStorage(flipped) as storage:
                told += storage.check() != []
                list(storage.scan())
                storage.get_all()
        except StorageError:
            told += 1
    assert told > 30


# A database that cannot be written


def _state_of(path: Path) -> Any:
    with SQLiteStorage(path) as storage:
        return state(storage)


def test_a_full_database_is_told_and_leaves_the_old_state(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _state_of(filled)
    with SQLiteStorage(filled) as storage:
        engine = storage._database._engine
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1")  # no less than it has
        with pytest.raises(StorageUnavailableError, match="full") as caught:
            storage.save_many([voiceprint(f"c{n}", n) for n in range(100)])
        assert isinstance(caught.value.__cause__, sqlalchemy.exc.OperationalError)
        assert state(storage) == before
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        storage.save(voiceprint("carol"))
        assert storage.check() == []
    assert list(_state_of(filled)) == ["alice", "bob", "carol"]


def test_a_disk_that_takes_no_more_is_told_and_leaves_the_old_state(filled: Path) -> None:
    assert fill_disk(f"sqlite:{filled}", 300_000, 1000).split() == ["told", "3"]
    assert list(_state_of(filled)) == ["alice", "bob", "late"]


def test_a_writer_that_never_ends_is_told(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.storage.sql.sqlite.BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr("voiceprint.storage.sql.database.BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(filled, isolation_level=None)
    with SQLiteStorage(filled) as storage:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="locked"):
            storage.save(voiceprint("carol"))
        assert storage.count() == 3  # readers go on
        other.execute("ROLLBACK")
        storage.save(voiceprint("carol"))
    other.close()


def test_no_message_of_the_database_shows_what_was_to_be_stored(filled: Path) -> None:
    sql(filled, "DROP TABLE tombstones")
    sql(filled, "CREATE TRIGGER no BEFORE INSERT ON voiceprints BEGIN SELECT RAISE(ABORT, 'no'); END")
    with SQLiteStorage(filled) as storage, pytest.raises(StorageError) as caught:
        storage.save(Voiceprint("carol", unit(5), {"secret": SECRET}))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert "\\x" not in str(error)
        error = error.__cause__


# Keeping


def test_check_tells_of_a_caller_over_the_limit(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(seed=n) for n in range(3)])
    with SQLiteStorage(path, max_voiceprints_per_caller=2) as storage:
        finding = storage.check()[0]
        assert (finding.code, finding.place) == ("too_many_voiceprints", "caller 'alice'")


def test_check_finds_orphans_and_repairs_counters(filled: Path) -> None:
    sql(filled, "UPDATE store SET revision = 1, next_id = 2")
    with SQLiteStorage(filled) as storage:
        assert [finding.code for finding in storage.check()] == ["counter", "counter"]
        assert storage.check(fix=True) == []
        assert storage.check() == []
        assert storage.save(voiceprint("carol")).id == 4
    sql(filled, "DELETE FROM callers WHERE caller_id = 'bob'")
    with SQLiteStorage(filled) as storage:
        assert [finding.code for finding in storage.check()] == ["orphan"]


def test_augmented_prints_go_with_their_voiceprints(path: Path) -> None:
    def kept() -> list[int]:
        return [id_ for (id_,) in sql(path, "SELECT voiceprint_id FROM augmented_voiceprints ORDER BY 1")]

    with SQLiteStorage(path, max_voiceprints_per_caller=2) as storage:
        for n in range(3):  # the first gives way to the third
            storage.save(voiceprint("alice", n, augmented=unit(n + 50)))
        bob = storage.save(voiceprint("bob", 7, augmented=unit(8)))
        assert kept() == [2, 3, 4]
        storage.delete("alice")
        assert kept() == [4]
        storage.save(voiceprint("bob", 9, id=bob.id))
        assert kept() == []
        assert storage.check() == []


@pytest.mark.parametrize("revision", [1, 2, 4, 99, "text"])
def test_an_augmented_print_of_another_revision_is_not_used(filled: Path, revision: object) -> None:
    insert = "INSERT INTO augmented_voiceprints VALUES (3, ?, ?, NULL)"
    sql(filled, insert, revision, unit(9).tobytes())
    with SQLiteStorage(filled) as storage:
        assert [print_.augmented for print_ in storage.get("alice").voiceprints] == [None, None]
        finding = storage.check()[0]
        assert (finding.code, finding.place) == ("stale", "voiceprint 3")
        # One that is older is what an older version of the library leaves; any other is damage.
        assert [finding.code for finding in storage.check(fix=True)] == (
            [] if revision in (1, 2) else ["stale"]
        )
        storage.save(voiceprint("alice", 5, id=3, augmented=unit(6)))
        assert np.array_equal(storage.get("alice").voiceprints[1].augmented, unit(6))
        assert storage.check() == []


def test_check_does_not_remove_the_augmented_print_of_a_damaged_voiceprint(filled: Path) -> None:
    with SQLiteStorage(filled) as storage:
        storage.save(voiceprint("bob", 2, id=2, augmented=unit(9)))
    sql(filled, "UPDATE voiceprints SET revision = 'text' WHERE id = 2")
    with SQLiteStorage(filled) as storage:
        assert {finding.code for finding in storage.check(fix=True)} == {"corrupt", "stale"}
    assert sql(filled, "SELECT voiceprint_id, revision FROM augmented_voiceprints") == [(2, 4)]


def test_an_augmented_print_without_a_voiceprint_is_a_finding(filled: Path) -> None:
    sql(filled, "INSERT INTO augmented_voiceprints VALUES (77, 1, ?, NULL)", unit(9).tobytes())
    with SQLiteStorage(filled) as storage:
        finding = storage.check()[0]
        assert (finding.code, finding.place) == ("orphan", "table augmented_voiceprints, row 77")


def test_scans_and_followers_do_not_read_the_augmented_prints(filled: Path) -> None:
    with SQLiteStorage(filled) as storage:
        storage.save(voiceprint("carol", 8, augmented=unit(9)))
    sql(filled, "ALTER TABLE augmented_voiceprints RENAME COLUMN embedding TO gone")
    with SQLiteStorage(filled) as storage:
        assert next(storage.scan())[0].tolist() == storage.changes(START).ids.tolist() == [1, 2, 3, 4]
        assert (storage.count(), storage.revision()) == (4, 4)
        with pytest.raises(StorageError):
            storage.get("carol")


@pytest.mark.parametrize("counter", ["revision", "next_id"])
def test_a_counter_that_no_store_reaches_is_damage(filled: Path, counter: str) -> None:
    sql(filled, f"UPDATE store SET {counter} = {2**63 - 1}")
    with SQLiteStorage(filled) as storage, pytest.raises(StorageCorruptError, match=counter):
        storage.save(voiceprint("carol"))


def test_the_feed_forgets_old_deletions_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.storage.state.MAX_TOMBSTONES", 3)
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(6)])
        positions = [storage.position()]
        for n in range(5):
            storage.delete(f"c{n}")
            positions.append(storage.position())
        known = [storage.changes(since) is not None for since in positions]
        assert known == [False, False, True, True, True, True]
        assert len(storage.changes(positions[2]).removed) == 3
        assert sql(path, "SELECT count(*) FROM tombstones") == [(3,)]


def test_the_feed_comes_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.storage.sql.reader.FEED_PAGE", 4)
    with SQLiteStorage(path) as storage:
        follower = Follower()
        follower.assert_in_step(storage)
        for n in range(10):
            storage.save(voiceprint(f"c{n}", n))
        storage.save_many([voiceprint(f"d{n}", n) for n in range(9)])
        storage.delete("c1")
        first = storage.changes(START)
        assert (first.ids.tolist(), first.more, first.position.revision) == ([1, 3, 4, 5], True, 5)
        follower.assert_in_step(storage)
        assert follower.rebuilds == 1


def test_a_backup_put_back_is_noticed(filled: Path, tmp_path: Path) -> None:
    shutil.copy(filled, tmp_path / "backup")
    with SQLiteStorage(filled) as storage:
        storage.save(voiceprint("carol"))
        since = storage.position()
    shutil.copy(tmp_path / "backup", filled)
    with SQLiteStorage(filled) as storage:
        assert storage.changes(since) is None


def test_check_reports_embeddings_of_several_lengths_in_one_space(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint("alice", n, encoder="tiny") for n in range(3)])
        storage.save(voiceprint("bob", 1))
    sql(path, "UPDATE voiceprints SET embedding = zeroblob(36) WHERE id = 2")
    with SQLiteStorage(path) as storage:
        (finding,) = [finding for finding in storage.check() if finding.code == "dimension"]
    assert finding.place == "the space 'tiny'"
    assert "have 8 values, and 1 of them another number (voiceprint 2 has 9)" in finding.message
