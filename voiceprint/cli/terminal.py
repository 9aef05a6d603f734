"""Safe text for a terminal or a pipe: data never contains control characters."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson

# Characters that control a terminal, or reorder or break lines: C0, DEL and C1; direction controls;
# separators of lines and paragraphs; surrogates, which encode invalid bytes of a file name.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)

_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a formula in a spreadsheet, also in full width."""


def escaped(text: object) -> str:
    """`text` in one line, with control characters as `\\x1b` and `\\u202e`."""
    return _CONTROL.sub(_as_escape, str(text))


def _as_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def spreadsheet_cell(value: object) -> object:
    """The value for a spreadsheet: without control characters, and a formula as text, after an apostrophe."""
    if not isinstance(value, str):
        return value
    text = escaped(value)  # also a tab or line break before a formula
    return f"'{text}" if text.startswith(_FORMULA) else text


def json_text(value: Any, encoding: str) -> str:
    """`value` as indented JSON without control characters, within the characters of `encoding`."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError:  # a file name that is not UTF-8
        text = orjson.dumps(_as_unicode(value), option=orjson.OPT_INDENT_2).decode()
    # Control characters are only within strings: orjson indents with spaces and line breaks.
    return "\n".join(_in_json(line, encoding) for line in text.split("\n"))


def _in_json(line: str, encoding: str) -> str:
    line = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", line)
    try:
        line.encode(encoding)
    except UnicodeEncodeError:  # the encoding of an old terminal or pipe: escape to ASCII
        return re.sub("[^\x00-\x7f]", _as_utf_16, line)
    return line


def _as_utf_16(match: re.Match[str]) -> str:
    code = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{code[at : at + 4]}" for at in range(0, len(code), 4))


def _as_unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_as_unicode(key): _as_unicode(item) for key, item in value.items()}
    return [_as_unicode(item) for item in value] if isinstance(value, list | tuple) else value


def prepare_streams() -> None:
    """Let standard output and error write `\\u20ac` for characters outside their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Discard further standard output, whose reader is closed: Python flushes it at exit."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  a device
        os.dup2(nowhere.fileno(), sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Write the warnings of the library to standard error."""
    logger, handler = logging.getLogger("voiceprint"), _Complaints(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from voiceprint.cli.common import print_error

        print_error(record.getMessage())
