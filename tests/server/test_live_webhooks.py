"""Webhooks of live calls: a real receiver gets every answer, signed, at least once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import websockets
from platforms import converse, raw_messages
from pydantic import SecretStr
from serving import Running, serve
from sqlalchemy import func, select, update
from streams import as_mulaw
from voices import BandEncoder, by_cosine, load_voices

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.errors import ConfigurationError
from voiceprint.server import ServerSettings, Service
from voiceprint.server.database import deliveries
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.live.webhooks import add_deliveries, delivery_of, retry_s, sign

VOICES = load_voices()
ANSWER = {"verdict": "accepted", "similarity": 0.9, "matches": [], "watch_hits": []}
SECRET = base64.b64encode(bytes(range(32))).decode()


class Got(NamedTuple):
    """A request that the receiver got."""

    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The body."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def is_signed(self) -> bool:
        """Whether the signature is that of docs/live-calls.md."""
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.new(base64.b64decode(SECRET), content, hashlib.sha256).digest()
        return hmac.compare_digest(
            self.headers["webhook-signature"], "v1," + base64.b64encode(digest).decode()
        )


class Receiver(NamedTuple):
    """A receiver on loopback. answers: statuses to give first; then 204."""

    url: str
    got: list[Got]
    answers: list[int]

    def wait_for(self, call_id: str, kind: str = "call.ended", times: int = 1) -> list[Got]:
        """The requests of this type on a call, once there are as many."""
        for _ in range(1000):
            found = [
                one
                for one in list(self.got)
                if one.message["type"] == kind and one.message["data"]["call_id"] == call_id
            ]
            if len(found) >= times:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{kind} of {call_id} came {len(found)} times of {times}")


@contextmanager
def receiver() -> Iterator[Receiver]:
    got: list[Got] = []
    answers: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(Got({key.lower(): value for key, value in self.headers.items()}, body))
            status = answers.pop(0) if answers else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/other")  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Receiver(f"http://127.0.0.1:{server.server_port}/hook", got, answers)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Receiver]]:
    folder: Path = tmp_path_factory.mktemp("webhooks")
    config = by_cosine(same_recording=False, similarity_threshold=0.6)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=config)
    for caller in ("amara", "bruno"):
        line = as_mulaw(VOICES[caller][0])
        recognizer.enroll_caller(caller, line, {"plan": "gold"}, sample_rate=8000, encoding="mulaw")
    settings = ServerSettings(state=str(folder / "state.db"), rate_limit=0)
    with receiver() as hook:
        live = LiveSettings(
            webhook_urls={"default": hook.url}, webhook_secrets={"default": SecretStr(f"whsec_{SECRET}")}
        )
        with serve(Service({"default": recognizer}, settings, live)) as running:
            yield running, hook


def url(running: Running) -> str:
    """The websocket of raw audio."""
    return running.url.replace("http", "ws") + "/v1/galleries/default/calls/raw"


def call(running: Running, call_id: str, **first: Any) -> None:
    """A call of amara."""
    messages = raw_messages(
        as_mulaw(VOICES["amara"][1]), 1600, rate=8000, encoding="mulaw", call_id=call_id, **first
    )
    headers = running.headers("identify", metadata=True)
    asyncio.run(converse(url(running), [*messages, '{"type": "stop"}'], additional_headers=headers))


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never held")


def waiting(running: Running) -> int:
    """Deliveries that are not done."""
    with running.service.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(deliveries)).scalar_one())


def test_the_decision_and_the_end_of_a_call_are_delivered_and_signed(
    hooked: tuple[Running, Receiver],
) -> None:
    running, hook = hooked

    async def decide() -> None:
        """A call that goes on until its decision is there."""
        headers = running.headers("identify")
        first = {"rate": 8000, "encoding": "mulaw", "call_id": "hook-1", "candidates": ["amara"]}
        async with websockets.connect(url(running), additional_headers=headers) as socket:
            for message in raw_messages(as_mulaw(VOICES["amara"][1]) * 2, 1600, **first):
                await socket.send(message)
            while not json.loads(await socket.recv())["decided"]:
                pass
            await socket.send('{"type": "stop"}')
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await socket.recv()

    asyncio.run(decide())
    (ended,) = hook.wait_for("hook-1")
    (decided,) = hook.wait_for("hook-1", "call.decided")
    for one in ended, decided:
        assert one.is_signed()
        assert one.message["data"]["answer"]["caller_id"] == "amara"
        assert b"gold" not in one.body
        assert b"embedding" not in one.body
    assert ended.message["data"]["state"] == "ended"
    assert ended.headers["webhook-id"] != decided.headers["webhook-id"]
    until(lambda: waiting(running) == 0)


def test_a_call_may_ask_for_no_webhook(hooked: tuple[Running, Receiver]) -> None:
    running, hook = hooked
    call(running, "hook-none", webhook=False)
    call(running, "hook-some")
    hook.wait_for("hook-some")
    assert not [one for one in hook.got if one.message["data"]["call_id"] == "hook-none"]


def test_a_delivery_that_fails_or_is_redirected_comes_again(hooked: tuple[Running, Receiver]) -> None:
    running, hook = hooked
    until(lambda: waiting(running) == 0)
    hook.answers.extend((500, 302))
    call(running, "hook-2")
    hook.wait_for("hook-2")
    until(lambda: hurry(running) or (not hook.answers and waiting(running) == 0))
    found = [one for one in hook.got if one.message["data"]["call_id"] == "hook-2"]
    # The decision is a delivery of its own, if it came before the end.
    assert len(found) == len({one.headers["webhook-id"] for one in found}) + 2
    assert all(one.is_signed() for one in found)


def hurry(running: Running) -> bool:
    """Let no retry wait; returns False."""
    with running.service.database.begin() as connection:
        connection.execute(update(deliveries).values(due=0.0))
    return False


def test_the_deliveries_of_a_killed_worker_are_sent_by_another(hooked: tuple[Running, Receiver]) -> None:
    running, hook = hooked
    data = {"call_id": "orphan", "answer": ANSWER | {"caller_id": "amara"}}
    message = delivery_of("default", "call.ended", data)
    lately = delivery_of("default", "call.ended", data | {"call_id": "in-progress"})
    with running.service.database.begin() as connection:
        add_deliveries(connection, [message, lately])
        for one, age in (message, 100.0), (lately, 0.0):
            mine = deliveries.c.delivery_id == one.delivery_id
            claimed = {"worker": "1-dead", "beat": time.time() - age}
            connection.execute(update(deliveries).where(mine).values(claimed))
    (got,) = hook.wait_for("orphan")
    assert got.headers["webhook-id"] == message.delivery_id
    # The other one may be on its way from a worker that lives.
    assert not [one for one in hook.got if one.message["data"]["call_id"] == "in-progress"]
    with running.service.database.begin() as connection:
        connection.execute(deliveries.delete())


def test_a_late_delivery_does_not_name_a_caller_who_was_deleted(hooked: tuple[Running, Receiver]) -> None:
    running, hook = hooked
    recognizer = running.service.recognizer("default")
    line = as_mulaw(VOICES["carlo"][0])
    recognizer.enroll_caller("carlo", line, sample_rate=8000, encoding="mulaw")
    recognizer.delete_caller("carlo", receipt=True)
    answer = ANSWER | {"caller_id": "carlo", "matches": [{"caller_id": "carlo"}, {"caller_id": "amara"}]}
    data = {"call_id": "late", "answer": answer}
    with running.service.database.begin() as connection:
        add_deliveries(connection, [delivery_of("default", "call.ended", data)])
    (got,) = hook.wait_for("late")
    answer = got.message["data"]["answer"]
    assert (answer["caller_id"], answer["verdict"]) == (None, "not_enrolled")
    assert answer["matches"] == [{"caller_id": "amara"}]


def test_the_signature_is_that_of_the_standard() -> None:
    # The example of the specification, https://github.com/standard-webhooks/standard-webhooks.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_retries_wait_twice_as_long_each_time_up_to_an_hour() -> None:
    assert [retry_s(attempt) for attempt in (1, 2, 3, 11, 12, 100)] == [2, 4, 8, 2048, 3600, 3600]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"webhook_urls": {"default": "ftp://x"}}, "WEBHOOK_URLS"),
        ({"webhook_urls": {"default": "http://x"}}, "WEBHOOK_SECRETS"),
        ({"webhook_secrets": {"default": "c2VjcmV0LXZhbHVl"}}, "WEBHOOK_SECRETS"),
        ({"webhook_secrets": {"default": "whsec_c2VjcmV0"}}, "WEBHOOK_SECRETS"),
        ({"audiohook_secrets": {"default": "c2VjcmV0LXZhbHVl!"}}, "AUDIOHOOK_SECRETS"),
        ({"audiosocket_peers": ["10.0.0.0/99"]}, "AUDIOSOCKET_PEERS"),
        ({"public_url": "voice.example.com"}, "PUBLIC_URL"),
    ],
)
def test_a_setting_of_live_calls_that_is_not_valid_is_named_without_a_secret(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"VOICE_SERVER_{named}") as caught:
        LiveSettings(**values)
    assert "c2VjcmV0" not in str(caught.value)
