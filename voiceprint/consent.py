"""Consent and refusal of a caller, and the states that follow from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from voiceprint._model import Frozen, raise_ours
from voiceprint.audio.sketch import check_sketch
from voiceprint.errors import InvalidArgumentError
from voiceprint.validation import check_time, now, shown

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CallerState", "Consent", "OptOut", "Provenance", "check_groups"]

CallerState = Literal["pending", "enrolled", "opted_out", "expired"]
"""The state of a caller in the store.

"pending": without a voiceprint, such as with a consent before the enrollment. "enrolled". "opted_out": the
caller refused, and nothing but that is stored. "expired": the consent or the retention period has ended, and
the caller is neither matched nor verified; `prune` removes the caller.
"""

MAX_TEXT = 512
MAX_GROUPS = 100  # of a caller; each is read with every match of the caller
MAX_GROUP_NAME = 100


CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Control characters of Unicode (category Cc), line breaks and tabs among them."""


def _check_text(text: str, info: ValidationInfo) -> str:
    """The text, unless it is blank or holds a control character; one of a record passes."""
    if info.context == _RECORD:
        return text
    if not text.strip():
        raise InvalidArgumentError(f"{info.field_name} is blank: give a text, or leave it out.")
    if found := CONTROL_CHARACTER.search(text):
        raise InvalidArgumentError(
            f"{info.field_name} holds the control character {found[0]!r}: give a text of one line."
        )
    return text


_RECORD: Final = "record"  # the context of a validation: earlier versions stored texts that are refused now
_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_check_text)]


class _Details(Frozen):
    """A read-only model that raises `InvalidArgumentError`."""

    model_config = ConfigDict(extra="forbid")

    def __init__(self, /, **fields: Any) -> None:
        self._validate(fields, None)

    @classmethod
    def of_record(cls, fields: dict[str, Any]) -> Self:
        """The model of a stored record, also with texts that are refused in a new one."""
        details = cls.__new__(cls)
        details._validate(fields, _RECORD)
        return details

    def _validate(self, fields: dict[str, Any], context: str | None) -> None:
        try:
            # As pydantic's own `__init__`, which takes no context.
            self.__pydantic_validator__.validate_python(fields, self_instance=self, context=context)
        except ValidationError as error:
            raise_ours(error, type(self).__name__)


class Consent(_Details):
    """A caller's consent to the use of the voice.

    purpose: of the use, such as "authentication". version: of the text that the caller agreed to.
    obtained_at: time of the consent, ISO 8601 UTC with a `Z`, also from a datetime; default now.
    obtained_by: the agent or system that asked. source: where the proof of it is, such as a call id.
    expires_at: end of the consent; the caller is expired from then on. None for no end.

    The end is after the beginning, and texts have 1 to 512 characters, are not blank, and hold no control
    characters. Raises `InvalidArgumentError`.
    """

    purpose: _Text
    version: _Text
    obtained_at: str = Field(default_factory=now)
    obtained_by: _Text | None = Field(default=None, repr=False)
    source: _Text | None = Field(default=None, repr=False)
    expires_at: str | None = None

    @field_validator("obtained_at", mode="before")
    @classmethod
    def _check_obtained_at(cls, value: object) -> str:
        return check_time(value) or now()

    @field_validator("expires_at", mode="before")
    @classmethod
    def _check_expires_at(cls, value: object) -> str | None:
        return check_time(value)

    @model_validator(mode="after")
    def _check_order(self) -> Consent:
        if self.expires_at is not None and self.expires_at <= self.obtained_at:
            raise InvalidArgumentError(
                f"The consent is of {self.obtained_at} and ends at {self.expires_at}: give a later end."
            )
        return self

    def is_valid_at(self, time: str) -> bool:
        """Whether the consent has not ended at `time`, ISO 8601 UTC with a `Z`."""
        return self.expires_at is None or time < self.expires_at


class OptOut(_Details):
    """A caller's refusal.

    at: its time, ISO 8601 UTC with a `Z`. reason: free text of one line, or None. by: the agent or system
    that noted it, or None. Texts are as in `Consent`.
    """

    at: str
    reason: _Text | None = Field(default=None, repr=False)
    by: _Text | None = Field(default=None, repr=False)

    @field_validator("at", mode="before")
    @classmethod
    def _check_at(cls, value: object) -> str | None:
        return check_time(value)


class Provenance(_Details):
    """The origin of a voiceprint.

    source: name of the file, or id of the call, a text as in `Consent`. quality: score of the audio, 0 to 1.
    duration_s, net_speech_s: seconds of audio, and of speech in it. fingerprints: up to 64 acoustic
    fingerprints of the audio, by which a copy of it is found (`voiceprint.audio.sketch`). None where unknown.
    """

    source: _Text | None = Field(default=None, repr=False)
    quality: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    duration_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    net_speech_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    fingerprints: str | None = Field(default=None, repr=False)

    @field_validator("fingerprints")
    @classmethod
    def _check_fingerprints(cls, value: str | None) -> str | None:
        if value is not None:
            check_sketch(value)
        return value


def check_consent(consent: object) -> Consent | None:
    """The consent with all fields checked as in a record, also of a copy that pydantic did not check."""
    if consent is None:
        return None
    if not isinstance(consent, Consent):
        raise InvalidArgumentError(f"The consent is {shown(consent)}: give a Consent.")
    return Consent.of_record(consent.__dict__)


def check_provenance(provenance: object) -> Provenance | None:
    """As `check_consent`."""
    if provenance is None:
        return None
    if not isinstance(provenance, Provenance):
        raise InvalidArgumentError(f"The provenance is {shown(provenance)}: give a Provenance.")
    return Provenance.of_record(provenance.__dict__)


def check_groups(groups: object) -> tuple[str, ...]:
    """The names of groups, each once, in order. Raises `InvalidArgumentError`."""
    if isinstance(groups, str | bytes) or not hasattr(groups, "__iter__"):
        raise InvalidArgumentError(f"The groups are {shown(groups)}: give a list of names.")
    names = sorted({_check_group(name) for name in groups})
    if len(names) > MAX_GROUPS:
        raise InvalidArgumentError(f"{len(names)} groups are given: a caller has at most {MAX_GROUPS}.")
    return tuple(names)


def _check_group(name: object) -> str:
    sound = isinstance(name, str) and 0 < len(name) <= MAX_GROUP_NAME and name.isprintable()
    if not sound or not isinstance(name, str) or name != name.strip():
        raise InvalidArgumentError(
            f"The name of a group is {shown(name)}: give 1 to {MAX_GROUP_NAME} printable characters, without "
            "spaces around."
        )
    return str.__str__(name)
