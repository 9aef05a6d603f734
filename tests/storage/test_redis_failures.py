"""A Redis server that fails: our errors within the time limit, nothing half done, and working after."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from redis import exceptions as redis_errors
from redis_server import RedisServer, free_port
from stores import Follower, state, unit, uses, voiceprint

from voiceprint import (
    ConfigurationError,
    InvalidArgumentError,
    RedisStorage,
    StorageUnavailableError,
    VoiceFingerprintConfig,
    Voiceprint,
    open_storage,
)
from voiceprint.storage import configured_storage
from voiceprint.storage.presence import StorePresence

SECRET = "born in 1970"


def _uses(storage: RedisStorage) -> list[Callable[[], object]]:
    return [*uses(storage, SECRET), storage.identity, storage.check]


def _opened(server: RedisServer, timeout_s: float = 5.0, **settings: Any) -> RedisStorage:
    storage = RedisStorage(server.client(**settings), timeout_s=timeout_s)
    storage.save(voiceprint("alice", metadata={"secret": SECRET}))
    return storage


def _assert_unavailable(use: Callable[[], Any], match: str | None = None) -> None:
    with pytest.raises(StorageUnavailableError, match=match) as caught:
        use()
    assert isinstance(caught.value.__cause__, redis_errors.RedisError | OSError)
    assert SECRET not in str(caught.value)


def _assert_well(storage: RedisStorage, before: dict[str, Any]) -> None:
    assert state(storage) == before
    storage.save(voiceprint("later"))
    storage.delete("later")
    assert storage.check() == []


def test_a_server_that_is_down_is_told_and_found_again(server: RedisServer) -> None:
    storage = _opened(server, **{})
    server.kill()
    for use in _uses(storage):
        _assert_unavailable(use)
    with pytest.raises(StorageUnavailableError):
        RedisStorage(server.client())
    server.start()  # empty: nothing was to be kept
    for use in _uses(storage):
        with pytest.raises(StorageUnavailableError, match="is gone"):
            use()
    StorePresence.forget_all()
    with RedisStorage(server.client()) as anew:
        anew.save(voiceprint("alice"))
        _assert_well(anew, state(anew))


def test_a_restarted_server_has_all_and_the_scripts_are_sent_again() -> None:
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    try:
        storage, follower = _opened(server), Follower()
        follower.assert_in_step(storage)
        before, identity, revision = state(storage), storage.identity(), storage.revision()
        server.kill()
        server.start()
        assert (storage.identity(), storage.revision()) == (identity, revision)
        _assert_well(storage, before)
        follower.assert_in_step(storage)
        assert follower.rebuilds == 1
    finally:
        server.end()


def test_scripts_that_the_server_has_forgotten_are_sent_again(server: RedisServer) -> None:
    storage = _opened(server)
    for use in _uses(storage):
        server.client().script_flush()
        use()
    assert storage.check() == []


def test_a_server_that_does_not_answer_is_told_within_the_time_limit(server: RedisServer) -> None:
    storage = _opened(server, timeout_s=0.2)
    before = state(storage)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        for use in _uses(storage):
            _assert_unavailable(use, "in time|reached")
        # Not on how fast it is, but on that it does not hang: the caller's client has no time limit.
        assert time.monotonic() - started < 60
    finally:
        server.process.send_signal(signal.SIGCONT)
    server.wait()
    assert state(storage).keys() <= before.keys() | {"bob"}
    _assert_well(storage, state(storage))


def test_a_change_that_the_server_gets_to_too_late_is_not_made(server: RedisServer) -> None:
    storage = _opened(server, timeout_s=0.3)
    before, revision = state(storage), storage.revision()
    send = storage._committer._send

    process = server.process
    assert process is not None

    def stopped(*arguments: Any) -> Any:
        process.send_signal(signal.SIGSTOP)
        return send(*arguments)

    storage._committer._send = stopped
    try:
        with pytest.raises(StorageUnavailableError, match="in time"):
            storage.save(voiceprint("bob"))
    finally:
        process.send_signal(signal.SIGCONT)  # now the server reads what was sent
    storage._committer._send = send
    server.wait()
    assert (state(storage), storage.revision()) == (before, revision)
    _assert_well(storage, before)


def test_a_busy_server_is_told(server: RedisServer) -> None:
    server.client().config_set("busy-reply-threshold", 50)
    storage = _opened(server, timeout_s=2)
    before = state(storage)
    busy = server.client()
    connection = busy.connection_pool.get_connection()
    connection.send_command("EVAL", "while true do end", 0)
    time.sleep(0.3)
    try:
        for use in _uses(storage):
            _assert_unavailable(use, "busy")
    finally:
        server.client().script_kill()
        with pytest.raises(redis.RedisError):
            connection.read_response()
        busy.connection_pool.release(connection)
        busy.close()
    _assert_well(storage, before)


def test_a_full_server_keeps_all_and_still_deletes(server: RedisServer) -> None:
    storage = _opened(server)
    storage.save_many([voiceprint(f"c{n}", n) for n in range(20)])
    before, revision = state(storage), storage.revision()
    server.client().config_set("maxmemory-policy", "noeviction")
    server.client().config_set("maxmemory", 1)
    big = {"x": "y" * 100_000}
    for use in (
        lambda: storage.save(voiceprint("bob")),
        lambda: storage.save(voiceprint("alice", 5)),
        lambda: storage.update_metadata("alice", big),
        lambda: storage.save_many([voiceprint(f"d{n}", n) for n in range(50)]),
    ):
        _assert_unavailable(use, "memory")
    assert (state(storage), storage.revision()) == (before, revision)
    assert storage.delete("c0") == 1
    assert storage.check() == []
    server.client().config_set("maxmemory", 0)
    del before["c0"]
    _assert_well(storage, before)


def test_a_read_only_replica_reads_and_refuses_to_write(server: RedisServer) -> None:
    storage = _opened(server)
    before, revision = state(storage), storage.revision()
    server.client().replicaof("127.0.0.1", str(free_port()))
    for use in (
        lambda: storage.save(voiceprint("bob")),
        lambda: storage.delete("alice"),
        lambda: storage.touch("alice"),
        lambda: storage.update_metadata("alice", {"a": 1}),
    ):
        _assert_unavailable(use, "replica")
    with RedisStorage(server.client()) as other:
        assert (state(other), other.revision()) == (before, revision)
    server.client().replicaof("NO", "ONE")
    _assert_well(storage, before)


def test_a_server_without_the_password_is_told_without_showing_it() -> None:
    server = RedisServer(port=free_port())
    try:
        storage = _opened(server)
        storage.close()
        server.client().config_set("requirepass", "hunter2")
        for client in (server.client(), server.client(password="hunter3")):
            with pytest.raises(StorageUnavailableError, match="password") as caught:
                RedisStorage(client)
            assert "hunter" not in str(caught.value)
        with RedisStorage(server.client(password="hunter2")) as opened:
            assert opened.count() == 1
            assert "hunter2" not in repr(opened) + opened.location
        url = f"redis://:hunter2@127.0.0.1:{server.port}/0"
        with open_storage(url) as opened:
            assert opened.count() == 1
            assert opened.location == f"redis://127.0.0.1:{server.port}/0"
        server.client(password="hunter2").execute_command(
            "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read"
        )
        with pytest.raises(StorageUnavailableError, match="may not"):
            RedisStorage(server.client(username="reader", password="pw")).save(voiceprint())
    finally:
        server.end()


@pytest.mark.parametrize("kind", ["asyncio", "asyncio cluster", "pipeline-less", "url"])
def test_what_is_no_blocking_client_is_refused(kind: str) -> None:
    clients = {
        "asyncio": redis.asyncio.Redis(),
        "asyncio cluster": redis.asyncio.RedisCluster.__new__(redis.asyncio.RedisCluster),
        "pipeline-less": object(),
        "url": "redis://localhost",
    }
    with pytest.raises(InvalidArgumentError, match=r"give a redis\.Redis"):
        RedisStorage(clients[kind])


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""}, {"prefix": "{x}"}, {"prefix": 5}, {"prefix": "a b"}, {"timeout_s": 0},
        {"timeout_s": float("nan")}, {"timeout_s": "5"}, {"shards": 0}, {"shards": 1.5}, {"shards": 1000},
    ],
)  # fmt: skip
def test_a_setting_that_is_not_allowed_is_refused(client: redis.Redis, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        RedisStorage(client, **options)


def test_the_configured_url_opens_the_store(server: RedisServer) -> None:
    config = VoiceFingerprintConfig(
        storage_backend="redis", redis_url=server.url(3), max_voiceprints_per_caller=2
    )
    with configured_storage(config) as storage:
        storage.save_many([Voiceprint("alice", unit(n)) for n in range(3)])
        assert storage.count() == 2
        assert storage.location == server.url(3)
        with open_storage(storage.location + "&prefix=other:") as other:
            assert other.count() == 0
            assert other.location != storage.location
            with open_storage(other.location) as again:
                assert again.location == other.location
    for bad in ("redis://h:port/0", "redis://h/0?nonsense=1"):
        with pytest.raises(ConfigurationError):
            open_storage(bad)


def test_stores_of_different_prefixes_on_one_database_have_nothing_in_common(client: redis.Redis) -> None:
    with RedisStorage(client, prefix="one:") as one, RedisStorage(client, prefix="two:", shards=5) as two:
        one.save(voiceprint("alice"))
        two.save_many([voiceprint(f"c{n}") for n in range(20)])
        assert (one.count(), two.count()) == (1, 20)
        assert one.identity() != two.identity()
        assert (one.check(), two.check()) == ([], [])
        assert len(state(two)) == 20


def test_the_callers_client_stays_open_and_as_it_was(client: redis.Redis) -> None:
    settings = dict(client.connection_pool.connection_kwargs)
    RedisStorage(client).close()
    assert client.ping()
    assert client.connection_pool.connection_kwargs == settings


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/abc",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://h/1_0",
        "redis://h/ 1",
        "redis://h/1.0",
        "rediss://:hunter2@h/abc",
        "redis://h/0?db=abc",
        "redis://h/1?db=2",
        "redis://h?db=",
        "unix:///run/redis.sock?db=x",
    ],
)
def test_a_database_that_is_no_number_is_refused_and_not_taken_for_the_first(url):
    with pytest.raises(ConfigurationError, match="number") as caught:
        open_storage(url)
    assert "hunter2" not in str(caught.value)
