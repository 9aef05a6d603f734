"""The record stores. `open_storage` opens one by its URL."""

from __future__ import annotations

from voiceprint.storage.backup import BackupReport, RestoreReport, back_up, read_backup, restore
from voiceprint.storage.base import START, Changes, ConsistentView, Deletion, Position, Storage
from voiceprint.storage.json import JSONStorage
from voiceprint.storage.memory import MemoryStorage
from voiceprint.storage.pruning import PruneReport, SpacePruneReport, prune_callers, prune_space
from voiceprint.storage.redis import RedisStorage
from voiceprint.storage.sql import SQLiteStorage, SQLStorage
from voiceprint.storage.transfer import CopyReport, copy_callers, digest, export_callers, import_callers
from voiceprint.storage.urls import configured_storage, open_storage

__all__ = [
    "START",
    "BackupReport",
    "Changes",
    "ConsistentView",
    "CopyReport",
    "Deletion",
    "JSONStorage",
    "MemoryStorage",
    "Position",
    "PruneReport",
    "RedisStorage",
    "RestoreReport",
    "SQLStorage",
    "SQLiteStorage",
    "SpacePruneReport",
    "Storage",
    "back_up",
    "configured_storage",
    "copy_callers",
    "digest",
    "export_callers",
    "import_callers",
    "open_storage",
    "prune_callers",
    "prune_space",
    "read_backup",
    "restore",
]
