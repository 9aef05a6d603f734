"""A voice agent that identifies its callers: a telephone call over a websocket, answered while it lasts.

    python examples/opusagent_bridge.py

The messages have the format of a telephony provider's media stream: JSON, with 20 ms of mu-law at 8 kHz in
base64. `PhoneCall` replaces the websocket, and plays a sample voice over a line.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, StreamResult, load_audio
from voiceprint.audio.io import g711

VOICES = Path(__file__).parent / "voices"
FRAME = 160  # bytes: 20 ms


async def answer_call(websocket: AsyncIterator[str], recognizer: OpusAgentVoiceRecognizer) -> StreamResult:
    """Identify the caller of a call: the part for an agent."""
    shown = 0.0
    greeted = False
    with recognizer.stream(sample_rate=8000, encoding="mulaw") as session:
        async for text in websocket:
            message = json.loads(text)
            if message["event"] != "media":
                continue
            await session.afeed(base64.b64decode(message["media"]["payload"]))
            answer = await session.aresult()
            if answer.decided and not greeted:
                greeted = True
                print(f"  {answer.audio_s:5.1f} s  decided: {greeting(answer)}")
            elif not greeted and answer.audio_s >= shown + 1.0:
                shown = answer.audio_s
                print(f"  {answer.audio_s:5.1f} s  {guess(answer)}")
        final = await session.afinish()
    print(f"  {final.audio_s:5.1f} s  hung up: {greeting(final)}")
    return final


def guess(answer: StreamResult) -> str:
    """A running answer in words."""
    speech = f"{answer.net_speech_s:.1f} s of speech"
    if answer.caller_id is None:
        return f"{speech}, too early to tell"
    return f"{speech}, most like {answer.caller_id} ({answer.similarity:.2f})"


def greeting(answer: StreamResult) -> str:
    """The agent's reaction to a decision."""
    if not answer.accepted:
        return "nobody we know, so ask for the name"
    return f'"Welcome back, {answer.metadata["name"]}!" ({answer.similarity:.2f})'


class PhoneCall:
    """Replaces the websocket of a media stream: yields its messages, one a frame.

    pace_s: seconds between frames; 0.02 is real time, 0 as fast as possible.
    """

    def __init__(self, recording: Path, pace_s: float = 0.0) -> None:
        audio, rate = load_audio(recording)
        line = np.clip(soxr.resample(np.asarray(audio, dtype=np.float32), rate, 8000), -1.0, 1.0)
        self._codes = g711.encode(np.rint(line * 32767).astype(np.int16), "mulaw").tobytes()
        self._pace_s = pace_s

    async def __aiter__(self) -> AsyncIterator[str]:
        yield self._message("start", {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000}})
        for first in range(0, len(self._codes), FRAME):
            await asyncio.sleep(self._pace_s)
            payload = base64.b64encode(self._codes[first : first + FRAME]).decode("ascii")
            yield self._message("media", {"payload": payload})
        yield self._message("stop", {})

    @staticmethod
    def _message(event: str, content: dict[str, Any]) -> str:
        return json.dumps({"event": event, event: content})


async def main() -> None:
    """Enroll three callers, then answer a call of one of them and one of a stranger."""
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    recognizer.warm_up()
    for name in ("amara", "bruno", "carlo"):
        for recording in ("1.flac", "2.flac"):
            audio, rate = load_audio(VOICES / name / recording)
            await recognizer.aenroll_caller(name, audio, {"name": name.title()}, sample_rate=rate)
    for name in ("amara", "hakan"):
        print(f"A call of {name}:")
        await answer_call(aiter(PhoneCall(VOICES / name / "3.flac")), recognizer)


if __name__ == "__main__":
    asyncio.run(main())
