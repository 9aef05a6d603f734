"""The overview: calls, answers, latency, and the index of each gallery."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from voiceprint.errors import VoiceprintError
from voiceprint.server.access import check_gallery
from voiceprint.server.console.figures import Figures, Readings
from voiceprint.server.console.live import count_live
from voiceprint.server.console.visit import ConsoleRoute, Visit, Visitor
from voiceprint.server.service import Service

router = APIRouter(route_class=ConsoleRoute)

_PAGES = ("callers", "try", "threshold", "live", "audit")


class GalleryRow(NamedTuple):
    """A row of the table. problem: class of the error where the store cannot be used."""

    name: str
    callers: int = 0
    voiceprints: int = 0
    structure: str = ""
    recall: float = 1.0
    training: bool = False
    lag: int | None = None
    problem: str | None = None


class _Overview(NamedTuple):
    figures: Figures
    calls: int
    rows: list[GalleryRow]


@router.get("/")
async def overview(visit: Visitor) -> Response:
    """The page."""
    return visit.page("overview.html", **(await _values(visit))._asdict())


@router.get("/overview")
async def overview_part(visit: Visitor) -> Response:
    """The figures alone, by which the page refreshes itself."""
    return visit.page("part_overview.html", **(await _values(visit))._asdict())


@router.get("/open")
async def open_gallery(visit: Visitor, gallery: str, page: str = "callers") -> Response:
    """Go to the same page of another gallery."""
    check_gallery(visit.service, visit.principal, gallery)
    return RedirectResponse(
        f"/console/g/{quote(gallery, safe='')}/{page if page in _PAGES else 'callers'}", status_code=303
    )


async def _values(visit: Visit) -> _Overview:
    readings: Readings = visit.request.app.state.console_readings
    return await visit.service.work.run_light(_overview, readings, visit.service, visit.galleries)


def _overview(readings: Readings, service: Service, names: list[str]) -> _Overview:
    calls = sum(count_live(service, name) for name in names)
    return _Overview(readings.figures(service, names), calls, [gallery_row(service, name) for name in names])


def gallery_row(service: Service, name: str) -> GalleryRow:
    """The row of a gallery. Not for the event loop."""
    try:
        recognizer = service.recognizer(name)
        lag = recognizer.index_lag()  # before the index follows
        status = recognizer.index_status()
        storage = recognizer.storage
        return GalleryRow(
            name,
            storage.count_enrolled(),
            storage.count(),
            status.structure,
            status.recall,
            status.training,
            lag,
        )
    except VoiceprintError as error:  # its message names places; the row of the others stays
        return GalleryRow(name, problem=type(error).__name__)
