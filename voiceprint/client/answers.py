"""The library's models of the answers of the service.

Numbers are those of the service to the bit: JSON texts of floats are exact.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint._model import construct, copy_json
from voiceprint.answers import Identification, Match, SeparatedVoice, Verdict, Verification, WatchHit
from voiceprint.audio import AudioQuality, Turn
from voiceprint.consent import Consent, OptOut, Provenance
from voiceprint.models import Caller, DeletionReceipt, Voiceprint

if TYPE_CHECKING:
    from voiceprint.index import IndexStatus

Fields = dict[str, Any]


def _no_vector() -> NDArray[np.float32]:
    vector = np.zeros(0, np.float32)
    vector.flags.writeable = False
    return vector


NOT_SENT: Final = _no_vector()
"""The embedding of a voiceprint whose answer has none: no computation accepts it for an embedding."""


class Page(NamedTuple):
    """Callers, and the last id that was read; None at the end."""

    callers: list[Caller]
    next: str | None


def vector(numbers: list[float] | None) -> NDArray[np.float32] | None:
    """An embedding, float32[d], read-only; None for None."""
    if numbers is None:
        return None
    embedding = np.array(numbers, np.float32)
    embedding.flags.writeable = False
    return embedding


def match(found: Fields) -> Match:
    """A candidate, with empty metadata where the key may not see it."""
    values = {**found, "metadata": found.get("metadata") or {}}
    answer = Match.model_validate(values)
    if answer.verdict != found["verdict"]:  # follows from the other fields in all cases but this one
        answer = Match.model_validate({**values, "too_small": True})
    return answer


def watch_hits(found: Fields) -> tuple[WatchHit, ...]:
    """The hits of an answer."""
    return tuple(WatchHit.model_validate(hit) for hit in found["watch_hits"])


def identification(found: Fields) -> Identification:
    """The answer of `identify`."""
    return Identification(
        [match(one) for one in found["matches"]],
        verdict=Verdict(found["verdict"]),
        reasons=tuple(found["reasons"]),
        watch_hits=watch_hits(found),
        spoof_score=found["spoof_score"],
        event_id=found["event_id"],
    )


def matched(found: Fields) -> tuple[str, float, dict[str, Any]] | None:
    """The answer of `match_caller`."""
    if found["caller_id"] is None:
        return None
    return found["caller_id"], float(found["similarity"]), found["metadata"] or {}


def separated_voices(found: Fields) -> list[SeparatedVoice]:
    """The answer of `identify` with `separate`."""
    return [
        SeparatedVoice(
            turns=tuple(Turn.model_validate(turn) for turn in voice["turns"]),
            net_speech_s=voice["net_speech_s"],
            quality=AudioQuality.model_validate(voice["quality"]),
            matches=tuple(match(one) for one in voice["matches"]),
            ignored=voice["ignored"],
            watch_hits=watch_hits(voice),
        )
        for voice in found["voices"]
    ]


def verification(found: Fields) -> Verification:
    """The answer of `verify_caller`."""
    return Verification.model_validate(found)


def voiceprint(found: Fields) -> Voiceprint:
    """The answer of `enroll_caller`."""
    return _voiceprint(found, _data(found))


def caller(found: Fields) -> Caller:
    """A caller with voiceprints."""
    data = _data(found)
    opt_out = found["opt_out"]
    return construct(
        Caller,
        {
            "caller_id": found["caller_id"],
            "created_at": found["created_at"],
            "voiceprints": tuple(_voiceprint(one, data) for one in found["voiceprints"]),
            "opt_out": None if opt_out is None else OptOut.of_record(opt_out),
            **data,
        },
    )


def page(found: Fields) -> Page:
    """A page of callers."""
    return Page([caller(one) for one in found["callers"]], found["next"])


def merged(found: Fields) -> tuple[Caller, list[int]]:
    """The answer of `merge_callers`."""
    return caller(found["caller"]), found["removed"]


def receipt(found: Fields) -> DeletionReceipt:
    """The receipt of a deletion."""
    return DeletionReceipt.model_validate(found)


def index_status(found: Fields) -> IndexStatus:
    """The state of an index."""
    from voiceprint.index import IndexStatus

    return IndexStatus(**{field.name: found[field.name] for field in fields(IndexStatus)})


def _data(found: Fields) -> Fields:
    """The data of a caller, which every voiceprint has too."""
    consent = found.get("consent")
    return {
        "metadata": found.get("metadata") or {},
        "last_seen": found.get("last_seen"),
        "consent": None if consent is None else Consent.of_record(consent),
        "groups": tuple(found.get("groups", ())),
    }


def _voiceprint(found: Fields, data: Fields) -> Voiceprint:
    provenance, embedding = found["provenance"], vector(found["embedding"])
    augmented = vector(found["augmented_embedding"])
    if augmented is None and found["augmented"]:
        augmented = NOT_SENT
    return construct(
        Voiceprint,
        {
            "caller_id": found["caller_id"],
            "encoder": found["encoder"],
            "embedding": NOT_SENT if embedding is None else embedding,
            "augmented": augmented,
            "created_at": found["created_at"],
            "id": found["id"],
            "revision": found["revision"],
            "provenance": None if provenance is None else Provenance.of_record(provenance),
            **data,
            "metadata": copy_json(data["metadata"]),
        },
    )
