"""Faults that an attacker or a careless client could use: of bodies, keys, calls and webhooks."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from pydantic import SecretStr
from serving import Running, serve
from streams import as_mulaw
from voices import BandEncoder, by_cosine, load_voices
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.audio.io.sndfile import SndfileDecoder
from voiceprint.errors import InvalidAudioError
from voiceprint.server import ServerSettings, Service, protocol
from voiceprint.server.audio import AudioQuery, Body
from voiceprint.server.live import connection, records
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.problems import ProblemError

VOICES = load_voices()
FIRST = json.dumps({"rate": 8000, "encoding": "mulaw"})
MAX_CALLS = 3


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that keeps few calls, and knows amara."""
    config = by_cosine(same_recording=False, similarity_threshold=0.6)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=config)
    state = tmp_path_factory.mktemp("attacks") / "state.db"
    settings = ServerSettings(state=str(state), rate_limit=0)
    live = LiveSettings(max_calls=MAX_CALLS)
    with serve(Service({"default": recognizer}, settings, live)) as running:
        yield running


def raw(
    server: Running, headers: dict[str, str], first: str | None = FIRST, path: str = "raw"
) -> contextlib.AbstractContextManager[ClientConnection]:
    """A websocket of calls, after its first message."""
    url = f"{server.url.replace('http', 'ws')}/v1/galleries/default/calls/{path}"

    @contextlib.contextmanager
    def opened() -> Iterator[ClientConnection]:
        with connect(url, additional_headers=headers) as websocket:
            if first is not None:
                websocket.send(first)
            yield websocket

    return opened()


def messages(websocket: ClientConnection, seconds: float) -> list[str]:
    """The messages until none comes for this time, or the end of the connection."""
    found: list[str] = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(str(websocket.recv(timeout=seconds)))
    return found


def drain(websocket: ClientConnection) -> None:
    """Read until the connection ends, which raises `ConnectionClosed`."""
    while True:
        websocket.recv(timeout=20)


def first_of(call_id: str, **more: Any) -> str:
    return json.dumps({"rate": 8000, "encoding": "mulaw", "call_id": call_id, **more})


def until(condition: Callable[[], Any]) -> Any:
    """The first value of the condition that is true; fails after 30 s."""
    end = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def call_of(server: Running, call_id: str) -> dict[str, Any]:
    url = f"{server.url}/v1/galleries/default/calls/{call_id}"
    answer: dict[str, Any] = httpx.get(url, headers=server.headers("identify")).json()
    return answer


def test_a_peer_without_a_key_is_refused_before_its_body_is_read(server: Running) -> None:
    port = int(server.url.rpartition(":")[2])
    for path in ("callers/search", "calls", "identify", "callers/alice/groups"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
            peer.sendall(
                f"POST /v1/galleries/default/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                'Content-Length: 3000000\r\n\r\n{"a":'.encode()  # and no more
            )
            assert peer.recv(100).startswith(b"HTTP/1.1 401 ")


def test_json_has_a_limit_of_its_own(server: Running, http: httpx.Client) -> None:
    content = b'{"metadata": {"a": [' + b"{}," * 1_500_000 + b"{}]}}"
    answer = http.post("callers/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "4 MiB" in answer.json()["detail"]
    audio = http.post("identify", content=content, headers={"Content-Type": "audio/wav"})
    assert audio.status_code == 422  # of audio, such a length is allowed


def test_audio_that_is_too_long_is_refused_before_all_of_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(50 * 8000, np.int16), 8000, format="FLAC", subtype="PCM_16")
    decoded: list[int] = []
    read = SndfileDecoder.read

    def counted(decoder: SndfileDecoder, frames: int) -> Any:
        block = read(decoder, frames)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(SndfileDecoder, "read", counted)
    for times, most_s in ((1, 0), (20, 70)):  # one header says how long it is; of joined files, none does
        decoded.clear()
        body = Body(file.getvalue() * times, {}, AudioQuery(None, None, None, 1), max_audio_s=40.0 + times)
        with pytest.raises(InvalidAudioError, match=f"at most {40 + times} s"):
            body.recording()
        assert sum(decoded) <= most_s * 8000


def test_a_spelling_of_a_gallery_is_no_label_of_the_metrics(server: Running, http: httpx.Client) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000, np.int16), 16_000, format="WAV")
    for name in ("default", "d%65fault"):
        url = f"{server.url}/v1/galleries/{name}/callers/silent/voiceprints"
        answer = httpx.post(url, content=file.getvalue(), headers=server.headers("enroll"))
        assert answer.json()["error"] == "AudioQualityError"
    metrics = httpx.get(f"{server.url}/metrics", headers=http.headers).text
    assert 'voiceprint_refused_audio_total{gallery="default"' in metrics
    assert "%65" not in metrics


def test_spellings_of_one_manifest_are_one_job(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / "default"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("caller_id,path\n")
    settings = ServerSettings(state=str(tmp_path / "state.db"), jobs_folder=tmp_path / "jobs")
    with Service(
        {"default": OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())}, settings
    ) as one:
        job = one.jobs.create("default", "enroll", {"manifest": "././a.csv"}, "key:a")
        assert job.arguments["manifest"] == "a.csv"
        for name in ("a.csv", "./a.csv", "x/../a.csv"):
            with pytest.raises(ProblemError, match="does the same"):
                one.jobs.create("default", "enroll", {"manifest": name}, "key:a")


def test_requests_for_the_readiness_wait_for_one_look_at_the_stores(tmp_path: Path) -> None:
    looks: list[int] = []
    settings = ServerSettings(state=str(tmp_path / "state.db"), rate_limit=0)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    with serve(Service({"default": recognizer}, settings)) as server:
        status = recognizer.index_status
        go_on = threading.Event()

        def slow() -> Any:
            looks.append(1)
            go_on.wait(20)
            return status()

        recognizer.index_status = slow  # type: ignore[method-assign]
        with ThreadPoolExecutor(12) as pool:
            answers = [pool.submit(httpx.get, f"{server.url}/readyz", timeout=30) for _ in range(12)]
            until(lambda: looks)
            # While all of them wait, there are threads to check keys.
            assert httpx.get(f"{server.url}/v1/galleries", headers=server.headers("audit")).status_code == 200
            go_on.set()
            assert {answer.result().status_code for answer in answers} == {200}
    assert len(looks) < 12


def test_a_peer_who_does_not_read_the_answer_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_receive_s", lambda: 0.5)
    settings = ServerSettings(state=str(tmp_path / "state.db"))
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    with serve(Service({"default": recognizer}, settings)) as server, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(20)
        peer.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        cut = False
        try:
            for _ in range(10_000):  # more answers than the buffers of both sides hold
                peer.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
                time.sleep(0.001)
        except (BrokenPipeError, ConnectionResetError):
            cut = True
        assert cut


def test_an_announced_call_that_cannot_begin_does_not_last(calls: Running) -> None:
    headers = calls.headers("identify")
    announced = {"call_id": "bad-group", "groups": ["no\ngroup"]}
    url = f"{calls.url}/v1/galleries/default/calls"
    assert httpx.post(url, json=announced, headers=headers).status_code == 201
    with raw(calls, headers, first_of("bad-group")) as websocket, pytest.raises(ConnectionClosed):
        drain(websocket)
    assert call_of(calls, "bad-group")["state"] == "failed"


def test_a_connection_that_begins_no_call_ends(calls: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_S", 1.0)

    def show_life(websocket: ClientConnection) -> None:
        for _ in range(300):
            websocket.send('{"event": "connected"}')
            messages(websocket, 0.1)

    with (
        raw(calls, calls.headers("identify"), None, "twilio") as websocket,
        pytest.raises(ConnectionClosed, match="No call began"),
    ):
        show_life(websocket)


def test_a_revoked_key_ends_the_calls_that_it_opened(calls: Running) -> None:
    key, other = calls.key("identify"), calls.headers("identify")
    with raw(calls, other, first_of("goes-on")) as going_on, raw(calls, {"X-API-Key": key}) as websocket:
        going_on.send(bytes(8000))
        websocket.send(bytes(8000))
        assert json.loads(websocket.recv(timeout=20))["state"] == "live"
        calls.service.keys.revoke(key)
        with pytest.raises(ConnectionClosed, match="no longer valid"):
            drain(websocket)
        going_on.send(bytes(8000))
        assert json.loads(going_on.recv(timeout=20))["state"] == "live"


def test_a_running_answer_does_not_name_a_caller_who_was_deleted(calls: Running) -> None:
    recognizer = calls.service.recognizer("default")
    line = as_mulaw(VOICES["amara"][0])
    recognizer.enroll_caller("amara", line, sample_rate=8000, encoding="mulaw")
    speech = bytes(as_mulaw(np.concatenate(VOICES["amara"][1:])))
    with raw(calls, calls.headers("identify"), first_of("deleted", k=3)) as websocket:
        websocket.send(speech[:100_000])
        until(lambda: json.loads(websocket.recv(timeout=20))["decided"])
        assert call_of(calls, "deleted")["answer"]["caller_id"] == "amara"
        recognizer.delete_caller("amara", receipt=True)
        messages(websocket, 0.3)  # what was sent before the receipt
        after: list[str] = []
        for place in range(100_000, len(speech), 4000):  # answers that have not changed come once a second
            websocket.send(speech[place : place + 4000])
            after += messages(websocket, 0.2)
        assert after
        assert "amara" not in "".join(after)


def test_ended_calls_do_not_fill_the_memory(calls: Running) -> None:
    headers = calls.headers("identify")
    for number in range(MAX_CALLS + 3):
        with raw(calls, headers, first_of(f"kept-{number}")) as websocket:
            websocket.send(bytes(8000))
            websocket.send('{"type": "stop"}')
            with contextlib.suppress(ConnectionClosed):
                drain(websocket)
        until(lambda number=number: call_of(calls, f"kept-{number}")["state"] == "ended")
    assert len(list(calls.service.live)) <= MAX_CALLS + 1  # one more ended since the last began
    assert call_of(calls, f"kept-{MAX_CALLS + 2}")["can_enroll"]
    assert not call_of(calls, "kept-0")["can_enroll"]


def test_announcements_are_limited(calls: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    headers, url = calls.headers("identify"), f"{calls.url}/v1/galleries/default/calls"
    large = httpx.post(url, json={"candidates": ["x" * 500] * 200}, headers=headers)
    assert large.status_code == 422
    assert "65536 are allowed" in large.json()["detail"]
    monkeypatch.setattr(records, "MOST_ANNOUNCED", 2)
    answers = [httpx.post(url, json={}, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[2].headers["retry-after"] == "60"


def test_the_id_of_an_ended_call_is_its_actors_alone(calls: Running) -> None:
    headers = calls.headers("identify", name="platform")

    def call(headers: dict[str, str]) -> None:
        with raw(calls, headers, first_of("same-id")) as websocket:
            websocket.send(bytes(8000))
            while True:
                websocket.recv(timeout=20)
                websocket.send('{"type": "stop"}')

    with pytest.raises(ConnectionClosed):
        call(headers)
    until(lambda: call_of(calls, "same-id")["state"] == "ended")
    with pytest.raises(ConnectionClosed, match="another actor"):
        call(calls.headers("identify", name="attacker"))
    with pytest.raises(ConnectionClosed) as ended:
        call(headers)  # as of a stream that comes a second time
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1000


class Receiver(BaseHTTPRequestHandler):
    """Accepts at /good; at /endless, its answer has no end."""

    accepted: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0" if self.path == "/good" else str(10**12))
        self.end_headers()
        self.accepted.append(self.path)
        with contextlib.suppress(OSError):  # the service has enough
            while self.path != "/good":
                self.wfile.write(b"x")
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        pass


def test_a_receiver_whose_answer_has_no_end_does_not_hold_up_others(tmp_path: Path) -> None:
    accepted: list[str] = []
    handler = type("Handler", (Receiver,), {"accepted": accepted})
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    receiver.daemon_threads = True
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{receiver.server_port}"
    secret = SecretStr("whsec_" + base64.b64encode(bytes(32)).decode())
    live = LiveSettings(
        webhook_urls={"default": f"{url}/endless", "other": f"{url}/good"},
        webhook_secrets={"default": secret, "other": secret},
    )
    galleries = {
        name: OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
        for name in ("default", "other")
    }
    settings = ServerSettings(state=str(tmp_path / "state.db"), rate_limit=0)
    with serve(Service(galleries, settings, live)) as server:
        headers = server.headers("identify")
        for gallery, path in (("default", "/endless"), ("other", "/good")):
            place = f"{server.url.replace('http', 'ws')}/v1/galleries/{gallery}/calls/raw"
            with connect(place, additional_headers=headers) as websocket:
                websocket.send(FIRST)
                websocket.send(bytes(8000))
            until(lambda path=path: path in accepted)
        until(lambda: not deliveries(server))  # the status was enough: none is repeated
    receiver.shutdown()
    receiver.server_close()
    assert accepted.count("/endless") == 1


def deliveries(server: Running) -> list[Any]:
    from sqlalchemy import select

    from voiceprint.server.database import deliveries as table

    with server.service.database.read() as connection:
        return list(connection.execute(select(table)))
