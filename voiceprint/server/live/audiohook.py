"""Genesys AudioHook, version 2: JSON text messages with sequence numbers, and binary messages of audio.

A session is `open` and `opened` with the chosen media, audio, `close` and `closed`; `ping`, `update`,
`paused`, `resumed` and `discarded` come between. The channel "external" is the caller's. A conversation id of
zeros is a probe, which tests the connection and has no audio.

AudioHook Monitor discards all that a server sends beside the transactions, so that answers go to the webhook
and to `GET /v1/calls/{id}`. Audio Connector waits for the server in an Architect flow: with the input
variable `disconnect_when_decided` the session ends with the decision, which is in the output variables.

Source: https://developer.genesys.cloud/devapps/audiohook/
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from voiceprint.audio.io.encodings import AudioFormat, Encoding
from voiceprint.errors import InvalidArgumentError
from voiceprint.server.live.conversation import (
    Audio,
    CallOptions,
    Conversation,
    Ended,
    Event,
    Message,
    Reply,
    Started,
    check_audio,
    part_of,
    read_json,
    sample_rate_of,
    whole_number,
    write_json,
)
from voiceprint.validation import shown

PROBE: Final = "00000000-0000-0000-0000-000000000000"
_FORMATS: Final[dict[str, Encoding]] = {"PCMU": "mulaw", "L16": "pcm_s16le"}
_CALLER: Final = "external"
_WHEN_DECIDED: Final = "disconnect_when_decided"


class AudioHookConversation(Conversation):
    """A session. session_id: of the header `Audiohook-Session-Id`; None takes that of the first message."""

    source: ClassVar[str] = "audiohook"

    def __init__(self, session_id: str | None = None, organization_id: str | None = None) -> None:
        self._id = session_id
        self._organization_id = organization_id
        self._sent = self._received = 0  # the sequence numbers
        self._is_open = self._has_media = self._is_closing = self._is_paused = False
        self._frame_bytes = 1
        self._disconnects = self._is_disconnected = False

    def receive(self, message: Message) -> list[Event]:
        """As `Conversation.receive`."""
        if isinstance(message, bytes):
            return self._audio(message)
        parsed = read_json(message)
        self._check(parsed)
        kind, parameters = parsed["type"], part_of(parsed, "parameters")
        if kind == "open":
            return self._open(parameters)
        if kind == "close":
            self._is_closing = True
            return [Ended()]
        if kind == "ping":
            return [Reply(self._message("pong", {}))]
        if kind == "update":
            return [Reply(self._message("updated", {}))] if self._is_open else []
        if kind in ("paused", "resumed"):
            self._is_paused = kind == "paused"
            return []
        if kind in ("discarded", "error"):
            return []  # audio that the platform left out, or its report of an error; the session goes on
        raise InvalidArgumentError(f"A message has the type {shown(kind)}, which clients do not send.")

    @property
    def takes_answers(self) -> bool:
        """As `Conversation.takes_answers`: for a flow that waits for the decision."""
        return self._disconnects and not self._is_disconnected and not self._is_closing

    def running(self, answer: dict[str, Any]) -> list[Message]:
        """As `Conversation.running`: the disconnection with the decision, if the flow waits for it."""
        if not (self.takes_answers and answer["decided"]):
            return []
        self._is_disconnected = True
        names = ("verdict", "caller_id", "similarity")
        variables = {f"voiceprint_{name}": _plain(answer.get(name)) for name in names}
        return [self._message("disconnect", {"reason": "completed", "outputVariables": variables})]

    def ended(self, answer: dict[str, Any] | None) -> list[Message]:  # noqa: ARG002
        """As `Conversation.ended`."""
        return [self._message("closed", {})] if self._is_closing else []

    def refused(self, reason: str) -> list[Message]:
        """As `Conversation.refused`."""
        if self._is_closing or self._is_disconnected:
            return []
        self._is_disconnected = True
        return [self._message("disconnect", {"reason": "error", "info": reason})]

    def _check(self, message: dict[str, Any]) -> None:
        """Raise `InvalidArgumentError` unless the envelope of a message follows the rules."""
        if message.get("version") != "2":
            raise InvalidArgumentError(f"A message has the version {shown(message.get('version'))}: '2' is.")
        if not isinstance(message.get("type"), str):
            raise InvalidArgumentError(f"A message has the type {shown(message.get('type'))}.")
        session_id = message.get("id")
        if self._id is None and isinstance(session_id, str):
            self._id = session_id
        if session_id != self._id:
            raise InvalidArgumentError(f"A message has the session id {shown(session_id)}, not {self._id}.")
        number = whole_number(message.get("seq"), "seq")
        if number != self._received + 1:
            raise InvalidArgumentError(f"seq is {number}: {self._received + 1} is expected.")
        if whole_number(message.get("serverseq"), "serverseq") > self._sent:
            raise InvalidArgumentError(f"serverseq is {message['serverseq']}: {self._sent} were sent.")
        _seconds(message.get("position"))
        self._received = number

    def _open(self, parameters: dict[str, Any]) -> list[Event]:
        if self._is_open:
            raise InvalidArgumentError("A second 'open' came: a session has one.")
        organization = parameters.get("organizationId")
        if self._organization_id is not None and organization != self._organization_id:
            raise InvalidArgumentError("organizationId is not that of the header Audiohook-Organization-Id.")
        conversation_id = parameters.get("conversationId")
        is_probe = conversation_id == PROBE
        media = _choose(parameters.get("media"), is_probe)
        participant = part_of(parameters, "participant")
        values = parameters.get("inputVariables") or {}
        options = CallOptions.of(
            {**_dict(parameters.get("customConfig")), **_dict(values)},
            call_id=conversation_id,
            from_number=participant.get("ani") or None,
            to_number=participant.get("dnis") or None,
        )
        self._is_open = True
        opened = Reply(
            self._message("opened", {"startPaused": False, "media": [] if media is None else [media]})
        )
        if media is None or is_probe:
            return [opened]
        self._disconnects = str(values.get(_WHEN_DECIDED, "")).lower() == "true"
        channels = len(media["channels"])
        encoding = _FORMATS[media["format"]]
        self._has_media = True
        self._frame_bytes = channels * (1 if encoding == "mulaw" else 2)
        channel = media["channels"].index(_CALLER) if channels > 1 else None
        audio_format = AudioFormat(sample_rate_of(media["rate"]), encoding, channel, channels)
        return [opened, Started(audio_format, options)]

    def _audio(self, data: bytes) -> list[Event]:
        if not self._has_media or self._is_closing:
            raise InvalidArgumentError("Audio came outside an open session with media.")
        if len(data) % self._frame_bytes:
            raise InvalidArgumentError(
                f"Audio of {len(data)} bytes came: a multiple of {self._frame_bytes} is expected."
            )
        return [Audio(check_audio(data))]

    def _message(self, kind: str, parameters: dict[str, Any]) -> str:
        self._sent += 1
        return write_json(
            {
                "version": "2",
                "type": kind,
                "seq": self._sent,
                "clientseq": self._received,
                "id": self._id,
                "parameters": parameters,
            }
        )


def _choose(offered: Any, is_probe: bool) -> dict[str, Any] | None:
    """The offered media with the least data that has the caller; None for a probe without."""
    if not isinstance(offered, list) or not all(isinstance(media, dict) for media in offered):
        raise InvalidArgumentError(f"media is {shown(offered)}: a list of objects is expected.")
    usable = [media for media in offered if _is_usable(media)]
    if not usable and not is_probe:
        raise InvalidArgumentError(
            f"None of the {len(offered)} offered media is PCMU or L16 audio with the channel 'external', the "
            "caller's."
        )
    return min(usable, key=lambda media: (len(media["channels"]), media["format"] != "PCMU"), default=None)


def _is_usable(media: dict[str, Any]) -> bool:
    channels = media.get("channels")
    return (
        media.get("type") == "audio"
        and media.get("format") in _FORMATS
        and isinstance(channels, list)
        and 1 <= len(channels) <= 2
        and _CALLER in channels
        and isinstance(media.get("rate"), int)
    )


def _seconds(duration: Any) -> float:
    """The seconds of a duration such as "PT1.25S". Raises `InvalidArgumentError`."""
    if isinstance(duration, str) and duration[:2] == "PT" and duration[-1:] == "S" and len(duration) < 32:
        number = duration[2:-1]
        if number.replace(".", "", 1).isdigit() and number.isascii():
            return float(number)
    raise InvalidArgumentError(f"position is {shown(duration)}: seconds such as 'PT1.25S' are expected.")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    """A value of an output variable, which is a text, number or boolean."""
    return "" if value is None else value
