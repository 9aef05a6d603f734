"""Telephony platforms that call the service: their messages, as they send them, and their sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any

import websockets

FRAME_S = 0.02


def frames(audio: bytes, size: int) -> Iterator[bytes]:
    """The audio in frames of `size` bytes."""
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def twilio_messages(mulaw: bytes, call: str = "CA17", **parameters: str) -> list[str]:
    """A stream of `<Stream>` with both tracks; the outbound one is silent."""
    start = {
        "accountSid": "AC" + "0" * 32,
        "streamSid": "MZ" + "0" * 32,
        "callSid": call,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": parameters,
    }
    texts: list[dict[str, Any]] = [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": start["streamSid"]},
    ]
    for number, frame in enumerate(frames(mulaw, 160), 1):
        for track, payload in ("inbound", frame), ("outbound", b"\xff" * len(frame)):
            media = {
                "track": track,
                "chunk": str(number),
                "timestamp": str(number * 20),
                "payload": base64.b64encode(payload).decode(),
            }
            texts.append(
                {
                    "event": "media",
                    "sequenceNumber": str(len(texts)),
                    "media": media,
                    "streamSid": start["streamSid"],
                }
            )
    stop = {"accountSid": start["accountSid"], "callSid": call}
    texts.append({"event": "stop", "sequenceNumber": str(len(texts)), "stop": stop})
    return [json.dumps(text) for text in texts]


def raw_messages(audio: bytes, frame: int, **first: Any) -> list[str | bytes]:
    """A websocket of raw audio: the first text, and binary frames."""
    return [json.dumps(first), *frames(audio, frame)]


def audiosocket_packets(audio: bytes, call: uuid.UUID, kind: int = 0x10, frame: int = 320) -> list[bytes]:
    """A connection of Asterisk: the UUID, audio of 16 bits, hangup."""
    packets = [bytes([kind]) + len(part).to_bytes(2, "big") + part for part in frames(audio, frame)]
    return [b"\x01\x00\x10" + call.bytes, *packets, b"\x00\x00\x00"]


def audiosocket_bytes(audio: bytes, call: uuid.UUID) -> bytes:
    """All packets of a connection at once."""
    return b"".join(audiosocket_packets(audio, call))


def audiohook_messages(
    mulaw: bytes, conversation: str, session: str = "30b0e395-84d3-4570-ac13-9a62d8f514c0", **open_with: Any
) -> list[str | bytes]:
    """A session of AudioHook with two channels on offer, and the audio of one; the probe has none."""
    media = [
        {"type": "audio", "format": "PCMU", "channels": list(channels), "rate": 8000}
        for channels in (("external", "internal"), ("external",), ("internal",))
    ]
    parameters = {
        "organizationId": "d7934305-0972-4844-938e-9060eef73d05",
        "conversationId": conversation,
        "participant": {
            "id": "883efee8-3d6c-4537-b500-6d7ca4b92fa0",
            "ani": "+493012345",
            "aniName": "Amara",
            "dnis": "+18005551234",
        },
        "media": media,
        **open_with,
    }
    sent: list[str | bytes] = []
    serverseq, seconds = 0, 0.0

    def text(kind: str, parameters: dict[str, Any]) -> None:
        number = sum(isinstance(one, str) for one in sent) + 1
        envelope = {"version": "2", "id": session, "type": kind, "seq": number, "serverseq": serverseq}
        sent.append(json.dumps({**envelope, "position": f"PT{seconds:g}S", "parameters": parameters}))

    text("open", parameters)
    serverseq = 1
    parts = list(frames(mulaw, 1600))
    for number, part in enumerate(parts):
        sent.append(part)
        seconds += len(part) / 8000
        if number == len(parts) // 2:
            text("ping", {"rtt": "PT0.1S"})
    text("close", {"reason": "end"})
    return sent


async def converse(
    url: str, messages: list[Any], *, reads: bool = True, **options: Any
) -> tuple[list[str], int | None]:
    """Send messages over a websocket; returns the texts that came back, and the code of the close frame."""
    received: list[str] = []
    async with websockets.connect(url, **options) as socket:

        async def listen() -> None:
            async for message in socket:
                received.append(str(message))  # noqa: PERF401 - the connection may end with an error

        listening = asyncio.create_task(listen())
        try:
            for number, message in enumerate(messages):
                await socket.send(message)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            if reads:
                await asyncio.wait({listening}, timeout=20)
        except websockets.ConnectionClosed:
            await listening
    listening.cancel()
    return received, socket.close_code
