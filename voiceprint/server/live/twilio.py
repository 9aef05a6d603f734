"""Twilio Media Streams: JSON text messages, with the audio in base64.

A stream is `connected`, `start`, `media`..., `stop`; `dtmf` and `mark` may come between. Numbers such as
`sequenceNumber` are texts. The format has no message for an answer: a server may send audio to play (`media`,
`mark`, `clear`) in a stream of `<Connect>`, and nothing in one of `<Start>`. So answers go to the webhook and
to `GET /v1/calls/{id}`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar

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
    encoding_of,
    part_of,
    read_json,
    sample_rate_of,
    whole_number,
)
from voiceprint.validation import shown


class TwilioConversation(Conversation):
    """One stream. The caller's voice is on the track "inbound": the audio that Twilio receives."""

    source: ClassVar[str] = "twilio"

    def __init__(self) -> None:
        self._track: str | None = None

    def receive(self, message: Message) -> list[Event]:
        """As `Conversation.receive`."""
        parsed = read_json(message)
        event = parsed.get("event")
        if event == "media":
            return self._media(part_of(parsed, "media"))
        if event == "start":
            return [self._start(part_of(parsed, "start"))]
        if event == "stop":
            return [Ended()]
        if isinstance(event, str):
            return []  # connected, dtmf, mark, and what a later version adds
        raise InvalidArgumentError(f"The event of a message is {shown(event)}: a text is expected.")

    def _start(self, start: dict[str, Any]) -> Started:
        if self._track is not None:
            raise InvalidArgumentError("A second 'start' came: a stream has one.")
        tracks = start.get("tracks") or ["inbound"]
        if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
            raise InvalidArgumentError(f"start.tracks is {shown(tracks)}: a list of texts is expected.")
        media = part_of(start, "mediaFormat")
        if whole_number(media.get("channels", 1), "start.mediaFormat.channels") != 1:
            raise InvalidArgumentError("start.mediaFormat.channels is not 1.")
        audio_format = AudioFormat(
            sample_rate_of(media.get("sampleRate")), encoding_of(media.get("encoding"))
        )
        options = CallOptions.of(start.get("customParameters") or {}, call_id=start.get("callSid"))
        self._track = "inbound" if "inbound" in tracks else tracks[0]
        return Started(audio_format, options)

    def _media(self, media: dict[str, Any]) -> list[Event]:
        if self._track is None:
            raise InvalidArgumentError("A 'media' message came before 'start'.")
        if media.get("track", "inbound") != self._track:
            return []
        payload = media.get("payload")
        if not isinstance(payload, str):
            raise InvalidArgumentError(f"media.payload is {type(payload).__name__}: a text is expected.")
        try:
            return [Audio(base64.b64decode(payload, validate=True))]
        except (binascii.Error, ValueError) as error:  # ValueError: a character that is not ASCII
            raise InvalidArgumentError(f"media.payload is not base64: {error}.") from None
