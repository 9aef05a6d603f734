"""Groups: their callers, and the groups of a caller."""

from __future__ import annotations

import heapq
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict

from voiceprint.consent import check_groups
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.access import CallerId, WithEmbeddings
from voiceprint.server.routes.callers import (
    After,
    Enrolls,
    Limit,
    Reads,
    answer_of,
    changed_caller,
)
from voiceprint.server.schemas import CallerAnswer, CallersAnswer, Ids

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["groups"])


class GroupsAnswer(BaseModel):
    """The number of callers with a voiceprint in each group."""

    groups: dict[str, int]


class Groups(BaseModel):
    """Names of groups, up to 100."""

    model_config = ConfigDict(extra="forbid")

    groups: Ids


@router.get("/groups", operation_id="groups")
async def list_groups(access: Reads) -> GroupsAnswer:
    """List the groups, and count the callers with a voiceprint in each."""
    return await access.run(lambda recognizer: GroupsAnswer(groups=recognizer.groups()))


@router.get("/groups/{group}/members", operation_id="members")
async def list_members(
    access: Reads,
    group: Annotated[str, Path(description="Name of the group, percent-encoded.", examples=["vip"])],
    embeddings: WithEmbeddings,
    after: After = "",
    limit: Limit = 100,
) -> CallersAnswer:
    """List the callers with a voiceprint in a group, in the order of their ids."""
    name = unquote(group, errors="replace")

    def work(recognizer: OpusAgentVoiceRecognizer) -> CallersAnswer:
        members = (caller for caller in recognizer.members(name) if caller.caller_id > after)
        page = heapq.nsmallest(limit, members, key=lambda caller: caller.caller_id)
        answers = [answer_of(recognizer, one, access, embeddings=embeddings) for one in page]
        return CallersAnswer.of(answers, limit)

    return await access.run(work)


@router.put("/callers/{caller_id}/groups", operation_id="set_groups")
async def set_groups(
    access: Enrolls, caller_id: CallerId, body: Groups, embeddings: WithEmbeddings
) -> CallerAnswer:
    """Put a caller into these groups, and into no other."""
    names = check_groups(body.groups)
    return await changed_caller(
        access, lambda recognizer: recognizer.set_groups(caller_id, names), embeddings=embeddings
    )


@router.post("/callers/{caller_id}/groups", operation_id="add_to_group")
async def add_to_groups(
    access: Enrolls, caller_id: CallerId, body: Groups, embeddings: WithEmbeddings
) -> CallerAnswer:
    """Add a caller to groups, which come into being with their first caller."""
    names = check_groups(body.groups)
    return await changed_caller(
        access, lambda recognizer: recognizer.add_to_group(caller_id, *names), embeddings=embeddings
    )


@router.delete("/callers/{caller_id}/groups", operation_id="remove_from_group")
async def remove_from_groups(
    access: Enrolls,
    caller_id: CallerId,
    embeddings: WithEmbeddings,
    group: Annotated[
        list[str], Query(max_length=100, description="Name of a group; may be repeated.", examples=[["vip"]])
    ],
) -> CallerAnswer:
    """Remove a caller from groups, also from groups that the caller is not in."""
    names = check_groups(group)
    return await changed_caller(
        access, lambda recognizer: recognizer.remove_from_group(caller_id, *names), embeddings=embeddings
    )
