"""Asterisk AudioSocket: packets over TCP of one byte of type, two of length (big-endian), and the payload.

The first packet holds the UUID that the dialplan gives. Audio is 16-bit little-endian, mono; the type of its
packets gives the rate. There is no place for keys or answers: `POST /v1/galleries/{gallery}/calls` announces
the UUID, with the candidates, before the call.

Source: https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Final

from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.errors import InvalidArgumentError
from voiceprint.server.live.conversation import (
    Audio,
    CallOptions,
    Conversation,
    Ended,
    Event,
    Message,
    Started,
)
from voiceprint.validation import shown

HANGUP: Final = 0x00
UUID: Final = 0x01
DTMF: Final = 0x03
ERROR: Final = 0xFF
HEADER: Final = 3  # bytes
RATES: Final = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
}
"""Sample rate in Hz of each type of audio packet. 0x17 and 0x18 are 96 and 192 kHz, above what is allowed."""


class AudioSocketConversation(Conversation):
    """The conversation of a connection. A message is a whole packet, see `packet_length`."""

    source: ClassVar[str] = "audiosocket"

    def __init__(self) -> None:
        self.uuid: uuid.UUID | None = None
        self._kind: int | None = None

    def receive(self, message: Message) -> list[Event]:
        """As `Conversation.receive`."""
        if not isinstance(message, bytes) or len(message) < HEADER:
            raise InvalidArgumentError("A packet is shorter than its header of 3 bytes.")
        kind, payload = message[0], message[HEADER:]
        if kind == UUID:
            return self._identify(payload)
        if self.uuid is None:
            raise InvalidArgumentError(
                f"The first packet has the type {kind:#04x}: 0x01, a UUID, is expected."
            )
        if kind in RATES:
            return self._audio(kind, payload)
        if kind in (HANGUP, ERROR):
            return [Ended()]
        if kind == DTMF:
            return []
        raise InvalidArgumentError(f"A packet has the type {kind:#04x}: {_TYPES} are allowed.")

    def ended(self, answer: dict[str, Any] | None) -> list[Message]:  # noqa: ARG002
        """As `Conversation.ended`."""
        return [packet(HANGUP)]

    def _identify(self, payload: bytes) -> list[Event]:
        if self.uuid is not None:
            raise InvalidArgumentError("A second UUID came: a connection has one.")
        if len(payload) != 16:
            raise InvalidArgumentError(f"A UUID of {len(payload)} bytes came: 16 are expected.")
        self.uuid = uuid.UUID(bytes=payload)
        return []

    def _audio(self, kind: int, payload: bytes) -> list[Event]:
        if len(payload) % 2:
            raise InvalidArgumentError(f"An audio packet has {len(payload)} bytes: samples have two.")
        if self._kind is None:
            self._kind = kind
            # The rate is only in the type of the audio, so that the call starts with its first packet.
            started = Started(AudioFormat(RATES[kind], "pcm_s16le"), CallOptions(call_id=str(self.uuid)))
            return [started, Audio(payload)]
        if kind != self._kind:
            raise InvalidArgumentError(
                f"The type of the audio changed from {self._kind:#04x} to {shown(hex(kind))} in the call."
            )
        return [Audio(payload)]


def packet_length(header: bytes) -> int:
    """Bytes of the payload that follows a header of 3 bytes, 0 to 65,535."""
    return int.from_bytes(header[1:HEADER], "big")


def packet(kind: int, payload: bytes = b"") -> bytes:
    """A packet. payload: up to 65,535 bytes."""
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload


_TYPES = "0x00, 0x01, 0x03, 0x10 to 0x16 and 0xff"
