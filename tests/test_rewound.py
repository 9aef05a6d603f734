"""A store whose history was rewound and went on to the same revision: everybody who is in it is found."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from galleries import best
from redis_server import RedisServer, free_port
from stores import forget_json_files, unit, voiceprint

from voiceprint import JSONStorage, RedisStorage, SQLiteStorage, Storage
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings


class Rewinding:
    """A store that can be put back: `open` gives a handle, `keep` and `put_back` act on the disk."""

    def __init__(
        self, opener: Callable[[], Storage], keep: Callable[[], None], put_back: Callable[[], None]
    ) -> None:
        self.open = opener
        self.keep = keep
        self.put_back = put_back


@pytest.fixture(params=["json", "sqlite", "redis", "redis-replica"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rewinding]:
    if request.param == "redis":
        yield from _redis(tmp_path)
    elif request.param == "redis-replica":
        yield from _redis_replica()
    else:
        yield _file(tmp_path, {"json": JSONStorage, "sqlite": SQLiteStorage}[request.param])


def _file(folder: Path, kind: type[Storage]) -> Rewinding:
    path, kept = folder / "store", folder / "kept"

    def put_back() -> None:
        if path.with_name("store-wal").exists():  # it is open: then by SQLite itself, which knows of its log
            with closing(sqlite3.connect(kept)) as backup, closing(sqlite3.connect(path)) as database:
                backup.backup(database)
        else:
            shutil.copy(kept, folder / "new")
            (folder / "new").replace(path)

    return Rewinding(lambda: kind(path), lambda: shutil.copy(path, kept), put_back)


def _redis(folder: Path) -> Iterator[Rewinding]:
    server = RedisServer()

    def opener() -> Storage:
        with server.client() as client:
            return RedisStorage(client)

    def keep() -> None:
        with server.client() as client:
            client.save()
        shutil.copy(server.folder / "dump.rdb", folder / "kept.rdb")

    def put_back() -> None:
        server.kill()
        shutil.copy(folder / "kept.rdb", server.folder / "dump.rdb")
        server.start()

    yield Rewinding(opener, keep, put_back)
    server.end()


def _redis_replica() -> Iterator[Rewinding]:
    """The replica was cut off before the last saves, and is then promoted to the place of the primary."""
    folder = Path(tempfile.mkdtemp(prefix="vp-"))  # short, as the path of a socket must be
    place = folder / "redis.sock"
    primary = RedisServer("--unixsocket", str(place), port=free_port())
    replica = RedisServer("--replicaof", f"127.0.0.1 {primary.port}")

    def opener() -> Storage:
        with redis.Redis(unix_socket_path=str(place)) as client:
            return RedisStorage(client)

    def keep() -> None:
        with primary.client() as client, replica.client() as other:
            while not (
                other.info("replication")["master_link_status"] == "up"
                and other.info("replication")["slave_repl_offset"]
                == client.info("replication")["master_repl_offset"]
            ):
                time.sleep(0.01)
            other.replicaof("NO", "ONE")

    def put_back() -> None:
        primary.kill()
        replica.path.replace(place)

    yield Rewinding(opener, keep, put_back)
    primary.end()
    replica.end()
    shutil.rmtree(folder)


def _named(shared: SharedIndex, storage: Storage, seed: int) -> str | None:
    found = best(Gallery(storage, shared), unit(seed), 1)
    return found[0].caller_id if found and found[0].similarity > 0.9 else None


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_who_is_enrolled_after_a_rewind_is_found_and_who_was_lost_is_not(
    store: Rewinding, tmp_path: Path, is_open: bool
) -> None:
    settings = IndexSettings(str(tmp_path / "callers.index"))
    live = SharedIndex("resemblyzer", 256, settings)
    with store.open() as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(5)])
    store.keep()
    storage = store.open()
    try:
        storage.save(voiceprint("lost", 50))
        assert _named(live, storage, 50) == "lost"
        Gallery(storage, live).write_snapshot()  # of a history that will not have been
        lost_at = storage.position()
        if not is_open:
            storage.close()
        store.put_back()
        if not is_open:
            forget_json_files()
            storage = store.open()
        storage.save(voiceprint("new", 60))
        assert storage.position().revision == lost_at.revision
        for shared in (live, SharedIndex("resemblyzer", 256, settings)):
            assert _named(shared, storage, 60) == "new"
            assert _named(shared, storage, 50) is None
            assert Gallery(storage, shared).check() == []
    finally:
        storage.close()


@pytest.mark.parametrize("kind", [JSONStorage, SQLiteStorage])
def test_a_copied_store_that_shares_the_place_of_its_snapshot_finds_its_own_callers(
    tmp_path: Path, kind: type[Storage]
) -> None:
    settings = IndexSettings(str(tmp_path / "callers.index"))
    one, two = tmp_path / "one", tmp_path / "two"
    with kind(one) as storage:
        storage.save(voiceprint("alice", 1))
    shutil.copy(one, two)
    for path, name, seed in ((one, "in one", 10), (two, "in two", 20), (one, "in one again", 30)):
        with kind(path) as storage:
            storage.save(voiceprint(name, seed))
            shared = SharedIndex("resemblyzer", 256, settings)
            assert _named(shared, storage, seed) == name
            assert Gallery(storage, shared).check() == []
            Gallery(storage, shared).write_snapshot()
