"""`Jobs`: long work beside the requests: enrollments of manifests, and evaluations of recordings."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Row, and_, delete, insert, or_, select, update

from voiceprint._audited import acting_as
from voiceprint.errors import InvalidArgumentError, StorageUnavailableError, VoiceprintError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.database import DEAD_AFTER_S, ServerDatabase, jobs
from voiceprint.server.job_work import JobStoppedError, run_job
from voiceprint.server.problems import ProblemError, public_message
from voiceprint.server.worker_ids import has_ended
from voiceprint.validation import shown

logger = logging.getLogger(__name__)

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: Final = ("done", "failed", "cancelled")

_POLLED_EVERY_S: Final = 2.0
"""Seconds between two looks for a job that another worker took in or left. Doubled, it waits longer."""

_WRITTEN_EVERY_S: Final = 1.0
"""Seconds between two records of the progress, which also read a cancellation. Doubled, half the writes."""

_KEPT_S: Final = 30 * 24 * 3600.0
"""Seconds that a job that has ended is kept. Doubled, the table doubles."""

_MOST_ATTEMPTS: Final = 5
"""Workers that may end within a job before it fails: a job that ends its worker would end all in turn."""


_MOST_QUEUED: Final = 100
"""Jobs of a gallery and kind that wait or run. Doubled, the last of them waits twice as long."""


class Job(NamedTuple):
    """A job.

    kind: "enroll" or "evaluate". arguments: of the request. actor: of the audit log. created, started, ended:
    seconds since 1970. progress: of this moment. result: of a job that is done. error: name and message of
    the error by which it failed. attempts: number of workers that began it and ended without it.
    """

    job_id: str
    gallery: str
    kind: str
    state: JobState
    created: float
    arguments: dict[str, Any]
    actor: str
    started: float | None = None
    ended: float | None = None
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: tuple[str, str] | None = None
    attempts: int = 0

    def details(self) -> str:
        """The fields that the database holds as JSON."""
        fields = self._asdict()
        for name in ("job_id", "gallery", "kind", "state", "created"):
            del fields[name]
        return json.dumps(fields)


class Jobs:
    """The jobs of a service, in the database that all workers share.

    Each worker carries out one at a time, in a thread of its own, so that requests go on. A job of a worker
    that ended, also by a crash, is taken over by another, or by the same service when it starts again; an
    enrollment goes on after the rows that it has stored.

    folder: of the manifests and recordings, see `ServerSettings.jobs_folder`. worker: id of this process.
    recognizer: gives the recognizer of a gallery.
    """

    def __init__(
        self,
        database: ServerDatabase,
        folder: Path | None,
        worker: str,
        galleries: Iterable[str],
        recognizer: Callable[[str], OpusAgentVoiceRecognizer],
    ) -> None:
        self._database, self._folder, self._worker = database, folder, worker
        self._galleries, self._recognizer = [*galleries], recognizer
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._running: str | None = None  # id of the job of this worker
        self._is_cancelled = self._is_lost = False

    # For requests

    def create(self, gallery: str, kind: str, arguments: dict[str, Any], actor: str) -> Job:
        """Queue a job. Raises `InvalidArgumentError`, and `ProblemError` 409 for one that is under way."""
        arguments = self._checked(gallery, arguments)
        job = Job(secrets.token_hex(8), gallery, kind, "queued", time.time(), arguments, actor)
        with self._database.begin() as connection:
            self._database.take_turns(connection, jobs)  # or two nodes would queue the same job
            old = and_(jobs.c.created < job.created - _KEPT_S, jobs.c.state.in_(ENDED))
            connection.execute(delete(jobs).where(old))
            active = and_(jobs.c.gallery == gallery, jobs.c.kind == kind, jobs.c.state.not_in(ENDED))
            rows = connection.execute(select(jobs).where(active)).all()
            if len(rows) >= _MOST_QUEUED:
                raise ProblemError(
                    429,
                    "TooManyJobsError",
                    f"{len(rows)} jobs of this gallery wait or run: wait until some have ended.",
                    {"Retry-After": "60"},
                )
            for row in rows:
                if _job(row).arguments == arguments:
                    raise ProblemError(
                        409, "JobInProgressError", f"The job {row.job_id} does the same: wait, or cancel it."
                    )
            connection.execute(
                insert(jobs).values(
                    job_id=job.job_id,
                    gallery=gallery,
                    kind=kind,
                    state=job.state,
                    created=job.created,
                    cancel=False,
                    details=job.details(),
                )
            )
        self._wake.set()
        return job

    def get(self, gallery: str, job_id: str) -> Job:
        """A job of a gallery. Raises `ProblemError` 404."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(_one(gallery, job_id))).one_or_none()
        if row is None:
            raise ProblemError(404, "JobNotFoundError", f"There is no job {shown(job_id)}.")
        return _job(row)

    def list(self, gallery: str, limit: int = 100) -> list[Job]:
        """The jobs of a gallery, the newest first."""
        newest = select(jobs).where(jobs.c.gallery == gallery).order_by(jobs.c.created.desc()).limit(limit)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(newest)]

    def cancel(self, gallery: str, job_id: str) -> Job:
        """Cancel a job: at once while it waits; one that runs ends soon. One that has ended stays as it is.

        Raises `ProblemError` 404.
        """
        with self._database.begin() as connection:
            one = _one(gallery, job_id)
            connection.execute(update(jobs).where(one).values(cancel=True))
            connection.execute(update(jobs).where(one, jobs.c.state == "queued").values(state="cancelled"))
        if self._running == job_id:
            self._is_cancelled = True
        return self.get(gallery, job_id)

    def _checked(self, gallery: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with their place in its shortest spelling: "./a.csv" is the job of "a.csv"."""
        if self._folder is None:
            raise InvalidArgumentError(
                "This service has no folder of jobs: its operator sets VOICE_SERVER_JOBS_FOLDER."
            )
        place = place_of(self._folder, gallery, arguments)
        name = "manifest" if "manifest" in arguments else "folder"
        return arguments | {name: str(place.relative_to((self._folder / gallery).resolve()))}

    # For the worker

    def start(self) -> None:
        """Begin to carry out jobs, in a thread."""
        if self._folder is None or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._work, name="voiceprint-jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wait until the job that runs has stopped; another worker, or the next start, goes on with it."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def beat(self) -> None:
        """Show that this worker still carries out its job."""
        job_id = self._running
        if job_id is None:
            return
        with self._database.begin() as connection:
            values = {"beat": time.time()}
            if connection.execute(update(jobs).where(self._mine(job_id)).values(**values)).rowcount != 1:
                self._is_lost = True  # this worker stood still, and another has taken it over

    def _mine(self, job_id: str) -> Any:
        return and_(jobs.c.job_id == job_id, jobs.c.worker == self._worker, jobs.c.state == "running")

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                job = self._take()
                if job is not None:
                    self._carry_out(job)
                    continue
            except StorageUnavailableError:
                logger.exception("The jobs cannot be read or written now.")
            except Exception:
                # The thread has to live: no job would be carried out any more.
                logger.exception("A job ended by an unexpected error.")
            self._wake.wait(_POLLED_EVERY_S)
            self._wake.clear()

    def _take(self) -> Job | None:
        """The oldest job that waits, or that a dead worker left, now of this worker."""
        time_now = time.time()
        with self._database.read() as connection:  # mostly none, for which no writer has to wait
            workers = connection.scalars(select(jobs.c.worker).where(jobs.c.state == "running")).all()
            ended = [worker for worker in workers if has_ended(worker)]
            is_left = or_(jobs.c.beat < time_now - DEAD_AFTER_S, jobs.c.worker.in_(ended))
            left = and_(jobs.c.state == "running", is_left)
            free = and_(or_(jobs.c.state == "queued", left), jobs.c.gallery.in_(self._galleries))
            oldest = select(jobs).where(free).order_by(jobs.c.created).limit(1)
            if connection.execute(oldest).first() is None:
                return None
        with self._database.begin() as connection:
            row = connection.execute(oldest).first()
            if row is None:
                return None
            job = _job(row)
            attempts = job.attempts + (row.state == "running")
            job = job._replace(state="running", attempts=attempts, started=job.started or time_now)
            # With the conditions of before: another worker may have taken it in between.
            unchanged = jobs.c.beat.is_(None) if row.beat is None else jobs.c.beat == row.beat
            taken = and_(jobs.c.job_id == job.job_id, jobs.c.state == row.state, unchanged)
            values = {"state": "running", "worker": self._worker, "beat": time_now, "details": job.details()}
            if connection.execute(update(jobs).where(taken).values(**values)).rowcount != 1:
                return None
            self._running, self._is_cancelled, self._is_lost = job.job_id, bool(row.cancel), False
        return job

    def _carry_out(self, job: Job) -> None:
        try:
            self._end(self._outcome(job))
        finally:
            self._running = None

    def _outcome(self, job: Job) -> Job:
        """The job after its work: ended, or queued again where this worker stops."""
        if self._is_cancelled:
            return self._stopped(job)
        if job.attempts >= _MOST_ATTEMPTS:
            why = (
                "WorkerEndedError",
                f"{job.attempts} workers ended within this job: the server's log says why.",
            )
            return job._replace(state="failed", ended=time.time(), error=why)
        assert self._folder is not None  # noqa: S101  without one, no job is taken
        written = time.monotonic()
        latest = job.progress

        def report(progress: dict[str, Any]) -> None:
            nonlocal written, latest
            latest = progress
            if time.monotonic() - written >= _WRITTEN_EVERY_S:
                written = time.monotonic()
                self._write_progress(job._replace(progress=progress))

        try:
            with acting_as(job.actor, job.job_id):
                recognizer = self._recognizer(job.gallery)
                place = place_of(self._folder, job.gallery, job.arguments)
                result = run_job(recognizer, job.kind, place, job.arguments, report, self._must_stop)
        except JobStoppedError:
            return self._stopped(job._replace(progress=latest))
        except VoiceprintError as error:  # the result of this job
            logger.error("The job %s failed: %s", job.job_id, type(error).__name__)  # noqa: TRY400
            why = type(error).__name__, public_message(error).replace(f"{self._folder.absolute()}/", "")
            return job._replace(state="failed", ended=time.time(), progress=latest, error=why)
        except Exception as error:
            # As a request that ends so: by its class alone, and with its traceback in the log.
            logger.exception("The job %s ended by an unexpected error.", job.job_id)
            why = "InternalError", f"An unexpected error ({type(error).__name__}): the server's log has it."
            return job._replace(state="failed", ended=time.time(), progress=latest, error=why)
        return job._replace(state="done", ended=time.time(), progress=latest, result=result)

    def _stopped(self, job: Job) -> Job:
        """The job that was stopped: cancelled, or queued for another worker or the next start."""
        if self._is_cancelled:
            return job._replace(state="cancelled", ended=time.time())
        return job._replace(state="queued")

    def _must_stop(self) -> bool:
        return self._is_cancelled or self._is_lost or self._stopping.is_set()

    def _write_progress(self, job: Job) -> None:
        with self._database.begin() as connection:
            values = {"beat": time.time(), "details": job.details()}
            connection.execute(update(jobs).where(self._mine(job.job_id)).values(**values))
            cancel = connection.execute(select(jobs.c.cancel).where(jobs.c.job_id == job.job_id)).scalar()
        self._is_cancelled = self._is_cancelled or bool(cancel)

    def _end(self, job: Job) -> None:
        values = {"state": job.state, "details": job.details(), "beat": None, "worker": None}
        with self._database.begin() as connection:
            connection.execute(update(jobs).where(self._mine(job.job_id)).values(**values))


def place_of(folder: Path, gallery: str, arguments: dict[str, Any]) -> Path:
    """The manifest or folder that a job reads, inside the folder of its gallery.

    Raises `InvalidArgumentError` for a place that is not there or outside, also by a link.
    """
    name: str = arguments["manifest"] if "manifest" in arguments else arguments["folder"]
    root = (folder / gallery).resolve()
    try:
        place = (root / name).resolve()
        is_there = place.is_relative_to(root) and place.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle, a null byte
        is_there = False
    if gallery in (".", "..") or "/" in gallery or not is_there:
        # One message for what is outside and what is missing: nothing is said about other files.
        raise InvalidArgumentError(
            f"There is no {shown(name)} in the folder of jobs of this gallery: give a path in that folder."
        )
    return place


def _one(gallery: str, job_id: str) -> Any:
    return and_(jobs.c.gallery == gallery, jobs.c.job_id == job_id)


def _job(row: Row[Any]) -> Job:
    details = json.loads(row.details)
    if details["error"] is not None:
        details["error"] = tuple(details["error"])
    return Job(row.job_id, row.gallery, row.kind, row.state, row.created, **details)
