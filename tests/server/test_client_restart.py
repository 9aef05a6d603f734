"""A client goes on when the service is killed and started again on its port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from voices import SAMPLES

from voiceprint import Recording, ServiceUnavailableError
from voiceprint.client import Client
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys

VOICEPRINT = Path(sys.executable).with_name("voiceprint")


def started(folder: Path, port: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "VOICE_STORAGE_BACKEND": "sqlite", "VOICE_STORAGE_PATH": "voiceprints.db"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [VOICEPRINT, "serve", "--port", str(port)], cwd=folder, env=environment, stdout=log, stderr=log
        )


def wait_until_ready(client: Client, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, (folder / "log").read_text()
        try:
            if client.health()["status"] == "ready":
                return
        except ServiceUnavailableError:  # it does not listen yet
            time.sleep(0.1)
    raise AssertionError("the service is not ready")


@pytest.mark.slow
def test_a_call_during_a_restart_gets_its_answer(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = ApiKeys(ServerDatabase(str(tmp_path / "voiceprint-server.db"))).create(["admin"])[0]
    url = f"http://127.0.0.1:{port}"
    first, second, third = (Recording.open(SAMPLES / f"amara/{n}.flac") for n in (1, 2, 3))
    process = started(tmp_path, port)
    try:
        with (
            Client(url, key, timeout_s=120, retries=1000) as client,
            Client(url, key, retries=0) as impatient,
            ThreadPoolExecutor(2) as pool,
        ):
            wait_until_ready(impatient, process, tmp_path)
            kept = client.enroll_caller("amara", first)
            process.kill()
            process.wait()
            with pytest.raises(ServiceUnavailableError, match="cannot be reached"):
                impatient.groups()
            enrolled = pool.submit(client.enroll_caller, "amara", second)
            matched = pool.submit(client.match_caller, third)
            process = started(tmp_path, port)
            found = matched.result()
            assert found is not None
            assert found[0] == "amara"
            stored = enrolled.result()
            caller = client.get_caller("amara")
            assert caller is not None
            assert [print_.id for print_ in caller.voiceprints] == [kept.id, stored.id]
    finally:
        process.terminate()
        process.wait()
