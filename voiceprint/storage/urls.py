"""Opens the store that a URL or the configuration names."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from voiceprint.errors import ConfigurationError
from voiceprint.storage.base import DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_VOICEPRINTS, Storage
from voiceprint.storage.json import JSONStorage
from voiceprint.storage.memory import MemoryStorage
from voiceprint.storage.redis import RedisStorage
from voiceprint.storage.sealing import Sealing
from voiceprint.storage.sql import SQLiteStorage, SQLStorage
from voiceprint.validation import hide_passwords, is_postgresql_url, shown

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

log = logging.getLogger(__name__)

FORMS = "json:PATH, sqlite:PATH, postgresql://USER@HOST/DATABASE, redis://HOST:PORT/DB or memory:"


def open_storage(
    url: str,
    *,
    max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
    encryption: Sealing | None = None,
    read_url: str | None = None,
    max_connections: int = DEFAULT_MAX_CONNECTIONS,
) -> Storage:
    """The store at `url`: json:PATH, sqlite:PATH, postgresql://USER@HOST/DATABASE, redis://HOST:PORT/DB or
    memory:.

    sqlite:///PATH is read as SQLAlchemy does: relative to the current folder, absolute with a fourth slash.

    encryption: of an encrypted store, such as `Encryption.from_config(config)` gives it
    (`voiceprint.privacy.encryption`). Not for memory:, which writes nothing.

    read_url: a streaming replica of a store on PostgreSQL, which answers reads of records where it has the
    last revision. max_connections: to a PostgreSQL server, of this store.

    Raises `ConfigurationError` for a URL of another form, and the errors of the store.
    """
    if isinstance(url, str) and is_postgresql_url(url):
        storage: Storage = SQLStorage(
            url,
            max_voiceprints_per_caller=max_voiceprints_per_caller,
            encryption=encryption,
            read_url=read_url,
            max_connections=max_connections,
        )
    elif read_url is not None:
        raise ConfigurationError(
            "VOICE_STORAGE_READ_URL is set, and the store is not on PostgreSQL, which alone has replicas to "
            "read from."
        )
    else:
        storage = _opened(url, max_voiceprints_per_caller, encryption)
    log.info("Opened the store %s.", storage.location)
    return storage


def _opened(url: str, limit: int, encryption: Sealing | None) -> Storage:
    if not isinstance(url, str):
        raise ConfigurationError(f"The URL of the store is {shown(url)}: give a text such as json:PATH.")
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "json" and rest:
        return JSONStorage(rest, max_voiceprints_per_caller=limit, encryption=encryption)
    if colon and scheme == "memory" and not rest:
        return MemoryStorage(max_voiceprints_per_caller=limit)
    if colon and scheme == "sqlite" and rest:
        return SQLiteStorage(sqlite_path(rest), max_voiceprints_per_caller=limit, encryption=encryption)
    if colon and scheme in ("redis", "rediss", "unix") and rest:
        return RedisStorage.from_url(url, max_voiceprints_per_caller=limit, encryption=encryption)
    raise ConfigurationError(f"{hide_passwords(url)!r} names no store: the forms are {FORMS}.")


def sqlite_path(rest: str) -> str:
    """The path after "sqlite:", also in the form of SQLAlchemy.

    There sqlite:///x.db is x.db in the current folder, and sqlite:////x.db is /x.db.
    """
    if not rest.startswith("//"):
        return rest
    if not rest.startswith("///") or rest == "///":
        raise ConfigurationError(
            f"{f'sqlite:{rest}'!r} names no file: give sqlite:PATH, or sqlite:///PATH (four slashes for an "
            "absolute path)."
        )
    return rest[3:]


def configured_url(config: VoiceFingerprintConfig) -> str:
    """The URL of the store that `config` chooses. It may hold a password."""
    urls = {"redis": config.redis_url, "postgresql": config.database_url}
    return urls.get(config.storage_backend, f"{config.storage_backend}:{config.storage_path}")


def configured_location(config: VoiceFingerprintConfig) -> str:
    """`Storage.location` of the store that `config` chooses, without opening it.

    A Redis Cluster is named as a server. Raises `ConfigurationError` for a bad URL.
    """
    if config.storage_backend == "redis":
        from voiceprint.storage.redis.urls import location_of

        return location_of(config.redis_url)
    if config.storage_backend == "postgresql":
        from voiceprint.storage.sql.dialect import dialect_of

        return dialect_of(config.database_url).location
    path = os.path.realpath(os.path.expanduser(config.storage_path))  # noqa: PTH111 - as the stores do
    return f"{config.storage_backend}:{path}"


def configured_storage(config: VoiceFingerprintConfig, *, encryption: Sealing | None = None) -> Storage:
    """The store that `config` chooses; encryption: as in `open_storage`."""
    url = configured_url(config)
    limit = config.max_voiceprints_per_caller
    return open_storage(
        url,
        max_voiceprints_per_caller=limit,
        encryption=encryption,
        read_url=config.storage_read_url,
        max_connections=config.database_pool,
    )
