"""Sockets of live calls under bad conditions: faults, sudden ends, signatures, limits, several workers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import hmac
import json
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from mutations import mutated
from platforms import audiohook_messages, audiosocket_bytes, converse, raw_messages, twilio_messages
from pydantic import SecretStr
from record_conversations import read
from serving import Running, serve
from sqlalchemy import update
from streams import as_mulaw
from voices import BandEncoder, by_cosine, load_voices
from websockets.exceptions import InvalidStatus

from voiceprint import JSONStorage, MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.errors import StorageUnavailableError
from voiceprint.server import ServerSettings, Service
from voiceprint.server.database import calls
from voiceprint.server.live.calls import announced_details
from voiceprint.server.live.conversation import CallOptions
from voiceprint.server.live.records import CallRecord
from voiceprint.server.live.session import LiveCall
from voiceprint.server.live.settings import LiveSettings

VOICES = load_voices()
CALL = as_mulaw(VOICES["amara"][1])
TOKEN, SECRET = "twilio-token", b"audiohook client secret"
WEBSOCKETS = {
    "twilio": "twilio",
    "freeswitch": "raw",
    "vonage": "raw",
    "jambonz": "raw",
    "audiohook": "audiohook",
}


def service(folder: Path, **live: Any) -> Service:
    """A service over the store of a folder, as one of several workers."""
    config = by_cosine(same_recording=False, similarity_threshold=0.6)
    recognizer = OpusAgentVoiceRecognizer(
        JSONStorage(folder / "voiceprints.json"), encoder=BandEncoder(), config=config
    )
    settings = ServerSettings(state=str(folder / "state.db"), rate_limit=0)
    return Service({"default": recognizer}, settings, LiveSettings(**live))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("sockets")
    with service(place) as first:
        for caller in ("amara", "bruno"):
            line = as_mulaw(VOICES[caller][0])
            first.recognizer("default").enroll_caller(caller, line, sample_rate=8000, encoding="mulaw")
    return place


@pytest.fixture(scope="module")
def strict(folder: Path) -> Iterator[Running]:
    """A server that drops ended calls at once, takes 20 calls, and checks signatures."""
    live = service(
        folder,
        call_keep_s=0,
        call_silence_s=3,
        max_calls=20,
        audiosocket_port=0,
        audiosocket_gallery="default",
        twilio_tokens={"default": SecretStr(TOKEN)},
        public_url="https://voice.example.com",
    )
    with serve(live) as running:
        yield running


def ws(running: Running, path: str) -> str:
    return running.url.replace("http", "ws") + f"/v1/galleries/default/calls/{path}"


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError(what)


def test_no_malformed_conversation_leaves_a_session_behind(
    strict: Running, pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--conversations")
    headers = strict.headers("identify")
    live = strict.service.live
    tasks = len(asyncio.all_tasks(live.loop))

    async def hold(seed: int) -> None:
        name = random.Random(seed).choice([*WEBSOCKETS, "audiosocket"])
        messages = mutated(read(name), seed)
        if name == "audiosocket":
            await tcp(live.audiosocket_port, messages)
            return
        # A server that refuses has closed; whatever happens otherwise, the test looks at what is left.
        with contextlib.suppress(websockets.ConnectionClosed, OSError):
            async with websockets.connect(
                ws(strict, WEBSOCKETS[name]), additional_headers=headers, close_timeout=5
            ) as socket:
                for message in messages:
                    await socket.send(message)
                if seed % 3 == 0:
                    socket.transport.abort()  # the network is gone

    async def tcp(port: int | None, messages: list[str | bytes]) -> None:
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            for message in messages:
                writer.write(message.encode() if isinstance(message, str) else message)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def all_of_them() -> None:
        turns = asyncio.Semaphore(8)

        async def one(seed: int) -> None:
            async with turns:
                await hold(seed)

        await asyncio.gather(*(one(seed) for seed in range(count)))

    asyncio.run(all_of_them())
    until(
        lambda: len(live) == 0 and not list(live), f"{len(live)} sessions, {len(list(live))} calls are left"
    )
    until(lambda: len(asyncio.all_tasks(live.loop)) <= tasks, "tasks are left")
    messages = [*raw_messages(CALL, 1600, rate=8000, encoding="mulaw"), '{"type": "stop"}']
    received, _ = asyncio.run(converse(ws(strict, "raw"), messages, additional_headers=headers))
    assert json.loads(received[-1])["caller_id"] == "amara"  # and the service is well


def test_a_call_that_is_dropped_leaves_the_memory(strict: Running) -> None:
    live = strict.service.live
    refs: list[weakref.ref[LiveCall]] = []

    async def hold() -> None:
        headers = strict.headers("identify")
        async with websockets.connect(ws(strict, "raw"), additional_headers=headers) as socket:
            for message in raw_messages(CALL, 1600, rate=8000, encoding="mulaw"):
                await socket.send(message)
            while not refs:
                refs.extend(weakref.ref(call) for call in live)
                await asyncio.sleep(0.01)
            await socket.send('{"type": "stop"}')
            async for _ in socket:
                pass

    asyncio.run(hold())
    until(lambda: not list(live), "the call is not dropped")
    for _ in range(20):
        gc.collect()
        if refs[0]() is None:
            return
        time.sleep(0.2)
    raise AssertionError("something refers to the call, such as a timer for its longest duration")


def test_a_message_that_is_too_large_ends_the_connection(strict: Running) -> None:
    headers = strict.headers("identify")
    # 1006: what is still on its way meets a closed socket, so that the close frame is lost.
    for message, codes in ((b"\x00" * 600_000, {1008}), (b"\x00" * 1_100_000, {1009, 1006})):
        _, closed = asyncio.run(
            converse(ws(strict, "raw?rate=8000"), [message, b"", b""], additional_headers=headers)
        )
        assert closed in codes
    until(lambda: len(strict.service.live) == 0, "calls are left")


def test_a_twilio_stream_is_signed_for_the_public_url(strict: Running) -> None:
    def signature(url: str, token: str = TOKEN) -> dict[str, str]:
        digest = hmac.new(token.encode(), url.encode(), hashlib.sha1).digest()
        return {"X-Twilio-Signature": base64.b64encode(digest).decode()}

    url = "wss://voice.example.com/v1/galleries/default/calls/twilio"
    for good in (url, f"{url}/"):
        messages = twilio_messages(CALL, f"CA{len(good)}")
        _, code = asyncio.run(converse(ws(strict, "twilio"), messages, additional_headers=signature(good)))
        assert code == 1000
    for bad in (signature(url, "other"), signature(url.replace("wss", "https")), {"X-Twilio-Signature": "é"}):
        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(converse(ws(strict, "twilio"), [], additional_headers=bad))
        assert refused.value.response.status_code == 401


def test_a_gallery_with_a_client_secret_takes_signed_audiohook_sessions_alone(folder: Path) -> None:
    live = service(folder, audiohook_secrets={"default": SecretStr(base64.b64encode(SECRET).decode())})
    with serve(live) as running:
        key = running.key("identify")
        conversation = str(uuid.uuid4())
        messages = audiohook_messages(CALL, conversation)
        headers = signed(running, key, messages)
        received, _ = asyncio.run(converse(ws(running, "audiohook"), messages, additional_headers=headers))
        assert json.loads(received[-1])["type"] == "closed"
        unsigned = {name: value for name, value in headers.items() if not name.startswith("Signature")}
        for changed in (unsigned, headers | {"X-API-KEY": running.key("identify")}):
            with pytest.raises(InvalidStatus) as refused:
                asyncio.run(converse(ws(running, "audiohook"), [], additional_headers=changed))
            assert refused.value.response.status_code == 401
        strange = headers | {"X-API-KEY": "vp_no", "Audiohook-Session-Id": "x"}
        with pytest.raises(InvalidStatus):
            asyncio.run(converse(ws(running, "audiohook"), [], additional_headers=strange))


def signed(running: Running, key: str, messages: list[str | bytes]) -> dict[str, str]:
    """The headers of Genesys for this session."""
    opening = json.loads(messages[0])
    host = running.url.removeprefix("http://")
    values = {
        "@request-target": "/v1/galleries/default/calls/audiohook",
        "@authority": host,
        "audiohook-organization-id": opening["parameters"]["organizationId"],
        "audiohook-session-id": opening["id"],
        "audiohook-correlation-id": str(uuid.uuid4()),
        "x-api-key": key,
    }
    names = " ".join(f'"{name}"' for name in values)
    parameters = f'({names});keyid="{key}";nonce="{"n" * 22}";alg="hmac-sha256";created={int(time.time())}'
    lines = [f'"{name}": {value}' for name, value in values.items()]
    base = "\n".join([*lines, f'"@signature-params": {parameters}'])
    digest = base64.b64encode(hmac.new(SECRET, base.encode(), hashlib.sha256).digest()).decode()
    sent = {name: value for name, value in values.items() if name[0] != "@" and name != "x-api-key"}
    return sent | {"Signature-Input": f"sig1={parameters}", "Signature": f"sig1=:{digest}:", "X-API-KEY": key}


def test_calls_beyond_the_limit_are_refused_with_the_setting(strict: Running) -> None:
    headers = strict.headers("identify")

    async def calls() -> tuple[list[str], int | None]:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(20):
                socket = await stack.enter_async_context(
                    websockets.connect(ws(strict, "raw"), additional_headers=headers)
                )
                await socket.send(json.dumps({"rate": 8000, "call_id": f"many-{number}"}))
            while len(strict.service.live) < 20:
                await asyncio.sleep(0.02)
            return await converse(ws(strict, "raw"), ['{"rate": 8000}'], additional_headers=headers)

    received, code = asyncio.run(calls())
    assert code == 1013
    assert "VOICE_SERVER_MAX_CALLS" in json.loads(received[0])["detail"]
    until(lambda: len(strict.service.live) == 0, "calls are left")


def test_a_peer_of_audiosocket_that_is_not_allowed_is_cut(folder: Path) -> None:
    live = service(
        folder, audiosocket_port=0, audiosocket_peers=["10.0.0.0/8"], audiosocket_gallery="default"
    )
    with serve(live) as running:

        async def call() -> bytes:
            port = running.service.live.audiosocket_port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(audiosocket_bytes(bytes(320), uuid.uuid4()))
                return await asyncio.wait_for(reader.read(), 10)
            except ConnectionError:  # cut before all was sent
                return b""
            finally:
                writer.close()

        assert asyncio.run(call()) == b""
        assert len(running.service.live) == 0


def test_a_silent_connection_before_its_first_message_is_closed(
    strict: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiceprint.server.live.connection.FIRST_S", 0.5)
    headers = strict.headers("identify")
    received, code = asyncio.run(converse(ws(strict, "raw"), [], additional_headers=headers))
    assert (json.loads(received[0])["type"], code) == ("error", 1008)


def test_a_call_ends_at_the_longest_duration_with_its_answer(folder: Path) -> None:
    with serve(service(folder, call_max_s=0.5)) as running:
        messages = raw_messages(CALL, 1600, rate=8000, encoding="mulaw", call_id="long")
        received, code = asyncio.run(
            converse(ws(running, "raw"), messages, additional_headers=running.headers("identify"))
        )
        final = json.loads(received[-1])
        assert (final["final"], final["caller_id"], code) == (True, "amara", 1000)


def test_the_end_of_the_service_ends_its_calls_with_their_answers(folder: Path) -> None:
    with serve(service(folder)) as running:
        headers = running.headers("identify")

        async def begin() -> None:
            async with websockets.connect(ws(running, "raw"), additional_headers=headers) as socket:
                for message in raw_messages(CALL, 1600, rate=8000, encoding="mulaw", call_id="shut"):
                    await socket.send(message)
                # The service is going down; uvicorn closes the websocket.
                await asyncio.to_thread(running.stop)
                with contextlib.suppress(websockets.ConnectionClosed):
                    async for _ in socket:
                        pass

        asyncio.run(begin())
    with serve(service(folder)) as again:
        url = f"{again.url}/v1/calls/shut"
        call = httpx.get(url, headers=again.headers("identify")).json()
        assert (call["state"], call["answer"]["final"], call["answer"]["caller_id"]) == (
            "ended",
            True,
            "amara",
        )


def test_a_call_of_audiosocket_goes_on_after_the_service_was_asked_to_end(folder: Path) -> None:
    call_id = uuid.uuid4()
    data = audiosocket_bytes((VOICES["amara"][1][::2] * 32767).astype("<i2").tobytes(), call_id)
    live = {"audiosocket_port": 0, "audiosocket_gallery": "default"}
    with serve(service(folder, **live)) as running:

        async def call() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.service.live.audiosocket_port)
            writer.write(data[: len(data) // 2])
            await writer.drain()
            while not list(running.service.live):
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(asyncio.to_thread(running.stop))
            while not running.service.live.is_closing:
                await asyncio.sleep(0.01)
            writer.write(data[len(data) // 2 :])
            await reader.read()
            await stopping
            writer.close()

        asyncio.run(call())
    with serve(service(folder)) as again:
        headers = again.headers("identify")
        found = httpx.get(f"{again.url}/v1/calls/{call_id}", headers=headers).json()
    assert (found["state"], found["ended_by"]) == ("ended", "platform")
    assert found["answer"]["audio_s"] == pytest.approx(len(VOICES["amara"][1]) / 16_000, abs=0.1)


def test_another_worker_reads_and_ends_a_call_and_says_where_its_audio_is(folder: Path) -> None:
    with serve(service(folder)) as one, serve(service(folder)) as other:
        headers = one.headers("admin")

        async def call() -> tuple[list[str], int | None]:
            first = {"rate": 8000, "encoding": "mulaw", "call_id": "shared"}
            talking = asyncio.create_task(
                converse(ws(one, "raw"), raw_messages(CALL, 1600, **first), additional_headers=headers)
            )
            url = f"{other.url}/v1/galleries/default/calls/shared"
            async with httpx.AsyncClient(headers=headers, timeout=30) as client:
                while (found := await client.get(url)).status_code == 404 or not found.json()["answer"][
                    "caller_id"
                ]:
                    await asyncio.sleep(0.05)
                assert (found.json()["state"], found.json()["can_enroll"]) == ("live", False)
                enrolled = await client.post(f"{url}/voiceprints", json={"caller_id": "x"})
                assert (enrolled.status_code, enrolled.json()["error"]) == (409, "CallElsewhereError")
                assert one.service.worker in enrolled.json()["detail"]
                again = await converse(
                    ws(other, "raw"), raw_messages(CALL[:80], 80, **first), additional_headers=headers
                )
                assert again[1] == 1008  # the id lasts
                assert (await client.delete(url)).status_code == 202
            return await talking

        received, code = asyncio.run(call())
        assert (json.loads(received[-1])["final"], code) == (True, 1000)
        # At once: the connection closes when the record is written.
        found = httpx.get(f"{other.url}/v1/calls/shared", headers=headers).json()
        assert (found["state"], found["ended_by"]) == ("ended", "request")
        assert found["answer"]["final"]


def test_a_call_of_a_worker_that_died_fails_and_old_ones_go(folder: Path) -> None:
    with service(folder) as alive:
        records = alive.live.records
        details = announced_details("default", "x", CallOptions(), "2026-01-01T00:00:00Z")
        records.save([CallRecord(name, "default", "live", None, 1.0, details) for name in ("lost", "live")])
        age(alive, "lost", 61)
        records.save([CallRecord("old", "default", "ended", None, 1.0, details)])
        age(alive, "old", 100_000)
        records.purge(86_400)
        states = {one.call_id: one.state for one in records.page("default", None, 500) if one.created == 1.0}
        assert states == {"lost": "failed", "live": "live"}
        # The call may come again, as with a platform that connects anew.
        assert records.claim("default", "lost") is None
        records.save([CallRecord("live", "default", "ended", None, 1.0, details)])


def age(alive: Service, call_id: str, seconds: float) -> None:
    with alive.database.begin() as connection:
        mine = calls.c.call_id == call_id
        connection.execute(update(calls).where(mine).values(beat=time.time() - seconds))


def test_a_store_that_is_away_makes_answers_late_and_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(service(folder)) as running:
        recognizer = running.service.recognizer("default")
        headers = running.headers("identify")
        gone, failed = StorageUnavailableError("away"), threading.Event()
        storage = recognizer.storage

        async def call() -> list[str]:
            received: list[str] = []
            async with websockets.connect(ws(running, "raw"), additional_headers=headers) as socket:
                with monkeypatch.context() as away:

                    def fail(*_: object) -> Any:
                        failed.set()
                        raise gone

                    away.setattr(storage, "callers_of", fail)
                    first, *audio = raw_messages(CALL, 1600, rate=8000, encoding="mulaw", call_id="away")
                    await socket.send(first)
                    # Enough for an answer, also without a last part that waits for a whole block.
                    for message in audio[: 3 * len(audio) // 4]:
                        await socket.send(message)
                    assert await asyncio.to_thread(failed.wait, 20)
                for message in audio[3 * len(audio) // 4 :]:
                    await socket.send(message)
                await socket.send('{"type": "stop"}')
                received.extend([str(message) async for message in socket])
            return received

        final = json.loads(asyncio.run(call())[-1])
        assert (final["caller_id"], final["final"], final["state"]) == ("amara", True, "ended")
        assert final["audio_s"] == pytest.approx(len(CALL) / 8000)


@pytest.mark.resemblyzer
def test_the_default_encoder_names_a_caller_and_no_stranger(tmp_path: Path) -> None:
    config = VoiceFingerprintConfig(same_recording=False)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    for caller in ("amara", "bruno", "carlo"):
        recognizer.enroll_caller(caller, VOICES[caller][0])
    settings = ServerSettings(state=str(tmp_path / "state.db"))
    with serve(Service({"default": recognizer}, settings, LiveSettings())) as running:
        headers = running.headers("identify")
        answers = []
        for caller in ("amara", "gil"):
            messages = twilio_messages(as_mulaw(VOICES[caller][1]), f"CA-{caller}")
            asyncio.run(converse(ws(running, "twilio"), messages, additional_headers=headers))
            call = httpx.get(f"{running.url}/v1/calls/CA-{caller}", headers=headers).json()
            answers.append((call["answer"]["verdict"], call["answer"]["caller_id"]))
    assert answers == [("accepted", "amara"), ("rejected", None)]
