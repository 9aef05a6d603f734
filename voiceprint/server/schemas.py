"""The bodies of requests and answers.

Answers are models of their own, and not those of the library: an embedding is in none of them but
`EmbeddingAnswer`, and metadata only where the key may see it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voiceprint.answers import Identification, Match, Verdict, Verification, WatchHit
from voiceprint.audio import AudioQuality
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Caller, CallerState, Consent, OptOut, Voiceprint

Ids = Annotated[list[str], Field(max_length=10_000)]
EmbeddingList = Annotated[list[float], Field(min_length=1, max_length=16_384)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Any:
        """The model of the fields of a body. Raises `InvalidArgumentError`, without the values."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()[:5]
            )
            raise InvalidArgumentError(f"{faults}.") from None


class MatchOptions(_Request):
    """The options of `identify`, beside the audio: fields of a form, or a JSON object with an embedding."""

    embedding: EmbeddingList | None = None
    encoder: str | None = None
    k: int = Field(default=5, ge=1, le=1000)
    threshold: float | None = Field(default=None, ge=0, le=1)
    candidates: Ids | None = None
    ignore: Ids = []
    groups: Ids | None = None
    not_groups: Ids = []
    watch: Ids = []


class VerifyOptions(_Request):
    """The options of `verify`."""

    embedding: EmbeddingList | None = None
    encoder: str | None = None
    threshold: float | None = Field(default=None, ge=0, le=1)
    watch: Ids = []


class EnrollOptions(_Request):
    """The options of an enrollment."""

    embedding: EmbeddingList | None = None
    encoder: str | None = None
    metadata: dict[str, Any] | None = None
    on_mismatch: str = "store"
    on_several_voices: str = "refuse"
    consent: dict[str, Any] | None = None
    groups: Ids = []
    source: str | None = None


class MatchAnswer(BaseModel):
    """A caller as a candidate: see `voiceprint.Match`. metadata: where the key may see it."""

    caller_id: str
    similarity: float
    accepted: bool
    verdict: Verdict
    voiceprint_id: int
    llr: float | None = None
    fpir: float | None = None
    probability: float | None = None
    margin: float | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of(cls, match: Match, *, metadata: bool) -> MatchAnswer:
        """The answer of a match."""
        fields = match.model_dump(exclude={"metadata"})
        return cls(**fields, metadata=match.metadata if metadata else None)


class IdentifyAnswer(BaseModel):
    """The answer of an identification: see `voiceprint.Identification`.

    caller_id: the accepted caller; null where nobody is accepted.
    """

    verdict: Verdict
    caller_id: str | None = None
    similarity: float | None = None
    matches: list[MatchAnswer] = []
    reasons: list[str] = []
    watch_hits: list[WatchHit] = []
    spoof_score: float | None = None
    event_id: str | None = None

    @classmethod
    def of(cls, found: Identification, *, metadata: bool) -> IdentifyAnswer:
        """The answer of an identification."""
        best = found.accepted
        return cls(
            verdict=found.verdict,
            caller_id=None if best is None else best.caller_id,
            similarity=None if best is None else best.similarity,
            matches=[MatchAnswer.of(match, metadata=metadata) for match in found],
            reasons=list(found.reasons),
            watch_hits=list(found.watch_hits),
            spoof_score=found.spoof_score,
            event_id=found.event_id,
        )


class VerifyAnswer(Verification):
    """The answer of a verification: see `voiceprint.Verification`."""


class ProvenanceAnswer(BaseModel):
    """The origin of a voiceprint: `voiceprint.Provenance` without fingerprints, which are of the audio."""

    model_config = ConfigDict(from_attributes=True)

    source: str | None = None
    quality: float | None = None
    duration_s: float | None = None
    net_speech_s: float | None = None


class VoiceprintAnswer(BaseModel):
    """A voiceprint, without its embedding: see `voiceprint.Voiceprint`."""

    id: int | None
    caller_id: str
    encoder: str
    created_at: str | None = None
    augmented: bool
    provenance: ProvenanceAnswer | None = None

    @classmethod
    def of(cls, voiceprint: Voiceprint) -> VoiceprintAnswer:
        """The answer of a voiceprint."""
        return cls(
            id=voiceprint.id,
            caller_id=voiceprint.caller_id,
            encoder=voiceprint.encoder,
            created_at=voiceprint.created_at,
            augmented=voiceprint.augmented is not None,
            provenance=None
            if voiceprint.provenance is None
            else ProvenanceAnswer.model_validate(voiceprint.provenance),
        )


class CallerAnswer(BaseModel):
    """A caller: see `voiceprint.Caller`. metadata: where the key may see it."""

    caller_id: str
    state: CallerState
    created_at: str | None = None
    last_seen: str | None = None
    groups: list[str] = []
    voiceprints: list[VoiceprintAnswer] = []
    consent: Consent | None = None
    opt_out: OptOut | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of(cls, caller: Caller, state: CallerState, *, metadata: bool) -> CallerAnswer:
        """The answer of a caller."""
        return cls(
            caller_id=caller.caller_id,
            state=state,
            created_at=caller.created_at,
            last_seen=caller.last_seen,
            groups=list(caller.groups),
            voiceprints=[VoiceprintAnswer.of(one) for one in caller.voiceprints],
            consent=caller.consent,
            opt_out=caller.opt_out,
            metadata=caller.metadata if metadata else None,
        )


class CallersAnswer(BaseModel):
    """A page of callers. next: the `after` of the next page; null at the end."""

    callers: list[CallerAnswer]
    next: str | None = None

    @classmethod
    def of(cls, callers: Iterable[CallerAnswer], limit: int) -> CallersAnswer:
        """The page of at most `limit` callers."""
        page = list(callers)
        return cls(callers=page, next=page[-1].caller_id if len(page) == limit else None)


class EmbeddingAnswer(BaseModel):
    """An embedding: float32 of length 1, by the encoder of this name."""

    embedding: list[float]
    encoder: str


class QualityAnswer(BaseModel):
    """The quality of audio, and whether an enrollment accepts it: see `voiceprint.EnrollmentCheck`."""

    ready: bool
    more_audio_s: float
    more_speech_s: float
    quality: AudioQuality
    advice: list[str] = []
