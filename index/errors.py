"""The one error of the index that is not a ValueError: a snapshot that cannot be trusted."""

from __future__ import annotations


class IndexCorruptError(Exception):
    """The file is not a snapshot of a vector index, or not one of this version, or damaged."""
