"""Platforms that call the service in the tests: their connections, and the messages of the simulator."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import websockets

from tools.call_simulator import audiohook_messages, audiosocket_packets, raw_messages, twilio_messages

__all__ = [
    "audiohook_messages",
    "audiosocket_bytes",
    "audiosocket_packets",
    "converse",
    "raw_messages",
    "twilio_messages",
]


def audiosocket_bytes(audio: bytes, call: uuid.UUID) -> bytes:
    """All packets of a connection at once."""
    return b"".join(audiosocket_packets(audio, call))


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
            await asyncio.wait({listening}, timeout=20)
    listening.cancel()
    return received, socket.close_code
