"""Who may do what: the dependencies of all routes that check the API key, its role and its gallery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, NamedTuple
from urllib.parse import unquote

from fastapi import Depends, Path, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.requests import HTTPConnection

from voiceprint._audited import acting_as
from voiceprint.errors import GalleryNotFoundError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.keys import Principal, Role
from voiceprint.server.problems import ProblemError
from voiceprint.server.service import Service
from voiceprint.validation import check_caller_id

_bearer = HTTPBearer(auto_error=False, description="An API key of `voiceprint keys create`.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same, in a header of its own.")


def service_of(connection: HTTPConnection) -> Service:
    """The service of the application that received this request or websocket."""
    service: Service = connection.app.state.service
    return service


async def authenticate(service: Service, text: str | None) -> Principal:
    """The holder of the key `text`, within the limit of its rate. Raises `ProblemError`: 401, 429."""
    principal = None
    if text:
        principal = await service.work.run_light(service.keys.authenticate, text)
    if principal is None:
        raise ProblemError(
            401,
            "NotAuthenticatedError",
            "This needs an API key that is valid now, as `Authorization: Bearer KEY` or `X-API-Key: KEY`: "
            "`voiceprint keys create` makes one.",
            {"WWW-Authenticate": "Bearer"},
        )
    wait_s = service.rates.wait_s(principal)
    if wait_s > 0:
        service.metrics.refused_requests.labels("rate").inc()
        raise ProblemError(
            429,
            "RateLimitError",
            f"This key has used its requests of this minute: try again in {wait_s} s.",
            {"Retry-After": str(wait_s)},
        )
    return principal


def check_role(principal: Principal, *roles: Role) -> None:
    """Raise `ProblemError` 403 unless the key has one of the roles."""
    if principal.roles.isdisjoint(roles):
        raise ProblemError(
            403,
            "NotAllowedError",
            f"This needs a key with the role {' or '.join(roles)}: this key has another.",
        )


def key_in_headers(connection: HTTPConnection) -> str | None:
    """The text of the API key in the headers, or None."""
    scheme, _, text = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text:
        return text.strip()
    return connection.headers.get("x-api-key")


async def _principal(
    request: Request,
    _bearer_key: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _header_key: Annotated[str | None, Depends(_header)],
) -> Principal:
    principal = await authenticate(service_of(request), key_in_headers(request))
    request.state.principal = principal
    return principal


class Access(NamedTuple):
    """A request on a gallery that is allowed."""

    service: Service
    principal: Principal
    gallery: str
    request_id: str

    @property
    def recognizer(self) -> OpusAgentVoiceRecognizer:
        """The recognizer of the gallery. Its store may be opened: not for the event loop."""
        return self.service.recognizer(self.gallery)

    @contextmanager
    def acting(self) -> Iterator[OpusAgentVoiceRecognizer]:
        """The recognizer, with the key as the actor of the audit log. Not for the event loop."""
        with acting_as(self.principal.actor, self.request_id):
            yield self.recognizer


def check_gallery(service: Service, principal: Principal, gallery: str) -> None:
    """Raise `GalleryNotFoundError` for a gallery that is not there or not for this key, with one message."""
    if gallery not in service or not principal.may_use(gallery):
        raise GalleryNotFoundError(f"There is no gallery {gallery!r} for this key.")


def allowed(*roles: Role) -> Callable[..., Awaitable[Access]]:
    """The dependency of a route on a gallery: a key with one of the roles, for this gallery."""

    async def dependency(
        request: Request,
        principal: Annotated[Principal, Depends(_principal)],
        gallery: Annotated[str, Path(description="Name of the gallery.", examples=["default"])],
    ) -> Access:
        service = service_of(request)
        gallery = unquote(gallery)
        check_gallery(service, principal, gallery)
        check_role(principal, *roles)
        return Access(service, principal, gallery, request.state.request_id)

    return dependency


def allowed_everywhere(*roles: Role) -> Callable[..., Awaitable[Principal]]:
    """The dependency of a route on the whole service: a key with one of the roles, for all galleries."""

    async def dependency(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
        check_role(principal, *roles)
        if principal.galleries is not None:
            raise ProblemError(
                403, "NotAllowedError", "This needs a key for all galleries: this one is for some."
            )
        return principal

    return dependency


async def any_key(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    """The dependency of a route that any valid key may use."""
    return principal


def caller_id_in_path(
    caller_id: Annotated[
        str, Path(description="Id of the caller, percent-encoded.", min_length=1, examples=["alice"])
    ],
) -> str:
    """The caller id of the path, decoded: `RawPaths` leaves path parameters as they were sent."""
    return check_caller_id(unquote(caller_id, errors="strict"))


CallerId = Annotated[str, Depends(caller_id_in_path)]
