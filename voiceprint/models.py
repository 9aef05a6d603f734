"""Records and results.

Embeddings and metadata are biometric or personal data: no repr shows them. Serialization leaves embeddings
out by default, so that no web framework sends them to a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from voiceprint.audio.quality.model import AudioQuality, Turn
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError
from voiceprint.validation import (
    check_augmented,
    check_caller_id,
    check_embedding,
    check_metadata,
    check_time,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Caller",
    "DeletionReceipt",
    "ErasedPlace",
    "ErasureCheck",
    "Finding",
    "Match",
    "SeparatedVoice",
    "SnapshotStatus",
    "SpaceCoverage",
    "StreamResult",
    "Verdict",
    "Verification",
    "VoiceFingerprintConfig",
    "Voiceprint",
]

RESEMBLYZER_SPACE = "resemblyzer"

Model = TypeVar("Model", bound=BaseModel)

_INCLUDE = "include_embeddings"
_VECTORS = ("embedding", "augmented")
_Vector = Annotated[NDArray[np.float32], WithJsonSchema({"type": "array", "items": {"type": "number"}})]


class _Serialized(BaseModel):
    """A model that holds embeddings, and serializes them only on request.

    include_embeddings: True serializes the embeddings too. For every other serialization of pydantic,
        set it in `context`: `TypeAdapter(Caller).dump_json(caller, context={"include_embeddings": True})`.
    `pickle` and `copy` keep the embeddings.
    """

    def model_dump(
        self, *, include_embeddings: bool = False, context: Any | None = None, **options: Any
    ) -> dict[str, Any]:
        """As pydantic's, without embeddings unless `include_embeddings`."""
        return super().model_dump(context=_with_option(context, include_embeddings), **options)

    def model_dump_json(
        self, *, include_embeddings: bool = False, context: Any | None = None, **options: Any
    ) -> str:
        """As pydantic's, without embeddings unless `include_embeddings`."""
        return super().model_dump_json(context=_with_option(context, include_embeddings), **options)


@cache
def _all_fields(model: type[BaseModel]) -> set[str]:
    """The names of all fields, one set for all models: no assignment adds another name to it."""
    return set(model.model_fields)


def construct(model: type[Model], fields: dict[str, Any]) -> Model:
    """The model of all its fields, which are valid, without a check. `fields` becomes part of it.

    As pydantic's `model_construct`, in a sixth of the time: it fills in defaults and aliases, field by field,
    and an identification constructs some fifty voiceprints.
    """
    built = model.__new__(model)
    object.__setattr__(built, "__dict__", fields)
    object.__setattr__(built, "__pydantic_fields_set__", _all_fields(model))
    object.__setattr__(built, "__pydantic_extra__", None)
    object.__setattr__(built, "__pydantic_private__", None)
    return built


def _with_option(context: Any | None, include_embeddings: bool) -> Any | None:
    return {**(context or {}), _INCLUDE: True} if include_embeddings else context


def _includes_embeddings(info: SerializationInfo) -> bool:
    return isinstance(info.context, Mapping) and info.context.get(_INCLUDE) is True


class Voiceprint(_Serialized):
    """A voiceprint of a caller, with the caller's data.

    caller_id: 1 to 512 characters.
    embedding: array or list of numbers, stored as a read-only float32 unit vector (256 values in the space
        "resemblyzer").
    augmented: the same voice over simulated telephone lines (`voiceprint.enrollment.augmentation`), a vector
        like `embedding`, or None. Scores use both; similarity and the index use `embedding` alone.
    metadata: JSON object of the caller.
    created_at: time of this enrollment; last_seen: of the caller's last enrollment or match. ISO 8601 UTC
        with a `Z`; also from a datetime; a time without a zone is UTC.
    id, revision: assigned by the store; None before `save`.
    encoder: name of the embedding space; embeddings of different spaces are never compared.

    Raises `InvalidArgumentError`, also when an attribute is set later. `model_dump` and all other
    serialization of pydantic leave `embedding` and `augmented` out, unless `include_embeddings`.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True, validate_assignment=True
    )

    caller_id: str
    encoder: str = Field(default=RESEMBLYZER_SPACE, min_length=1, max_length=100)
    embedding: _Vector = Field(repr=False)
    augmented: _Vector | None = Field(default=None, repr=False)
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    created_at: str | None = None
    last_seen: str | None = None
    id: int | None = None
    revision: int | None = None

    def __init__(
        self,
        caller_id: str,
        embedding: object,
        metadata: dict[str, Any] | None = None,
        created_at: object = None,
        last_seen: object = None,
        **fields: Any,
    ) -> None:
        try:
            values: dict[str, Any] = {
                "caller_id": caller_id,
                "embedding": embedding,
                "metadata": metadata,
                "created_at": created_at,
                "last_seen": last_seen,
            }
            super().__init__(**values, **fields)
        except ValidationError as error:
            _raise_ours(error)

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            _raise_ours(error)

    @field_validator("caller_id", mode="before")
    @classmethod
    def _check_caller_id(cls, value: object) -> str:
        return check_caller_id(value)

    @field_validator("metadata", mode="before")
    @classmethod
    def _check_metadata(cls, value: object) -> dict[str, Any]:
        return check_metadata(value)

    @field_validator("created_at", "last_seen", mode="before")
    @classmethod
    def _check_time(cls, value: object) -> str | None:
        return check_time(value)

    @field_validator("embedding", mode="before")
    @classmethod
    def _check_embedding(cls, value: object, info: ValidationInfo) -> NDArray[np.float32]:
        # `encoder` is declared first, so it is validated here: the length depends on it.
        return check_embedding(value, info.data.get("encoder", RESEMBLYZER_SPACE))

    @field_validator("augmented", mode="before")
    @classmethod
    def _check_augmented(cls, value: object, info: ValidationInfo) -> NDArray[np.float32] | None:
        return check_augmented(value, info.data.get("encoder", RESEMBLYZER_SPACE), info.data.get("embedding"))

    @field_serializer(*_VECTORS)
    def _vector_as_list(
        self, vector: NDArray[np.float32] | None, info: SerializationInfo
    ) -> list[float] | None:
        numbers: list[float] | None = (
            vector.tolist() if vector is not None and _includes_embeddings(info) else None
        )
        return numbers

    @model_serializer(mode="wrap")
    def _without_embeddings(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if not _includes_embeddings(info):
            for name in _VECTORS:
                fields.pop(name, None)
        return fields

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # The schema of the fields: for a model with its own serializer, pydantic has only "object".
        schema = handler({key: value for key, value in core_schema.items() if key != "serialization"})
        if handler.mode == "serialization":
            resolved = handler.resolve_ref_schema(schema)
            resolved["required"] = [name for name in resolved["required"] if name not in _VECTORS]
            for name in _VECTORS:
                resolved["properties"].pop(name, None)
        return schema

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._protect()  # numpy unpickles an array as writeable

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        copy = super().__deepcopy__(memo)
        copy._protect()  # numpy copies an array as writeable
        return copy

    def _protect(self) -> None:
        for vector in (self.embedding, self.augmented):
            if vector is not None:
                vector.flags.writeable = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Voiceprint):
            return NotImplemented
        mine, others = dict(self), dict(other)
        vectors = [(mine.pop(name), others.pop(name)) for name in _VECTORS]
        # `array_equal` of None and None is true, of None and a vector false.
        return all(np.array_equal(one, other) for one, other in vectors) and mine == others

    __hash__ = None  # type: ignore[assignment]  # mutable, as every pydantic model that is not frozen


def _raise_ours(error: ValidationError) -> NoReturn:
    # Not chained: pydantic's error holds the input, which is biometric.
    first = error.errors(include_input=False, include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidArgumentError):
        raise cause from None
    place = ".".join(str(part) for part in first["loc"]) or "voiceprint"
    raise InvalidArgumentError(f"{place}: {first['msg']}.") from None


class _Frozen(BaseModel):
    """A read-only model."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True, hide_input_in_errors=True)


class Caller(_Serialized, _Frozen):
    """A caller with all voiceprints, the oldest first.

    `last_seen` moves with every enrollment and every accepted match. Serialized like `Voiceprint`, without
    embeddings unless `include_embeddings`.
    """

    caller_id: str
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    created_at: str | None = None
    last_seen: str | None = None
    voiceprints: tuple[Voiceprint, ...] = Field(default=(), repr=False)


Verdict = Literal["accepted", "rejected", "inconclusive"]


class Match(_Frozen):
    """A caller as a candidate for a probe.

    similarity: cosine with the best of the caller's voiceprints, -1 to 1; with `calibrated_similarity` set,
        the probability.
    accepted: whether similarity reaches the threshold, or, where a target FPIR decides, fpir the target.
    voiceprint_id: the most similar voiceprint.
    llr: natural log-likelihood ratio of this caller against a stranger, from all the caller's voiceprints and
        the similarity of the gallery's callers to each other; 0 favors neither. Matches are ranked by llr.
        None where the gallery is too small; matches are then ranked by similarity.
    fpir: expected false-positive identification rate, 0 to 1, with this llr as the threshold: the share of
        strangers' calls for which a caller of a gallery of this size reaches it. None without llr.
    probability: of this caller, 0 to 1, if half of the calls are of strangers and all candidates call
        equally often (`voiceprint.scoring.probabilities`). None without llr.
    margin: llr (similarity without llr) minus that of the next caller; for all but the best, minus that of
        the best, below 0. None for a single match.
    verdict: "accepted"; "rejected" where at least half of all strangers would reach this llr; "inconclusive"
        between, where more speech may decide. Without an fpir, "rejected" by a threshold, and "inconclusive"
        by a target FPIR.
    """

    caller_id: str
    similarity: float
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    voiceprint_id: int
    accepted: bool
    llr: float | None = None
    fpir: float | None = None
    probability: float | None = None
    margin: float | None = None
    too_small: bool = Field(default=False, exclude=True, repr=False)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The decision, see `Match`."""
        if self.accepted:
            return "accepted"
        if self.too_small:
            return "inconclusive"
        return "rejected" if self.fpir is None or self.fpir >= 0.5 else "inconclusive"


class SeparatedVoice(_Frozen):
    """A voice of a recording, identified.

    turns: in seconds of the recording. net_speech_s: seconds of speech in them.
    quality: of this voice by itself. matches: the k most likely callers, the best first; empty where the
        voice has too little speech or is too poor, see `quality.feedback`.
    ignored: id of the caller to `ignore` whose voice this is, else None; `matches` is then empty.
    """

    turns: tuple[Turn, ...]
    net_speech_s: float
    quality: AudioQuality
    matches: tuple[Match, ...] = Field(default=(), repr=False)
    ignored: str | None = None

    @property
    def accepted(self) -> Match | None:
        """The most likely accepted match, or None."""
        return next((match for match in self.matches if match.accepted), None)


class StreamResult(_Frozen):
    """The answer of a `CallStream`.

    caller_id: the most likely caller; None before there is enough speech, or with nobody enrolled.
    similarity: with that caller, as in `Match`, or None. metadata: of that caller.
    accepted: whether that match is accepted, with speech that is long and good enough.
    decided: whether this answer, that caller if `accepted` and else nobody, is safe to act upon.
    final: whether the call has ended, and this is the answer for all of it.
    audio_s, net_speech_s: seconds of audio and of speech so far.
    feedback: faults of the audio, as in `AudioQuality`.
    matches: the k most likely callers, the best first.
    voices: the identified voices of the call, at the end of a stream with `separate`.
    """

    caller_id: str | None = None
    similarity: float | None = None
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    accepted: bool = False
    decided: bool = False
    final: bool = False
    audio_s: float = 0.0
    net_speech_s: float = 0.0
    feedback: tuple[str, ...] = ()
    matches: tuple[Match, ...] = Field(default=(), repr=False)
    voices: tuple[SeparatedVoice, ...] = Field(default=(), repr=False)


class Verification(_Frozen):
    """The verification of a claimed caller.

    accepted: `similarity` >= `threshold`, or where a target decides, `fmr` <= target.
    similarity: cosine, or with `calibrated_similarity` set, `probability`.
    threshold: None where a target decides.
    llr: natural log-likelihood ratio, as in `Match`; None where the gallery is too small for one.
    fmr: expected false-match rate, 0 to 1, with this llr as the threshold: the share of strangers' claims to
        be this caller that reach it. None without llr.
    probability: of this caller, 0 to 1, with a prior of 0.5. None without llr.
    """

    caller_id: str
    accepted: bool
    similarity: float
    threshold: float | None
    llr: float | None = None
    fmr: float | None = None
    probability: float | None = None


class ErasedPlace(_Frozen):
    """A place that was searched after a deletion.

    state: "erased"; "remains", data of the caller was found; "kept_by_server", until the server rewrites its
        files; "there_again", the caller was enrolled again meanwhile; "not_searched", a file that cannot be
        read.
    """

    place: str
    state: Literal["erased", "remains", "kept_by_server", "there_again", "not_searched"]
    detail: str


class DeletionReceipt(_Frozen):
    """The removed voiceprints of a caller, and the places that were searched for remains.

    voiceprints: number removed. deleted_at, checked_at: ISO 8601 UTC with a `Z`.
    places: the record store, each of its files, the snapshots of the index, and the files of a Redis server.
    """

    caller_id: str
    voiceprints: int
    deleted_at: str
    checked_at: str
    places: tuple[ErasedPlace, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def complete(self) -> bool:
        """Whether every place is erased."""
        return all(place.state == "erased" for place in self.places)


class Finding(_Frozen):
    """A fault that `check` found.

    code: short and stable, for programs; place: file, table, key, caller or voiceprint id; message: the fault
    and its remedy.
    """

    code: str
    place: str
    message: str


class SpaceCoverage(_Frozen):
    """The voiceprints of one embedding space in a store, see `OpusAgentVoiceRecognizer.spaces`.

    encoder: name of the space. dimension: values of an embedding. callers: who have such a voiceprint;
    only: those of them who have no voiceprint of another space. share: of all callers of the store who have
    one, 0 to 1. use: "primary" for the recognizer's encoder, "secondary" for the one that runs beside it.
    """

    encoder: str
    dimension: int
    voiceprints: int
    callers: int
    only: int
    share: float
    use: Literal["primary", "secondary"] | None


SnapshotState = Literal["off", "not_written", "current", "behind", "outdated", "unusable"]


class SnapshotStatus(_Frozen):
    """The snapshot of the index of one embedding space, see `OpusAgentVoiceRecognizer.snapshots`.

    encoder: name of the space; voiceprints: of it in the store. path: None where no snapshot is kept.
    size: bytes of the file; None without one. changes: voiceprints that were added or replaced since, in the
    states "current" and "behind".
    state: "off"; "not_written"; "current"; "behind", the next use applies the changes; "outdated", may hold
        removed embeddings, and the next use removes it; "unusable", damaged, or of another store or version.
    """

    encoder: str
    voiceprints: int
    path: str | None
    size: int | None
    changes: int | None
    state: SnapshotState


class ErasureCheck(_Frozen):
    """A search for remains of a deleted caller, see `voiceprint.privacy.erasure.remains_of`.

    deleted_at: time of the deletion; None where the store noted none. checked_at: time of the search.
    searched: the store and the files that were read.
    """

    caller_id: str
    deleted_at: str | None
    checked_at: str
    searched: tuple[str, ...]
    findings: tuple[Finding, ...]
