"""The console: pages to watch the service, to try it, and to set the target. docs/console.md explains it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceprint.server.console import audit, callers, live, overview, signing, threshold, trial
from voiceprint.server.console.figures import Readings
from voiceprint.server.console.pages import FOLDER
from voiceprint.server.console.visit import ConsoleRoute
from voiceprint.server.problems import ProblemError

__all__ = ["add_console"]

_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode("ascii")),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(self)"),
    # Not "no-referrer": the browser would then not name the origin of a form.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)


def add_console(app: FastAPI) -> None:
    """Add the console to the application, at /console/, and lead there from the root."""
    app.mount("/console/static", StaticFiles(directory=FOLDER / "static"))
    router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)
    for module in (signing, overview, callers, trial, threshold, live, audit):
        router.include_router(module.router)
    router.add_api_route("/{path:path}", _no_page, methods=["GET", "POST"])  # the last: all that is left
    app.state.console_readings = Readings()
    app.include_router(router)
    for place in ("/", "/console"):
        app.add_api_route(place, _to_console, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_middleware(_ConsoleHeaders)


async def _to_console() -> RedirectResponse:
    return RedirectResponse("console/")  # relative: the Host header names what the client says


async def _no_page(path: str) -> None:
    """Any other path. Raises `ProblemError`."""
    raise ProblemError(404, "NoSuchPathError", f"The console has no page {path[:80]!r}.")


class _ConsoleHeaders:
    """Adds the headers that forbid a page of the console all that it does not need."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or not scope["path"].startswith("/console"):
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, sending)
