"""`Call`: a request of the client before it is sent, and how to read its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import orjson

from voiceprint.validation import check_caller_id

T = TypeVar("T")

_NAME: Final = "audio"  # of the file in a form: without one, servers take a field for text


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and the function that reads its answer.

    path: below that of the gallery, percent-encoded; from the root of the service if it begins with a slash.
    read: takes the JSON value of the answer. changes: whether it changes the gallery, and so gets an
    idempotency key. has_voiceprints: whether the answer has embeddings where the client asks for them.
    statuses: of answers that `read` takes. none_if_missing: whether a caller who is not there is the answer
    None. query: of the URL. audio: the body, or the file of a form with the fields. fields: of a form beside
    audio, else of a JSON object; None for no body.
    """

    method: str
    path: str
    read: Callable[[Any], T] = field(repr=False)
    changes: bool = False
    has_voiceprints: bool = False
    statuses: frozenset[int] = frozenset({200, 201})
    none_if_missing: bool = False
    query: Mapping[str, str | list[str]] = field(default_factory=dict, repr=False)
    audio: bytes | None = field(default=None, repr=False)
    fields: Mapping[str, Any] | None = field(default=None, repr=False)

    def body(self) -> dict[str, Any]:
        """The body, as arguments of `httpx.Client.build_request`."""
        if self.audio is None:
            if self.fields is None:
                return {}
            return {"content": orjson.dumps(self.fields), "headers": {"Content-Type": "application/json"}}
        if not self.fields:
            return {"content": self.audio, "headers": {"Content-Type": "application/octet-stream"}}
        texts = {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in self.fields.items()
        }
        return {"files": {"audio": (_NAME, self.audio, "application/octet-stream")}, "data": texts}


def part(text: str) -> str:
    """A text as one part of a path. Dots too: proxies and clients resolve a part `..`."""
    return quote(text, safe="").replace(".", "%2E")


def id_part(caller_id: object) -> str:
    """A caller id as one part of a path. Raises `InvalidArgumentError`."""
    return part(check_caller_id(caller_id))
