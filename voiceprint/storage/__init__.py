"""The record stores. `open_storage` opens one by its URL."""

from __future__ import annotations

from voiceprint.storage.base import Changes, Storage
from voiceprint.storage.json import JSONStorage
from voiceprint.storage.memory import MemoryStorage
from voiceprint.storage.pending import SQLiteStorage
from voiceprint.storage.redis import RedisStorage
from voiceprint.storage.urls import configured_storage, open_storage

__all__ = [
    "Changes",
    "JSONStorage",
    "MemoryStorage",
    "RedisStorage",
    "SQLiteStorage",
    "Storage",
    "configured_storage",
    "open_storage",
]
