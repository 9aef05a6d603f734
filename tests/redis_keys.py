"""All keys of a Redis database as plain values, so that they can be put into a server of any version.

A list of [key, type, value]; the value of a string is text, of a hash an object, of a sorted set a list of
[member, score]. Bytes are written as Latin-1: each character is one byte.
"""

from __future__ import annotations

from typing import Any

import redis


def dump(client: redis.Redis) -> list[list[Any]]:
    """The keys in the order of their names."""
    return [_entry(client, key) for key in sorted(client.scan_iter())]


def _entry(client: redis.Redis, key: bytes) -> list[Any]:
    kind = client.type(key).decode()
    value: Any
    if kind == "string":
        value = _text(client.get(key))
    elif kind == "hash":
        value = {_text(name): _text(held) for name, held in sorted(client.hgetall(key).items())}
    else:
        assert kind == "zset"
        value = [[_text(member), score] for member, score in client.zrange(key, 0, -1, withscores=True)]
    return [_text(key), kind, value]


def load(client: redis.Redis, entries: list[list[Any]]) -> None:
    """Put the keys into a database."""
    for name, kind, value in entries:
        key = _bytes(name)
        if kind == "string":
            client.set(key, _bytes(value))
        elif kind == "hash":
            client.hset(key, mapping={_bytes(field): _bytes(held) for field, held in value.items()})
        else:
            client.zadd(key, {_bytes(member): score for member, score in value})


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
