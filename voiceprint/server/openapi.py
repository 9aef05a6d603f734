"""`DocumentedAPI`: the OpenAPI document of the service, with an example for every operation."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from voiceprint.server.examples import ANSWERS, PROBLEM, REQUESTS
from voiceprint.server.problems import MEDIA_TYPE, Problem
from voiceprint.server.schemas import EnrollOptions, MatchOptions, VerifyOptions

_SCHEMAS: Final = "#/components/schemas/"

_PROBLEMS: Final = {
    400: "The request cannot be read.",
    401: "No valid key.",
    403: "The key lacks the role, or is for some galleries only.",
    404: "No such gallery for this key, or no such caller.",
    408: "The body arrived too slowly.",
    409: "The state of the caller or the settings do not allow it, or the first request with this "
    "Idempotency-Key is in progress.",
    413: "The body is too large.",
    422: "An argument or the audio cannot be used.",
    429: "Too many requests: repeat after `Retry-After` seconds.",
    503: "The store or the audit log cannot be used now, or the request waited too long: nothing was done.",
    504: "The request took too long; its outcome is not known.",
}

_AUDIO_BODIES: Final[dict[str, type[BaseModel] | None]] = {
    "identify": MatchOptions,
    "match_caller": MatchOptions,
    "identify_voices": MatchOptions,
    "verify": VerifyOptions,
    "enroll_caller": EnrollOptions,
    "check_enrollment": None,
    "get_embedding": None,
}
"""The operations that take audio, by their id, and their further fields: `audio.read_body` reads both."""

_AUDIO: Final = {"type": "string", "format": "binary", "description": "A file with a header, or raw samples."}
AUDIO_TYPES: Final = ("audio/wav", "audio/flac", "audio/ogg", "audio/mpeg", "application/octet-stream")

_TAGS: Final = {
    "health": "Whether the service works.",
    "identification": "Who is calling.",
    "voiceprints": "Enroll voices.",
    "callers": "The callers of a gallery, their consents and refusals.",
    "groups": "Groups of callers.",
    "jobs": "Long work beside the requests.",
    "audit": "Who did what.",
    "upkeep": "The state of a gallery.",
    "live calls": "Calls while they last.",
}


class DocumentedAPI(FastAPI):
    """A FastAPI application whose document has problem documents, bodies with audio, and examples."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            for model in filter(None, {*_AUDIO_BODIES.values(), Problem}):
                _add_schema(schemas, model)
            for methods in document["paths"].values():
                for operation in methods.values():
                    _complete(operation)
            document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
            self.openapi_schema = document
        return self.openapi_schema


def _add_schema(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
    for name, part in schema.pop("$defs", {}).items():
        schemas.setdefault(name, part)
    schemas.setdefault(model.__name__, schema)


def _complete(operation: dict[str, Any]) -> None:
    name, description = operation["operationId"], operation.get("description", "")
    # The first sentence of the docstring, in place of the function's name.
    operation["summary"] = re.split(r"(?<=\.)\s|\n\n", description)[0].removesuffix(".")
    if name in _AUDIO_BODIES:
        operation["requestBody"] = _audio_body(_AUDIO_BODIES[name])
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        example = REQUESTS.get(name, {}).get(media)
        if example is None and media in AUDIO_TYPES:
            example = "(the bytes of the recording)"
        content["examples"] = {"example": {"value": example}}
    for status, response in operation["responses"].items():
        if status < "400":
            response["description"] = HTTPStatus(int(status)).phrase
            for content in response.get("content", {}).values():
                content["examples"] = {"example": {"value": ANSWERS.get(name)}}
    if operation.get("security"):
        operation["responses"] |= {str(status): _problem(status, text) for status, text in _PROBLEMS.items()}


def _problem(status: int, text: str) -> dict[str, Any]:
    example = PROBLEM | {"status": status, "title": HTTPStatus(status).phrase}
    content = {"schema": {"$ref": f"{_SCHEMAS}Problem"}, "examples": {"example": {"value": example}}}
    return {"description": text, "content": {MEDIA_TYPE: content}}


def _audio_body(options: type[BaseModel] | None) -> dict[str, Any]:
    """The body of an operation with audio: a form, the audio alone, or JSON with an embedding."""
    form: dict[str, Any] = {"type": "object", "properties": {"audio": _AUDIO}, "required": ["audio"]}
    encoding = {"audio": {"contentType": ", ".join(AUDIO_TYPES)}}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form, "encoding": encoding}}
    content |= {media: {"schema": _AUDIO} for media in AUDIO_TYPES}
    if options is not None:
        fields = options.model_json_schema(ref_template=_SCHEMAS + "{model}")["properties"]
        for field, schema in fields.items():
            if field in ("embedding", "augmented"):
                continue  # in place of audio
            form["properties"][field] = schema
            if any(part.get("type") in ("array", "object") for part in (schema, *schema.get("anyOf", ()))):
                encoding[field] = {"contentType": "application/json"}
        content["application/json"] = {"schema": {"$ref": _SCHEMAS + options.__name__}}
    return {"required": True, "content": content}
