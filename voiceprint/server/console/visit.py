"""`Visit`: a request of a signed-in person, and the rules of the console's pages and forms."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from voiceprint._audited import acting_as
from voiceprint.errors import InvalidArgumentError, VoiceprintError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.access import check_gallery, check_role, service_of
from voiceprint.server.audio import AudioQuery, Body, read_body
from voiceprint.server.console.pages import render
from voiceprint.server.console.sessions import Session, Sessions, form_token
from voiceprint.server.keys import Principal, Role
from voiceprint.server.problems import ProblemError, problem_of
from voiceprint.server.service import Service

COOKIE: Final = "voiceprint-session"
REFRESH_HEADER: Final = "x-console-refresh"
"""Header of a request that a page makes by itself, which does not postpone the end of an idle session."""

_FORM_BYTES: Final = 64 * 1024
"""Bytes of a form without a file: four texts of 512 characters, percent-encoded, are 25 kB. Anyone may send
that of the sign-in, and a larger one would keep the event loop busy."""


class SignInError(ProblemError):
    """Nobody is signed in."""

    def __init__(self) -> None:
        super().__init__(401, "NotAuthenticatedError", "Sign in with an API key.")


class Visit(NamedTuple):
    """A request of a signed-in person. gallery: of the page; None on pages of the whole service."""

    request: Request
    service: Service
    session: Session
    gallery: str | None

    @property
    def principal(self) -> Principal:
        """The holder of the key that signed in."""
        return self.session.principal

    @property
    def galleries(self) -> list[str]:
        """The galleries that the key is for."""
        return [name for name in self.service if self.principal.may_use(name)]

    @property
    def opened(self) -> str:
        """The gallery of the page. Raises `AssertionError` on pages of the whole service."""
        assert self.gallery is not None  # noqa: S101  the routes with a gallery call this
        return self.gallery

    def may(self, *roles: Role) -> bool:
        """Whether the key has one of the roles."""
        return not self.principal.roles.isdisjoint(roles)

    @contextmanager
    def acting(self) -> Iterator[OpusAgentVoiceRecognizer]:
        """The recognizer of the gallery, with the key as the actor. Not for the event loop."""
        with acting_as(self.principal.actor, self.request.state.request_id):
            yield self.service.recognizer(self.opened)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page of the console."""
        return render(
            template,
            status=status,
            visit=self,
            galleries=self.galleries,
            gallery=self.gallery or next(iter(self.galleries), None),
            csrf=self.session.csrf,
            path=self.request.url.path,
            **values,
        )


async def find_session(
    connection: HTTPConnection, *, is_use: bool = True, is_request: bool = True
) -> Session:
    """The session of the cookie. Raises `SignInError`.

    is_use: whether this postpones the end of an idle session. is_request: whether this counts for the rate of
    its key; raises `ProblemError` 429 beyond its limit.
    """
    service, token = service_of(connection), connection.cookies.get(COOKIE)
    session = None
    if token:
        sessions = Sessions(service.database, service.keys)
        session = await service.work.run_light(sessions.find, token, is_use=is_use)
    if session is None:
        raise SignInError
    wait_s = service.rates.wait_s(session.principal) if is_request else 0
    if wait_s > 0:
        detail = f"This key has used its requests of this minute: try again in {wait_s} s."
        raise ProblemError(429, "RateLimitError", detail, {"Retry-After": str(wait_s)})
    return session


async def signed_in(request: Request) -> Visit:
    """The dependency of a page of the whole service."""
    session = await find_session(request, is_use=REFRESH_HEADER not in request.headers)
    return Visit(request, service_of(request), session, None)


Visitor = Annotated[Visit, Depends(signed_in)]


def visitor(*roles: Role) -> Callable[..., Awaitable[Visit]]:
    """The dependency of a page of a gallery, for keys with one of the roles."""

    async def dependency(visit: Visitor, gallery: str) -> Visit:
        check_gallery(visit.service, visit.principal, gallery)
        check_role(visit.principal, *roles)
        return visit._replace(gallery=gallery)

    return dependency


async def posted(request: Request) -> Body:
    """The dependency of a form: its fields and audio, after a check that a page of the session sent it."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = await read_body(request, AudioQuery(None, None, None, 1))
    else:
        body = Body(None, dict(await read_fields(request)), AudioQuery(None, None, None, 1), 0.0)
    check_form(request, body.fields.pop("csrf", None), request.cookies.get(COOKIE))
    return body


async def read_fields(request: Request) -> dict[str, str]:
    """The fields of a form without a file. Raises `ProblemError` 413, and for a body that is none."""
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > _FORM_BYTES:
            raise ProblemError(413, "RequestTooLargeError", f"A form has at most {_FORM_BYTES} bytes.")
    try:
        return dict(parse_qsl(content.decode("ascii"), keep_blank_values=True, max_num_fields=100))
    except ValueError:  # other characters, or more fields
        raise ProblemError(400, "RequestError", "The form cannot be read.") from None


Posted = Annotated[Body, Depends(posted)]


def check_form(request: Request, sent: object, cookie: str | None) -> None:
    """Raise `ProblemError` 403 unless a page that belongs to the cookie has sent this form."""
    is_ours = (
        isinstance(sent, str) and cookie and hmac.compare_digest(sent.encode(), form_token(cookie).encode())
    )
    if not is_ours or not is_same_origin(request):
        raise ProblemError(
            403,
            "FormError",
            "This form was not sent by a page of this session: load the page again, and repeat.",
        )


def is_same_origin(connection: HTTPConnection) -> bool:
    """Whether the browser names this host as the origin of the request, or no origin at all."""
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")


class ConsoleRoute(APIRoute):
    """A route whose errors are pages. Without a session it leads to the sign-in, and back."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.methods and "GET" in self.methods:
            self.methods.add("HEAD")  # whose answer the server sends without the page

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """As FastAPI's."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except SignInError as error:
                return _to_sign_in(request, error)
            except VoiceprintError as error:
                return await _error_page(request, error)
            except RequestValidationError as error:
                first = error.errors()[0]
                name = ".".join(map(str, first["loc"][1:]))
                return await _error_page(request, InvalidArgumentError(f"{name}: {first['msg']}."))

        return handle


def _to_sign_in(request: Request, error: SignInError) -> Response:
    if REFRESH_HEADER in request.headers:  # the page loads itself again, and so gets here
        return render("part_error.html", status=401, detail=str(error))
    url = request.url
    here = url.path + (f"?{url.query}" if url.query else "") if request.method == "GET" else "/console/"
    return RedirectResponse(f"/console/login?next={quote(here)}", status_code=303)


async def _error_page(request: Request, error: VoiceprintError) -> Response:
    response = problem_of(request, error)
    problem = json.loads(bytes(response.body))
    headers = {name: response.headers[name] for name in ("retry-after",) if name in response.headers}
    if REFRESH_HEADER in request.headers:
        return render(
            "part_error.html", status=response.status_code, headers=headers, detail=problem["detail"]
        )
    values = {"problem": problem, "back": _page_before(request)}
    try:
        visit = await signed_in(request)
    except ProblemError:  # the page of the error without the navigation
        return render("error.html", status=response.status_code, headers=headers, visit=None, **values)
    page = visit.page("error.html", status=response.status_code, **values)
    page.headers.update(headers)
    return page


def _page_before(request: Request) -> str | None:
    """The path of the console's page that sent this request, or None."""
    url = urlsplit(request.headers.get("referer", ""))
    is_ours = url.netloc == request.headers.get("host") and url.path.startswith("/console/")
    return url.path + (f"?{url.query}" if url.query else "") if is_ours else None
