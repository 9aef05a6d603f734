"""`create_app`: the ASGI application of a service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

import voiceprint
from voiceprint.server.access import KeysFirst
from voiceprint.server.console import add_console
from voiceprint.server.limits import BodyLimits, RawPaths, RequestIds
from voiceprint.server.live import sockets
from voiceprint.server.live.sockets import AudioSocketServer
from voiceprint.server.openapi import DocumentedAPI
from voiceprint.server.problems import add_problem_handlers
from voiceprint.server.routes import (
    audit,
    callers,
    calls,
    groups,
    health,
    identification,
    jobs,
    upkeep,
    voiceprints,
)
from voiceprint.server.service import Service

_OBSERVED_EVERY_S: Final = 10.0  # Prometheus usually reads every 15 s

CONFIG_VARIABLE: Final = "VOICE_CONFIG"
GALLERIES_VARIABLE: Final = "VOICE_SERVER_GALLERIES"
"""Names of the galleries that `application` serves, separated by commas; all of the file without it."""

_DESCRIPTION: Final = """All paths of /v1 need an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.

Errors are problem documents (RFC 9457), whose `error` is the name of the library's error class. Ids in paths
are percent-encoded, also a slash. Requests that change take an `Idempotency-Key`."""


def create_app(service: Service) -> FastAPI:
    """The application of a service, which ends with it. Its OpenAPI document is at /openapi.json."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.openapi()  # takes half a second, which no request is to wait for
        await asyncio.to_thread(service.warm_up)
        service.start()
        observing = asyncio.create_task(_observe(service))
        service.live.start()
        audiosocket = AudioSocketServer(service.live)
        await audiosocket.start()
        yield
        observing.cancel()
        await audiosocket.close()
        await service.live.last(service.settings.shutdown_s)
        await service.live.close()
        await audiosocket.wait_closed()
        await asyncio.to_thread(service.close)

    app = DocumentedAPI(
        title="voiceprint",
        version=voiceprint.__version__,
        summary="Enroll callers by voice, and say who is calling.",
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    add_problem_handlers(app)
    for module in (health, identification, voiceprints, callers, groups, jobs, audit, upkeep, calls):
        app.include_router(module.router)
    app.include_router(calls.everywhere)
    app.include_router(sockets.router)
    if service.settings.console:
        add_console(app)
    app.add_middleware(KeysFirst, service=service)
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
