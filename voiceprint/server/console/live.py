"""Live calls: those of now, and those that have ended lately."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy import select

from voiceprint.server.console.visit import ConsoleRoute, Visit, visitor
from voiceprint.server.database import calls
from voiceprint.server.problems import ProblemError
from voiceprint.server.service import Service

router = APIRouter(prefix="/g/{gallery}", route_class=ConsoleRoute)

Follower = Annotated[Visit, Depends(visitor("identify"))]

_LIVE: Final = ("live", "ending")
_LISTED: Final = 100  # calls of the list, the newest: a screen or two


class Call(NamedTuple):
    """A call of the shared database. age_s: seconds since its beginning. details: facts of the call."""

    call_id: str
    state: str
    created: float
    age_s: float
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
        return self.state in _LIVE


def live_calls(service: Service, gallery: str) -> list[Call]:
    """The calls of a gallery that last. Not for the event loop."""
    return [call for call in _calls(service, gallery) if call.is_live]


def _calls(service: Service, gallery: str, call_id: str | None = None) -> list[Call]:
    """The newest calls of a gallery, or the one with this id."""
    if not service.database.exists():
        return []
    query = select(calls).where(calls.c.gallery == gallery)
    if call_id is not None:
        query = query.where(calls.c.call_id == call_id)
    with service.database.read() as connection:
        rows = connection.execute(query.order_by(calls.c.created.desc()).limit(_LISTED)).all()
    time_now = time.time()
    return [
        # Without callers who were deleted since the answer.
        Call(
            row.call_id,
            row.state,
            row.created,
            time_now - row.created,
            service.live.redacted(gallery, json.loads(row.details)),
        )
        for row in rows
    ]


@router.get("/live")
async def live_page(visit: Follower) -> Response:
    """The list."""
    return visit.page("live.html", calls=await _listed(visit))


@router.get("/live/part")
async def live_part(visit: Follower) -> Response:
    """The list alone, by which the page refreshes itself."""
    return visit.page("part_live.html", calls=await _listed(visit))


@router.get("/call")
async def call_page(visit: Follower, call_id: Annotated[str, Query(alias="id")]) -> Response:
    """One call."""
    return visit.page("call.html", call=await _one(visit, call_id))


@router.get("/call/part")
async def call_part(visit: Follower, call_id: Annotated[str, Query(alias="id")]) -> Response:
    """One call alone, by which the page refreshes itself."""
    return visit.page("part_call.html", call=await _one(visit, call_id))


async def _listed(visit: Visit) -> list[Call]:
    return await visit.service.work.run_light(_calls, visit.service, visit.opened)


async def _one(visit: Visit, call_id: str) -> Call:
    found = await visit.service.work.run_light(_calls, visit.service, visit.opened, call_id)
    if not found:
        raise ProblemError(404, "CallNotFoundError", f"This gallery has no call {call_id[:80]!r} now.")
    return found[0]
