"""The conversation of a telephony platform with the service, without any socket.

Each format is a `Conversation`: `receive` takes a message of the platform and gives the events in it, and the
other methods give the messages to send back. So a format is tested without a network, and the same code
serves websockets and TCP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from voiceprint.audio.io.encodings import AudioFormat, Encoding
from voiceprint.errors import InvalidArgumentError
from voiceprint.validation import nesting_depth, shown

MAX_TEXT: Final = 64 * 1024
"""Bytes of a text message. AudioHook allows 64 KiB; a message of Twilio with 20 ms of audio has 400."""
MAX_AUDIO: Final = 512 * 1024
"""Bytes of a binary message: 2.7 s of stereo audio at 48 kHz, where platforms send 20 to 200 ms."""
MAX_DEPTH: Final = 20  # of nested JSON, where formats nest 4 levels

Message = str | bytes

_ENCODINGS: Final[dict[str, Encoding]] = {
    **dict.fromkeys(("l16", "audio/l16", "linear16", "pcm", "pcm_s16le", "slin", "slin16"), "pcm_s16le"),
    **dict.fromkeys(("mulaw", "ulaw", "pcmu", "audio/x-mulaw", "audio/pcmu", "audio/basic"), "mulaw"),
    **dict.fromkeys(("alaw", "pcma", "audio/x-alaw", "audio/pcma"), "alaw"),
}


def _list_of_text(value: Any) -> Any:
    """A list; also of one text, or of JSON in a text, as platforms pass parameters as flat texts."""
    if isinstance(value, str):
        return orjson.loads(value) if value.lstrip().startswith("[") else [value]
    return value


def _object_of_text(value: Any) -> Any:
    """An object; also of JSON in a text."""
    return orjson.loads(value) if isinstance(value, str) else value


Texts = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=512)]],
    BeforeValidator(_list_of_text),
    Field(max_length=10_000),
]


class CallOptions(BaseModel):
    """The facts of a call that its identification uses: who may be calling, and from where.

    call_id: id of the call; the platform's own, or a new one, by default. from, to: the numbers, for the list
    of calls. candidates: ids of the callers to compare with, such as the holders of an account; by default
    all. candidates_metadata: compare with the callers whose metadata has these values, such as
    {"phone": "+493012345"}. groups, not_groups, watch, k: as in `identify`. webhook: whether answers go to
    the webhook of the gallery.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    call_id: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[!-.0-~]+$")
    from_number: str | None = Field(default=None, alias="from", max_length=128)
    to_number: str | None = Field(default=None, alias="to", max_length=128)
    candidates: Texts | None = None
    candidates_metadata: Annotated[dict[str, Any], BeforeValidator(_object_of_text)] | None = Field(
        default=None, repr=False
    )
    groups: Texts | None = None
    not_groups: Texts = []
    watch: Texts = []
    k: int = Field(default=1, ge=1, le=100)
    webhook: bool = True

    @classmethod
    def of(cls, values: Any, **platform: Any) -> CallOptions:
        """The options in the platform's parameters. Raises `InvalidArgumentError`.

        platform: values that the platform itself gives, such as its call id; parameters take precedence.
        """
        if not isinstance(values, dict):
            raise InvalidArgumentError(f"The call's parameters are {shown(values)}: give a JSON object.")
        named = {name: value for name, value in platform.items() if value is not None}
        if "from_number" in named:
            named["from"] = named.pop("from_number")
        if "to_number" in named:
            named["to"] = named.pop("to_number")
        try:
            return cls.model_validate({**named, **values})
        except ValidationError as error:
            # Without the value, which may be metadata.
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InvalidArgumentError(
                f"The call's parameter {place} is not valid: {first['msg']}."
            ) from None


class Started(NamedTuple):
    """The call has started. audio_format: of the audio that follows. options: of the identification."""

    audio_format: AudioFormat
    options: CallOptions


class Audio(NamedTuple):
    """The next piece of the call's audio, in the format of `Started`."""

    data: bytes


class Reply(NamedTuple):
    """A message to send to the platform at once."""

    message: Message


class Ended(NamedTuple):
    """The platform has ended the call."""


Event = Started | Audio | Reply | Ended


class Conversation(ABC):
    """One call in the format of a platform. Not thread-safe: messages come one after the other."""

    source: ClassVar[str]
    """Name of the format, such as "twilio"."""

    @abstractmethod
    def receive(self, message: Message) -> list[Event]:
        """The events of a message. Raises `InvalidArgumentError` for one that the format does not allow."""

    @property
    def takes_answers(self) -> bool:
        """Whether `running` has messages for an answer at this moment."""
        return False

    def running(self, answer: dict[str, Any]) -> list[Message]:  # noqa: ARG002 - for formats with a place
        """The messages for a running answer; none in a format that has no place for it."""
        return []

    def ended(self, answer: dict[str, Any] | None) -> list[Message]:  # noqa: ARG002
        """The last messages, after the final answer; None for a call that never started."""
        return []

    def refused(self, reason: str) -> list[Message]:  # noqa: ARG002
        """The messages that tell the platform the reason why the call ends by our doing."""
        return []


def read_json(message: Message) -> dict[str, Any]:
    """The JSON object in a text message. Raises `InvalidArgumentError`."""
    if isinstance(message, bytes):
        raise InvalidArgumentError(f"A binary message of {len(message)} bytes came where JSON is expected.")
    if len(message) > MAX_TEXT:
        raise InvalidArgumentError(f"A text message has {len(message)} characters: {MAX_TEXT} are allowed.")
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise InvalidArgumentError(f"A text message is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"A message is a JSON {type(value).__name__}: an object is expected.")
    if nesting_depth(value) > MAX_DEPTH:
        raise InvalidArgumentError(f"A message nests deeper than {MAX_DEPTH} levels.")
    return value


def write_json(value: dict[str, Any]) -> str:
    """A text message."""
    return orjson.dumps(value).decode()


def part_of(message: dict[str, Any], name: str) -> dict[str, Any]:
    """The object of this name in a message. Raises `InvalidArgumentError`."""
    part = message.get(name)
    if not isinstance(part, dict):
        raise InvalidArgumentError(f"A message has no object {name!r}: {shown(part)}.")
    return part


def whole_number(value: Any, name: str) -> int:
    """A number that a platform sends as a number or as a text. Raises `InvalidArgumentError`."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InvalidArgumentError(f"{name} is {shown(value)}: a whole number is expected.")


def encoding_of(name: Any) -> Encoding:
    """The encoding by any of its usual names. Raises `InvalidArgumentError`."""
    encoding = _ENCODINGS.get(name.lower()) if isinstance(name, str) else None
    if encoding is None:
        raise InvalidArgumentError(f"The encoding is {shown(name)}: {_words(_ENCODINGS)} are allowed.")
    return encoding


def sample_rate_of(value: Any) -> int:
    """A sample rate in Hz. Raises `InvalidArgumentError`."""
    rate = whole_number(value, "The sample rate")
    if not 8_000 <= rate <= 48_000:
        raise InvalidArgumentError(f"The sample rate is {rate} Hz: 8000 to 48000 are allowed.")
    return rate


def check_audio(data: bytes) -> bytes:
    """The bytes of a binary message. Raises `InvalidArgumentError` for too many."""
    if len(data) > MAX_AUDIO:
        raise InvalidArgumentError(f"A message has {len(data)} bytes of audio: {MAX_AUDIO} are allowed.")
    return data


def _words(names: Iterable[str]) -> str:
    return ", ".join(names)
