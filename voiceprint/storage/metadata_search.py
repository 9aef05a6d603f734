"""The callers whose metadata has given values: equality of top-level keys, with the types of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from voiceprint.errors import InvalidArgumentError
from voiceprint.validation import check_metadata, shown

__all__ = ["MetadataFilter"]


class MetadataFilter:
    """The values to find. 1, 1.0, true and "1" are four values; the order of keys in an object is no matter.

    metadata: the value of each top-level key. Raises `InvalidArgumentError` for an empty filter, or values
    that no metadata can have.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        if not isinstance(metadata, Mapping):
            raise InvalidArgumentError(
                f"The metadata to find is {shown(metadata)}: give a dict of keys and values."
            )
        self.values = check_metadata(dict(metadata))
        if not self.values:
            raise InvalidArgumentError(
                "The metadata to find has no key: give at least one, or use `callers`."
            )
        self._canonical = {key: _canonical(value) for key, value in self.values.items()}

    def accepts(self, metadata: Mapping[str, Any]) -> bool:
        """Whether metadata has all these values."""
        return all(
            key in metadata and _canonical(metadata[key]) == text for key, text in self._canonical.items()
        )

    def scalars(self) -> dict[str, str | int | float | bool]:
        """The values that are neither null nor an array or object."""
        return {
            key: value for key, value in self.values.items() if isinstance(value, str | int | float | bool)
        }


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
