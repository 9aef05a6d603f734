"""The errors of an index that are not a ValueError: what cannot be trusted, and what cannot be reached."""

from __future__ import annotations


class IndexCorruptError(Exception):
    """The file is not a snapshot of a vector index, or not one of this version, or damaged."""


class IndexUnavailableError(Exception):
    """The server that holds the index cannot be reached, or refuses; nothing was changed."""
