"""Metadata on the command line: KEY=VALUE for text, KEY:=JSON for other values."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from voiceprint.errors import InvalidArgumentError

VALUE_HELP = "KEY:=JSON for a number, true, null, a list or an object."

MetadataPairs = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE...", help=VALUE_HELP, show_default=False),
]


def parse_metadata(pairs: list[str]) -> dict[str, Any]:
    """The values by key. Raises `InvalidArgumentError`."""
    fields: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        is_json = key.endswith(":")
        key = key.removesuffix(":")
        if not equals or not key:
            raise InvalidArgumentError(f"{pair!r} is not KEY=VALUE, nor KEY:=JSON.")
        if key in fields:
            raise InvalidArgumentError(f"The key {key!r} is given twice.")
        fields[key] = _parsed(key, text) if is_json else text
    return fields


def _parsed(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidArgumentError(
            f'The value of {key}:= is not JSON: give a number, true, false, null, "text", [...] or {{...}}, '
            f"or {key}=VALUE for text."
        ) from None
