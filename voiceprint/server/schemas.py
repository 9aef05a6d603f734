"""The bodies of requests and answers.

Answers are models of their own, and not those of the library: an embedding is only in `EmbeddingAnswer` and,
for the role admin, in the answers of requests with `embeddings=true`; metadata only where the key may see it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voiceprint.answers import Identification, Match, SeparatedVoice, Verdict, Verification, WatchHit
from voiceprint.audio import AudioQuality, Turn
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
    """The options of an enrollment. augmented: of the embedding, see `voiceprint.Voiceprint`."""

    embedding: EmbeddingList | None = None
    augmented: EmbeddingList | None = None
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


class MatchCallerAnswer(BaseModel):
    """The accepted caller; all null for nobody. metadata: where the key may see it."""

    caller_id: str | None = None
    similarity: float | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of(cls, found: tuple[str, float, dict[str, Any]] | None, *, metadata: bool) -> MatchCallerAnswer:
        """The answer of `match_caller`."""
        if found is None:
            return cls()
        return cls(caller_id=found[0], similarity=found[1], metadata=found[2] if metadata else None)


class SeparatedVoiceAnswer(BaseModel):
    """A voice of a recording, identified: see `voiceprint.SeparatedVoice`."""

    turns: list[Turn]
    net_speech_s: float
    quality: AudioQuality
    matches: list[MatchAnswer] = []
    ignored: str | None = None
    watch_hits: list[WatchHit] = []


class VoicesAnswer(BaseModel):
    """The voices of a recording, in order of first speech."""

    voices: list[SeparatedVoiceAnswer]

    @classmethod
    def of(cls, voices: Iterable[SeparatedVoice], *, metadata: bool) -> VoicesAnswer:
        """The answer of an identification with separated voices."""
        return cls(
            voices=[
                SeparatedVoiceAnswer(
                    turns=list(voice.turns),
                    net_speech_s=voice.net_speech_s,
                    quality=voice.quality,
                    matches=[MatchAnswer.of(match, metadata=metadata) for match in voice.matches],
                    ignored=voice.ignored,
                    watch_hits=list(voice.watch_hits),
                )
                for voice in voices
            ]
        )


class VerifyAnswer(Verification):
    """The answer of a verification: see `voiceprint.Verification`."""


class ProvenanceAnswer(BaseModel):
    """The origin of a voiceprint, see `voiceprint.Provenance`.

    fingerprints: of the audio; null unless the request has `embeddings=true`.
    """

    model_config = ConfigDict(from_attributes=True)

    source: str | None = None
    quality: float | None = None
    duration_s: float | None = None
    net_speech_s: float | None = None
    fingerprints: str | None = None


class VoiceprintAnswer(BaseModel):
    """A voiceprint: see `voiceprint.Voiceprint`.

    augmented: whether there is an augmented embedding. embedding, augmented_embedding: float32 of length 1;
    null unless the request has `embeddings=true`.
    """

    id: int | None
    caller_id: str
    encoder: str
    created_at: str | None = None
    revision: int | None = None
    augmented: bool
    provenance: ProvenanceAnswer | None = None
    embedding: list[float] | None = None
    augmented_embedding: list[float] | None = None

    @classmethod
    def of(cls, voiceprint: Voiceprint, *, embeddings: bool = False) -> VoiceprintAnswer:
        """The answer of a voiceprint."""
        return cls(**_voiceprint_fields(voiceprint, embeddings=embeddings))


class EnrollAnswer(VoiceprintAnswer):
    """A new voiceprint, with data of its caller. metadata: where the key may see it."""

    last_seen: str | None = None
    groups: list[str] = []
    consent: Consent | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of_enrolled(cls, voiceprint: Voiceprint, *, embeddings: bool, metadata: bool) -> EnrollAnswer:
        """The answer of an enrollment."""
        return cls(
            **_voiceprint_fields(voiceprint, embeddings=embeddings),
            last_seen=voiceprint.last_seen,
            groups=list(voiceprint.groups),
            consent=voiceprint.consent,
            metadata=voiceprint.metadata if metadata else None,
        )


def _voiceprint_fields(voiceprint: Voiceprint, *, embeddings: bool) -> dict[str, Any]:
    provenance = voiceprint.provenance
    return {
        "id": voiceprint.id,
        "caller_id": voiceprint.caller_id,
        "encoder": voiceprint.encoder,
        "created_at": voiceprint.created_at,
        "revision": voiceprint.revision,
        "augmented": voiceprint.augmented is not None,
        "provenance": None
        if provenance is None
        else ProvenanceAnswer(
            **provenance.model_dump(exclude={"fingerprints"}),
            fingerprints=provenance.fingerprints if embeddings else None,
        ),
        "embedding": _numbers(voiceprint.embedding) if embeddings else None,
        "augmented_embedding": _numbers(voiceprint.augmented) if embeddings else None,
    }


def _numbers(vector: NDArray[np.float32] | None) -> list[float] | None:
    numbers: list[float] | None = None if vector is None else vector.tolist()
    return numbers


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
    def of(
        cls, caller: Caller, state: CallerState, *, metadata: bool, embeddings: bool = False
    ) -> CallerAnswer:
        """The answer of a caller."""
        return cls(
            caller_id=caller.caller_id,
            state=state,
            created_at=caller.created_at,
            last_seen=caller.last_seen,
            groups=list(caller.groups),
            voiceprints=[VoiceprintAnswer.of(one, embeddings=embeddings) for one in caller.voiceprints],
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
