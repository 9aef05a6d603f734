"""Callers: search, one caller, enrollment, deletion with a receipt."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import RedirectResponse

from voiceprint.consent import Consent
from voiceprint.errors import AuditError, CallerNotFoundError, ConfigurationError, InvalidArgumentError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.retention import Expiry, state_of
from voiceprint.server.access import check_sees_metadata
from voiceprint.server.console.visit import ConsoleRoute, Posted, Visit, visitor
from voiceprint.server.routes.audit import EventAnswer, newest, opened_log
from voiceprint.server.routes.callers import page_of
from voiceprint.server.schemas import CallerAnswer
from voiceprint.validation import check_caller_id

router = APIRouter(prefix="/g/{gallery}", route_class=ConsoleRoute)

Reader = Annotated[Visit, Depends(visitor("enroll"))]
Enroller = Annotated[Visit, Depends(visitor("enroll"))]
Administrator = Annotated[Visit, Depends(visitor("admin"))]
CallerId = Annotated[str, Query(alias="id")]

_PAGE: Final = 50  # callers of a page: some screens
_MATCHES: Final = 20  # events of a caller's page
_ANSWERS: Final = ("identify", "match", "stream", "verify", "watch_hit")


def _answer(visit: Visit, recognizer: OpusAgentVoiceRecognizer, caller: Any) -> CallerAnswer:
    state = state_of(caller, Expiry(recognizer.config.retention_period))
    return CallerAnswer.of(caller, state, metadata=visit.principal.sees_metadata)


@router.get("/callers")
async def callers_page(visit: Reader, prefix: str = "", group: str = "", after: str = "") -> Response:
    """The callers in the order of their ids, or those with a prefix, or of a group."""
    query = {name: text for name, text in (("prefix", prefix.strip()), ("group", group.strip())) if text}
    return await _found(visit, query, after, None)


@router.post("/callers")
async def callers_by_metadata(visit: Reader, body: Posted) -> Response:
    """The callers with a value in their metadata, which no URL must hold."""
    check_sees_metadata(visit.principal)
    key, value, after = (str(body.fields.get(name, "")) for name in ("key", "value", "after"))
    return await _found(visit, {}, after, (key.strip(), value))


async def _found(
    visit: Visit, query: dict[str, str], after: str, metadata: tuple[str, str] | None
) -> Response:
    """A page of callers. metadata: a key and its value, as typed."""
    wanted = None if metadata is None else {metadata[0]: _typed(metadata[1])}

    def work() -> tuple[list[CallerAnswer], str | None, int]:
        with visit.acting() as recognizer:
            found, following = page_of(
                recognizer,
                after=after,
                limit=_PAGE,
                prefix=query.get("prefix", ""),
                metadata=wanted,
                group=query.get("group"),
            )
            answers = [_answer(visit, recognizer, caller) for caller in found]
            return answers, following, recognizer.storage.count_callers()

    found, following, total = await visit.service.work.run(work)
    return visit.page(
        "callers.html",
        callers=found,
        query=query,
        metadata=metadata,
        next=following,
        after=after,
        total=total,
    )


def _typed(text: str) -> Any:
    """A number, true, false, null or a text in quotes, as in JSON; any other text is itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


@router.get("/caller")
async def caller_page(visit: Reader, caller_id: CallerId) -> Response:
    """The page of a caller."""

    def work() -> tuple[CallerAnswer, list[EventAnswer] | None]:
        with visit.acting() as recognizer:
            caller = recognizer.get_caller(check_caller_id(caller_id))
            if caller is None:
                raise CallerNotFoundError(f"There is no caller {caller_id!r} in this gallery.")
            return _answer(visit, recognizer, caller), _matches(visit, recognizer, caller_id)

    caller, events = await visit.service.work.run(work)
    return visit.page("caller.html", caller=caller, events=events)


def _matches(visit: Visit, recognizer: OpusAgentVoiceRecognizer, caller_id: str) -> list[EventAnswer] | None:
    """The last answers that name a caller; None without an audit log, or for a key that must not read it."""
    if not visit.may("audit"):
        return None

    def wanted(fields: dict[str, Any]) -> bool:
        return fields.get("caller") == caller_id and fields.get("action") in _ANSWERS

    try:
        with opened_log(recognizer) as log:
            return newest(log, wanted, limit=_MATCHES).events
    except (ConfigurationError, AuditError):  # no log, or nothing in it yet
        return None


@router.get("/enroll")
async def enroll_page(visit: Enroller, caller_id: Annotated[str, Query(alias="id")] = "") -> Response:
    """The form of an enrollment."""

    def work() -> tuple[float, bool]:
        config = visit.service.recognizer(visit.opened).config
        return config.enrollment_duration, config.require_consent

    duration_s, requires_consent = await visit.service.work.run_light(work)
    return visit.page(
        "enroll.html", caller_id=caller_id, duration_s=duration_s, requires_consent=requires_consent
    )


@router.post("/enroll")
async def enroll(visit: Enroller, body: Posted) -> Response:
    """Enroll a recording, and show the caller."""
    fields = body.fields
    caller_id = check_caller_id(str(fields.get("caller_id", "")).strip())
    purpose, version = (str(fields.get(name, "")).strip() for name in ("purpose", "version"))
    if bool(purpose) != bool(version):
        raise InvalidArgumentError("A consent needs its purpose and the version of its text: give both.")
    groups = [name.strip() for name in str(fields.get("groups", "")).split(",") if name.strip()]

    def work() -> None:
        with visit.acting() as recognizer:
            recognizer.enroll_caller(
                caller_id,
                body.recording(),
                consent=Consent(purpose=purpose, version=version) if purpose else None,
                groups=groups,
                on_mismatch="refuse",
                source="console",
            )

    await visit.service.work.run(work)
    return RedirectResponse(f"caller?id={quote(caller_id, safe='')}", status_code=303)


@router.get("/delete")
async def delete_page(visit: Administrator, caller_id: CallerId) -> Response:
    """The question whether to delete a caller."""
    return visit.page("delete.html", caller_id=check_caller_id(caller_id), error=None)


@router.post("/delete")
async def delete(visit: Administrator, body: Posted) -> Response:
    """Delete a caller, and show the receipt."""
    caller_id, typed = str(body.fields.get("caller_id", "")), str(body.fields.get("typed", ""))
    if typed.strip() != caller_id.strip():
        error = "The id that you typed is another: nothing was deleted."
        return visit.page("delete.html", status=422, caller_id=caller_id, error=error)

    def work() -> Any:
        with visit.acting() as recognizer:
            return recognizer.delete_caller(caller_id, receipt=True)

    return visit.page("receipt.html", receipt=await visit.service.work.run(work))
