"""Calls on the jobs and the live calls of a service, which a recognizer does not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from voiceprint.client import answers
from voiceprint.client.calls import Call, part
from voiceprint.client.models import Job, LiveCall
from voiceprint.consent import Consent, check_groups
from voiceprint.enrollment.check import OnSeveralVoices
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Voiceprint
from voiceprint.validation import check_caller_id, check_metadata, shown

# Jobs


def enroll_manifest_job(
    manifest: str,
    *,
    on_mismatch: OnMismatch = "store",
    on_several_voices: OnSeveralVoices = "refuse",
    again: bool = False,
) -> Call[Job]:
    """Begin to enroll the rows of a manifest, as `OpusAgentVoiceRecognizer.enroll_manifest`.

    manifest: its path in the folder of jobs of the gallery, which the operator of the service sets.
    """
    fields = {
        "kind": "enroll",
        "manifest": manifest,
        "on_mismatch": on_mismatch,
        "on_several_voices": on_several_voices,
        "again": again,
    }
    return _job("POST", "jobs", fields, changes=True)


def evaluate_job(
    folder: str, *, durations_s: Iterable[float] = (5.0,), prints: Iterable[int] = (1,)
) -> Call[Job]:
    """Begin to evaluate recordings of known speakers, as `voiceprint evaluate`. For the role admin.

    folder: its path in the folder of jobs of the gallery.
    """
    fields = {"kind": "evaluate", "folder": folder, "durations_s": list(durations_s), "prints": list(prints)}
    return _job("POST", "jobs", fields, changes=True)


def get_job(job_id: str) -> Call[Job]:
    """The state, the progress and the result of a job."""
    return _job("GET", f"jobs/{_part(job_id, 'job_id')}", None)


def cancel_job(job_id: str) -> Call[Job]:
    """Cancel a job. The voiceprints that it has enrolled stay."""
    return _job("POST", f"jobs/{_part(job_id, 'job_id')}/cancel", None, changes=True)


def jobs(*, limit: int = 100) -> Call[list[Job]]:
    """The jobs of the last 30 days, the newest first; at most `limit`."""
    return Call(
        "GET",
        "jobs",
        lambda found: [Job.model_validate(job) for job in found["jobs"]],
        query={"limit": str(limit)},
    )


# Live calls


def announce_call(
    call_id: str | None = None,
    *,
    from_number: str | None = None,
    to_number: str | None = None,
    candidates: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    not_groups: Iterable[str] = (),
    watch: Iterable[str] = (),
    k: int = 1,
) -> Call[LiveCall]:
    """Announce a call, whose connection is awaited for 10 minutes, with the callers to compare it with.

    call_id: of the telephony platform; None makes a new one.
    """
    fields = {
        "call_id": call_id,
        "from": from_number,
        "to": to_number,
        "candidates": None if candidates is None else [check_caller_id(one) for one in candidates],
        "groups": None if groups is None else list(check_groups(groups)),
        "not_groups": list(check_groups(not_groups)),
        "watch": list(check_groups(watch)),
        "k": k,
    }
    return Call("POST", "calls", LiveCall.model_validate, fields=fields)


def live_calls(
    *, state: Literal["announced", "live", "ended", "failed"] | None = None, limit: int = 100
) -> Call[list[LiveCall]]:
    """The calls of all workers, the newest first; at most `limit`. Ended ones stay for a day."""
    query = {"limit": str(limit)} | ({} if state is None else {"state": state})
    return Call(
        "GET",
        "calls",
        lambda found: [LiveCall.model_validate(call) for call in found["calls"]],
        query=query,
    )


def get_call(call_id: str) -> Call[LiveCall]:
    """A call, with the answer to it so far."""
    return Call("GET", f"calls/{_part(call_id, 'call_id')}", LiveCall.model_validate)


def end_call(call_id: str) -> Call[None]:
    """End the connection of a call, with its final answer. The telephone call itself goes on."""
    # Without an idempotency key: to end a call twice ends it once.
    return Call("DELETE", f"calls/{_part(call_id, 'call_id')}", lambda _: None, statuses=frozenset({202}))


def enroll_from_call(
    call_id: str,
    caller_id: str,
    metadata: dict[str, Any] | None = None,
    *,
    on_mismatch: OnMismatch = "refuse",
    on_several_voices: OnSeveralVoices = "refuse",
    consent: Consent | None = None,
    groups: Iterable[str] = (),
) -> Call[Voiceprint]:
    """Enroll a caller from the audio of a call, while it lasts or in the 5 minutes after its end.

    A recording is enrolled once, so that a repeated request changes nothing.
    """
    fields = {
        "caller_id": check_caller_id(caller_id),
        "metadata": None if metadata is None else check_metadata(metadata),
        "on_mismatch": on_mismatch,
        "on_several_voices": on_several_voices,
        "consent": None if consent is None else consent.model_dump(),
        "groups": list(check_groups(groups)),
    }
    path = f"calls/{_part(call_id, 'call_id')}/voiceprints"
    return Call("POST", path, answers.voiceprint, fields=fields)


def _job(method: str, path: str, fields: Mapping[str, Any] | None, *, changes: bool = False) -> Call[Job]:
    statuses = frozenset({200, 202})
    return Call(method, path, Job.model_validate, changes=changes, statuses=statuses, fields=fields)


def _part(text: object, name: str) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidArgumentError(f"{name} is {shown(text)}: give an id.")
    return part(text)
