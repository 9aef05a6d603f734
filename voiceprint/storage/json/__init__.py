"""The JSON store."""

from __future__ import annotations

from voiceprint.storage.json.store import JSONStorage

__all__ = ["JSONStorage"]
