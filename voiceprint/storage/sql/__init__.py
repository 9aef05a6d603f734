"""The SQL stores: SQLite, PostgreSQL, and other databases that SQLAlchemy supports."""

from __future__ import annotations

from voiceprint.storage.sql.store import SQLiteStorage, SQLStorage

__all__ = ["SQLStorage", "SQLiteStorage"]
