"""The state of a browser that uses the console, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from serving import Running
from voices import RATE, Audio
from websockets.sync.client import ClientConnection, connect


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found is not None, page.text
    return found[1]


@contextmanager
def signed_in(server: Running, *roles: str, **options: object) -> Iterator[httpx.Client]:
    """A browser's state after signing in with a new key; redirects are followed."""
    with httpx.Client(base_url=server.url, timeout=60, follow_redirects=True) as browser:
        key = server.key(*roles, **options)
        token = csrf_of(browser.get("/console/login"))
        page = browser.post("/console/login", data={"key": key, "csrf": token, "next": "/console/"})
        assert page.status_code == 200, page.text
        yield browser


def pages_of(gallery: str) -> list[str]:
    return [
        f"/console/g/{gallery}/{page}"
        for page in (
            "callers", "caller?id=amara", "enroll", "delete?id=amara", "try", "threshold", "live",
            "live/part", "call?id=x", "call/part?id=x", "audit",
        )
    ]  # fmt: skip


def cookie_of(browser: httpx.Client) -> dict[str, str]:
    return {"Cookie": f"voiceprint-session={browser.cookies['voiceprint-session']}"}


@contextmanager
def live_call(server: Running, call_id: str) -> Iterator[ClientConnection]:
    """The websocket of a call of the gallery `default`, which lasts until the end of the block."""
    url = f"{server.url.replace('http', 'ws')}/v1/galleries/default/calls/raw"
    with connect(url, additional_headers={"X-API-Key": server.key("identify")}) as socket:
        socket.send(json.dumps({"rate": RATE, "call_id": call_id}))
        yield socket


def speak(socket: ClientConnection, audio: Audio) -> None:
    """Send audio, float32[n] at 16 kHz, a tenth of a second at a time."""
    samples = (audio * 32767).astype("<i2").tobytes()
    for start in range(0, len(samples), RATE // 5):
        socket.send(samples[start : start + RATE // 5])
