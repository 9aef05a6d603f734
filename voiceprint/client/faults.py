"""The library's errors of the problem documents of the service."""

from __future__ import annotations

from typing import Any, Final

import httpx
import orjson
from pydantic import ValidationError

from voiceprint import errors
from voiceprint.audio import AudioQuality
from voiceprint.errors import (
    AudioQualityError,
    ServiceAccessError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
    VoiceprintError,
)

MEDIA_TYPE: Final = "application/problem+json"

# An older or newer service may have others, which then arrive as `ServiceError`.
_OURS: Final = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, VoiceprintError) and not issubclass(kind, ServiceError)
}


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of `Retry-After`; None without one, and for a date, which proxies alone send."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def error_of(response: httpx.Response) -> VoiceprintError:
    """The error of an answer that is not the expected one."""
    problem = _problem(response)
    if problem is None:
        return _foreign(response)
    name, detail = str(problem["error"]), str(problem["detail"])
    kind = _OURS.get(name)
    if kind is not None and issubclass(kind, AudioQualityError):
        try:
            return kind(detail, AudioQuality.model_validate(problem.get("quality")))
        except ValidationError:  # of another version; the message remains
            kind = None
    if kind is not None:
        return kind(detail)
    facts: dict[str, Any] = {
        "status": response.status_code,
        "error": name,
        "request_id": problem.get("request_id"),
        "retry_after_s": retry_after_s(response),
    }
    return _kind(response.status_code)(f"{detail} ({name}, request {facts['request_id']})", **facts)


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The problem document of an answer, or None."""
    if response.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        return None
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:  # not a document of the service
        return None
    if not isinstance(problem, dict) or not {"error", "detail"} <= problem.keys():
        return None
    return problem


def _foreign(response: httpx.Response) -> ServiceError:
    """The error of an answer that is not of the service: of a proxy, or of another server."""
    status = response.status_code
    place = f"{response.request.url.scheme}://{response.request.url.netloc.decode('ascii')}"
    if response.has_redirect_location:
        advice = "it redirects to another place, which a client does not follow: give the URL of the service"
    elif status in (502, 503, 504):
        advice = "a proxy in front of the service does not reach it"
    else:
        advice = "is the URL that of a voiceprint service, and its version that of this client?"
    facts: dict[str, Any] = {"status": status, "retry_after_s": retry_after_s(response)}
    return _kind(status)(f"The answer of {place} has the status {status} and no problem: {advice}.", **facts)


def _kind(status: int) -> type[ServiceError]:
    if status in (401, 403):
        return ServiceAccessError
    if status == 429:
        return ServiceBusyError
    return ServiceUnavailableError if status in (408, 502, 503, 504) else ServiceError
