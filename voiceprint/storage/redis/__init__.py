"""The Redis store."""

from __future__ import annotations

from voiceprint.storage.redis.store import RedisStorage

__all__ = ["RedisStorage"]
