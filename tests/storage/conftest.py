"""The fixtures of the tests of single stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis_server import RedisServer, fresh_database, shared_server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the store's file, which does not exist yet."""
    return tmp_path / "voiceprints.json"


@pytest.fixture
def golden() -> Path:
    """The files of earlier versions, which must open for ever."""
    return Path(__file__).parent.parent / "golden"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis server of this test's own, which it may stop, kill and fill."""
    started = RedisServer()
    yield started
    started.end()


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    """A client of an empty database on the server that the tests share."""
    with shared_server().client(fresh_database()) as opened:
        yield opened
