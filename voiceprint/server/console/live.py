"""Live calls: those of now, and those that have ended lately."""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Query, Response

from voiceprint.server.console.visit import ConsoleRoute, Visit, visitor
from voiceprint.server.live.records import LIVE, CallRecord
from voiceprint.server.problems import ProblemError
from voiceprint.server.service import Service

router = APIRouter(prefix="/g/{gallery}", route_class=ConsoleRoute)

Follower = Annotated[Visit, Depends(visitor("identify"))]

_LISTED: Final = 100  # calls of the list, the newest: a screen or two
_COUNTED: Final = 10_000  # calls: far more than the cores of a service can answer


class Call(NamedTuple):
    """A call as the pages show it. details: facts of the call, without metadata of callers."""

    call_id: str
    state: str
    created: float
    details: dict[str, Any]

    @property
    def answer(self) -> dict[str, Any]:
        """The running or final answer; empty before the first."""
        answer: dict[str, Any] = self.details.get("answer") or {}
        return answer

    @property
    def best(self) -> dict[str, Any]:
        """The most likely caller, accepted or not; empty without one."""
        matches: list[dict[str, Any]] = self.answer.get("matches") or [{}]
        return matches[0]

    @property
    def is_live(self) -> bool:
        """Whether the call lasts."""
        return self.state in LIVE


def count_live(service: Service, gallery: str) -> int:
    """The calls of a gallery that last, at most `_COUNTED`. Not for the event loop."""
    return len(service.live.records.page(gallery, "live", _COUNTED))


def _of_record(service: Service, record: CallRecord) -> Call:
    """The call, without callers who were deleted since its answer. Not for the event loop."""
    details = service.live.redacted(record.gallery, record.details)
    return Call(record.call_id, record.state, record.created, details)


@router.get("/live")
async def live_page(visit: Follower) -> Response:
    """The list."""
    return visit.page("live.html", **await _listed(visit))


@router.get("/live/part")
async def live_part(visit: Follower) -> Response:
    """The list alone, by which the page refreshes itself."""
    return visit.page("part_live.html", **await _listed(visit))


@router.get("/call")
async def call_page(visit: Follower, call_id: Annotated[str, Query(alias="id")]) -> Response:
    """The page of a call."""
    return visit.page("call.html", call=await _one(visit, call_id))


@router.get("/call/part")
async def call_part(visit: Follower, call_id: Annotated[str, Query(alias="id")]) -> Response:
    """The part of a call's page that refreshes itself."""
    return visit.page("part_call.html", call=await _one(visit, call_id))


async def _listed(visit: Visit) -> dict[str, Any]:
    service = visit.service

    def work() -> dict[str, Any]:
        now = service.live.records.page(visit.opened, "live", _LISTED)
        newest = service.live.records.page(visit.opened, None, _LISTED)
        return {
            "now": [_of_record(service, record) for record in now],
            "lately": [_of_record(service, record) for record in newest if record.state not in LIVE],
        }

    return await service.work.run(work)


async def _one(visit: Visit, call_id: str) -> Call:
    service = visit.service

    def work() -> Call | None:
        found = service.live.records.get([visit.opened], call_id)
        return None if found is None else _of_record(service, found)

    call = await service.work.run(work)
    if call is None:
        raise ProblemError(404, "CallNotFoundError", f"This gallery has no call {call_id[:80]!r} now.")
    return call
