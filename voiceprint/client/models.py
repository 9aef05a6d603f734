"""The models of jobs and live calls, which the service alone has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from voiceprint._model import Frozen

__all__ = ["Job", "LiveCall"]


class Job(Frozen):
    """A job of the service: the enrollment of a manifest, or an evaluation of recordings.

    progress: its stage, and the rows or recordings that are done. error: {"error", "detail"} of a failed job.
    result: of an enrollment, the rows by status and the failed ones; of an evaluation, its report. arguments
    and result are None in a list of jobs. Times are ISO 8601 UTC with a `Z`.
    """

    job_id: str
    kind: str
    state: str
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    progress: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    arguments: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the job is done, has failed or was canceled."""
        return self.ended_at is not None


class LiveCall(Frozen):
    """A call that the service takes, and the answer to it so far.

    source: the format of its connection. ended_by: "platform", "connection", "silence", "duration",
    "request", "protocol", "shutdown" or "error". can_enroll: whether `enroll_from_call` has its audio.
    late_answers: of `answers`, those that came over a second after their audio. answer: fields as of
    `voiceprint.StreamResult`; None before the first.
    """

    call_id: str
    gallery: str
    state: Literal["announced", "live", "ended", "failed"]
    source: str | None = None
    from_number: str | None = Field(default=None, alias="from", repr=False)
    to_number: str | None = Field(default=None, alias="to", repr=False)
    created_at: str
    ended_at: str | None = None
    ended_by: str | None = None
    error: str | None = None
    can_enroll: bool = False
    answers: int = 0
    late_answers: int = 0
    most_late_s: float = 0.0
    answer: dict[str, Any] | None = Field(default=None, repr=False)
