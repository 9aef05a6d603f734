"""Sign in with an API key, and sign out."""

from __future__ import annotations

import secrets
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from voiceprint.server.access import authenticate, service_of
from voiceprint.server.console.pages import render
from voiceprint.server.console.sessions import LONGEST_S, Sessions, form_token
from voiceprint.server.console.visit import (
    COOKIE,
    ConsoleRoute,
    Posted,
    Visitor,
    check_form,
    read_fields,
)
from voiceprint.server.problems import ProblemError

router = APIRouter(route_class=ConsoleRoute)

_FORM_COOKIE: Final = "voiceprint-login"
"""Cookie of the form to sign in, before there is a session: no other site can sign a person in."""


@router.get("/login")
async def login_page(request: Request, next: str = "/console/") -> Response:  # noqa: A002  as in the URL
    """The form to sign in."""
    return _login_page(request, next)


@router.post("/login")
async def login(request: Request) -> Response:
    """Sign in, and go to the page that was asked for."""
    form = await read_fields(request)
    key, following = form.get("key", "").strip(), form.get("next", "")
    check_form(request, form.get("csrf"), request.cookies.get(_FORM_COOKIE))
    service = service_of(request)
    try:
        principal = await authenticate(service, key)
    except ProblemError as error:
        wrong = "This key is not valid: it may be mistyped, expired or revoked."
        detail = wrong if error.status == 401 else str(error)
        return _login_page(request, following, error=detail, status=error.status)
    sessions = Sessions(service.database, service.keys)
    session = await service.work.run_light(sessions.begin, principal)
    response = RedirectResponse(_inside(following), status_code=303)
    _set_cookie(request, response, COOKIE, session.token)
    response.delete_cookie(_FORM_COOKIE, path="/console")
    return response


@router.post("/logout")
async def logout(visit: Visitor, _: Posted) -> Response:
    """End the session."""
    sessions = Sessions(visit.service.database, visit.service.keys)
    await visit.service.work.run_light(sessions.end, visit.session.token)
    response = RedirectResponse("/console/login", status_code=303)
    response.delete_cookie(COOKIE, path="/console")
    return response


def _login_page(request: Request, following: str, *, error: str | None = None, status: int = 200) -> Response:
    cookie = request.cookies.get(_FORM_COOKIE) or secrets.token_urlsafe(32)
    page = render(
        "login.html", status=status, visit=None, error=error, next=_inside(following), csrf=form_token(cookie)
    )
    _set_cookie(request, page, _FORM_COOKIE, cookie)
    return page


def _set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=int(LONGEST_S),
        path="/console",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _inside(path: str) -> str:
    """The path, if it is one of the console; else its first page."""
    is_inside = path.startswith("/console/") and path.isprintable() and "\\" not in path
    return path if is_inside else "/console/"
