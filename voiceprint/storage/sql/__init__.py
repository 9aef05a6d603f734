"""The SQL store, which SQLAlchemy runs on a database; `voiceprint.storage.sqlite` is the one on a file."""

from __future__ import annotations

from voiceprint.storage.sql.store import SQLStorage

__all__ = ["SQLStorage"]
