"""A vector index that knows nothing of voices: ids and unit vectors in, the nearest ids out."""

from __future__ import annotations

from voiceprint.index.base import SearchIndex, WritableIndex
from voiceprint.index.errors import IndexCorruptError, IndexMovedError, IndexUnavailableError
from voiceprint.index.id_sets import IdSet
from voiceprint.index.snapshot import CODED_KIND, Coding, read_stamp
from voiceprint.index.vector_index import IndexStatus, VectorIndex

__all__ = [
    "CODED_KIND",
    "Coding",
    "IdSet",
    "IndexCorruptError",
    "IndexMovedError",
    "IndexStatus",
    "IndexUnavailableError",
    "SearchIndex",
    "VectorIndex",
    "WritableIndex",
    "read_stamp",
]
