"""Health, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from voiceprint.errors import VoiceprintError
from voiceprint.server.access import allowed_everywhere, service_of
from voiceprint.server.keys import Principal
from voiceprint.server.service import Service

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


class Readiness(BaseModel):
    """status: "ready", "not ready" or "stopping". state, galleries: "ready", or the name of the error."""

    status: str
    state: str | None = None
    galleries: str | None = None


@router.get(
    "/readyz",
    operation_id="readyz",
    response_model=Readiness,
    responses={
        503: {
            "model": Readiness,
            "description": "Not ready, or stopping.",
            "content": {"application/json": {"examples": {"example": {"value": {"status": "stopping"}}}}},
        }
    },
)
async def readyz(request: Request) -> Response:
    """Whether requests can be answered: the stores are reached, and the indexes follow them."""
    service = service_of(request)
    if service.is_stopping:
        return JSONResponse({"status": "stopping"}, status_code=503)
    states = await _shared_states(service)
    ready = all(state == "ready" for state in states.values())
    return JSONResponse(
        {"status": "ready" if ready else "not ready", **states}, status_code=200 if ready else 503
    )


_asked: WeakKeyDictionary[Service, asyncio.Task[dict[str, str]]] = WeakKeyDictionary()


async def _shared_states(service: Service) -> dict[str, str]:
    """The states, read once for all requests that wait: they need no key, and share the threads
    that check keys."""
    task = _asked.get(service)
    if task is None or task.done():
        task = _asked[service] = asyncio.create_task(service.work.run_light(_states, service))
    return await asyncio.shield(task)


def _states(service: Service) -> dict[str, str]:
    """The state of the shared database and of the galleries in all: names of galleries are not public."""
    states = {"state": _state(service.database.check), "galleries": "ready"}
    for gallery in service:
        state = _state(partial(_check_gallery, service, gallery))
        if state != "ready":
            states["galleries"] = state
    return states


def _check_gallery(service: Service, gallery: str) -> None:
    service.recognizer(gallery).index_status()  # reads the revision of the store, and follows it


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except VoiceprintError as error:  # its message names places
        return type(error).__name__
    return "ready"


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def metrics(
    request: Request, _principal: Annotated[Principal, Depends(allowed_everywhere("audit", "admin"))]
) -> Response:
    """The metrics of all workers, for Prometheus."""
    service = service_of(request)
    await service.work.run_light(service.observe)
    return Response(await service.work.run_light(service.metrics.text), media_type=CONTENT_TYPE_LATEST)
