"""`create_app`: the ASGI application of a service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

import voiceprint
from voiceprint.server.console import add_console
from voiceprint.server.limits import BodyLimits, RawPaths, RequestIds
from voiceprint.server.problems import Problem, add_problem_handlers
from voiceprint.server.routes import audit, callers, groups, health, identification, upkeep, voiceprints
from voiceprint.server.service import Service

_OBSERVED_EVERY_S: Final = 10.0  # Prometheus usually reads every 15 s

CONFIG_VARIABLE: Final = "VOICE_CONFIG"
GALLERIES_VARIABLE: Final = "VOICE_SERVER_GALLERIES"
"""Names of the galleries that `application` serves, separated by commas; all of the file without it."""

_PROBLEMS: Final = {
    status: {"model": Problem, "description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        401: "No valid key.",
        403: "The key lacks the role.",
        404: "No such gallery or caller.",
        409: "The state of the caller or the settings do not allow it.",
        422: "An argument or the audio cannot be used.",
        429: "Too many requests: repeat after `Retry-After` seconds.",
        503: "The store or the audit log cannot be used now.",
    }.items()
}


def create_app(service: Service) -> FastAPI:
    """The application of a service, which ends with it. Its interactive documentation is at /docs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.warm_up)
        observing = asyncio.create_task(_observe(service))
        yield
        observing.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="voiceprint",
        version=voiceprint.__version__,
        summary="Enroll callers by voice, and say who is calling.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        responses=_PROBLEMS,  # type: ignore[arg-type]
    )
    app.state.service = service
    add_problem_handlers(app)
    for module in (health, identification, voiceprints, callers, groups, audit, upkeep):
        app.include_router(module.router)
    if service.settings.console:
        add_console(app)
    app.add_middleware(BodyLimits, settings=service.settings)
    app.add_middleware(RawPaths)
    app.add_middleware(RequestIds, metrics=service.metrics)
    return app


async def _observe(service: Service) -> None:
    """Measure the indexes of this worker, also while another one answers for the metrics."""
    while True:
        await service.work.run_light(service.observe)
        await asyncio.sleep(_OBSERVED_EVERY_S)


def application() -> FastAPI:
    """The application of the environment, for the workers of `voiceprint serve` and other ASGI servers.

    `VOICE_CONFIG` names the file of the galleries; without it, the store of the other `VOICE_*` variables is
    the gallery `default`.
    """
    names = os.environ.get(GALLERIES_VARIABLE)
    only = names.split(",") if names else None
    return create_app(Service.open(config=os.environ.get(CONFIG_VARIABLE) or None, only=only))
