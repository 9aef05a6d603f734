"""Jobs over HTTP, their folder, and what a crash leaves."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres_server import fresh_url
from serving import Running, serve
from sqlalchemy import update
from voices import SAMPLES, BandEncoder, by_cosine

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, ServiceError
from voiceprint.client import Client
from voiceprint.server import ServerSettings, Service
from voiceprint.server.database import jobs as table
from voiceprint.server.jobs import Job
from voiceprint.server.problems import ProblemError

CALLERS = sorted(folder.name for folder in SAMPLES.iterdir() if folder.is_dir())[:4]


class SlowEncoder(BandEncoder):
    """An encoder that waits at each embedding while `go` is not set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def embed(self, audio: Any) -> Any:
        """As `Encoder.embed`."""
        assert self.go.wait(60)
        return super().embed(audio)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of jobs, with a manifest and labeled recordings of the gallery `default`."""
    root = tmp_path_factory.mktemp("jobs")
    inside = root / "default" / "calls"
    inside.mkdir(parents=True)
    (root / "other").mkdir()
    (root / "secret.csv").write_text("caller_id,path\nx,y.wav\n")
    (root / "default" / "out.csv").symlink_to(root / "secret.csv")
    rows = [("caller_id", "path", "metadata.account")]
    for caller in CALLERS:
        for sample in sorted((SAMPLES / caller).glob("*.flac"))[:2]:
            name = f"{caller}-{sample.name}"
            shutil.copy(sample, inside / name)
            rows.append((caller, name, "7"))
    shutil.copy(SAMPLES / CALLERS[0] / "1.flac", root / "outside.flac")
    (inside / "link.flac").symlink_to(root / "outside.flac")
    rows += [("eve", "../../outside.flac", ""), ("eve", "link.flac", ""), ("eve", "none.flac", "")]
    with (inside / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    # More rows than are begun at once, so that a job that stops leaves some.
    long = [("caller_id", "path", "start", "end")]
    long += [
        (caller, f"{caller}-1.flac", str(start / 100), str(start / 100 + 2))
        for caller in CALLERS
        for start in range(15)
    ]
    with (inside / "long.csv").open("w", newline="") as file:
        csv.writer(file).writerows(long)
    for caller in CALLERS:
        shutil.copytree(SAMPLES / caller, root / "default" / "labeled" / caller)
    return root


@pytest.fixture(scope="module")
def encoder() -> SlowEncoder:
    """The encoder of the service."""
    return SlowEncoder()


@pytest.fixture(scope="module")
def served(
    folder: Path, encoder: SlowEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, httpx.Client]]:
    """A service with a folder of jobs, and a client of its gallery `default`."""
    state = str(tmp_path_factory.mktemp("state") / "state.db")
    with (
        serve(service_over(folder, state, encoder)) as running,
        httpx.Client(
            base_url=f"{running.url}/v1/galleries/default/", headers=running.headers("admin"), timeout=60
        ) as client,
    ):
        yield running, client


def service_over(folder: Path, state: str, encoder: BandEncoder) -> Service:
    """A service of two galleries in memory with this folder of jobs."""
    galleries = {
        name: OpusAgentVoiceRecognizer(
            MemoryStorage(), encoder=encoder, config=by_cosine(encoder_threads=1, enrollment_duration=1.0)
        )
        for name in ("default", "other")
    }
    return Service(galleries, ServerSettings(state=state, rate_limit=0, jobs_folder=folder))


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """A job, once it has ended."""
    for _ in range(600):
        job: dict[str, Any] = client.get(f"jobs/{job_id}").raise_for_status().json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_a_manifest_is_enrolled_and_names_its_bad_rows(served: tuple[Running, httpx.Client]) -> None:
    _, client = served
    begun = client.post("jobs", json={"kind": "enroll", "manifest": "calls/manifest.csv"})
    assert (begun.status_code, begun.json()["state"] in ("queued", "running")) == (202, True)
    job = ended(client, begun.json()["job_id"])
    assert (job["state"], job["result"]["counts"]) == ("done", {"enrolled": 8, "failed": 3})
    places = [failure["line"] for failure in job["result"]["failures"]]
    assert places == [10, 11, 12]
    outside = [failure["detail"] for failure in job["result"]["failures"][:2]]
    assert all("outside the folder" in detail for detail in outside)
    assert client.get("callers").json()["callers"][0]["metadata"] == {"account": "7"}
    assert client.get("callers/eve").status_code == 404
    assert job["job_id"] in [one["job_id"] for one in client.get("jobs").json()["jobs"]]
    again = client.post("jobs", json={"kind": "enroll", "manifest": "calls/manifest.csv"}).json()
    counts = ended(client, again["job_id"])["result"]["counts"]
    assert counts == {"done_before": 8, "failed": 3}


def test_the_client_follows_a_job(served: tuple[Running, httpx.Client]) -> None:
    running, http = served
    with Client(running.url, running.key("admin")) as client:
        begun = client.enroll_manifest_job("calls/manifest.csv", again=True)
        ended(http, begun.job_id)
        job = client.get_job(begun.job_id)
        assert (job.state, job.has_ended, job.kind) == ("done", True, "enroll")
        assert job.result is not None
        assert job.result["counts"]["failed"] == 3
        assert job.arguments is not None
        assert job.arguments["again"]
        assert begun.job_id in [one.job_id for one in client.jobs()]
        assert client.cancel_job(begun.job_id) == job  # which has ended
        with pytest.raises(ServiceError, match="job"):
            client.get_job("no-such")
        evaluation = client.evaluate_job("labeled")
        assert evaluation.kind == "evaluate"
        client.cancel_job(evaluation.job_id)
        assert ended(http, evaluation.job_id)["state"] in ("canceled", "cancelled", "done")


@pytest.mark.parametrize(
    "manifest",
    ["../secret.csv", "/etc/passwd", "out.csv", "none.csv", "calls/../../secret.csv", "a\0b", "x" * 900],
)
def test_a_path_outside_the_folder_is_as_one_that_is_missing(
    served: tuple[Running, httpx.Client], manifest: str
) -> None:
    answer = served[1].post("jobs", json={"kind": "enroll", "manifest": manifest})
    problem = answer.json()
    assert (answer.status_code, problem["error"]) == (422, "InvalidArgumentError")
    assert problem["detail"].startswith("There is no ")


def test_a_manifest_of_another_gallery_is_missing(served: tuple[Running, httpx.Client], folder: Path) -> None:
    running, client = served
    job = client.post("jobs", json={"kind": "enroll", "manifest": "calls/manifest.csv"}).json()["job_id"]
    ended(client, job)
    other = {
        "headers": running.headers("admin", galleries=["other"]),
        "timeout": 60,
    }
    url = f"{running.url}/v1/galleries/other/jobs"
    body = {"kind": "enroll", "manifest": "calls/manifest.csv"}
    assert httpx.post(url, json=body, **other).status_code == 422  # type: ignore[arg-type]
    assert httpx.get(f"{url}/{job}", **other).json()["error"] == "JobNotFoundError"  # type: ignore[arg-type]
    assert httpx.post(f"{url}/{job}/cancel", **other).status_code == 404  # type: ignore[arg-type]
    assert str(folder) not in client.get(f"jobs/{job}").text


def test_a_job_is_cancelled_and_another_one_waits_for_its_turn(
    served: tuple[Running, httpx.Client], encoder: SlowEncoder
) -> None:
    _, client = served
    encoder.go.clear()
    try:
        body = {"kind": "enroll", "manifest": "calls/long.csv"}
        first = client.post("jobs", json=body).json()["job_id"]
        twice = client.post("jobs", json=body)
        assert (twice.status_code, twice.json()["error"]) == (409, "JobInProgressError")
        same = client.post("jobs", json={**body, "manifest": "./calls/../calls/long.csv"})
        assert same.status_code == 409
        waits = client.post("jobs", json={"kind": "evaluate", "folder": "labeled"}).json()["job_id"]
        assert client.post(f"jobs/{waits}/cancel").json()["state"] == "cancelled"
        assert client.get("index").status_code == 200  # requests go on
        client.post(f"jobs/{first}/cancel").raise_for_status()
    finally:
        encoder.go.set()
    assert ended(client, first)["state"] == "cancelled"
    assert client.post(f"jobs/{first}/cancel").json()["state"] == "cancelled"


def test_recordings_are_evaluated(served: tuple[Running, httpx.Client]) -> None:
    running, client = served
    body = {"kind": "evaluate", "folder": "labeled", "durations_s": [2.0]}
    url = f"{running.url}/v1/galleries/default/jobs"
    assert httpx.post(url, json=body, headers=running.headers("enroll")).status_code == 403
    job = ended(client, client.post("jobs", json=body).json()["job_id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert job["result"]["speakers"] == len(CALLERS)
    assert job["result"]["folders"] == ["labeled"]


def test_a_job_that_fails_says_why_without_places_of_the_server(
    served: tuple[Running, httpx.Client], folder: Path
) -> None:
    _, client = served
    (folder / "default" / "bad.csv").write_text("who;what\n")
    job = ended(client, client.post("jobs", json={"kind": "enroll", "manifest": "bad.csv"}).json()["job_id"])
    assert (job["state"], job["error"]["error"]) == ("failed", "InvalidArgumentError")
    assert "semicolons" in job["error"]["detail"]
    assert str(folder) not in job["error"]["detail"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_job_of_a_dead_worker_is_taken_over_and_of_a_stopped_one_goes_on(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    state = str(tmp_path / "state.db") if kind == "sqlite" else fresh_url()
    encoder = SlowEncoder()
    arguments = {
        "manifest": "calls/long.csv", "on_mismatch": "store", "on_several_voices": "refuse", "again": False,
    }  # fmt: skip
    first = service_over(folder, state, encoder)
    job = first.jobs.create("default", "enroll", arguments, "key:test")
    taken = first.jobs._take()  # as a worker that is killed then
    assert taken is not None
    assert first.jobs._take() is None  # nobody else takes it while it lives
    with first.database.begin() as connection:
        connection.execute(update(table).values(beat=time.time() - 60))
    encoder.go.clear()
    second = service_over(folder, state, encoder)
    second.start()
    _waits_for(second, job, lambda found: found.attempts == 1)
    closing = threading.Thread(target=second.close)
    closing.start()
    encoder.go.set()
    closing.join(60)
    assert first.jobs.get("default", job.job_id).state == "queued"
    third = service_over(folder, state, encoder)
    third.start()
    done = _waits_for(third, job, lambda found: found.state == "done")
    assert done.result is not None
    assert sum(done.result["counts"].values()) == 60
    assert "left" not in done.result["counts"]
    for service in first, third:
        service.close()


def _waits_for(service: Service, job: Job, condition: Callable[[Job], bool]) -> Job:
    for _ in range(600):
        found = service.jobs.get("default", job.job_id)
        if condition(found):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_a_job_whose_workers_end_again_and_again_fails(folder: Path, tmp_path: Path) -> None:
    service = service_over(folder, str(tmp_path / "state.db"), BandEncoder())
    job = service.jobs.create("default", "enroll", {"manifest": "calls/manifest.csv"}, "key:test")
    for _ in range(5):
        assert service.jobs._take() is not None
        with service.database.begin() as connection:
            connection.execute(update(table).values(beat=time.time() - 60))
    service.start()
    failed = _waits_for(service, job, lambda found: found.state == "failed")
    assert failed.error is not None
    assert failed.error[0] == "WorkerEndedError"
    service.close()


def test_a_service_without_a_folder_has_no_jobs(http: httpx.Client) -> None:
    answer = http.post("jobs", json={"kind": "enroll", "manifest": "x.csv"})
    assert (answer.status_code, "VOICE_SERVER_JOBS_FOLDER" in answer.json()["detail"]) == (422, True)
    assert http.get("jobs").json() == {"jobs": []}


def test_the_jobs_that_wait_have_a_limit(folder: Path, tmp_path: Path) -> None:
    service = service_over(folder, str(tmp_path / "state.db"), BandEncoder())  # which is not started
    for number in range(100):
        (folder / "other" / f"{number}.csv").write_text("caller_id,path\n")
        service.jobs.create("other", "enroll", {"manifest": f"{number}.csv"}, "key:test")
    with pytest.raises(ProblemError, match="100 jobs of this gallery") as caught:
        service.jobs.create("other", "enroll", {"manifest": "0.csv"}, "key:test")
    assert caught.value.status == 429
    service.close()
