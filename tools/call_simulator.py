"""Play recordings to the service as telephony platforms do: at real time, many calls at once.

    python -m tools.call_simulator --key KEY examples/voices/amara/2.flac
    python -m tools.call_simulator --key KEY --format audiosocket --calls 20 examples/voices/*/2.flac

Each call sends frames of 20 ms (AudioHook: 200 ms) in its format, and ends by itself. Then its answer is read
from `GET /v1/calls/{id}`. AudioSocket needs `--audiosocket-port`; its calls are announced.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import uuid
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import numpy as np
import soxr
import websockets
from websockets.frames import Frame, Opcode

from voiceprint import load_audio
from voiceprint.audio.io import g711

RATE: Final = 8000
_TICK_S: Final = 0.01  # half a frame
FORMATS: Final = ("twilio", "raw", "audiohook", "audiosocket")

Messages = list[str | bytes]


class Script(NamedTuple):
    """A call in its format. head: messages at its begin. frames: of the socket, one each `every_s`."""

    head: Messages
    frames: list[bytes]
    every_s: float


class Ticker:
    """Writes the frames of all calls: a task for each would take more of the processor than the service."""

    def __init__(self) -> None:
        self._calls: list[_Playing] = []
        self._task: asyncio.Task[None] | None = None

    async def play(self, transport: Any, frames: list[bytes], every_s: float) -> None:
        """Write frames in time; returns after the last one."""
        loop = asyncio.get_running_loop()
        call = _Playing(transport, iter(frames), every_s, loop.time(), loop.create_future())
        self._calls.append(call)
        if self._task is None:
            self._task = loop.create_task(self._run(loop))
        await call.done

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._calls:
            time_now = loop.time()
            for call in self._calls:
                while call.due <= time_now and not call.done.done():
                    frame = next(call.frames, None)
                    if frame is None or call.transport.is_closing():
                        call.done.set_result(None)
                        break
                    call.transport.write(frame)
                    call.due += call.every_s
            self._calls = [call for call in self._calls if not call.done.done()]
            await asyncio.sleep(_TICK_S)
        self._task = None


@dataclass
class _Playing:
    transport: Any
    frames: Iterator[bytes]
    every_s: float
    due: float
    done: asyncio.Future[None]


def main() -> int:
    """Play, and print the answers."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path, help="audio files, which the calls take in turns")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    parser.add_argument("--key", required=True, help="an API key with the role identify")
    parser.add_argument("--gallery", default="default")
    parser.add_argument("--format", choices=FORMATS, default="twilio")
    parser.add_argument("--calls", type=int, default=1, help="calls at the same time")
    parser.add_argument("--speed", type=float, default=1.0, help="of the playing; 1 is real time")
    parser.add_argument("--audiosocket-port", type=int, default=9092)
    options = parser.parse_args()
    answers = asyncio.run(play(options))
    print(f"{'call':38}{'state':10}{'verdict':14}{'caller':12}{'similarity':>10}{'late, s':>9}")
    for call in answers:
        answer = call["answer"] or {}
        similarity = answer.get("similarity")
        print(
            f"{call['call_id']:38}{call['state']:10}{answer.get('verdict') or '-':14}"
            f"{answer.get('caller_id') or '-':12}"
            f"{'-' if similarity is None else format(similarity, '.2f'):>10}{call['most_late_s']:>9.2f}"
        )
    return 0 if all(call["state"] == "ended" for call in answers) else 1


async def play(options: Any) -> list[dict[str, Any]]:
    """Hold the calls of the command line; returns their answers."""
    lines = [telephone_line(path) for path in options.recordings]
    headers = {"Authorization": f"Bearer {options.key}"}
    ticker = Ticker()
    calls = f"{options.url}/v1/galleries/{options.gallery}/calls"

    async def one(number: int) -> dict[str, Any]:
        call = uuid.uuid4()
        played = script(options.format, lines[number % len(lines)], str(call))
        if options.format == "audiosocket":
            announced = await client.post(calls, json={"call_id": str(call)})
            announced.raise_for_status()
            await play_tcp(options.audiosocket_port, played, ticker, options.speed)
        else:
            url = f"{calls.replace('http', 'ws', 1)}/{options.format}"
            await play_websocket(url, headers, played, ticker, options.speed)
        answer = await client.get(f"{options.url}/v1/calls/{call}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        return await asyncio.gather(*(one(number) for number in range(options.calls)))


async def play_websocket(
    url: str, headers: dict[str, str], call: Script, ticker: Ticker, speed: float = 1.0
) -> None:
    """Send the messages of a call in time, and wait until the service closes the connection."""
    async with websockets.connect(url, additional_headers=headers) as socket:
        listening = asyncio.create_task(_until_closed(socket))
        for message in call.head:
            await socket.send(message)
        await ticker.play(socket.transport, call.frames, call.every_s / speed)
        await asyncio.wait_for(listening, 120)


async def play_tcp(port: int, call: Script, ticker: Ticker, speed: float = 1.0) -> None:
    """Send the packets of AudioSocket in time, and wait until the service closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for packet in call.head:
        writer.write(packet if isinstance(packet, bytes) else packet.encode())
    await ticker.play(writer.transport, call.frames, call.every_s / speed)
    await asyncio.wait_for(reader.read(), 120)
    writer.close()


async def _until_closed(socket: Any) -> None:
    try:
        async for _ in socket:
            pass
    except websockets.ConnectionClosed:  # by the service, as the call is over
        pass


def client_frame(message: str | bytes) -> bytes:
    """A masked websocket frame with a message."""
    if isinstance(message, str):
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)
    return Frame(Opcode.BINARY, message).serialize(mask=True)


def telephone_line(path: Path) -> bytes:
    """A recording as mu-law at 8 kHz."""
    audio, rate = load_audio(path)
    low = np.clip(soxr.resample(np.asarray(audio, dtype=np.float32), rate, RATE), -1.0, 1.0)
    return g711.encode(np.rint(low * 32767).astype(np.int16), "mulaw").tobytes()


def linear(mulaw: bytes) -> bytes:
    """Mu-law as 16-bit little-endian samples."""
    return g711.decode(np.frombuffer(mulaw, np.uint8), "mulaw").astype("<i2").tobytes()


def script(source: str, mulaw: bytes, call: str) -> Script:
    """A call in a format."""
    every_s = 0.2 if source == "audiohook" else 0.02
    return Script(_head(source, call), _frames(source, mulaw), every_s)


def _head(source: str, call: str) -> Messages:
    if source == "twilio":
        return [*twilio_messages(b"", call, both=False)[:2]]
    if source == "raw":
        return raw_messages(b"", 160, rate=RATE, encoding="mulaw", call_id=call)
    if source == "audiosocket":
        return [*audiosocket_packets(b"", uuid.UUID(call))[:1]]
    return audiohook_messages(b"", call)[:1]


@lru_cache
def _frames(source: str, mulaw: bytes) -> list[bytes]:
    """The frames after the head, which are the same in all calls of a recording."""
    if source == "audiosocket":
        return audiosocket_packets(linear(mulaw), uuid.UUID(int=0))[1:]
    messages: Messages = {
        "twilio": lambda: [*twilio_messages(mulaw, both=False)[2:]],
        "raw": lambda: [*raw_messages(mulaw, 160)[1:], '{"type": "stop"}'],
        "audiohook": lambda: audiohook_messages(mulaw, "")[1:],
    }[source]()
    return [client_frame(message) for message in messages]


def frames(audio: bytes, size: int) -> Iterator[bytes]:
    """The audio in frames of `size` bytes."""
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def twilio_messages(mulaw: bytes, call: str = "CA17", *, both: bool = True, **parameters: str) -> list[str]:
    """A stream of `<Stream>`. both: also the outbound track, which is silent."""
    start = {
        "accountSid": "AC" + "0" * 32,
        "streamSid": "MZ" + "0" * 32,
        "callSid": call,
        "tracks": ["inbound", "outbound"] if both else ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
        "customParameters": parameters,
    }
    texts: list[dict[str, Any]] = [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": start["streamSid"]},
    ]
    for number, frame in enumerate(frames(mulaw, 160), 1):
        tracks = {"inbound": frame, "outbound": b"\xff" * len(frame)} if both else {"inbound": frame}
        for track, payload in tracks.items():
            media = {
                "track": track,
                "chunk": str(number),
                "timestamp": str(number * 20),
                "payload": base64.b64encode(payload).decode(),
            }
            sequence = str(len(texts))
            texts.append(
                {
                    "event": "media",
                    "sequenceNumber": sequence,
                    "media": media,
                    "streamSid": start["streamSid"],
                }
            )
    stop = {"accountSid": start["accountSid"], "callSid": call}
    texts.append({"event": "stop", "sequenceNumber": str(len(texts)), "stop": stop})
    return [json.dumps(text) for text in texts]


def raw_messages(audio: bytes, frame: int, **first: Any) -> Messages:
    """A websocket of raw audio: the first text, and binary frames."""
    return [json.dumps(first), *frames(audio, frame)]


def audiosocket_packets(pcm: bytes, call: uuid.UUID, kind: int = 0x10, frame: int = 320) -> list[bytes]:
    """A connection of Asterisk: the UUID, audio of 16 bits, hangup."""
    packets = [bytes([kind]) + len(part).to_bytes(2, "big") + part for part in frames(pcm, frame)]
    return [b"\x01\x00\x10" + call.bytes, *packets, b"\x00\x00\x00"]


def audiohook_messages(
    mulaw: bytes, conversation: str, session: str = "30b0e395-84d3-4570-ac13-9a62d8f514c0", **open_with: Any
) -> Messages:
    """A session of AudioHook that offers three media, and sends the audio of the caller."""
    media = [
        {"type": "audio", "format": "PCMU", "channels": list(channels), "rate": RATE}
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
    sent: Messages = []
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
        seconds += len(part) / RATE
        if number == len(parts) // 2:
            text("ping", {"rtt": "PT0.1S"})
    text("close", {"reason": "end"})
    return sent


if __name__ == "__main__":
    sys.exit(main())
