"""A store that is gone, emptied or replaced under a running service never reads as an empty one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from processes import finish, start
from stores import Follower, forget_json_files, state, uses, voiceprint

from voiceprint import (
    RedisStorage,
    SQLiteStorage,
    Storage,
    StorageCorruptError,
    StorageUnavailableError,
    open_storage,
)
from voiceprint.storage.presence import StorePresence


@pytest.fixture(params=["json", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "folder").mkdir()
    return f"{request.param}:{tmp_path / 'folder' / 'store'}"


@pytest.fixture
def path(url: str) -> Path:
    return Path(url.partition(":")[2])


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    """A store with alice, closed and opened again."""
    with open_storage(url) as made:
        made.save(voiceprint())
    with open_storage(url) as opened:
        yield opened


def assert_refused(storage: Storage, match: str) -> None:
    for use in [*uses(storage, "secret"), storage.exists, storage.identity, storage.check]:
        with pytest.raises(StorageUnavailableError, match=match):
            use()


def files_of(path: Path) -> list[Path]:
    return [file for file in path.parent.iterdir() if not file.name.endswith(".lock")]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_store_that_was_moved_away_is_refused_and_told_of_once_until_it_is_back(
    storage: Storage, url: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower = Follower()
    follower.catch_up(storage)
    before, away = state(storage), path.parent.with_name("away")
    path.parent.rename(away)
    assert_refused(storage, f"{path} is gone")
    with pytest.raises(StorageUnavailableError, match="is gone"):  # a service may open it for every call
        open_storage(url)
    assert not path.parent.exists()
    assert len(messages(caplog)) == 1
    assert str(path) in messages(caplog)[0]
    away.rename(path.parent)
    assert state(storage) == before
    assert [message for message in messages(caplog) if "there again" in message] == messages(caplog)[1:]
    storage.save(voiceprint("bob", 1))
    follower.assert_in_step(storage)


def test_a_deleted_store_is_refused_and_not_made_anew(storage: Storage, path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    assert_refused(storage, "is gone")
    assert list(path.parent.iterdir()) == []


def test_a_new_process_starts_with_an_empty_store_where_one_was_deleted(storage: Storage, url: str) -> None:
    storage.close()
    for file in Path(url.partition(":")[2]).parent.iterdir():
        file.unlink()
    StorePresence.forget_all()
    forget_json_files()
    with open_storage(url) as opened:
        assert state(opened) == {}
        opened.save(voiceprint("bob"))
        assert list(state(opened)) == ["bob"]


def test_a_backup_of_the_store_put_in_its_place_is_read(storage: Storage, url: str, path: Path) -> None:
    storage.close()
    backup = path.parent.with_name("backup")
    shutil.copy(path, backup)
    with open_storage(url) as running:
        running.save(voiceprint("bob", 1))
        for file in files_of(path):
            file.unlink()
        backup.replace(path)
        assert list(state(running)) == ["alice"]
        running.save(voiceprint("carol", 2))
    with open_storage(url) as opened:
        assert list(state(opened)) == ["alice", "carol"]


def test_another_store_in_its_place_is_refused_by_open_handles_and_told_of_by_new_ones(
    storage: Storage, url: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_storage(f"{url} of mallory") as other:
        other.save(voiceprint("mallory"))
        identity = other.identity()
    away = path.parent.with_name("away")
    path.rename(away)
    Path(f"{path} of mallory").rename(path)
    assert_refused(storage, "another store than before")
    assert len(messages(caplog)) == 1
    with open_storage(url) as anew:
        assert anew.identity() == identity
        assert list(state(anew)) == ["mallory"]
    assert "opened anew" in messages(caplog)[-1]
    assert_refused(storage, "another store than before")
    path.unlink()
    away.rename(path)
    assert list(state(storage)) == ["alice"]


def test_a_store_that_is_cut_to_nothing_is_refused(storage: Storage, url: str, path: Path) -> None:
    path.write_bytes(b"")
    assert_refused(storage, "emptied")
    with pytest.raises(StorageUnavailableError, match="emptied"):
        open_storage(url)
    assert path.stat().st_size == 0


def test_an_empty_file_is_taken_for_a_new_store(
    url: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.touch()
    with open_storage(url) as storage:
        assert not storage.exists()
        assert state(storage) == {}
        assert storage.check() == []
        assert path.stat().st_size == 0
        if url.startswith("json:"):
            assert "restore a backup" in messages(caplog)[0]
        storage.save(voiceprint())
        assert list(state(storage)) == ["alice"]
    forget_json_files()
    with open_storage(url) as storage:
        assert list(state(storage)) == ["alice"]
        assert storage.check() == []
    assert len(messages(caplog)) == url.startswith("json:")


@pytest.mark.slow
def test_many_processes_take_an_empty_file_for_one_new_store(url: str, path: Path) -> None:
    path.touch()
    workers = [start(url, "storage.save(voiceprint(f'c{argument}', int(argument)))", n) for n in range(4)]
    for worker in workers:
        finish(worker)
    with open_storage(url) as storage:
        assert list(state(storage)) == [f"c{n}" for n in range(4)]
        assert storage.check() == []


def test_an_empty_database_whose_log_is_not_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    Path(f"{path}-wal").write_bytes(b"content")
    with pytest.raises(StorageCorruptError, match="log"):
        SQLiteStorage(path)
    assert Path(f"{path}-wal").read_bytes() == b"content"


def test_a_replaced_database_loses_nothing_to_the_handles_on_the_old_one(tmp_path: Path) -> None:
    # The last connection to a database removes the log by its name, which is the new one's by then.
    path = tmp_path / "store.db"
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint())
    shutil.copy(path, tmp_path / "backup")
    old = SQLiteStorage(path)
    old.save(voiceprint("bob", 1))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    (tmp_path / "backup").replace(path)
    with SQLiteStorage(path) as new:
        new.save(voiceprint("carol", 2))
        assert list(state(old)) == ["alice", "carol"]
        old.close()
        assert Path(f"{path}-wal").stat().st_size > 0
        new.save(voiceprint("dave", 3))
    with SQLiteStorage(path) as opened:
        assert list(state(opened)) == ["alice", "carol", "dave"]


def test_a_database_that_was_put_under_the_log_of_another_is_refused_and_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint())
    shutil.copy(path, tmp_path / "backup")
    old = SQLiteStorage(path)
    old.save_many([voiceprint(f"c{n}", n) for n in range(50)])
    logs = [Path(f"{path}{suffix}") for suffix in ("-wal", "-shm")]
    assert logs[0].stat().st_size > 0
    shutil.copy(tmp_path / "backup", tmp_path / "copy")
    (tmp_path / "copy").replace(path)
    for use in (old.count, lambda: old.save(voiceprint("dave", 3)), lambda: SQLiteStorage(path)):
        with pytest.raises(StorageUnavailableError, match="log of the file that was there before"):
            use()
    assert path.read_bytes() == (tmp_path / "backup").read_bytes()
    for log in logs:
        log.unlink()
    assert list(state(old)) == ["alice"]
    old.save(voiceprint("dave", 3))
    assert old.check() == []
    old.close()


def test_a_redis_server_that_was_emptied_is_refused(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisStorage(client) as storage:
        storage.save(voiceprint())
        kept = {key: client.dump(key) for key in client.scan_iter()}
        client.flushdb()
        assert_refused(storage, "is gone")
        with pytest.raises(StorageUnavailableError, match="is gone"):
            RedisStorage(client)
        assert client.dbsize() == 0
        assert len(messages(caplog)) == 1
        for key, value in kept.items():
            client.restore(key, 0, value)
        assert list(state(storage)) == ["alice"]


def test_another_store_on_a_redis_server_is_refused_by_open_handles(client: redis.Redis) -> None:
    with RedisStorage(client) as storage:
        storage.save(voiceprint())
        client.flushdb()
        StorePresence.forget_all()
        with RedisStorage(client) as other:
            other.save(voiceprint("mallory"))
        assert_refused(storage, "another store")
