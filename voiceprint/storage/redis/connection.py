"""The connection to a Redis server or cluster: with a time limit, in bytes, and with our errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageError, StorageUnavailableError
from voiceprint.storage.redis.format import corrupt

# The settings of a cluster client that its connections take.
_CONNECTION_SETTINGS = ("username", "password", "credential_provider", "client_name", "protocol")


class RedisConnection:
    """Runs commands and scripts on the server or cluster of a user's client.

    The client itself may decode answers and wait for ever. So new connections are made from its settings,
    with `timeout_s` for each answer, and without retries: a command sent twice may be done twice.
    """

    def __init__(self, client: Any, timeout_s: float) -> None:
        import redis
        import redis.asyncio
        from redis.cluster import RedisCluster

        if isinstance(client, redis.asyncio.Redis | redis.asyncio.RedisCluster):
            raise InvalidArgumentError(
                "redis_client is an asyncio client: give a redis.Redis or redis.cluster.RedisCluster. "
                "The recognizer's own async methods run it beside the event loop."
            )
        if not isinstance(client, redis.Redis | RedisCluster):
            raise InvalidArgumentError(
                f"redis_client is of type {type(client).__name__}: give a redis.Redis or "
                "redis.cluster.RedisCluster."
            )
        self._source: Any = client
        self.timeout_s = timeout_s
        self.is_cluster = isinstance(client, RedisCluster)
        self._location = _cluster_location(client) if self.is_cluster else _location(client)
        with self.translated():
            self._client: Any = self._derived(timeout_s)

    def location(self, prefix: str) -> str:
        """URL of a store, without secrets, and with its prefix unless it is the default."""
        if prefix == "voiceprint:":
            return self._location
        return f"{self._location}{'&' if '?' in self._location else '?'}prefix={quote(prefix)}"

    def _derived(self, timeout_s: float) -> Any:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        limits = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        plain = {"decode_responses": False, "encoding": "utf-8", "encoding_errors": "strict"}
        if self.is_cluster:
            return _derived_cluster(self._source, limits | plain)
        import redis
        from redis.sentinel import SentinelConnectionPool

        pool = self._source.connection_pool
        settings = {**pool.connection_kwargs, **limits, **plain, "retry": Retry(NoBackoff(), 0)}
        settings.pop("retry_on_error", None)
        settings.pop("retry_on_timeout", None)
        settings["connection_class"] = pool.connection_class
        if isinstance(pool, SentinelConnectionPool):
            settings.pop("connection_pool", None)
            settings["is_master"] = pool.is_master
            settings["check_connection"] = pool.check_connection
            by_sentinel: Any = SentinelConnectionPool
            return redis.Redis(
                connection_pool=by_sentinel(pool.service_name, pool.sentinel_manager, **settings)
            )
        return redis.Redis(connection_pool=redis.ConnectionPool(**settings))

    def call(self, *command: Any) -> Any:
        """The answer to one command."""
        with self.translated():
            return self._client.execute_command(*command)

    def run(
        self,
        script: str,
        keys: Sequence[str],
        request: dict[str, Any] | None = None,
        values: Sequence[bytes] = (),
        *,
        extra_s: float = 0.0,
    ) -> list[Any]:
        """The answer of a script, see scripts.py; extra_s: added to the time limit."""
        client = self._derived(self.timeout_s + extra_s) if extra_s else self._client
        try:
            with self.translated():
                registered = self._client.register_script(script)
                answer = registered(keys=keys, args=[orjson.dumps(request or {}), *values], client=client)
        finally:
            if extra_s:
                client.close()
        if answer[0] == b"corrupt":
            corrupt(_text(answer[1]), _text(answer[2]))
        return list(answer)

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of string keys, in one round trip to each node; None for a missing key or another type."""
        with self.translated():
            found = self._client.mget_nonatomic(keys) if self.is_cluster else self._client.mget(keys)
        return list(found)

    def run_each(self, script: str, pairs: Iterable[tuple[str, bytes]]) -> None:
        """Run a script for each key and its one argument, in one round trip to each node."""
        with self.translated(), self._client.pipeline(transaction=False) as pipeline:
            for key, argument in pairs:
                # With its source, as a node may not have it yet.
                pipeline.execute_command("EVAL", script, 1, key, argument)
            pipeline.execute()

    def nodes(self) -> list[tuple[str, Any]]:
        """The primary nodes, each with a name for messages."""
        if not self.is_cluster:
            return [(self._location, self._client)]
        with self.translated():
            return [
                (f"{node.host}:{node.port}", self._client.get_redis_connection(node))
                for node in self._client.get_primaries()
            ]

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """The matching keys in batches; a key may come twice."""
        for _, node in self.nodes():
            cursor: int | None = None
            while cursor != 0:
                with self.translated():
                    cursor, keys = node.scan(cursor or 0, match=pattern, count=1_000)
                yield keys

    def close(self) -> None:
        """Close the connections. The user's client stays open."""
        self._client.close()
        if not self.is_cluster:
            self._client.connection_pool.disconnect()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within this context, the client's errors arrive as ours."""
        try:
            yield
        except _client_errors(self.is_cluster) as error:
            kind, problem = explained(error)
            raise kind(f"{self._location}: {problem}") from error


@lru_cache(maxsize=2)
def _client_errors(is_cluster: bool) -> tuple[type[Exception], ...]:
    """All errors of the client, which have no common root."""
    from redis import exceptions

    found = [thing for thing in vars(exceptions).values() if isinstance(thing, type)]
    # AttributeError: a fault of the cluster client, redirected to an unknown node or too often.
    others = (OSError, AttributeError) if is_cluster else (OSError,)
    return (*others, *(kind for kind in found if issubclass(kind, Exception)))


def explained(error: Exception) -> tuple[type[StorageError], str]:
    """Our class for an error of the client, and the problem, without its text, which may quote data."""
    from redis import exceptions as redis_errors

    text = str(error)
    word = text.split(" ", 1)[0].rstrip(":")
    if word == "WRONGTYPE":
        return StorageCorruptError, "a key of the store holds another type of value. Nothing was changed."
    kinds: list[tuple[bool, str]] = [
        (
            isinstance(error, redis_errors.TimeoutError),
            "the server did not answer in time. It may have made a change that was sent: "
            "read it again before repeating it.",
        ),
        (
            isinstance(error, redis_errors.AuthenticationError | redis_errors.AuthorizationError)
            or word in ("NOAUTH", "WRONGPASS"),
            "the server refused the user name or password.",
        ),
        (
            isinstance(error, redis_errors.BusyLoadingError),
            "the server is still loading its data. Try again.",
        ),
        (
            isinstance(error, redis_errors.OutOfMemoryError) or word == "OOM",
            "the server is out of memory (maxmemory). Nothing was changed.",
        ),
        (
            isinstance(error, redis_errors.ReadOnlyError) or word == "READONLY",
            "the server is a read-only replica: connect to the primary. Nothing was changed.",
        ),
        (
            isinstance(error, redis_errors.NoPermissionError) or word == "NOPERM",
            "the user may not run a command or touch a key that the store needs. Nothing was changed.",
        ),
        (word == "MISCONF", "the server cannot write to its disk, and takes no changes (MISCONF)."),
        (word == "BUSY", "the server is busy with another client's script. Try again."),
        (word == "NOREPLICAS", "the server has too few replicas to take changes."),
        (
            isinstance(error, redis_errors.MovedError | redis_errors.AskError),
            "the server is one node of a cluster: give a redis.cluster.RedisCluster.",
        ),
        (
            isinstance(
                error, redis_errors.ClusterError | redis_errors.RedisClusterException | AttributeError
            ),
            "the cluster is down, or has no node for some of the keys.",
        ),
        (
            isinstance(error, redis_errors.ConnectionError) and " connecting to " in text,
            "the server cannot be reached. Nothing was changed. Is it running, and the address right?",
        ),
        (
            isinstance(error, redis_errors.ConnectionError | OSError),
            "the server cannot be reached, or closed the connection. It may have made a change that was "
            "sent: read it again before repeating it.",
        ),
    ]
    problem = next(
        (text for applies, text in kinds if applies), f"the server refused ({type(error).__name__})."
    )
    return StorageUnavailableError, problem


def _derived_cluster(source: Any, settings: dict[str, Any]) -> Any:
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode, RedisCluster
    from redis.retry import Retry

    given = source.nodes_manager.connection_kwargs
    settings_given = {
        name: value
        for name, value in given.items()
        if value is not None
        and (name in _CONNECTION_SETTINGS or name.startswith(("ssl", "socket_keepalive")))
    }
    node_at: Any = ClusterNode
    nodes = [node_at(node.host, node.port) for node in source.get_nodes()]
    # No retries, except of commands that a node redirects without running them.
    return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **{**settings_given, **settings})


def _location(client: Any) -> str:
    settings = client.connection_pool.connection_kwargs
    database = settings.get("db") or 0
    if "path" in settings:
        return f"unix://{quote(str(settings['path']))}?db={database}"
    if "host" not in settings:  # by a sentinel
        return f"redis+sentinel://{getattr(client.connection_pool, 'service_name', 'unknown')}/{database}"
    from redis.connection import SSLConnection

    secure = issubclass(client.connection_pool.connection_class, SSLConnection)
    return f"redis{'s' * secure}://{settings['host']}:{settings.get('port', 6379)}/{database}"


def _cluster_location(client: Any) -> str:
    host, port = min((node.host, node.port) for node in client.get_primaries())
    return f"redis://{host}:{port}/0?cluster=true"


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
