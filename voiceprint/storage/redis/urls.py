"""Clients from the URLs of Redis stores: redis://HOST:PORT/DB, rediss://... and unix://PATH?db=N."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from voiceprint.errors import ConfigurationError
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.validation import hide_passwords

__all__ = ["DEFAULT_PREFIX", "client_of", "location_of"]

DEFAULT_PREFIX = "voiceprint:"


def client_of(url: str, timeout_s: float) -> tuple[Any, str]:
    """A client of the server or cluster, and the prefix. Raises `ConfigurationError` for a bad URL."""
    import redis

    plain, prefix = _without_prefix(url)
    _check_database(url)
    try:
        client: Any = redis.Redis.from_url(plain)
        connection = RedisConnection(client, timeout_s)
        try:
            if connection.call("INFO", "cluster").get("cluster_enabled"):
                client.close()
                limits = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
                with connection.translated():
                    client = redis.RedisCluster.from_url(plain, **limits)
        finally:
            connection.close()
    except (ValueError, TypeError) as error:  # an unknown option is a TypeError at the first connection
        raise _refused(url) from error
    return client, prefix


def location_of(url: str) -> str:
    """The location of the store at `url`, as on a single server, without a connection.

    Raises `ConfigurationError` for a bad URL.
    """
    import redis

    plain, prefix = _without_prefix(url)
    _check_database(url)
    try:
        client: Any = redis.Redis.from_url(plain)
        return RedisConnection(client, 1.0).location(prefix)
    except (ValueError, TypeError) as error:
        raise _refused(url) from error


def _refused(url: str) -> ConfigurationError:
    return ConfigurationError(f"{hide_passwords(url)!r} is no Redis URL that the client takes.")


def _check_database(url: str) -> None:
    """Refuse databases that the client misreads: it takes text for 0, and "1/2" for 12."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the client refuses it too, with its own message
        return
    named = [parts.path.removeprefix("/")] if parts.scheme != "unix" else []
    named = [database for database in named if database]
    named += [value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name == "db"]
    if len(set(named)) > 1 or not all(re.fullmatch("[0-9]{1,9}", database) for database in named):
        raise ConfigurationError(
            f"{hide_passwords(url)!r} does not name one database by its number: the forms are "
            "redis://HOST:PORT/DB and unix://PATH?db=DB."
        )


def _without_prefix(url: str) -> tuple[str, str]:
    # By hand: urlunsplit() drops the slashes of unix:///path.
    place, _, options = url.partition("?")
    query = parse_qsl(options, keep_blank_values=True)
    prefix = dict(query).get("prefix", DEFAULT_PREFIX)
    # `cluster` is of our locations; the client has no such option.
    others = [(name, value) for name, value in query if name not in ("prefix", "cluster")]
    return f"{place}?{urlencode(others)}" if others else place, prefix
