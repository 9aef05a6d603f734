"""`voiceprint serve` as the processes that it starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from voices import SAMPLES
from websockets.sync.client import connect

from voiceprint import load_audio, preprocess_audio
from voiceprint.audio.io import g711
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys

VOICEPRINT = Path(sys.executable).with_name("voiceprint")
AUDIO = (SAMPLES / "amara/1.flac").read_bytes()


def key(folder: Path, role: str = "admin") -> dict[str, str]:
    """The headers with a new key."""
    return {"X-API-Key": ApiKeys(ServerDatabase(str(folder / "voiceprint-server.db"))).create([role])[0]}


@contextmanager
def served(
    folder: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A service as the command starts it, once it is ready, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [VOICEPRINT, "serve", "--port", str(port), *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if httpx.get(f"{url}/readyz", timeout=60).status_code == 200:
                    break
            except httpx.TransportError:  # it does not listen yet
                pass
            time.sleep(0.1)
        yield process, url
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def test_requests_in_progress_are_answered_before_the_end(tmp_path: Path) -> None:
    headers = key(tmp_path)
    with served(tmp_path, VOICE_SERVER_THREADS="1") as (process, url):
        identify = f"{url}/v1/galleries/default/identify"
        enrolled = httpx.post(
            f"{url}/v1/galleries/default/callers/amara/voiceprints",
            content=AUDIO,
            headers=headers,
            timeout=60,
        )
        assert enrolled.status_code == 201
        with httpx.Client(headers=headers, timeout=60) as client, ThreadPoolExecutor(8) as threads:
            client.get(f"{url}/healthz")
            answers = [threads.submit(client.post, identify, content=AUDIO) for _ in range(8)]
            answers[0].result()
            process.send_signal(signal.SIGTERM)
            # Those that the server had not read are refused connections, and no answer is cut.
            statuses = []
            for answer in answers:
                try:
                    statuses.append(answer.result().status_code)
                except httpx.ConnectError:
                    continue
        assert set(statuses) == {200}
        assert process.wait(60) == -signal.SIGTERM  # as a program that handles none of it, for its supervisor
    log = (tmp_path / "log").read_text()
    assert "amara" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("patience", ["30", "1"])
def test_a_call_goes_on_after_the_signal_to_end_for_the_time_of_the_settings(
    tmp_path: Path, patience: str
) -> None:
    audio, rate = load_audio(SAMPLES / "amara/1.flac")
    codes = g711.encode((preprocess_audio(audio, rate)[::2] * 32767).astype("i2"), "mulaw").tobytes()
    headers = key(tmp_path)
    with served(tmp_path, VOICE_SERVER_SHUTDOWN_S=patience) as (process, url):
        httpx.post(
            f"{url}/v1/galleries/default/callers/amara/voiceprints",
            content=AUDIO,
            headers=headers,
            timeout=60,
        )
        address = url.replace("http", "ws") + "/v1/galleries/default/calls/raw"
        with connect(address, additional_headers=headers) as call:
            call.send('{"rate": 8000, "encoding": "mulaw"}')
            for start in range(0, len(codes) // 2, 160):
                call.send(codes[start : start + 160])
            json.loads(call.recv(60))  # a running answer
            process.send_signal(signal.SIGTERM)
            if patience == "30":
                time.sleep(2)
                for start in range(len(codes) // 2, len(codes), 160):
                    call.send(codes[start : start + 160])
                call.send('{"type": "stop"}')
            answers = [json.loads(message) for message in call if isinstance(message, str)]
        final = answers[-1]
        assert final["final"]
        assert (final["caller_id"], final["state"]) == ("amara", "ended")
        whole = len(codes) / 8000
        assert final["audio_s"] == pytest.approx(whole if patience == "30" else whole / 2, abs=0.05)
        assert process.wait(60) == -signal.SIGTERM


def test_a_key_is_valid_and_revoked_at_once_in_all_workers(tmp_path: Path) -> None:
    key(tmp_path)
    with served(tmp_path, "--workers", "2") as (_, url):
        keys = ApiKeys(ServerDatabase(str(tmp_path / "voiceprint-server.db")))
        text, made = keys.create(["identify"])

        def status() -> int:
            # A connection of its own for each request, so that both workers answer some.
            return httpx.post(
                f"{url}/v1/galleries/default/identify", headers={"X-API-Key": text}, content=b"", timeout=60
            ).status_code

        assert {status() for _ in range(20)} == {422}
        keys.revoke(made.key_id)
        assert {status() for _ in range(20)} == {401}
        said = (tmp_path / "log").read_text()
        assert f"Serving on {url}, with the console at {url}/console/." in said
        assert f"{tmp_path / 'voiceprints.json'}. Keys: {tmp_path / 'voiceprint-server.db'}." in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_says_that_it_serves_once_it_answers(tmp_path: Path, workers: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [VOICEPRINT, "serve", "--port", str(port), "--workers", workers]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            assert any(line.startswith("Serving on") for line in lines)
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        finally:
            process.terminate()
            process.wait(60)


def test_a_connection_that_sends_its_request_too_slowly_is_cut(tmp_path: Path) -> None:
    head = b"POST /v1/galleries/default/identify HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n"
    text = key(tmp_path, "identify")["X-API-Key"].encode()
    with served(tmp_path, VOICE_SERVER_RECEIVE_S="0.5") as (_, url):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))

        def send(connection: socket.socket, parts: bytes) -> bytes:
            """Send byte by byte, until the server closes, and return its answer."""
            answer = b""
            connection.settimeout(0.05)
            for byte in (bytes([part]) for part in parts):
                with contextlib.suppress(TimeoutError):
                    received = connection.recv(10_000)
                    answer += received
                    if not received:
                        return answer
                connection.sendall(byte)
            raise AssertionError("the server waited")

        # Headers without an end, and a body without one; the second gets a problem document.
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(head)
            with contextlib.suppress(ConnectionError):
                assert send(connection, b"X-Slow: " + b"x" * 600) == b""
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(head.replace(b"9", b"999") + b"X-API-Key: " + text + b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert send(connection, b"x" * 600).startswith(b"HTTP/1.1 408 ")


def test_metrics_are_those_of_all_workers_also_of_killed_ones(tmp_path: Path) -> None:
    headers = key(tmp_path) | {"Connection": "close"}

    def counted() -> float:
        text = httpx.get(f"{url}/metrics", headers=headers, timeout=60).text
        assert "voiceprint_index_lag" in text
        start = (
            'voiceprint_requests_total{method="POST",route="/v1/galleries/{gallery}/quality",status="422"} '
        )
        return sum(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))

    def ask(times: int) -> None:
        for _ in range(times):
            httpx.post(f"{url}/v1/galleries/default/quality", headers=headers, content=b"", timeout=60)

    (tmp_path / "temporary").mkdir()
    with served(tmp_path, "--workers", "2", TMPDIR=str(tmp_path / "temporary")) as (process, url):
        ask(20)
        assert counted() == 20
        workers = [
            int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        spawned = [pid for pid in workers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(spawned) == 2
        os.kill(spawned[0], signal.SIGKILL)
        for _ in range(600):  # until the supervisor has started another one
            now = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if str(spawned[0]) not in now and len(now) == len(workers):
                break
            time.sleep(0.1)
        ask(5)
        assert counted() == 25
    assert [*(tmp_path / "temporary").iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "there is no API key"),
        (("--config", "no-such.toml"), "no-such.toml"),
        (("--gallery", "brand-a"), "voiceprint.toml"),
        (("--state", "/proc/no/such.db"), "/proc/no/such.db"),
    ],
)
def test_a_service_that_cannot_start_says_why(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = subprocess.run(
        [VOICEPRINT, "serve", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
