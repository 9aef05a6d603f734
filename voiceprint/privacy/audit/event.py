"""`Event`: one operation on callers, as the audit log and callbacks get it."""

from __future__ import annotations

import dataclasses
import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

import orjson

from voiceprint.errors import InvalidArgumentError
from voiceprint.validation import shown

__all__ = ["ACTIONS", "Event"]

ACTIONS: Final = (
    "adapt",
    "backup",
    "consent",
    "copy",
    "delete",
    "delete_voiceprints",
    "enroll",
    "export",
    "feedback",
    "groups",
    "identify",
    "import",
    "key_change",
    "log_gap",
    "log_repaired",
    "log_rotated",
    "match",
    "merge",
    "metadata",
    "opt_in",
    "opt_out",
    "read",
    "rename",
    "restore",
    "settings",
    "stream",
    "verify",
    "watch_hit",
)
"""The actions of events. The three of the log itself: `log_gap` counts events that could not be written,
`log_repaired` names the remains of a line that a crash cut, `log_rotated` begins a new file."""

LONGEST_TEXT: Final = 512
"""Characters of an actor, correlation id or file name in an event, as of a caller id. Doubled, so are the
longest lines."""


@dataclass(frozen=True, slots=True)
class Event:
    """An operation, with its outcome. Fields that do not apply are None.

    event_id: 32 hex digits, random. time: ISO 8601 UTC with a `Z`, of the end of the operation.
    action: one of `ACTIONS`. error: class of the error that ended the operation.
    actor, correlation_id: of `acting_as`. caller: id of the caller that the operation names or found.
    verdict: of a match, verification or stream. similarity, llr, fpir, probability: of the best match, as in
        `Match`; of a verification, `fpir` is the false-match rate.
    rule: "threshold" or "target", by which the verdict came about; limit: its value; limit_from: "default",
        "configured" or "argument".
    deviations, deviate: the best match's score on the scale of the gallery and of its strangers, before any
        calibration, for `voiceprint calibrate --from-audit`.
    gallery_size: callers searched. encoder: name of the embedding space; encoder_sha256: digest of the
        model's file.
    speech_s: seconds of speech. quality: score of the audio, 0 to 1.
    reasons: why a verdict is not as the scores say, such as "same_recording". spoof_score: of a detector.
    group: of a watchlist hit. count: callers or voiceprints that the operation wrote, read or removed, or
        voices that it separated.
    file: name of the file, without its folder. about: the `event_id` that a feedback or a watchlist hit
        belongs to. correct: of a feedback. detail: more, never audio, embeddings or metadata.
    """

    event_id: str
    time: str
    action: str
    error: str | None = None
    actor: str | None = None
    correlation_id: str | None = None
    caller: str | None = None
    verdict: str | None = None
    similarity: float | None = None
    llr: float | None = None
    fpir: float | None = None
    probability: float | None = None
    rule: str | None = None
    limit: float | None = None
    limit_from: str | None = None
    deviations: float | None = None
    deviate: float | None = None
    gallery_size: int | None = None
    encoder: str | None = None
    encoder_sha256: str | None = None
    speech_s: float | None = None
    quality: float | None = None
    reasons: tuple[str, ...] | None = None
    spoof_score: float | None = None
    group: str | None = None
    count: int | None = None
    file: str | None = None
    about: str | None = None
    correct: bool | None = None
    detail: str | None = None

    def fields(self) -> dict[str, Any]:
        """The fields that are not None."""
        values = ((name, getattr(self, name)) for name in _FIELDS)
        return {name: value for name, value in values if value is not None}

    def to_json(self) -> bytes:
        """The fields that are not None as a JSON object in one line."""
        return orjson.dumps(self.fields(), option=orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Event:
        """The event of a line of the log; fields of a newer version are left out."""
        known = {name: value for name, value in fields.items() if name in _FIELDS}
        if isinstance(known.get("reasons"), list):
            known["reasons"] = tuple(known["reasons"])
        return cls(**known)


_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Event))


def new_event_id() -> str:
    """A random event id."""
    return uuid.uuid4().hex


def check_event_id(event_id: object) -> str:
    """The id of an event, 32 hex digits. Raises `InvalidArgumentError`."""
    if not isinstance(event_id, str) or not re.fullmatch("[0-9a-f]{32}", event_id):
        raise InvalidArgumentError(
            f"The event id is {shown(event_id)}: give the `event_id` of an answer, 32 hex digits."
        )
    return event_id


def check_text(text: object, name: str) -> str:
    """An actor or correlation id. name: of the argument. Raises `InvalidArgumentError`."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_TEXT:
        raise InvalidArgumentError(
            f"{name} is {shown(text)}: a text of 1 to {LONGEST_TEXT} characters is allowed."
        )
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no file can store
        raise InvalidArgumentError(f"{name} is {shown(text)}, which is not Unicode text.") from None
    return text
