"""Write the fixtures of live calls: conversations of each format with a second of a sample voice.

    PYTHONPATH=.:tests python tests/server/record_conversations.py

A message is a line: a JSON text as it is, and a binary one as "base64:" and its bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

import numpy as np
from platforms import audiohook_messages, audiosocket_packets, raw_messages, twilio_messages
from streams import as_mulaw
from voices import load_voices

from voiceprint.audio.io import g711

FIXTURES = Path(__file__).parent / "conversations"
CALL = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")


def conversations() -> dict[str, list[str | bytes]]:
    """The messages of each fixture."""
    mulaw = as_mulaw(load_voices()["amara"][1][16_000:32_000])
    samples = g711.decode(np.frombuffer(mulaw, np.uint8), "mulaw").astype("<i2")
    pcm, wide = samples.tobytes(), np.repeat(samples, 2).tobytes()
    stereo = np.stack((samples, np.zeros_like(samples)), axis=1).tobytes()
    vonage = {"event": "websocket:connected", "content-type": "audio/l16;rate=16000", "call_id": "vonage-1"}
    jambonz = {
        "sampleRate": 8000,
        "mixType": "stereo",
        "callSid": "6cb6bcd5-2f0d-4d0f-a4d6-4cd3a4dd8f21",
        "direction": "inbound",
        "from": "+493012345",
        "to": "+18005551234",
        "callId": "a1b2c3@sip",
        "accountSid": "fc6b4ad1-c1e7-4a5d-8d6a-b43ddc8a1c8b",
    }
    freeswitch = {"rate": 8000, "call_id": "freeswitch-1", "from": "+493012345", "candidates": ["amara"]}
    hook = audiohook_messages(mulaw, "0f7e1c4b-6a2f-4a0e-9d53-6b27dd7a1a77")
    return {
        "twilio": [*twilio_messages(mulaw)],
        "freeswitch": raw_messages(pcm, 320, **freeswitch),
        "vonage": raw_messages(wide, 640, **vonage),
        "jambonz": raw_messages(stereo, 640, **jambonz),
        "mulaw": [
            *raw_messages(mulaw, 160, rate=8000, encoding="mulaw", call_id="raw-1"),
            '{"type": "stop"}',
        ],
        "audiosocket": [*audiosocket_packets(pcm, CALL)],
        "audiohook": hook,
    }


def written(messages: Iterable[str | bytes]) -> str:
    """The text of a fixture."""
    lines = (one if isinstance(one, str) else f"base64:{base64.b64encode(one).decode()}" for one in messages)
    return "\n".join(lines) + "\n"


def read(name: str) -> list[str | bytes]:
    """The messages of a fixture."""
    lines = (FIXTURES / f"{name}.txt").read_text().splitlines()
    return [
        base64.b64decode(line.removeprefix("base64:")) if line.startswith("base64:") else line
        for line in lines
    ]


if __name__ == "__main__":
    FIXTURES.mkdir(exist_ok=True)
    for name, messages in conversations().items():
        (FIXTURES / f"{name}.txt").write_text(written(messages))
