"""A websocket of raw audio: a JSON text with the format first, and then binary messages.

The first text has `rate`, and perhaps `encoding` ("l16", which is the default, "mulaw" or "alaw"),
`channels`, `channel` and the fields of `CallOptions`. So FreeSWITCH's mod_audio_stream may send it as its
metadata. The first texts of Vonage ("content-type": "audio/l16;rate=16000") and of jambonz (`sampleRate`,
`mixType`, `callSid`) are taken as they are; custom headers and metadata lie beside these fields in both. L16
is little-endian in all of them.

Answers go back as JSON texts. mod_audio_stream makes an event of each. Vonage and jambonz describe no such
message, and get none unless `answers` is true.
"""

from __future__ import annotations

from email.message import Message as MimeMessage
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
    check_audio,
    encoding_of,
    read_json,
    sample_rate_of,
    whole_number,
    write_json,
)
from voiceprint.validation import shown

JAMBONZ: Final = "audio.jambonz.org"
"""The websocket subprotocol that jambonz asks for."""
_MOST_CHANNELS: Final = 8
_STEREO: Final = {"mono": 1, "mixed": 1, "stereo": 2}
_TRUE: Final = ("true", "1", "yes")


class RawConversation(Conversation):
    """One call. The caller is on the first of several channels, unless `channel` is another.

    query: `rate`, `encoding`, `channels` and `channel` of the URL, for a platform that sends no text.
    """

    source: ClassVar[str] = "raw"

    def __init__(self, query: dict[str, str] | None = None) -> None:
        self._query = query or {}
        self._is_started = False
        self._answers = True

    def receive(self, message: Message) -> list[Event]:
        """As `Conversation.receive`."""
        if isinstance(message, bytes):
            if self._is_started:
                return [Audio(check_audio(message))]
            if "rate" not in self._query:
                raise InvalidArgumentError(
                    'Audio came first: send a JSON text such as {"rate": 8000, "encoding": "mulaw"} before '
                    "it, or give ?rate=8000 in the URL."
                )
            return [self._start(dict(self._query)), Audio(check_audio(message))]
        if self._is_started:
            return [Ended()] if _is_stop(message) else []
        return [self._start({**self._query, **read_json(message)})]

    @property
    def takes_answers(self) -> bool:
        """As `Conversation.takes_answers`."""
        return self._answers

    def running(self, answer: dict[str, Any]) -> list[Message]:
        """As `Conversation.running`."""
        return [write_json({"type": "answer", **answer})] if self._answers else []

    def ended(self, answer: dict[str, Any] | None) -> list[Message]:
        """As `Conversation.ended`."""
        return [] if answer is None else self.running(answer)

    def refused(self, reason: str) -> list[Message]:
        """As `Conversation.refused`."""
        return [write_json({"type": "error", "detail": reason})] if self._answers else []

    def _start(self, first: dict[str, Any]) -> Started:
        of_platform: dict[str, Any] = {}
        self._answers = _as_bool(first.pop("answers", "content-type" not in first and "mixType" not in first))
        if "content-type" in first:  # Vonage
            kind, rate = _content_type(first.pop("content-type"))
            audio_format = AudioFormat(rate, encoding_of(kind))
            of_platform["call_id"] = first.get("uuid")
        elif "sampleRate" in first:  # jambonz
            channels = _STEREO.get(str(first.get("mixType", "mono")))
            if channels is None:
                raise InvalidArgumentError(f"mixType is {shown(first['mixType'])}: mono, mixed or stereo.")
            audio_format = AudioFormat(
                sample_rate_of(first["sampleRate"]), "pcm_s16le", 0 if channels > 1 else None, channels
            )
            of_platform["call_id"] = first.get("callSid")
        else:
            audio_format = _own_format(first)
        options = CallOptions.of(first, **of_platform)
        self._is_started = True
        return Started(audio_format, options)


def _own_format(first: dict[str, Any]) -> AudioFormat:
    if "rate" not in first:
        raise InvalidArgumentError(
            f"The first message has no 'rate' but {shown(sorted(first))}: send a JSON text such as "
            '{"rate": 8000, "encoding": "mulaw", "channels": 1}.'
        )
    channels = whole_number(first.get("channels", 1), "channels")
    if not 1 <= channels <= _MOST_CHANNELS:
        raise InvalidArgumentError(f"channels is {channels}: 1 to {_MOST_CHANNELS} are allowed.")
    channel = whole_number(first.get("channel", 0), "channel")
    if channel >= channels:
        raise InvalidArgumentError(
            f"channel is {channel}: of {channels} channels, the last is {channels - 1}."
        )
    encoding = encoding_of(first.get("encoding", "l16"))
    return AudioFormat(sample_rate_of(first["rate"]), encoding, channel if channels > 1 else None, channels)


def _content_type(value: Any) -> tuple[str, int]:
    """The media type and the rate of a content type such as "audio/l16;rate=16000"."""
    if not isinstance(value, str) or len(value) > 200:
        raise InvalidArgumentError(f"content-type is {shown(value)}: a text is expected.")
    parsed = MimeMessage()
    parsed["content-type"] = value
    return parsed.get_content_type(), sample_rate_of(parsed.get_param("rate", "16000"))


def _is_stop(text: str) -> bool:
    """Whether a text after the first ends the call. Others are key presses and the like."""
    try:
        message = read_json(text)
    except InvalidArgumentError:  # mod_audio_stream's send_text may be any text
        return False
    return message.get("event") == "stop" or message.get("type") == "stop"


def _as_bool(value: Any) -> bool:
    return value.lower() in _TRUE if isinstance(value, str) else bool(value)
