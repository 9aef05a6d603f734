"""The audit log: its events, its chain, and feedback to answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from voiceprint.errors import AuditError, ConfigurationError
from voiceprint.privacy.audit import AuditLog, Head, Line, event_filter, verify_lines
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.access import Access, allowed, changing
from voiceprint.validation import check_time

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["audit"])

Audits = Annotated[Access, Depends(allowed("audit"))]

SCANNED: Final = 100_000
"""Lines that are read for one page, at most: a rare event may be far back. Some 2 s. Doubled, a search of a
long log takes half the requests, and each holds a thread twice as long."""


class EventAnswer(BaseModel):
    """An event: see `voiceprint.Event`. line: its number in the log."""

    model_config = ConfigDict(extra="allow")

    line: int
    event_id: str
    time: str
    action: str


class EventsAnswer(BaseModel):
    """A page of events, the newest first. next: the `before` of the next page; null at the end.

    damaged: lines of this page that cannot be read, see `audit/verify`.
    """

    events: list[EventAnswer]
    next: int | None = None
    damaged: int = 0


@contextmanager
def opened_log(recognizer: OpusAgentVoiceRecognizer) -> Iterator[AuditLog]:
    """The audit log of a gallery. Raises `ConfigurationError` where there is none, and `AuditError`."""
    log = recognizer.audit_log()
    if log is None:
        raise _no_log()
    try:
        yield log
    except FileNotFoundError:
        raise AuditError(f"{log.place} does not exist: nothing was recorded yet.") from None
    except OSError as error:
        raise AuditError(f"{log.place} cannot be read: {error.strerror or error}.") from error


def newest(
    log: AuditLog, wanted: Callable[[dict[str, Any]], bool], *, before: int | None = None, limit: int = 100
) -> EventsAnswer:
    """The newest wanted events before a line, at most `limit`."""
    found: list[EventAnswer] = []
    damaged = read = 0
    last: int | None = None
    for text in log.backward():
        line = Line.parse(text)
        if line is None:
            damaged += before is None or last is not None
            continue
        if before is not None and line.seq >= before:
            continue
        if len(found) == limit or read == SCANNED:
            return EventsAnswer(events=found, next=last, damaged=damaged)
        read, last = read + 1, line.seq
        if wanted(line.fields):
            found.append(EventAnswer(line=line.seq, **line.fields))
    return EventsAnswer(events=found, next=None, damaged=damaged)


@router.get("/audit", operation_id="audit_events")
async def events(
    access: Audits,
    action: Annotated[
        list[str] | None,
        Query(max_length=50, description="Of this action; may be repeated.", examples=[["verify"]]),
    ] = None,
    caller: Annotated[str | None, Query(description="Of this caller.", examples=["alice"])] = None,
    actor: Annotated[str | None, Query(description="By this actor.", examples=["key:agent-17"])] = None,
    verdict: Annotated[str | None, Query(description="With this verdict.", examples=["accepted"])] = None,
    correlation_id: Annotated[str | None, Query(description="Of this request or call.")] = None,
    event_id: Annotated[
        str | None, Query(description="The event of this id, and the feedback to it.")
    ] = None,
    failed: Annotated[bool, Query(description="Operations that ended with an error.")] = False,
    since: Annotated[
        str | None, Query(description="From this time on, ISO 8601.", examples=["2027-01-31T09:00:00Z"])
    ] = None,
    until: Annotated[str | None, Query(description="Before this time.")] = None,
    before: Annotated[
        int | None, Query(ge=1, le=10**15, description="The `next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most events of the page.")] = 100,
) -> EventsAnswer:
    """List the events that fulfill all conditions, the newest first.

    Go on with `before` until `next` is null: a page may be shorter than `limit`, or empty.
    """
    wanted = event_filter(
        actions=action or (),
        caller=caller,
        actor=actor,
        verdict=verdict,
        correlation_id=correlation_id,
        event_id=event_id,
        failed=failed,
        since=check_time(since),
        until=check_time(until),
    )

    def work(recognizer: OpusAgentVoiceRecognizer) -> EventsAnswer:
        with opened_log(recognizer) as log:
            return newest(log, wanted, before=before, limit=limit)

    return await access.run(work)


class FaultAnswer(BaseModel):
    """A fault of the chain. first, last: numbers of its lines."""

    code: str
    first: int
    last: int
    message: str


class ChainAnswer(BaseModel):
    """The verification of the chain: see `voiceprint audit verify`.

    intact: whether there is no fault. head: NUMBER:DIGEST of the last line, to be kept elsewhere. anchors:
    number of those that hold. cut_by_crash: lines that a crash cut.
    """

    intact: bool
    lines: int
    first: int | None
    head: str
    faults: list[FaultAnswer]
    cut_by_crash: int
    anchors: int


@router.get("/audit/verify", operation_id="audit_verify")
async def verify(
    access: Audits,
    anchor: Annotated[
        list[str] | None,
        Query(
            max_length=100,
            description="NUMBER:DIGEST of an earlier head, kept elsewhere; may be repeated.",
            examples=[["1:" + "0" * 64]],
        ),
    ] = None,
) -> ChainAnswer:
    """Verify the chain of all lines. Reads the whole log.

    Without an anchor from elsewhere, the chain cannot show that its end was cut off, nor that all of it was
    written anew by someone who can write to the log.
    """
    anchors = [Head.parse(text) for text in anchor or ()]

    def work(recognizer: OpusAgentVoiceRecognizer) -> ChainAnswer:
        with opened_log(recognizer) as log:
            report = verify_lines(log.lines(), anchors)
        return ChainAnswer(
            intact=not report.faults,
            lines=report.lines,
            first=report.first,
            head=str(report.head),
            faults=[
                FaultAnswer(code=one.code, first=one.first, last=one.last, message=one.message)
                for one in report.faults
            ],
            cut_by_crash=len(report.cut_by_crash),
            anchors=report.anchors,
        )

    return await access.run(work)


class HeadAnswer(BaseModel):
    """The last line of the log. line: its number, 0 of an empty log. anchor: to be kept elsewhere."""

    line: int
    digest: str
    anchor: str


@router.get("/audit/head", operation_id="audit_head")
async def head(access: Audits) -> HeadAnswer:
    """Read the number and digest of the last line, an anchor for `audit/verify`."""

    def work(recognizer: OpusAgentVoiceRecognizer) -> HeadAnswer:
        with opened_log(recognizer) as log:
            found = log.head()
        return HeadAnswer(line=found.seq, digest=found.digest, anchor=str(found))

    return await access.run(work)


class Feedback(BaseModel):
    """The correctness of an answer. caller_id: of the speaker, where the answer was another or nobody."""

    model_config = ConfigDict(extra="forbid", strict=True)

    event_id: str = Field(description="Of the answer, 32 hex digits.")
    correct: bool
    caller_id: str | None = None


class FeedbackAnswer(BaseModel):
    """event_id: of this feedback."""

    event_id: str


@router.post("/feedback", operation_id="feedback", status_code=201)
async def feedback(
    access: Annotated[Access, Depends(changing("identify"))], body: Feedback
) -> FeedbackAnswer:
    """Record whether an answer was right, in the audit log. `voiceprint calibrate --from-audit` uses it."""

    def work(recognizer: OpusAgentVoiceRecognizer) -> FeedbackAnswer:
        if recognizer.config.audit is None:  # the callback of the metrics would take it, and keep nothing
            raise _no_log()
        id_ = recognizer.feedback(body.event_id, correct=body.correct, caller_id=body.caller_id)
        return FeedbackAnswer(event_id=id_)

    return await access.change(work, FeedbackAnswer)


def _no_log() -> ConfigurationError:
    return ConfigurationError("This gallery has no audit log: set VOICE_AUDIT.")
