"""Jobs: enrollments of manifests and evaluations of recordings, beside the requests."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from voiceprint.enrollment.check import OnSeveralVoices
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.server.access import Access, allowed, changing, check_role
from voiceprint.server.jobs import Job, JobState
from voiceprint.validation import format_time

router = APIRouter(prefix="/v1/galleries/{gallery}/jobs", tags=["jobs"])

Reads = Annotated[Access, Depends(allowed("enroll"))]
Changes = Annotated[Access, Depends(changing("enroll"))]
JobId = Annotated[str, Path(max_length=64, description="Id of the job.", examples=["1f0c2d9e5a7b4c3d"])]


class EnrollJob(BaseModel):
    """The enrollment of a manifest, see docs/bulk.md.

    manifest: path in the folder of jobs of this gallery; its recordings are in the folder of the manifest.
    again: enroll also rows that were enrolled before.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["enroll"]
    manifest: str = Field(min_length=1, max_length=1000)
    on_mismatch: OnMismatch = "store"
    on_several_voices: OnSeveralVoices = "refuse"
    again: bool = False


class EvaluateJob(BaseModel):
    """The evaluation of recordings of known speakers, see docs/accuracy.md. Needs the role admin.

    folder: path in the folder of jobs of this gallery, with SPEAKER/SESSION/*.wav. durations_s: seconds of
    each piece of speech. prints: pieces from which a speaker is enrolled.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["evaluate"]
    folder: str = Field(min_length=1, max_length=1000)
    durations_s: list[Annotated[float, Field(gt=0, le=60)]] = Field(default=[5.0], min_length=1, max_length=5)
    prints: list[Annotated[int, Field(ge=1, le=10)]] = Field(default=[1], min_length=1, max_length=5)


class JobFault(BaseModel):
    """The error by which a job failed, or a row was not enrolled."""

    error: str
    detail: str


class JobSummary(BaseModel):
    """A job. Times are ISO 8601 UTC. progress: stage, done, and for an evaluation total."""

    job_id: str
    kind: Literal["enroll", "evaluate"]
    state: JobState
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    progress: dict[str, Any] | None = None
    error: JobFault | None = None

    @classmethod
    def of(cls, job: Job, **more: Any) -> Any:
        """The summary of a job."""
        return cls(
            job_id=job.job_id,
            kind=job.kind,  # type: ignore[arg-type]  # checked when it was created
            state=job.state,
            created_at=_time(job.created),
            started_at=None if job.started is None else _time(job.started),
            ended_at=None if job.ended is None else _time(job.ended),
            progress=job.progress,
            error=None if job.error is None else JobFault(error=job.error[0], detail=job.error[1]),
            **more,
        )


class JobAnswer(JobSummary):
    """A job with its arguments, and with its result once it is done.

    result: of an enrollment, the rows by status, and the line, error and detail of the first 1,000 that
    failed; of an evaluation, the report of `voiceprint evaluate --json`.
    """

    arguments: dict[str, Any]
    result: dict[str, Any] | None = None

    @classmethod
    def of_job(cls, job: Job) -> JobAnswer:
        """The answer of a job."""
        answer: JobAnswer = cls.of(job, arguments=job.arguments, result=job.result)
        return answer


def _time(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601."""
    return format_time(datetime.fromtimestamp(seconds, timezone.utc))


class JobsAnswer(BaseModel):
    """The jobs of a gallery, the newest first."""

    jobs: list[JobSummary]


@router.post("", operation_id="create_job", status_code=202)
async def create_job(
    access: Changes, body: Annotated[EnrollJob | EvaluateJob, Body(discriminator="kind")]
) -> JobAnswer:
    """Begin a job over files in the folder of jobs, which the operator of the service sets.

    One job at a time runs in each worker, beside the requests; the others wait. It survives a restart.
    """
    if isinstance(body, EvaluateJob):
        check_role(access.principal, "admin")
    arguments = body.model_dump(exclude={"kind"}, mode="json")
    return await access.change(
        lambda _: JobAnswer.of_job(
            access.service.jobs.create(access.gallery, body.kind, arguments, access.principal.actor)
        ),
        JobAnswer,
    )


@router.get("", operation_id="jobs")
async def list_jobs(
    access: Reads, limit: Annotated[int, Query(ge=1, le=1000, description="Most jobs.")] = 100
) -> JobsAnswer:
    """List the jobs of the last 30 days, the newest first."""
    found = await access.service.work.run_light(access.service.jobs.list, access.gallery, limit)
    return JobsAnswer(jobs=[JobSummary.of(job) for job in found])


@router.get("/{job_id}", operation_id="get_job")
async def get_job(access: Reads, job_id: JobId) -> JobAnswer:
    """Read the state, the progress and the result of a job."""
    jobs = access.service.jobs
    return JobAnswer.of_job(await access.service.work.run_light(jobs.get, access.gallery, job_id))


@router.post("/{job_id}/cancel", operation_id="cancel_job")
async def cancel_job(access: Changes, job_id: JobId) -> JobAnswer:
    """Cancel a job. What it has enrolled stays; one that has ended stays as it is."""
    return await access.change(
        lambda _: JobAnswer.of_job(access.service.jobs.cancel(access.gallery, job_id)), JobAnswer
    )
