"""Two services as on two machines: ports and snapshots of their own, one PostgreSQL for records and state."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from postgres_server import fresh_url
from test_server_processes import served
from test_server_takeover import wait_for
from voices import SAMPLES
from websockets.sync.client import connect

from voiceprint import load_audio
from voiceprint.audio.io import g711
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys

pytestmark = pytest.mark.slow

FIRST, SECOND = ((SAMPLES / "amara" / name).read_bytes() for name in ("1.flac", "2.flac"))
OTHER = (SAMPLES / "bruno" / "1.flac").read_bytes()


class Nodes(NamedTuple):
    """Two nodes. clients: of the gallery `default` of each."""

    processes: list[subprocess.Popen[bytes]]
    clients: list[httpx.Client]
    keys: ApiKeys
    folder: Path


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Nodes that start at the same moment, on databases that are empty but for a key."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "jobs" / "default").mkdir(parents=True)
    state = fresh_url()
    database = ServerDatabase(state)
    keys = ApiKeys(database)
    headers = {"X-API-Key": keys.create(["admin", "audit"])[0]}
    settings = {
        "VOICE_STORAGE_BACKEND": "postgresql", "VOICE_DATABASE_URL": fresh_url(),
        "VOICE_SERVER_STATE": state, "VOICE_SERVER_JOBS_FOLDER": str(folder / "jobs"),
        "VOICE_AUDIT": "store", "VOICE_SAME_RECORDING": "false", "VOICE_ENROLL_SIMULATED_LINES": "false",
        "VOICE_SERVER_CONSOLE": "false", "VOICE_ENROLLMENT_DURATION": "1",
    }  # fmt: skip
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        stack.callback(database.close)

        def start(name: str) -> tuple[subprocess.Popen[bytes], str]:
            (folder / name).mkdir()
            cache = {"XDG_CACHE_HOME": str(folder / name / "cache")}
            return stack.enter_context(served(folder / name, **settings, **cache))

        started = list(threads.map(start, ("a", "b")))
        clients = [
            stack.enter_context(
                httpx.Client(base_url=f"{url}/v1/galleries/default/", headers=headers, timeout=60)
            )
            for _, url in started
        ]
        yield Nodes([process for process, _ in started], clients, keys, folder)


@pytest.fixture(autouse=True)
def _nobody_is_enrolled(nodes: Nodes) -> None:
    client = nodes.clients[1]
    for caller in client.get("callers").raise_for_status().json()["callers"]:
        client.delete(f"callers/{caller['caller_id']}").raise_for_status()


def enroll(client: httpx.Client, caller: str, audio: bytes = FIRST, **headers: str) -> httpx.Response:
    return client.post(f"callers/{caller}/voiceprints", content=audio, headers=headers)


def named(client: httpx.Client, audio: bytes = FIRST) -> list[str]:
    """The callers of an identification, the best first."""
    answer = client.post("identify", content=audio).raise_for_status().json()
    return [match["caller_id"] for match in answer["matches"]]


def eventually(work: Callable[[], object], wanted: object) -> None:
    """Wait until it gives the wanted value."""
    for _ in range(1200):
        found = work()
        if found == wanted:
            return
        time.sleep(0.05)
    assert found == wanted


@pytest.mark.parametrize("first", [0, 1])
def test_a_caller_who_is_enrolled_at_one_node_is_found_at_the_other_and_gone_when_deleted(
    nodes: Nodes, first: int
) -> None:
    one, other = nodes.clients[first], nodes.clients[1 - first]
    for turn in range(5):
        caller = f"caller-{turn}"
        enroll(one, caller).raise_for_status()
        assert named(other) == [caller]
        one.delete(f"callers/{caller}").raise_for_status()
        assert named(other) == []


def test_a_caller_who_gets_another_voiceprint_at_one_node_is_found_by_it_at_the_other(nodes: Nodes) -> None:
    one, other = nodes.clients
    stored = enroll(one, "amara").raise_for_status().json()
    assert named(other) == ["amara"]
    enroll(other, "bruno", OTHER).raise_for_status()
    assert named(one, OTHER)[0] == "bruno"
    one.delete(f"voiceprints/{stored['id']}").raise_for_status()
    assert "amara" not in named(other)


def test_a_key_made_and_revoked_beside_both_nodes_holds_at_both_from_the_next_request(nodes: Nodes) -> None:
    text, made = nodes.keys.create(["identify"])

    def statuses() -> set[int]:
        return {
            client.post("identify", content=b"", headers={"X-API-Key": text}).status_code
            for client in nodes.clients
        }

    assert statuses() == {422}
    nodes.keys.revoke(made.key_id)
    assert statuses() == {401}


def test_a_request_that_is_repeated_at_the_other_node_is_carried_out_once(nodes: Nodes) -> None:
    one, other = nodes.clients
    once = {"Idempotency-Key": "e-1"}
    first, again = enroll(one, "ida", **once), enroll(other, "ida", **once)
    assert first.status_code == again.status_code == 201
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    with ThreadPoolExecutor(2) as threads:  # and at the same moment
        twice = {"Idempotency-Key": "e-2"}
        answers = list(threads.map(lambda client: enroll(client, "ida", SECOND, **twice), nodes.clients))
    assert sum("idempotency-replayed" not in a.headers for a in answers if a.status_code == 201) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len(one.get("callers/ida").json()["voiceprints"]) == 2


def test_a_target_that_is_set_at_one_node_is_followed_at_the_other(nodes: Nodes) -> None:
    one, other = nodes.clients
    for target in (0.02, None):
        one.put("calibration", json={"target_fpir": target}).raise_for_status()
        eventually(lambda: other.get("calibration").raise_for_status().json()["target_set"], target)


def test_a_live_call_is_seen_and_ended_from_the_other_node(nodes: Nodes) -> None:
    one, other = nodes.clients
    enroll(other, "amara").raise_for_status()
    audio, _ = load_audio(SAMPLES / "amara/1.flac")
    codes = g711.encode((audio[::2] * 32767).astype("i2"), "mulaw").tobytes()
    address = str(one.base_url).replace("http", "ws") + "calls/raw"
    with connect(address, additional_headers={"X-API-Key": one.headers["X-API-Key"]}) as call:
        call.send('{"call_id": "CA-1", "rate": 8000, "encoding": "mulaw"}')
        for start in range(0, len(codes), 160):
            call.send(codes[start : start + 160])
        call.recv(60)  # an answer
        everywhere = str(other.base_url).replace("galleries/default/", "calls/CA-1")
        for found in (other.get("calls/CA-1"), other.get(everywhere)):
            assert (found.raise_for_status().json()["state"], found.json()["can_enroll"]) == ("live", False)
        refused = other.post("calls/CA-1/voiceprints", json={"caller_id": "eve"})
        assert (refused.status_code, refused.json()["error"]) == (409, "CallElsewhereError")
        assert other.delete("calls/CA-1").status_code == 202
        for _ in call:  # until the node that has the call ends it
            pass
    eventually(lambda: other.get("calls/CA-1").raise_for_status().json()["state"], "ended")
    ended = other.get("calls/CA-1").json()
    assert (ended["ended_by"], ended["answer"]["caller_id"]) == ("request", "amara")


def test_each_node_has_a_snapshot_of_its_own_without_deleted_callers(nodes: Nodes) -> None:
    one, other = nodes.clients
    enroll(one, "amara").raise_for_status()
    for client in nodes.clients:
        client.post("index/rebuild").raise_for_status()
    snapshots = [list((nodes.folder / name / "cache").rglob("*.index")) for name in ("a", "b")]
    assert [len(found) for found in snapshots] == [1, 1]
    other.delete("callers/amara").raise_for_status()
    assert not snapshots[1][0].exists()
    assert named(one) == []  # takes the deletion in
    assert not snapshots[0][0].exists()


def test_a_job_of_a_node_that_is_killed_goes_on_at_the_other(nodes: Nodes) -> None:
    """The last test: it ends a node."""
    one, other = nodes.clients
    folder = nodes.folder / "jobs" / "default"
    lines = ["caller_id,path,end"]
    for sample in sorted(SAMPLES.glob("*/*.flac"))[:20]:
        name = f"{sample.parent.name}-{sample.name}"
        shutil.copy(sample, folder / name)
        lines += [f"{number}-{name},{name},{3 + number / 10}" for number in range(4)]
    (folder / "manifest.csv").write_text("\n".join(lines))
    other_pid = nodes.processes[1].pid
    # Node b stands still, so that node a takes the job.
    os.kill(other_pid, signal.SIGSTOP)
    try:
        begun = one.post("jobs", json={"kind": "enroll", "manifest": "manifest.csv"}).raise_for_status()
        job = f"jobs/{begun.json()['job_id']}"
        wait_for(one, job, "running")
        nodes.processes[0].kill()
        nodes.processes[0].wait(60)
    finally:
        os.kill(other_pid, signal.SIGCONT)
    done = wait_for(other, job, "done")
    assert sum(done["result"]["counts"].values()) == len(lines) - 1
    assert "failed" not in done["result"]["counts"]
    callers = other.get("callers?limit=1000").raise_for_status().json()["callers"]
    assert len(callers) == len(lines) - 1
    assert all(len(caller["voiceprints"]) == 1 for caller in callers)
