"""Jobs and answers outlive workers that are killed, and a restart of the service."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_server_processes import key, served
from voices import SAMPLES

EXCERPTS = 4  # of each sample: more rows than an enrollment stores at once, so that some are stored early


def workers_of(supervisor: int) -> list[int]:
    """The process ids of the workers."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for(client: httpx.Client, path: str, wanted: str) -> dict[str, Any]:
    """A job, once its state is `wanted`. Requests that die with a worker are repeated."""
    found: dict[str, Any] = {}
    for _ in range(1200):
        try:
            found = client.get(path).raise_for_status().json()
        except httpx.HTTPError:  # no worker, or one that died
            time.sleep(0.1)
            continue
        if found["state"] == wanted and (wanted != "running" or (found["progress"] or {}).get("done", 0) > 0):
            return found
        assert found["state"] in ("queued", "running"), found
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.mark.slow
def test_a_job_and_an_answer_outlive_killed_workers_and_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / "default"
    folder.mkdir(parents=True)
    samples = sorted(SAMPLES.glob("*/*.flac"))[:24]
    lines = ["caller_id,path,end"]
    for sample in samples:
        name = f"{sample.parent.name}-{sample.name}"
        shutil.copy(sample, folder / name)
        lines += [f"{number}-{name},{name},{3 + number / 10}" for number in range(EXCERPTS)]
    (folder / "manifest.csv").write_text("\n".join(lines))
    headers = key(tmp_path)
    settings = {
        "VOICE_STORAGE_BACKEND": "sqlite", "VOICE_ENROLLMENT_DURATION": "1", "VOICE_ENCODER_THREADS": "1",
        "VOICE_SERVER_JOBS_FOLDER": str(tmp_path / "jobs"),
    }  # fmt: skip
    once = {**headers, "Idempotency-Key": "first"}
    path = "/v1/galleries/default/callers/alice/voiceprints"
    audio = samples[0].read_bytes()
    with served(tmp_path, "--workers", "2", **settings) as (process, url):
        first = httpx.post(url + path, content=audio, headers=once, timeout=60).raise_for_status()
        base = f"{url}/v1/galleries/default/"
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            begun = client.post("jobs", json={"kind": "enroll", "manifest": "manifest.csv"})
            job = f"jobs/{begun.raise_for_status().json()['job_id']}"
            wait_for(client, job, "running")
            for worker in workers_of(process.pid):
                os.kill(worker, signal.SIGKILL)
            done = wait_for(client, job, "done")
        counts = done["result"]["counts"]
        assert sum(counts.values()) == len(lines) - 1
        assert counts["done_before"] >= 64
        assert "failed" not in counts
    with served(tmp_path, **settings) as (_, url):
        again = httpx.post(url + path, content=audio, headers=once, timeout=60)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json() == first.json()
        callers = httpx.get(
            f"{url}/v1/galleries/default/callers?limit=1000", headers=headers, timeout=60
        ).json()
        assert len(callers["callers"]) == len(lines)  # with alice
        assert all(len(caller["voiceprints"]) == 1 for caller in callers["callers"])


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_is_asked_for_a_sign_of_life_is_replaced(tmp_path: Path) -> None:
    key(tmp_path)
    with served(tmp_path, "--workers", "2", VOICE_STORAGE_BACKEND="sqlite") as (process, _):
        first = workers_of(process.pid)
        for worker in first:
            os.kill(worker, signal.SIGSTOP)
        time.sleep(2)  # the supervisor asks twice a second, and now waits for an answer
        for worker in first:
            os.kill(worker, signal.SIGKILL)
        for _ in range(600):
            if len({*workers_of(process.pid)} - {*first}) == 2:
                break
            time.sleep(0.1)
        assert len({*workers_of(process.pid)} - {*first}) == 2
