"""A Redis server or cluster as the store uses it: with a time limit, in bytes, and with our errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import quote

from voiceprint.errors import InvalidArgumentError, StorageCorruptError, StorageError, StorageUnavailableError
from voiceprint.storage.redis.format import corrupt
from voiceprint.storage.redis.scripts import Script

# What of a cluster client's settings its connections are made of.
_CONNECTION_SETTINGS = ("username", "password", "credential_provider", "client_name", "protocol")


class Server:
    """Runs commands and scripts on what the caller's client is connected to.

    The caller's client is not used itself: it may decode answers, and wait for ever. Connections are
    made anew from its settings, with `timeout_s` for each answer, and without trying again: a command
    that is sent twice may be done twice.
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
        self._where = _cluster_location(client) if self.is_cluster else _location(client)
        with self.translated():
            self._client: Any = self._derived(timeout_s)

    def location(self, prefix: str) -> str:
        """Where the server is, as a URL without secrets; the prefix, where it is not the usual one."""
        if prefix == "voiceprint:":
            return self._where
        return f"{self._where}{'&' if '?' in self._where else '?'}prefix={quote(prefix)}"

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
        """What the server answers to one command."""
        with self.translated():
            return self._client.execute_command(*command)

    def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any] = (), *, extra_s: float = 0.0
    ) -> list[Any]:
        """What a script answers; extra_s: how much longer than usual it may take."""
        client = self._derived(self.timeout_s + extra_s) if extra_s else self._client
        try:
            with self.translated():
                answer = self._evaluate(client, script, keys, arguments)
        finally:
            if extra_s:
                client.close()
        if answer[0] == b"corrupt":
            corrupt(_shown(answer[1]), _shown(answer[2]))
        return list(answer)

    @staticmethod
    def _evaluate(client: Any, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return client.evalsha(script.digest, len(keys), *keys, *arguments)
        except NoScriptError:  # the server was restarted, or is another: it learns the script by this
            return client.eval(script.source, len(keys), *keys, *arguments)

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What string keys hold, in one round trip to each node; None for what is gone or of another type."""
        with self.translated():
            found = self._client.mget_nonatomic(keys) if self.is_cluster else self._client.mget(keys)
        return list(found)

    def run_each(self, script: Script, pairs: Iterable[tuple[str, bytes]]) -> None:
        """Run a script for each key and its one argument, in one round trip to each node."""
        with self.translated(), self._client.pipeline(transaction=False) as pipeline:
            for key, argument in pairs:
                # With its source, as a node may not know it yet.
                pipeline.execute_command("EVAL", script.source, 1, key, argument)
            pipeline.execute()

    def nodes(self) -> list[tuple[str, Any]]:
        """The primary nodes, each with the name that messages call it by."""
        if not self.is_cluster:
            return [(self._where, self._client)]
        with self.translated():
            return [
                (f"{node.host}:{node.port}", self._client.get_redis_connection(node))
                for node in self._client.get_primaries()
            ]

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """The keys that match, a batch at a time; some may come twice."""
        for _, node in self.nodes():
            cursor: int | None = None
            while cursor != 0:
                with self.translated():
                    cursor, keys = node.scan(cursor or 0, match=pattern, count=1_000)
                yield keys

    def close(self) -> None:
        """Give back the connections. The caller's client stays open."""
        self._client.close()
        if not self.is_cluster:
            self._client.connection_pool.disconnect()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within this context, the client's errors arrive as ours."""
        try:
            yield
        except _client_errors(self.is_cluster) as error:
            self._raise_ours(error)

    def _raise_ours(self, error: Exception) -> NoReturn:
        ours, what = explained(error)
        raise ours(f"{self._where}: {what}") from error


@lru_cache(maxsize=2)
def _client_errors(is_cluster: bool) -> tuple[type[Exception], ...]:
    """All that the client raises. Its own errors have no one root: some are a RedisError and others not."""
    from redis import exceptions

    found = [thing for thing in vars(exceptions).values() if isinstance(thing, type)]
    # The cluster client stumbles so when it is sent to a node that it does not know, or too often.
    others = (OSError, AttributeError) if is_cluster else (OSError,)
    return (*others, *(kind for kind in found if issubclass(kind, Exception)))


def explained(error: Exception) -> tuple[type[StorageError], str]:
    """Which of our errors an error of the client is, and what to say. Its text is not: it may quote data."""
    from redis import exceptions as redis_errors

    text = str(error)
    word = text.split(" ", 1)[0].rstrip(":")
    if word == "WRONGTYPE":
        return StorageCorruptError, "a key of the store holds another type of value. Nothing was changed."
    kinds: list[tuple[bool, str]] = [
        (
            isinstance(error, redis_errors.TimeoutError),
            "the server did not answer in time. Whether a change that was sent was made is not known: "
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
            "the server cannot be reached, or closed the connection. Whether a change that was sent was "
            "made is not known: read it again before repeating it.",
        ),
    ]
    said = next((what for holds, what in kinds if holds), f"the server refused ({type(error).__name__}).")
    return StorageUnavailableError, said


def _derived_cluster(source: Any, settings: dict[str, Any]) -> Any:
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode, RedisCluster
    from redis.retry import Retry

    given = source.nodes_manager.connection_kwargs
    kept = {
        name: value
        for name, value in given.items()
        if value is not None
        and (name in _CONNECTION_SETTINGS or name.startswith(("ssl", "socket_keepalive")))
    }
    node_at: Any = ClusterNode
    nodes = [node_at(node.host, node.port) for node in source.get_nodes()]
    # None is tried again but what a node sends elsewhere, which it has not done.
    return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **{**kept, **settings})


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


def _shown(value: bytes) -> str:
    return value.decode(errors="replace")
