"""The names of the stores that this version does not have yet, so that imports of them work."""

from __future__ import annotations

from typing import Any

from voiceprint.errors import ConfigurationError

__all__ = ["SQLiteStorage"]


class SQLiteStorage:
    """Callers in an SQLite database; arrives in the next version."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigurationError("SQLiteStorage arrives in the next version: use JSONStorage until then.")
