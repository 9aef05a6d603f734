"""Calls on a gallery and on the service: feedback, check, index, health.

Arguments are checked here as the recognizer does, so that a wrong one is the same error, without a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiceprint.client import answers
from voiceprint.client.calls import Call
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import (
    Finding,
    SpaceCoverage,
)
from voiceprint.privacy.audit.event import check_event_id
from voiceprint.validation import check_caller_id, shown

if TYPE_CHECKING:
    from voiceprint.index import IndexStatus


def feedback(event_id: str, *, correct: bool, caller_id: str | None = None) -> Call[str]:
    """Record whether an answer was right; returns the id of this event.

    As `OpusAgentVoiceRecognizer.feedback`.
    """
    check_event_id(event_id)
    if not isinstance(correct, bool):
        raise InvalidArgumentError(f"correct is {shown(correct)}: True or False is allowed.")
    caller = None if caller_id is None else check_caller_id(caller_id)
    fields = {"event_id": event_id, "correct": correct, "caller_id": caller}
    return Call("POST", "feedback", lambda found: found["event_id"], changes=True, fields=fields)


def check(*, fix: bool = False) -> Call[list[Finding]]:
    """The faults of the store, and the differences of index and store; empty without any.

    fix: repair data that is derived from the records; no record is changed.
    """
    return Call(
        "POST",
        "check",
        lambda found: [Finding.model_validate(one) for one in found["findings"]],
        changes=fix,
        fields={"fix": fix},
    )


def index_status() -> Call[IndexStatus]:
    """The state of the index of one worker of the service."""
    return Call("GET", "index", answers.index_status)


def rebuild_index() -> Call[IndexStatus]:
    """Build the index of one worker of the service anew from the store, and write its snapshot."""
    return Call("POST", "index/rebuild", answers.index_status, changes=True)


def galleries() -> Call[list[str]]:
    """The names of the galleries that the key is for."""
    return Call("GET", "/v1/galleries", lambda found: [one["name"] for one in found["galleries"]])


def spaces() -> Call[list[SpaceCoverage]]:
    """The embedding spaces of the store, by encoder, and the callers that each covers."""
    return Call("GET", "spaces", lambda found: [SpaceCoverage.model_validate(one) for one in found["spaces"]])


def threshold_advice() -> Call[str | None]:
    """A sentence where the configured cosine threshold accepts many strangers; else None."""
    return Call("GET", "threshold-advice", lambda found: found["advice"])


def health() -> Call[dict[str, str]]:
    """Whether the service can answer: {"status": "ready", ...}, or what is not ready."""
    return Call("GET", "/readyz", lambda found: dict(found), statuses=frozenset({200, 503}))
