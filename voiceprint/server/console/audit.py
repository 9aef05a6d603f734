"""The audit log: its events, and the verification of its chain."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response

from voiceprint.errors import AuditError, ConfigurationError
from voiceprint.privacy.audit import ACTIONS, verify_lines
from voiceprint.privacy.audit.chain import ChainReport
from voiceprint.server.console.visit import ConsoleRoute, Posted, Visit, visitor
from voiceprint.server.routes.audit import EventsAnswer, newest, opened_log
from voiceprint.validation import check_time

router = APIRouter(prefix="/g/{gallery}", route_class=ConsoleRoute)

Auditor = Annotated[Visit, Depends(visitor("audit"))]

_PAGE: Final = 50  # events of a page: some screens
_SHOWN: Final = (
    "caller", "verdict", "error", "similarity", "llr", "fpir", "rule", "limit", "actor", "correlation_id",
    "reasons", "quality", "speech_s", "count", "about", "correct", "detail",
)  # fmt: skip


@router.get("/audit")
async def audit_page(
    visit: Auditor,
    caller: str = "",
    actor: str = "",
    action: str = "",
    verdict: str = "",
    since: str = "",
    until: str = "",
    failed: bool = False,
    before: int | None = None,
) -> Response:
    """The events that fulfill all conditions, the newest first."""
    equal = {"caller": caller.strip(), "actor": actor.strip(), "action": action, "verdict": verdict}
    start, end = check_time(since.strip() or None), check_time(until.strip() or None)

    def wanted(fields: dict[str, Any]) -> bool:
        time = str(fields.get("time"))
        return (
            all(fields.get(name) == value for name, value in equal.items() if value)
            and (not failed or "error" in fields)
            and (start is None or time >= start)
            and (end is None or time < end)
        )

    def work() -> EventsAnswer | None:
        with visit.acting() as recognizer:
            try:
                with opened_log(recognizer) as log:
                    return newest(log, wanted, before=before, limit=_PAGE)
            except (ConfigurationError, AuditError):  # no log, or nothing in it yet: the page says so
                return None

    found = await visit.service.work.run(work)
    query = {
        **{name: value for name, value in equal.items() if value},
        **{name: value for name, value in (("since", since), ("until", until)) if value},
        **({"failed": "true"} if failed else {}),
    }
    return visit.page(
        "audit.html", found=found, query=query, actions=ACTIONS, shown=_SHOWN, before=before, report=None
    )


@router.post("/audit/verify")
async def verify(visit: Auditor, _: Posted) -> Response:
    """Verify the chain of all lines."""

    def work() -> ChainReport:
        with visit.acting() as recognizer, opened_log(recognizer) as log:
            return verify_lines(log.lines())

    report = await visit.service.work.run(work)
    return visit.page(
        "audit.html", found=None, query={}, actions=ACTIONS, shown=_SHOWN, before=None, report=report
    )
