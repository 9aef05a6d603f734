"""Access control: the dependencies of all routes that check the API key, its role and its gallery."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, NamedTuple, TypeVar
from urllib.parse import unquote

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from pydantic import TypeAdapter
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from voiceprint._audited import acting_as
from voiceprint.errors import GalleryNotFoundError, InvalidArgumentError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.idempotency import RequestKey
from voiceprint.server.keys import Principal, Role
from voiceprint.server.problems import ProblemError, problem_of
from voiceprint.server.service import Service
from voiceprint.validation import check_caller_id

R = TypeVar("R")

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


def check_sees_metadata(principal: Principal) -> None:
    """Raise `ProblemError` 403 for a key that does not see the metadata of callers."""
    if not principal.sees_metadata:
        raise ProblemError(
            403,
            "NotAllowedError",
            "This needs a key that sees metadata: one of the role admin, or made with --metadata.",
        )


def key_in_headers(connection: HTTPConnection) -> str | None:
    """The text of the API key in the headers, or None."""
    scheme, _, text = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text:
        return text.strip()
    return connection.headers.get("x-api-key")


class KeysFirst:
    """ASGI middleware that checks the key of a request of /v1 before anything reads its body.

    FastAPI reads and parses the JSON body of a route before its dependencies: a peer without a key would have
    the event loop parse megabytes.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            request = Request(scope)
            try:
                request.state.principal = await authenticate(self._service, key_in_headers(request))
            except ProblemError as error:
                await problem_of(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _principal(
    request: Request,
    _bearer_key: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _header_key: Annotated[str | None, Depends(_header)],
) -> Principal:
    principal: Principal | None = getattr(request.state, "principal", None)  # of `KeysFirst`
    if principal is None:
        principal = await authenticate(service_of(request), key_in_headers(request))
    return principal


class Access(NamedTuple):
    """A request on a gallery that is allowed."""

    service: Service
    principal: Principal
    gallery: str
    request_id: str
    request: Request
    response: Response
    idempotency_key: str | None = None

    @property
    def recognizer(self) -> OpusAgentVoiceRecognizer:
        """The recognizer of the gallery. Its store may be opened: not for the event loop."""
        return self.service.recognizer(self.gallery)

    @contextmanager
    def acting(self) -> Iterator[OpusAgentVoiceRecognizer]:
        """The recognizer, with the key as the actor of the audit log. Not for the event loop."""
        with acting_as(self.principal.actor, self.request_id):
            yield self.recognizer

    async def run(self, work: Callable[[OpusAgentVoiceRecognizer], R]) -> R:
        """Call `work` with the recognizer in a thread of the pool, with the key as the actor."""
        return await self.service.work.run(self._acting, work)

    def _acting(self, work: Callable[[OpusAgentVoiceRecognizer], R]) -> R:
        with self.acting() as recognizer:
            return work(recognizer)

    async def change(
        self,
        work: Callable[[OpusAgentVoiceRecognizer], R],
        kind: type[R],
        again: Callable[[OpusAgentVoiceRecognizer, R], R] | None = None,
        taken_over: Callable[[OpusAgentVoiceRecognizer], R] | None = None,
    ) -> R:
        """As `run`, once for each `Idempotency-Key`; for routes with the dependency `changing`.

        kind: of the answer. again: completes the stored answer of a repeated request, which has no metadata
        and no embeddings. taken_over: in place of `work` for a request within which a worker has ended, so
        that it may be done already.
        """
        if self.idempotency_key is None:
            return await self.run(work)
        key = RequestKey(self.principal.key_id, self.gallery, self.idempotency_key)
        parts = getattr(self.request.state, "form_parts", None) or (await self.request.body(),)

        def once(recognizer: OpusAgentVoiceRecognizer) -> tuple[R, bool]:
            digest = _digest(self.request, parts)  # in the thread, as a body may be large

            def do(was_begun: bool) -> R:
                return (taken_over if was_begun and taken_over is not None else work)(recognizer)

            answer, is_old = self.service.idempotency.once(key, digest, do, TypeAdapter(kind))
            return (again(recognizer, answer) if is_old and again is not None else answer), is_old

        answer, is_old = await self.run(once)
        if is_old:
            self.response.headers["Idempotency-Replayed"] = "true"
        return answer


def _digest(request: Request, parts: Iterable[bytes]) -> bytes:
    """The SHA-256 digest of a request: method, path, query and content."""
    target = f"{request.method} {request.scope['path']}?{request.url.query}"
    digests = (hashlib.sha256(part).digest() for part in (target.encode(), *parts))
    return hashlib.sha256(b"".join(digests)).digest()


def check_gallery(service: Service, principal: Principal, gallery: str) -> None:
    """Raise `GalleryNotFoundError` for a gallery that is not there or not for this key, with one message."""
    if gallery not in service or not principal.may_use(gallery):
        raise GalleryNotFoundError(f"There is no gallery {gallery!r} for this key.")


def allowed(*roles: Role) -> Callable[..., Awaitable[Access]]:
    """The dependency of a route on a gallery: a key with one of the roles, for this gallery."""

    async def dependency(
        request: Request,
        response: Response,
        principal: Annotated[Principal, Depends(_principal)],
        gallery: Annotated[str, Path(description="Name of the gallery.", examples=["default"])],
    ) -> Access:
        service = service_of(request)
        gallery = unquote(gallery)
        check_gallery(service, principal, gallery)
        check_role(principal, *roles)
        return Access(service, principal, gallery, request.state.request_id, request, response)

    return dependency


IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Unique text of the client for this request. A repetition with the same key within 24 "
        "hours gets the first answer, and changes nothing.",
        examples=["7f9c1a52-2f0e-4a8e-9a1f-0c5d7e6b3a11"],
    ),
]


def changing(*roles: Role) -> Callable[..., Awaitable[Access]]:
    """The dependency of a route that changes a gallery: as `allowed`, with the header `Idempotency-Key`."""
    allows = Depends(allowed(*roles))  # not in an annotation, whose names FastAPI looks up in the module

    async def dependency(
        access: Access = allows,
        idempotency_key: IdempotencyKey = None,
    ) -> Access:
        return access._replace(idempotency_key=idempotency_key)

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


async def _asks_for_embeddings(
    principal: Annotated[Principal, Depends(_principal)],
    embeddings: Annotated[
        bool, Query(description="Also the embeddings of voiceprints, for the role admin.")
    ] = False,
) -> bool:
    if embeddings:
        check_role(principal, "admin")
    return embeddings


WithEmbeddings = Annotated[bool, Depends(_asks_for_embeddings)]
"""Whether the answer has embeddings: a parameter of the query, for the role admin."""


async def caller_id_in_path(
    caller_id: Annotated[
        str, Path(description="Id of the caller, percent-encoded.", min_length=1, examples=["alice"])
    ],
) -> str:
    """The caller id of the path, decoded: `RawPaths` leaves path parameters as they were sent."""
    try:
        return check_caller_id(unquote(caller_id, errors="strict"))
    except UnicodeDecodeError:
        raise InvalidArgumentError("The caller id of the path is not UTF-8: percent-encode it so.") from None


CallerId = Annotated[str, Depends(caller_id_in_path)]
