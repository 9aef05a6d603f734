"""RFC 9457 problem documents for the errors of the library and of the service."""

from __future__ import annotations

import inspect
import logging
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from voiceprint.audio import AudioQuality
from voiceprint.errors import (
    AudioQualityError,
    AuditError,
    CallerNotFoundError,
    CallerOptedOutError,
    ConfigurationError,
    ConsentRequiredError,
    DisabledError,
    EncoderError,
    GalleryNotFoundError,
    InvalidArgumentError,
    InvalidAudioError,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    VoiceMismatchError,
    VoiceprintError,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

# The first class that an error belongs to counts.
_STATUS: Final[dict[type[VoiceprintError], int]] = {
    InvalidAudioError: 422,
    AudioQualityError: 422,
    InvalidArgumentError: 422,
    CallerNotFoundError: 404,
    GalleryNotFoundError: 404,
    CallerOptedOutError: 409,
    ConsentRequiredError: 409,
    VoiceMismatchError: 409,
    DisabledError: 409,
    ConfigurationError: 409,
    AuditError: 503,
    StorageUnavailableError: 503,
    StorageCorruptError: 500,
    StorageError: 500,
    EncoderError: 500,
}

# Their messages name paths, hosts and versions of the server: they go into its log.
_INTERNAL: Final[dict[type[VoiceprintError], str]] = {
    AuditError: "The audit log cannot be written or read. The operation itself may have taken place.",
    StorageUnavailableError: "The record store cannot be used now. Try again later.",
    StorageCorruptError: "The content of the record store is not valid. Run `voiceprint check`.",
    StorageError: "The record store failed.",
    EncoderError: "The encoder failed.",
}

RETRY_AFTER_S: Final = 5
"""Seconds that a client waits after 503: as long as a database may take to fail over."""


class ProblemError(VoiceprintError):
    """An error of the service itself, such as a missing key.

    status: of HTTP. error: its name, such as "NotAllowedError". headers: of the response.
    """

    def __init__(self, status: int, error: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.headers = status, error, headers


class Problem(BaseModel):
    """An error, as RFC 9457 describes it.

    error: the name of the error class of the library, or of the service. detail: the fault, with the value
    and the remedy. feedback, quality: of audio, where the audio is the fault. request_id: in the server's
    log, and the correlation id of the audit log.
    """

    type: str = Field(examples=["urn:voiceprint:error:CallerNotFoundError"])
    title: str = Field(examples=["The store holds no caller with this id."])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no caller 'alice'."])
    error: str = Field(examples=["CallerNotFoundError"])
    request_id: str | None = Field(default=None, examples=["5f0c2d9e1a7b4c3d"])
    feedback: list[str] | None = None
    quality: AudioQuality | None = None
    errors: list[dict[str, Any]] | None = None


def problem_response(
    request: Request,
    status: int,
    error: str,
    detail: str,
    *,
    title: str | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """A response with a problem document."""
    document = Problem(
        type=f"urn:voiceprint:error:{error}",
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=_unicode(detail),
        error=error,
        request_id=getattr(request.state, "request_id", None),
        **more,
    )
    content = document.model_dump(exclude_none=True, mode="json")
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _unicode(text: str) -> str:
    """The text with half surrogate pairs, which JSON can escape and UTF-8 cannot, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def public_message(error: VoiceprintError) -> str:
    """The message of an error for a client: without paths, hosts and versions of the server."""
    internal = next((text for kind, text in _INTERNAL.items() if isinstance(error, kind)), None)
    if internal is None and not isinstance(error, (ProblemError, *_STATUS)):
        internal = "The operation failed; the server's log has the error."
    return internal or str(error)


def problem_of(request: Request, error: VoiceprintError) -> JSONResponse:
    """The problem document of an error of the library."""
    if isinstance(error, ProblemError):
        return problem_response(request, error.status, error.error, str(error), headers=error.headers)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    detail = public_message(error)
    if detail != str(error):
        logger.error("%s of request %s: %s", type(error).__name__, request.state.request_id, error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    title = (inspect.getdoc(type(error)) or type(error).__name__).splitlines()[0]
    more: dict[str, Any] = {}
    if isinstance(error, AudioQualityError):
        more = {"feedback": list(error.quality.feedback), "quality": error.quality}
        counter = request.app.state.service.metrics.refused_audio
        for reason in error.quality.feedback:
            # Decoded: each spelling with percent signs would be a label of its own.
            counter.labels(unquote(request.path_params.get("gallery", "")), reason).inc()
    return problem_response(
        request, status, type(error).__name__, detail, title=title, headers=headers, **more
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Answer all errors with problem documents."""

    @app.exception_handler(VoiceprintError)
    async def _ours(request: Request, error: VoiceprintError) -> JSONResponse:
        return problem_of(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may be an embedding or metadata.
        faults = [
            {
                "loc": [_unicode(str(part)) for part in one["loc"]],
                "msg": _unicode(one["msg"]),
                "type": one["type"],
            }
            for one in error.errors()
        ]
        places = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in faults[:5])
        return problem_response(request, 422, "InvalidArgumentError", f"{places}.", errors=faults)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        name = {404: "NoSuchPathError", 405: "MethodNotAllowedError"}.get(error.status_code, "RequestError")
        headers = dict(error.headers) if error.headers else {}
        documented = request.app.openapi()["paths"].get(getattr(request.scope.get("route"), "path", None))
        if error.status_code == 405 and documented:
            # Of all routes of this path: FastAPI names those of the first.
            headers["Allow"] = ", ".join(sorted(method.upper() for method in documented))
        detail = {
            404: "No operation has this path: GET /openapi.json lists all.",
            405: f"{request.method} is not allowed here: send {headers.get('Allow')}.",
        }.get(error.status_code, f"{error.detail}.")
        return problem_response(request, error.status_code, name, detail, headers=headers)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        # By its class alone: the message of an unknown error may hold values of the request. The traceback
        # of the server has the place.
        request_id = getattr(request.state, "request_id", None)
        logger.error("%s in request %s", type(error).__name__, request_id)
        detail = "An unexpected error: the server's log has it under this request id."
        return problem_response(request, 500, "InternalError", detail)
