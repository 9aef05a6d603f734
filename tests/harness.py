"""The stores that the conformance tests run on, each behind the same small harness."""

from __future__ import annotations

import base64
import functools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgres_server
from redis_server import fresh_database, shared_server
from stores import forget_json_files

from voiceprint import JSONStorage, MemoryStorage, RedisStorage, SQLiteStorage, Storage
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.key_store import KeyStore
from voiceprint.privacy.encryption.keys import VariableKeys
from voiceprint.storage import SQLStorage

NEW_KEY = base64.b64encode(secrets.token_bytes(32)).decode()


class Harness:
    """One store: `storage` is the handle in use, `reopen` gives a new one on what is kept.

    opener: opens a handle on the same records each time. persists: whether they outlive the handle.
    """

    def __init__(self, opener: Callable[..., Storage], *, persists: bool) -> None:
        self._opener = opener
        self.persists = persists
        self.storage = opener()
        self._opened = [self.storage]
        self.ended = False

    def open(self, **options: Any) -> Storage:
        """One more handle, beside the one in use. The memory store has only the one."""
        if not self.persists:
            return self.storage
        handle = self._opener(**options)
        self._opened.append(handle)
        return handle

    def reopen(self) -> Storage:
        if self.persists:
            self.storage.close()
            self.storage = self.open()
        return self.storage

    def both(self) -> Iterator[Storage]:
        """The handle in use, and then a new one: what holds must hold for each."""
        yield self.storage
        yield self.reopen()

    def end(self) -> None:
        """Close everything, after one last look that all is well (a closed memory store has nothing left)."""
        if self.persists or not self.ended:
            assert self.reopen().check() == []
        for handle in self._opened:
            handle.close()


def json_harness(path: Path, **fixed: Any) -> Harness:
    def opener(**options: Any) -> Storage:
        forget_json_files()
        return JSONStorage(path, **fixed, **options)

    return Harness(opener, persists=True)


def sqlite_harness(path: Path, **fixed: Any) -> Harness:
    return Harness(functools.partial(SQLiteStorage, path, **fixed), persists=True)


def memory_harness(_: Path) -> Harness:
    return Harness(MemoryStorage, persists=False)


def redis_harness(
    _: Path, *, shards: int | None = None, encryption: Encryption | None = None, **settings: Any
) -> Harness:
    server, database = shared_server(), fresh_database()

    def opener(**options: Any) -> Storage:
        with server.client(database, **settings) as client:
            return RedisStorage(client, shards=shards, encryption=encryption, **options)

    return Harness(opener, persists=True)


def redis_decoding_harness(path: Path) -> Harness:
    return redis_harness(path, decode_responses=True)


def redis_shards_harness(path: Path) -> Harness:
    """A store whose keys are spread over four slots, as in a cluster, on one server."""
    return redis_harness(path, shards=4)


def postgresql_harness(_: Path, **fixed: Any) -> Harness:
    return Harness(functools.partial(SQLStorage, postgres_server.fresh_url(), **fixed), persists=True)


def partitioned_harness(_: Path, **fixed: Any) -> Harness:
    """A PostgreSQL store whose tables are partitioned: as few as are possible, as they take time to make."""
    url = postgres_server.fresh_url()
    with SQLStorage(url, **fixed) as storage:
        storage.partition(2)
    return Harness(functools.partial(SQLStorage, url, **fixed), persists=True)


def encrypted(harness: Callable[..., Harness]) -> Callable[[Path], Harness]:
    """The same store, encrypted from its first change on."""
    return functools.partial(harness, encryption=Encryption(KeyRing(VariableKeys(NEW_KEY))))


def keys_apart(harness: Callable[..., Harness]) -> Callable[[Path], Harness]:
    """The same store, with the data keys in a key store of its own."""

    def made(path: Path) -> Harness:
        place = str(path.with_name(f"{path.name}.keys"))
        return harness(path, encryption=Encryption(KeyRing(VariableKeys(NEW_KEY)), KeyStore(place)))

    return made


# A new store is one more line here.
HARNESSES: dict[str, Callable[[Path], Harness]] = {
    "memory": memory_harness,
    "json": json_harness,
    "sqlite": sqlite_harness,
    "postgresql": postgresql_harness,
    "redis": redis_harness,
    "redis-decoding": redis_decoding_harness,
    "json-encrypted": encrypted(json_harness),
    "sqlite-encrypted": encrypted(sqlite_harness),
    "postgresql-encrypted": encrypted(postgresql_harness),
    "redis-encrypted": encrypted(redis_harness),
    "sqlite-keys-apart": keys_apart(sqlite_harness),
}

# Stores that run only the modules in which they may differ from another one.
PARTLY: dict[str, tuple[Callable[[Path], Harness], set[str]]] = {
    "postgresql-partitioned": (
        partitioned_harness,
        {"test_augmented_prints", "test_changing", "test_feed", "test_new_prints"},
    ),
}
