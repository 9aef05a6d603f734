"""The errors of an index that are not a ValueError: what cannot be trusted, and what cannot be reached."""

from __future__ import annotations


class IndexCorruptError(Exception):
    """The file is not a snapshot of a vector index, or not one of this version, or damaged."""


class IndexUnavailableError(Exception):
    """The server that holds the index cannot be reached, or refuses; nothing was changed."""


class IndexMovedError(Exception):
    """Another process has changed the index since the stamp that the caller expected; nothing was changed."""
