"""Live calls over a real server and real sockets, in each format."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from platforms import audiohook_messages, audiosocket_bytes, converse, raw_messages, twilio_messages
from serving import Running, serve
from streams import as_mulaw
from voices import SAMPLES, BandEncoder, by_cosine, load_voices
from websockets.exceptions import InvalidStatus

from tools.call_simulator import FORMATS, play
from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, ServiceError
from voiceprint.audio.io import g711
from voiceprint.client import Client
from voiceprint.server import ServerSettings, Service
from voiceprint.server.live.settings import LiveSettings

VOICES = load_voices()
CALL = as_mulaw(VOICES["amara"][1])
PCM = g711.decode(np.frombuffer(CALL, np.uint8), "mulaw").astype("<i2").tobytes()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that knows some sample callers, with AudioSocket on a free port."""
    folder: Path = tmp_path_factory.mktemp("calls")
    galleries = {}
    for name in ("default", "other"):
        config = by_cosine(same_recording=False, similarity_threshold=0.6)
        galleries[name] = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=config)
        for caller in ("amara", "bruno", "carlo"):
            metadata = {"phone": f"+49-{caller}"}
            # As the calls come: the quick encoder does not see past a telephone line.
            line = as_mulaw(VOICES[caller][0])
            galleries[name].enroll_caller(caller, line, metadata, sample_rate=8000, encoding="mulaw")
    settings = ServerSettings(state=str(folder / "state.db"), rate_limit=0)
    live = LiveSettings(audiosocket_port=0, call_silence_s=3)
    with serve(Service(galleries, settings, live)) as running:
        yield running


def ws(running: Running, path: str) -> str:
    return running.url.replace("http", "ws") + f"/v1/galleries/default/calls/{path}"


def get(running: Running, call_id: str, **options: Any) -> dict[str, Any]:
    headers = running.headers("identify", **options)
    answer = httpx.get(f"{running.url}/v1/calls/{call_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    fields: dict[str, Any] = answer.json()
    return fields


def test_a_twilio_stream_is_answered_by_its_call_sid(calls: Running) -> None:
    key = calls.headers("identify")
    received, code = asyncio.run(converse(ws(calls, "twilio"), twilio_messages(CALL), additional_headers=key))
    assert (received, code) == ([], 1000)
    call = get(calls, "CA17")
    assert (call["state"], call["ended_by"], call["source"]) == ("ended", "platform", "twilio")
    assert (call["answer"]["caller_id"], call["answer"]["final"]) == ("amara", True)


def test_raw_audio_is_answered_on_the_same_socket(calls: Running) -> None:
    first = {"rate": 8000, "encoding": "mulaw", "call_id": "raw-1", "from": "+49-amara"}
    key = calls.headers("identify", metadata=True)
    received, code = asyncio.run(
        converse(
            ws(calls, "raw"), [*raw_messages(CALL, 160, **first), '{"type": "stop"}'], additional_headers=key
        )
    )
    answers = [json.loads(text) for text in received]
    assert code == 1000
    assert {answer["type"] for answer in answers} == {"answer"}
    final = answers[-1]
    assert (final["call_id"], final["caller_id"], final["final"]) == ("raw-1", "amara", True)
    assert final["matches"][0]["metadata"] == {"phone": "+49-amara"}
    assert (final["verdict"], final["late_s"] < 30) == ("accepted", True)


def test_metadata_is_in_the_answers_on_a_socket_where_the_key_may_see_it(calls: Running) -> None:
    first = {"rate": 8000, "encoding": "mulaw", "call_id": "raw-2"}
    messages = [*raw_messages(CALL, 1600, **first), '{"event": "stop"}']
    received, _ = asyncio.run(
        converse(ws(calls, "raw"), messages, additional_headers=calls.headers("identify"))
    )
    assert received
    assert "+49-amara" not in "".join(received)


@pytest.mark.parametrize(
    ("first", "audio", "frame"),
    [
        # FreeSWITCH: the metadata of `uuid_audio_stream UUID start URL mono 8k METADATA`.
        ({"rate": 8000, "from": "+4930", "call_id": "fs"}, PCM, 320),
        # Vonage: its first text, with a header `call_id` of the NCCO.
        (
            {"event": "websocket:connected", "content-type": "audio/l16;rate=8000", "call_id": "vonage"},
            PCM,
            320,
        ),
        # jambonz: the attributes of the call, and `sampleRate` and `mixType`.
        (
            {"sampleRate": 8000, "mixType": "mono", "callSid": "jambonz", "from": "+4930", "to": "+4940"},
            PCM,
            320,
        ),
    ],
)
def test_the_first_message_of_a_platform_is_taken_as_it_is(
    calls: Running, first: dict[str, Any], audio: bytes, frame: int
) -> None:
    call_id = first.get("call_id") or first["callSid"]
    messages = raw_messages(audio, frame, **first)
    options: dict[str, Any] = {"additional_headers": calls.headers("identify"), "reads": False}
    if "mixType" in first:
        options["subprotocols"] = ["audio.jambonz.org"]
    received, _ = asyncio.run(converse(ws(calls, "raw"), messages, **options))
    if call_id != "fs":
        assert not received  # these platforms describe no message for an answer
    call = ended(calls, call_id)
    assert (call["ended_by"], call["answer"]["caller_id"]) == ("connection", "amara")


def ended(calls: Running, call_id: str) -> dict[str, Any]:
    """The call, once it has ended."""
    for _ in range(500):
        headers = calls.headers("identify")
        answer = httpx.get(f"{calls.url}/v1/calls/{call_id}", headers=headers)
        if answer.status_code == 200 and answer.json()["state"] in ("ended", "failed"):
            return dict(answer.json())
        time.sleep(0.02)
    raise AssertionError(answer.text)


def test_stereo_is_identified_by_the_channel_of_the_caller(calls: Running) -> None:
    samples = np.frombuffer(PCM, "<i2")
    other = g711.decode(np.frombuffer(as_mulaw(VOICES["bruno"][1]), np.uint8), "mulaw")
    stereo = np.zeros((len(samples), 2), "<i2")
    stereo[:, 1] = samples
    stereo[: len(other), 0] = other[: len(samples)]
    first = {"rate": 8000, "channels": 2, "channel": 1, "call_id": "stereo"}
    messages = [*raw_messages(stereo.tobytes(), 640, **first), '{"type": "stop"}']
    asyncio.run(converse(ws(calls, "raw"), messages, additional_headers=calls.headers("identify")))
    assert get(calls, "stereo")["answer"]["caller_id"] == "amara"


def test_a_platform_without_texts_gives_the_format_and_the_key_in_the_url(
    calls: Running, caplog: pytest.LogCaptureFixture
) -> None:
    key = calls.key("identify")
    url = ws(calls, f"raw?key={key}&rate=8000&encoding=mulaw")
    log = logging.getLogger("uvicorn.error")
    log.addHandler(caplog.handler)
    with caplog.at_level("INFO", "uvicorn.error"):
        received, _ = asyncio.run(converse(url, [CALL[:40_000], '{"type": "stop"}']))
    log.removeHandler(caplog.handler)
    assert json.loads(received[-1])["caller_id"] == "amara"
    assert key not in caplog.text
    assert "WebSocket /v1/galleries/default/calls/raw" in caplog.text  # so that the log was looked at


def test_an_audiosocket_call_is_announced_with_its_candidates(calls: Running) -> None:
    call = uuid.uuid4()
    url = f"{calls.url}/v1/galleries/other/calls"
    body = {"call_id": str(call), "from": "+49-amara", "candidates_metadata": {"phone": "+49-amara"}}
    announced = httpx.post(url, json=body, headers=calls.headers("identify"))
    assert (announced.status_code, announced.json()["state"]) == (201, "announced")
    again = httpx.post(url, json=body, headers=calls.headers("identify"))
    assert (again.status_code, again.json()["error"]) == (409, "CallExistsError")
    assert asyncio.run(audiosocket(calls, audiosocket_bytes(PCM, call))) == b"\x00\x00\x00"
    found = get(calls, str(call))
    assert (found["gallery"], found["source"], found["from"]) == ("other", "audiosocket", "+49-amara")
    assert found["answer"]["caller_id"] == "amara"


async def audiosocket(calls: Running, data: bytes) -> bytes:
    """Send these bytes to the port of AudioSocket; returns what came back until its end."""
    port = calls.service.live.audiosocket_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


def test_an_audiosocket_call_that_was_not_announced_is_hung_up(calls: Running) -> None:
    call = uuid.uuid4()
    assert asyncio.run(audiosocket(calls, audiosocket_bytes(PCM[:3200], call))) == b"\x00\x00\x00"
    url = f"{calls.url}/v1/calls/{call}"
    assert httpx.get(url, headers=calls.headers("identify")).json()["error"] == "CallNotFoundError"


def test_an_audiohook_session_is_opened_answered_and_closed(calls: Running) -> None:
    conversation = str(uuid.uuid4())
    key = {"X-API-KEY": calls.key("identify")}
    messages = audiohook_messages(CALL, conversation)
    received, code = asyncio.run(converse(ws(calls, "audiohook"), messages, additional_headers=key))
    opened, pong, closed = (json.loads(text) for text in received)
    assert (opened["type"], pong["type"], closed["type"], code) == ("opened", "pong", "closed", 1000)
    assert [media["channels"] for media in opened["parameters"]["media"]] == [["external"]]
    assert [one["seq"] for one in (opened, pong, closed)] == [1, 2, 3]
    assert closed["clientseq"] == sum(isinstance(one, str) for one in messages)
    call = get(calls, conversation)
    assert (call["answer"]["caller_id"], call["from"]) == ("amara", "+493012345")


def test_an_audiohook_probe_is_opened_and_leaves_no_call(calls: Running) -> None:
    zeros = "00000000-0000-0000-0000-000000000000"
    key = {"X-API-KEY": calls.key("identify")}
    messages = audiohook_messages(b"", zeros)
    received, code = asyncio.run(converse(ws(calls, "audiohook"), messages, additional_headers=key))
    assert [json.loads(text)["type"] for text in received] == ["opened", "closed"]
    assert code == 1000
    answer = httpx.get(f"{calls.url}/v1/calls/{zeros}", headers=calls.headers("identify"))
    assert answer.status_code == 404


def test_a_flow_of_genesys_that_waits_gets_the_decision(calls: Running) -> None:
    conversation = str(uuid.uuid4())
    twice = CALL + CALL
    *talk, close = audiohook_messages(
        twice, conversation, inputVariables={"disconnect_when_decided": "true", "candidates": "amara"}
    )

    async def session() -> list[dict[str, Any]]:
        key = {"X-API-KEY": calls.key("identify")}
        received = []
        async with websockets.connect(ws(calls, "audiohook"), additional_headers=key) as socket:
            for message in talk:
                await socket.send(message)
            while not received or received[-1]["type"] != "disconnect":
                received.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
            await socket.send(close)
            received.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
        return received

    *_, disconnect, closed = asyncio.run(session())
    assert disconnect["parameters"]["reason"] == "completed"
    variables = disconnect["parameters"]["outputVariables"]
    assert (variables["voiceprint_caller_id"], variables["voiceprint_verdict"]) == ("amara", "accepted")
    assert closed["type"] == "closed"


def test_a_caller_is_enrolled_from_a_call_after_its_end(calls: Running) -> None:
    audio = as_mulaw(VOICES["elena"][0])
    first = {"rate": 8000, "encoding": "mulaw", "call_id": "enroll-1"}
    messages = [*raw_messages(audio, 160, **first), '{"type": "stop"}']
    asyncio.run(converse(ws(calls, "raw"), messages, additional_headers=calls.headers("identify")))
    url = f"{calls.url}/v1/galleries/default/calls/enroll-1/voiceprints"
    body = {"caller_id": "elena", "metadata": {"plan": "gold"}}
    refused = httpx.post(url, json=body, headers=calls.headers("identify"))
    assert refused.json()["error"] == "NotAllowedError"
    stored = httpx.post(url, json=body, headers=calls.headers("enroll"), timeout=60)
    assert (stored.status_code, stored.json()["provenance"]["source"]) == (201, "enroll-1")
    caller = calls.service.recognizer("default").get_caller("elena")
    assert caller is not None
    assert caller.metadata == {"plan": "gold"}
    calls.service.recognizer("default").delete_caller("elena")


def test_the_client_announces_follows_and_enrolls_from_a_call(calls: Running) -> None:
    with Client(calls.url, calls.key("admin")) as client:
        announced = client.announce_call("by-client", from_number="+4930", candidates=["amara", "bruno"])
        assert (announced.call_id, announced.state, announced.from_number) == (
            "by-client",
            "announced",
            "+4930",
        )
        messages = [*raw_messages(CALL, 160, rate=8000, encoding="mulaw", call_id="by-client")]
        asyncio.run(
            converse(
                ws(calls, "raw"),
                [*messages, '{"type": "stop"}'],
                additional_headers=calls.headers("identify"),
            )
        )
        call = client.get_call("by-client")
        assert (call.state, call.source) == ("ended", "raw")
        assert call.answer is not None
        assert (call.answer["caller_id"], call.answer["verdict"]) == ("amara", "accepted")
        assert "by-client" in [one.call_id for one in client.live_calls(state="ended")]
        stored = client.enroll_from_call("by-client", "amara")
        assert stored.provenance is not None
        assert stored.provenance.source == "by-client"
        client.end_call("by-client")
        with pytest.raises(ServiceError, match="CallNotFoundError"):
            client.get_call("no-such")
        client.delete_voiceprint(stored.id or 0)


def test_no_answer_names_a_caller_who_was_deleted_since(calls: Running) -> None:
    recognizer = calls.service.recognizer("other")
    line = as_mulaw(VOICES["gil"][0])
    recognizer.enroll_caller("gil", line, sample_rate=8000, encoding="mulaw")
    url = calls.url.replace("http", "ws") + "/v1/galleries/other/calls/raw"
    messages = [*raw_messages(as_mulaw(VOICES["gil"][1]), 160, rate=8000, encoding="mulaw", call_id="gone")]
    asyncio.run(converse(url, [*messages, '{"type": "stop"}'], additional_headers=calls.headers("identify")))
    assert get(calls, "gone")["answer"]["caller_id"] == "gil"
    recognizer.delete_caller("gil", receipt=True)
    answer = get(calls, "gone")["answer"]
    assert (answer["caller_id"], answer["matches"], answer["verdict"]) == (None, [], "not_enrolled")


def test_a_call_is_ended_by_a_request_and_gets_its_final_answer(calls: Running) -> None:
    headers = calls.headers("identify")
    url = f"{calls.url}/v1/galleries/default/calls/hang-up"

    async def call() -> tuple[list[str], int | None]:
        first = {"rate": 8000, "encoding": "mulaw", "call_id": "hang-up"}
        talking = asyncio.create_task(
            converse(ws(calls, "raw"), raw_messages(CALL, 1600, **first), additional_headers=headers)
        )
        async with httpx.AsyncClient(headers=headers) as client:
            while (await client.get(url)).status_code == 404:
                await asyncio.sleep(0.02)
            assert (await client.get(url)).json()["state"] == "live"
            live = url.removesuffix("/hang-up") + "?state=live"
            while not (await client.get(live)).json()["calls"]:
                await asyncio.sleep(0.02)
            assert (await client.delete(url)).status_code == 202
        return await talking

    received, code = asyncio.run(call())
    assert json.loads(received[-1])["final"] is True
    assert json.loads(received[-2])["type"] == "error"
    assert code == 1000
    assert get(calls, "hang-up")["ended_by"] == "request"


def test_a_call_id_that_lasts_is_refused_and_an_ended_one_is_replaced(calls: Running) -> None:
    first = {"rate": 8000, "encoding": "mulaw", "call_id": "twice"}
    headers = calls.headers("identify")

    async def both() -> tuple[list[str], int | None]:
        one = asyncio.create_task(
            converse(ws(calls, "raw"), raw_messages(CALL, 1600, **first), additional_headers=headers)
        )
        async with httpx.AsyncClient(headers=headers) as client:
            while (await client.get(f"{calls.url}/v1/calls/twice")).status_code == 404:
                await asyncio.sleep(0.02)
            refused = await converse(
                ws(calls, "raw"), raw_messages(CALL[:1600], 1600, **first), additional_headers=headers
            )
            await client.delete(f"{calls.url}/v1/galleries/default/calls/twice")
        await one
        return refused

    received, code = asyncio.run(both())
    assert (json.loads(received[0])["type"], code) == ("error", 1008)
    messages = [*raw_messages(CALL[:16_000], 1600, **first), '{"type": "stop"}']
    again, code = asyncio.run(converse(ws(calls, "raw"), messages, additional_headers=headers))
    assert (json.loads(again[-1])["final"], code) == (True, 1000)


def test_a_websocket_without_a_key_of_the_gallery_is_refused(calls: Running) -> None:
    other = calls.headers("identify", galleries=["other"])
    wrong_role = calls.headers("enroll")
    for headers, status in (({}, 401), (other, 404), (wrong_role, 403)):
        for path in ("twilio", "raw", "audiohook"):
            with pytest.raises(InvalidStatus) as refused:
                asyncio.run(converse(ws(calls, path), [], additional_headers=headers))
            assert refused.value.response.status_code == status


def test_the_calls_of_one_gallery_are_hidden_from_the_key_of_another(calls: Running) -> None:
    headers = calls.headers("admin", galleries=["other"])
    assert httpx.get(f"{calls.url}/v1/calls/CA17", headers=headers).status_code == 404
    url = f"{calls.url}/v1/galleries/other/calls"
    ids = {call["call_id"] for call in httpx.get(url, headers=headers).json()["calls"]}
    assert "CA17" not in ids
    for method, path in ("GET", "CA17"), ("DELETE", "CA17"), ("POST", "CA17/voiceprints"):
        body = {"caller_id": "x"} if method == "POST" else None
        assert httpx.request(method, f"{url}/{path}", json=body, headers=headers).status_code == 404


def test_the_list_of_calls_has_pages(calls: Running) -> None:
    url = f"{calls.url}/v1/galleries/default/calls"
    with httpx.Client(headers=calls.headers("identify")) as client:
        for number in range(4):
            client.post(url, json={"call_id": f"page-{number}"}).raise_for_status()
        whole = client.get(url).json()["calls"]
        found, before = [], None
        while True:
            page = client.get(url, params={"limit": 3} | ({"before": before} if before else {})).json()
            found += page["calls"]
            before = page["next"]
            if before is None:
                break
    assert len(whole) > 3
    assert [call["call_id"] for call in found] == [call["call_id"] for call in whole]


def test_the_socket_of_a_silent_peer_is_closed(calls: Running) -> None:
    first = {"rate": 8000, "encoding": "mulaw", "call_id": "silent"}
    messages = raw_messages(CALL[:8000], 1600, **first)
    received, code = asyncio.run(
        converse(ws(calls, "raw"), messages, additional_headers=calls.headers("identify"))
    )
    assert (json.loads(received[-2])["type"], code) == ("error", 1008)
    assert get(calls, "silent")["ended_by"] == "silence"


@pytest.mark.parametrize("source", FORMATS)
def test_the_simulator_plays_recordings_in_each_format(calls: Running, source: str) -> None:
    options = Namespace(
        recordings=[SAMPLES / caller / "2.flac" for caller in ("amara", "bruno")],
        url=calls.url,
        key=calls.key("identify"),
        gallery="default",
        format=source,
        calls=2,
        speed=20.0,
        audiosocket_port=calls.service.live.audiosocket_port,
    )
    answers = asyncio.run(play(options))
    assert [call["source"] for call in answers] == [source] * 2
    assert [call["answer"]["caller_id"] for call in answers] == ["amara", "bruno"]


def test_metrics_count_calls_and_lateness(calls: Running) -> None:
    text = httpx.get(f"{calls.url}/metrics", headers=calls.headers("admin")).text
    assert 'voiceprint_calls{gallery="default",source="raw"} 0.0' in text
    assert 'voiceprint_call_lateness_seconds_count{gallery="default"}' in text
    assert 'voiceprint_calls_ended_total{ended_by="platform",gallery="default",verdict="accepted"}' in text


def test_no_call_is_left_after_all_of_these(calls: Running) -> None:
    assert len(calls.service.live) == 0
    assert all(call.is_finished for call in calls.service.live)
