"""Live calls: announce, list, read, enroll from, and end them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from uuid import uuid4

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Consent
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.access import Access, allowed, any_key, changing, check_role, service_of
from voiceprint.server.keys import Principal
from voiceprint.server.live.calls import LiveCalls, announced_details, details_of
from voiceprint.server.live.conversation import MAX_TEXT, CallOptions
from voiceprint.server.live.records import CallRecord
from voiceprint.server.live.session import LiveCall, answer_of
from voiceprint.server.problems import ProblemError
from voiceprint.server.schemas import IdentifyAnswer, VoiceprintAnswer
from voiceprint.validation import now

router = APIRouter(prefix="/v1/galleries/{gallery}/calls", tags=["live calls"])
everywhere = APIRouter(prefix="/v1/calls", tags=["live calls"])

Identifies = Annotated[Access, Depends(allowed("identify"))]
Enrolls = Annotated[Access, Depends(changing("enroll"))]


def call_id_in_path(
    call_id: Annotated[
        str,
        Path(description="Id of the call, percent-encoded.", min_length=1, max_length=512, examples=["CA17"]),
    ],
) -> str:
    """The call id of the path, decoded."""
    return unquote(call_id)


CallId = Annotated[str, Depends(call_id_in_path)]


class LiveAnswer(IdentifyAnswer):
    """The answer to a call so far: as of an identification, and these.

    decided: whether this answer is safe to act upon, and will not change. final: whether it is of the whole
    call. audio_s, net_speech_s: seconds of audio and of speech in it. feedback: faults of the audio. late_s:
    seconds from the arrival of its last audio until it was there.
    """

    decided: bool = False
    final: bool = False
    audio_s: float = 0.0
    net_speech_s: float = 0.0
    feedback: list[str] = []  # noqa: RUF012 - pydantic copies it
    late_s: float = 0.0


class CallAnswer(BaseModel):
    """A call, and the answer to it so far.

    state: "announced", "live", "ended", or "failed" without a final answer. source: the format of its
    connection. from, to: the numbers. ended_by: "platform", "connection" (lost), "silence", "duration",
    "request", "protocol", "busy", "shutdown" or "error". error: class of the last error; null if it is past.
    can_enroll: whether the audio is still in the memory of the worker that answers. late_answers: of
    `answers`, those that came over a second after their audio; most_late_s: the longest such time in seconds.
    """

    call_id: str
    gallery: str
    state: Literal["announced", "live", "ended", "failed"]
    source: str | None = None
    from_number: str | None = Field(default=None, serialization_alias="from")
    to_number: str | None = Field(default=None, serialization_alias="to")
    created_at: str
    ended_at: str | None = None
    ended_by: str | None = None
    error: str | None = None
    can_enroll: bool = False
    answers: int = 0
    late_answers: int = 0
    most_late_s: float = 0.0
    answer: LiveAnswer | None = None


class CallsAnswer(BaseModel):
    """A page of calls, the newest first. next: the `before` of the next page; null at the end."""

    calls: list[CallAnswer]
    next: str | None = None


class EnrollFromCall(BaseModel):
    """The enrollment from a call: the options of `enroll_caller`."""

    caller_id: str = Field(min_length=1, max_length=512, examples=["alice"])
    metadata: dict[str, Any] | None = None
    on_mismatch: Literal["store", "refuse"] = "refuse"
    on_several_voices: Literal["refuse", "largest", "store"] = "refuse"
    consent: Consent | None = None
    groups: list[str] = []


def live_calls(request: Request) -> LiveCalls:
    """The live calls of the application."""
    return service_of(request).live


Live = Annotated[LiveCalls, Depends(live_calls)]


@router.post("", operation_id="announce_call", status_code=201)
async def announce_call(
    access: Identifies,
    live: Live,
    options: Annotated[CallOptions, Body(examples=[{"from": "+493012345", "candidates": ["alice"]}])],
) -> CallAnswer:
    """Announce a call: its connection is then compared with these candidates.

    For formats whose messages have no place for them, such as AudioSocket. The id, a new UUID without
    `call_id`, is that of the connection: the UUID of AudioSocket, the `callSid` of Twilio. The connection is
    awaited for 10 minutes.
    """
    call_id = options.call_id or str(uuid4())

    def work() -> CallRecord:
        resolved = live.resolved(access.gallery, options)
        details = announced_details(access.gallery, call_id, resolved, now())
        size = len(json.dumps(details))
        if size > MAX_TEXT:
            raise InvalidArgumentError(
                f"The call has {size} bytes as JSON: {MAX_TEXT} are allowed. Give fewer candidates."
            )
        return live.records.announce(access.gallery, call_id, details)

    record = await live.service.work.run(work)
    return _of_record(record)


@router.get("", operation_id="list_calls")
async def list_calls(
    access: Identifies,
    live: Live,
    state: Annotated[
        Literal["announced", "live", "ended", "failed"] | None, Query(description="Calls in this state.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most calls of the page.")] = 100,
    before: Annotated[str | None, Query(description="The `next` of the page before.", max_length=300)] = None,
) -> CallsAnswer:
    """List the calls of all workers, the newest first. Ended ones stay for a day."""
    cursor = None if before is None else _cursor(before)

    def work() -> CallsAnswer:
        records = live.records.page(access.gallery, state, limit, cursor)
        found = [_answer(live, access.principal, record) for record in records]
        last = records[-1] if len(records) == limit else None
        return CallsAnswer(calls=found, next=None if last is None else f"{last.created!r}:{last.call_id}")

    return await live.service.work.run(work)  # reads the store for each answer


@router.get("/{call_id}", operation_id="get_call")
async def get_call(access: Identifies, live: Live, call_id: CallId) -> CallAnswer:
    """Read a call, with the answer to it so far."""
    return await _find(live, access.principal, [access.gallery], call_id)


@everywhere.get("/{call_id}", operation_id="find_call")
async def find_call(
    request: Request, live: Live, call_id: CallId, principal: Annotated[Principal, Depends(any_key)]
) -> CallAnswer:
    """Read a call by its id alone, of any gallery of the key."""
    check_role(principal, "identify")
    galleries = [name for name in service_of(request) if principal.may_use(name)]
    return await _find(live, principal, galleries, call_id)


@router.post("/{call_id}/voiceprints", operation_id="enroll_from_call", status_code=201)
async def enroll_from_call(
    access: Enrolls, live: Live, call_id: CallId, options: EnrollFromCall
) -> VoiceprintAnswer:
    """Enroll a caller from the audio of a call, while it lasts or in the 2 minutes after its end.

    The audio is in the memory of the worker that took the call: another one answers 409 with the error
    "CallElsewhereError".
    """
    call = live.get(access.gallery, call_id)

    def work(_: OpusAgentVoiceRecognizer) -> VoiceprintAnswer:
        if call is None:
            raise _why_absent(live, access, call_id)
        stored = call.stream.enroll(
            options.caller_id,
            options.metadata,
            on_mismatch=options.on_mismatch,
            on_several_voices=options.on_several_voices,
            consent=options.consent,
            groups=options.groups,
            source=call_id,
        )
        return VoiceprintAnswer.of(stored)

    return await access.change(work, VoiceprintAnswer)


@router.delete("/{call_id}", operation_id="end_call", status_code=202, response_class=Response)
async def end_call(access: Identifies, live: Live, call_id: CallId) -> Response:
    """End the connection of a call, with its final answer; withdraw an announced call.

    The telephone call itself goes on. A call of another worker ends within a second.
    """
    if not live.hang_up(access.gallery, call_id):
        record = await live.service.work.run_light(live.records.get, [access.gallery], call_id)
        if record is None:
            raise _absent(call_id)
        await live.service.work.run_light(live.records.hang_up, access.gallery, call_id)
    return Response(status_code=202)


async def _find(live: LiveCalls, principal: Principal, galleries: list[str], call_id: str) -> CallAnswer:
    def work() -> CallAnswer:
        for gallery in galleries:
            call = live.get(gallery, call_id)
            if call is not None:
                return _of_call(live, principal, call)
        record = live.records.get(galleries, call_id)
        if record is None:
            raise _absent(call_id)
        return _answer(live, principal, record)

    return await live.service.work.run_light(work)


def _answer(live: LiveCalls, principal: Principal, record: CallRecord) -> CallAnswer:
    """The answer of a record, or of the call itself where it is in this worker."""
    call = live.get(record.gallery, record.call_id)
    return _of_record(record, live) if call is None else _of_call(live, principal, call)


def _of_call(live: LiveCalls, principal: Principal, call: LiveCall) -> CallAnswer:
    fields = details_of(call) | {"answer": answer_of(call, metadata=principal.sees_metadata)}
    fields = live.redacted(call.gallery, fields)
    return CallAnswer(**_renamed(fields), can_enroll=True)


def _of_record(record: CallRecord, live: LiveCalls | None = None) -> CallAnswer:
    state = "live" if record.state == "ending" else record.state
    fields = {key: value for key, value in record.details.items() if key != "options"} | {"state": state}
    return CallAnswer(**_renamed(fields if live is None else live.redacted(record.gallery, fields)))


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    names = {"from": "from_number", "to": "to_number"}
    return {names.get(name, name): value for name, value in fields.items()}


def _absent(call_id: str) -> ProblemError:
    return ProblemError(
        404, "CallNotFoundError", f"The gallery has no call {call_id!r}: its record may be too old."
    )


def _why_absent(live: LiveCalls, access: Access, call_id: str) -> ProblemError:
    """The error that says why a call cannot be enrolled from. Reads the database."""
    record = live.records.get([access.gallery], call_id)
    if record is None:
        return _absent(call_id)
    if record.state in ("live", "ending") or record.worker not in (None, live.service.worker):
        return ProblemError(
            409,
            "CallElsewhereError",
            f"The call {call_id!r} is in the memory of the worker {record.worker}: repeat the request on a "
            "new connection until that worker takes it.",
            {"Retry-After": "1"},
        )
    return ProblemError(
        409,
        "CallAudioGoneError",
        f"The audio of the call {call_id!r} is no longer in memory: enroll within VOICE_SERVER_CALL_KEEP_S "
        "of its end.",
    )


def _cursor(text: str) -> tuple[float, str]:
    created, _, call_id = text.partition(":")
    try:
        return float(created), call_id
    except ValueError:
        raise InvalidArgumentError(f"before is {json.dumps(text)}: give the `next` of a page.") from None
