"""Callers: list, register, read, change, merge, delete; consent and opt-out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from voiceprint._audited import recording
from voiceprint.consent import check_groups
from voiceprint.errors import CallerNotFoundError, InvalidArgumentError
from voiceprint.models import Caller, CallerState, Consent, DeletionReceipt
from voiceprint.privacy.erasure import delete_or_prove
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.retention import Expiry, state_of
from voiceprint.server.access import (
    Access,
    CallerId,
    WithEmbeddings,
    allowed,
    changing,
    check_sees_metadata,
)
from voiceprint.server.schemas import CallerAnswer, CallersAnswer, Ids
from voiceprint.storage.base import DEFAULT_PAGE
from voiceprint.validation import check_caller_id, check_metadata, shown

router = APIRouter(prefix="/v1/galleries/{gallery}/callers", tags=["callers"])

Reads = Annotated[Access, Depends(allowed("enroll"))]
Enrolls = Annotated[Access, Depends(changing("enroll"))]
Administers = Annotated[Access, Depends(changing("admin"))]
Receipt = Annotated[
    bool,
    Query(
        description="Wait until the disk has followed, search every file of the store for remains, and "
        "answer with the receipt. Without it, the answer is the number of voiceprints."
    ),
]

SCANNED: Final = 10_000
"""Callers that are read for one page, at most: with filters, all may be read. Some 0.5 s. Doubled, a search
in a large store takes half the requests, and each holds a thread twice as long."""

After = Annotated[
    str, Query(max_length=512, description="The `next` of the page before; empty for the first page.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most callers of the page.")]


def answer_of(
    recognizer: OpusAgentVoiceRecognizer, caller: Caller, access: Access, *, embeddings: bool = False
) -> CallerAnswer:
    """The answer of a caller, as far as the key may see it."""
    state = state_of(caller, Expiry(recognizer.config.retention_period))
    return CallerAnswer.of(caller, state, metadata=access.principal.sees_metadata, embeddings=embeddings)


def page_of(
    recognizer: OpusAgentVoiceRecognizer,
    *,
    after: str = "",
    limit: int = 100,
    prefix: str = "",
    metadata: dict[str, Any] | None = None,
    group: str | None = None,
    state: CallerState | None = None,
) -> tuple[list[Caller], str | None]:
    """The next callers in the order of their ids, at most `limit`, and the id after which to go on.

    prefix: first characters of the ids. metadata: values of top-level keys. The id is None at the end; a page
    may be short, or empty, before it, as at most `SCANNED` callers are read. An event of the audit log.
    """
    expiry = Expiry(recognizer.config.retention_period)
    if group is not None:
        check_groups([group])
    found: list[Caller] = []
    read = 0
    storage = recognizer.storage
    read_page = storage.callers if metadata is None else partial(storage.find_callers, metadata)
    detail = "callers by page" if metadata is None else "callers by metadata"
    with recording(storage.auditor, "read", detail=detail):
        page = []
        if prefix and after < prefix:
            # `after` excludes the caller whose id is the prefix itself.
            first = storage.get(prefix)
            page, after = [] if first is None else [first], prefix
        while True:
            for caller in page:
                if prefix and not caller.caller_id.startswith(prefix):
                    return found, None
                after = caller.caller_id
                if (group is None or group in caller.groups) and state in (None, state_of(caller, expiry)):
                    found.append(caller)
                    if len(found) == limit:
                        return found, after
            if read >= SCANNED:
                return found, after
            page = read_page(after=after, limit=DEFAULT_PAGE)
            read += len(page)
            if not page:
                return found, None


@router.get("", operation_id="callers")
async def list_callers(
    access: Reads,
    embeddings: WithEmbeddings,
    after: After = "",
    limit: Limit = 100,
    prefix: Annotated[str, Query(max_length=512, description="First characters of the ids.")] = "",
    group: Annotated[str | None, Query(description="Callers of this group.", examples=["vip"])] = None,
    state: Annotated[CallerState | None, Query(description="Callers in this state.")] = None,
) -> CallersAnswer:
    """List the callers in the order of their ids, or those who fulfill all conditions.

    Go on with `after` until `next` is null: with conditions, a page may be shorter than `limit`, or empty.
    """

    def work(recognizer: OpusAgentVoiceRecognizer) -> CallersAnswer:
        callers, following = page_of(
            recognizer,
            after=after,
            limit=limit,
            prefix=prefix,
            group=group,
            state=state,
        )
        answers = [answer_of(recognizer, one, access, embeddings=embeddings) for one in callers]
        return CallersAnswer(callers=answers, next=following)

    return await access.run(work)


class CallerSearch(BaseModel):
    """metadata: the value of each top-level key, with its type. prefix: first characters of the ids.

    after: the `next` of the page before; empty for the first page.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: dict[str, Any] = Field(min_length=1, examples=[{"account": "7"}])
    after: str = Field(default="", max_length=512)
    limit: int = Field(default=100, ge=1, le=1000)
    prefix: str = Field(default="", max_length=512)
    group: str | None = None
    state: CallerState | None = None


@router.post("/search", operation_id="find_callers")
async def find_callers(access: Reads, body: CallerSearch, embeddings: WithEmbeddings) -> CallersAnswer:
    """Find the callers whose metadata has these values, and who fulfill all conditions.

    For keys that see metadata, which is in the body, as URLs end in logs. Go on with `after` until `next` is
    null.
    """
    check_sees_metadata(access.principal)

    def work(recognizer: OpusAgentVoiceRecognizer) -> CallersAnswer:
        callers, following = page_of(recognizer, **dict(body))
        answers = [answer_of(recognizer, one, access, embeddings=embeddings) for one in callers]
        return CallersAnswer(callers=answers, next=following)

    return await access.run(work)


@router.get("/{caller_id}", operation_id="get_caller")
async def get_caller(access: Reads, caller_id: CallerId, embeddings: WithEmbeddings) -> CallerAnswer:
    """Read a caller with all voiceprints, the oldest first."""

    def work(recognizer: OpusAgentVoiceRecognizer) -> CallerAnswer:
        caller = recognizer.get_caller(caller_id)
        if caller is None:
            raise CallerNotFoundError(f"There is no caller {shown(caller_id)}.")
        return answer_of(recognizer, caller, access, embeddings=embeddings)

    return await access.run(work)


class Registration(BaseModel):
    """A caller before the enrollment. metadata is merged; groups are added."""

    model_config = ConfigDict(extra="forbid", strict=True)

    consent: Consent
    metadata: dict[str, Any] | None = None
    groups: Ids = []


@router.put("/{caller_id}", operation_id="register_caller")
async def register_caller(
    access: Enrolls, caller_id: CallerId, body: Registration, embeddings: WithEmbeddings
) -> CallerAnswer:
    """Register a caller before the enrollment, with a consent.

    Of a caller who is there, it replaces the consent.
    """
    metadata = None if body.metadata is None else check_metadata(body.metadata)
    groups = check_groups(body.groups)

    def register(recognizer: OpusAgentVoiceRecognizer) -> Caller:
        caller = recognizer.set_consent(caller_id, body.consent)
        if metadata:
            caller = recognizer.update_metadata(caller_id, metadata)
        return recognizer.add_to_group(caller_id, *groups) if groups else caller

    return await changed_caller(access, register, embeddings=embeddings)


class CallerChange(BaseModel):
    """Either metadata, or a new id. replace: the metadata replaces all of the caller's; else it is merged."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: dict[str, Any] | None = None
    replace: bool = False
    caller_id: str | None = Field(default=None, min_length=1, max_length=512)


@router.patch("/{caller_id}", operation_id="change_caller")
async def change_caller(
    access: Administers, caller_id: CallerId, body: CallerChange, embeddings: WithEmbeddings
) -> CallerAnswer:
    """Change the metadata of a caller, or give the caller another id."""
    metadata, new_id = body.metadata, body.caller_id
    if (metadata is None) == (new_id is None):
        raise InvalidArgumentError("Give either `metadata` or `caller_id`.")

    def change(recognizer: OpusAgentVoiceRecognizer) -> Caller:
        if new_id is not None:
            return recognizer.rename_caller(caller_id, check_caller_id(new_id))
        return recognizer.update_metadata(caller_id, metadata or {}, replace=body.replace)

    return await changed_caller(access, change, embeddings=embeddings)


class MergeRequest(BaseModel):
    """into: id of the caller who stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    into: str = Field(min_length=1, max_length=512)


class MergeAnswer(BaseModel):
    """The caller who stays, and the ids of the voiceprints that were removed as too many."""

    caller: CallerAnswer
    removed: list[int]


@router.post("/{caller_id}/merge", operation_id="merge_callers")
async def merge_callers(
    access: Administers, caller_id: CallerId, body: MergeRequest, embeddings: WithEmbeddings
) -> MergeAnswer:
    """Merge this caller into another, who is the same person. This cannot be undone."""
    into = check_caller_id(body.into)

    def work(recognizer: OpusAgentVoiceRecognizer) -> MergeAnswer:
        caller, removed = recognizer.merge_callers(caller_id, into)
        return MergeAnswer(
            caller=answer_of(recognizer, caller, access, embeddings=embeddings), removed=removed
        )

    def again(recognizer: OpusAgentVoiceRecognizer, answer: MergeAnswer) -> MergeAnswer:
        caller = read_again(recognizer, answer.caller, access, embeddings=embeddings)
        return answer.model_copy(update={"caller": caller})

    return await access.change(work, MergeAnswer, again)


class RemovedAnswer(BaseModel):
    """voiceprints: number of those that were removed."""

    voiceprints: int


@router.delete("/{caller_id}", operation_id="delete_caller")
async def delete_caller(
    access: Administers, caller_id: CallerId, receipt: Receipt = True
) -> DeletionReceipt | RemovedAnswer:
    """Delete a caller with all voiceprints and metadata, and prove it by a receipt."""
    if receipt:
        return await access.change(
            lambda recognizer: recognizer.delete_caller(caller_id, receipt=True),
            DeletionReceipt,
            taken_over=lambda recognizer: delete_or_prove(recognizer.storage, caller_id),
        )
    return await access.change(
        lambda recognizer: RemovedAnswer(voiceprints=recognizer.delete_caller(caller_id)), RemovedAnswer
    )


@router.put("/{caller_id}/consent", operation_id="set_consent")
async def set_consent(
    access: Enrolls, caller_id: CallerId, body: Consent, embeddings: WithEmbeddings
) -> CallerAnswer:
    """Store the consent of a caller in place of an earlier one.

    Before the enrollment, this makes a caller without voiceprints.
    """
    return await changed_caller(
        access, lambda recognizer: recognizer.set_consent(caller_id, body), embeddings=embeddings
    )


class Refusal(BaseModel):
    """A refusal. reason, by: texts of one line, up to 512 characters."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str | None = None
    by: str | None = None


@router.post("/{caller_id}/opt-out", operation_id="opt_out")
async def opt_out(
    access: Administers,
    caller_id: CallerId,
    body: Annotated[Refusal | None, Body()] = None,
    receipt: Receipt = True,
) -> DeletionReceipt | RemovedAnswer:
    """Erase all voiceprints and data of a caller who refuses, and note the refusal.

    Nobody enrolls or matches this caller until the opt-in. The caller need not be enrolled.
    """
    refusal = Refusal() if body is None else body
    if receipt:
        return await access.change(
            lambda recognizer: recognizer.opt_out(
                caller_id, reason=refusal.reason, by=refusal.by, receipt=True
            ),
            DeletionReceipt,
        )
    return await access.change(
        lambda recognizer: RemovedAnswer(
            voiceprints=recognizer.opt_out(caller_id, reason=refusal.reason, by=refusal.by)
        ),
        RemovedAnswer,
    )


@router.post("/{caller_id}/opt-in", operation_id="opt_in")
async def opt_in(access: Administers, caller_id: CallerId, embeddings: WithEmbeddings) -> CallerAnswer:
    """End the refusal of a caller, who can be enrolled again."""
    return await changed_caller(
        access, lambda recognizer: recognizer.opt_in(caller_id), embeddings=embeddings
    )


async def changed_caller(
    access: Access, change: Callable[[OpusAgentVoiceRecognizer], Caller], *, embeddings: bool
) -> CallerAnswer:
    """The answer of a change of one caller, once for each Idempotency-Key."""
    return await access.change(
        lambda recognizer: answer_of(recognizer, change(recognizer), access, embeddings=embeddings),
        CallerAnswer,
        partial(read_again, access=access, embeddings=embeddings),
    )


def read_again(
    recognizer: OpusAgentVoiceRecognizer, answer: CallerAnswer, access: Access, *, embeddings: bool
) -> CallerAnswer:
    """The caller of a stored answer as of now; the answer itself where the caller is gone."""
    caller = recognizer.storage.get(answer.caller_id)
    return answer if caller is None else answer_of(recognizer, caller, access, embeddings=embeddings)
