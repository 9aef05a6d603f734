"""The records of the product and the answers that it gives.

Embeddings and metadata are biometric or personal data: no repr shows them. Serialization leaves embeddings
out unless it is asked for them, so that no web framework sends them to a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

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
    "StreamResult",
    "Verdict",
    "Verification",
    "VoiceFingerprintConfig",
    "Voiceprint",
]

RESEMBLYZER_SPACE = "resemblyzer"

_INCLUDE = "include_embeddings"
_VECTORS = ("embedding", "augmented")
_Vector = Annotated[NDArray[np.float32], WithJsonSchema({"type": "array", "items": {"type": "number"}})]


class _Serialized(BaseModel):
    """A model that holds embeddings, and serializes them only on request.

    include_embeddings: True serializes the embeddings too. Every other serialization of pydantic takes the
        request in its `context`: `TypeAdapter(Caller).dump_json(one, context={"include_embeddings": True})`.
    `pickle` and `copy` keep the embeddings.
    """

    def model_dump(
        self, *, include_embeddings: bool = False, context: Any | None = None, **options: Any
    ) -> dict[str, Any]:
        """As pydantic's, without embeddings unless `include_embeddings`."""
        return super().model_dump(context=_asking(context, include_embeddings), **options)

    def model_dump_json(
        self, *, include_embeddings: bool = False, context: Any | None = None, **options: Any
    ) -> str:
        """As pydantic's, without embeddings unless `include_embeddings`."""
        return super().model_dump_json(context=_asking(context, include_embeddings), **options)


def _asking(context: Any | None, include_embeddings: bool) -> Any | None:
    return {**(context or {}), _INCLUDE: True} if include_embeddings else context


def _asked(info: SerializationInfo) -> bool:
    return isinstance(info.context, Mapping) and info.context.get(_INCLUDE) is True


class Voiceprint(_Serialized):
    """One print of a caller's voice, joined with what is known of the caller.

    caller_id: 1 to 512 characters.
    embedding: given as an array or list of numbers, kept as a read-only float32 unit vector
        (256 values in the space "resemblyzer"). Only its direction matters: similarity is cosine.
    augmented: the same voice over simulated telephone lines (`voiceprint.enrollment.augmentation`), a vector
        like `embedding`, or None. Scores use both; similarity and the index use `embedding` alone.
    metadata: JSON object of the caller.
    created_at: when this print was made; last_seen: when the caller was last enrolled or recognized.
        ISO 8601 UTC with a `Z`; a datetime is taken too, and a time without a zone is taken as UTC.
    id, revision: given by the store; None before the print is saved.
    encoder: name of the embedding space; prints of different spaces are never compared.

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
            given: dict[str, Any] = {
                "caller_id": caller_id,
                "embedding": embedding,
                "metadata": metadata,
                "created_at": created_at,
                "last_seen": last_seen,
            }
            super().__init__(**given, **fields)
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
        # `encoder` is declared first, so that it is known here: the right length depends on it.
        return check_embedding(value, info.data.get("encoder", RESEMBLYZER_SPACE))

    @field_validator("augmented", mode="before")
    @classmethod
    def _check_augmented(cls, value: object, info: ValidationInfo) -> NDArray[np.float32] | None:
        return check_augmented(value, info.data.get("encoder", RESEMBLYZER_SPACE), info.data.get("embedding"))

    @field_serializer(*_VECTORS)
    def _vector_as_list(
        self, vector: NDArray[np.float32] | None, info: SerializationInfo
    ) -> list[float] | None:
        numbers: list[float] | None = vector.tolist() if vector is not None and _asked(info) else None
        return numbers

    @model_serializer(mode="wrap")
    def _without_embeddings(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if not _asked(info):
            for name in _VECTORS:
                fields.pop(name, None)
        return fields

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Of the fields: to pydantic a model with a serializer of its own is any object.
        schema = handler({key: value for key, value in core_schema.items() if key != "serialization"})
        if handler.mode == "serialization":
            resolved = handler.resolve_ref_schema(schema)
            resolved["required"] = [name for name in resolved["required"] if name not in _VECTORS]
            for name in _VECTORS:
                resolved["properties"].pop(name, None)
        return schema

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._protect()  # numpy gives a pickled array back writeable

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        twin = super().__deepcopy__(memo)
        twin._protect()  # and a copied one
        return twin

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
    # Not chained: pydantic's error keeps the input, and the input is biometric.
    first = error.errors(include_input=False, include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidArgumentError):
        raise cause from None
    place = ".".join(str(part) for part in first["loc"]) or "voiceprint"
    raise InvalidArgumentError(f"{place}: {first['msg']}.") from None


class _Answer(BaseModel):
    """A value that is read, not changed."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True, hide_input_in_errors=True)


class Caller(_Serialized, _Answer):
    """A caller with all voiceprints, the oldest first.

    `last_seen` moves with every enrollment and every accepted match. Serialized as `Voiceprint` is: without
    embeddings, unless `include_embeddings`.
    """

    caller_id: str
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    created_at: str | None = None
    last_seen: str | None = None
    voiceprints: tuple[Voiceprint, ...] = Field(default=(), repr=False)


Verdict = Literal["accepted", "rejected", "inconclusive"]


class Match(_Answer):
    """One caller that a probe resembles.

    similarity: cosine with the best of the caller's voiceprints, -1 to 1; with `calibrated_similarity` set,
        the probability.
    accepted: whether it reaches what the search was made with, a threshold of similarity or a target FPIR.
    voiceprint_id: the print that was the best.
    llr: natural log-likelihood ratio: how much likelier the audio is if this caller spoke than if a stranger
        did, of all the caller's voiceprints, by how alike the gallery's callers are to each other; 0 favors
        neither. Matches are ranked by it. None where the gallery is too small to say; they are then ranked
        by similarity.
    fpir: expected false-positive identification rate, 0 to 1, were this llr the threshold: the share of
        strangers' calls in which some caller of a gallery of this size reaches it. None without llr.
    probability: that this caller spoke, 0 to 1, if half of the calls are of strangers and all callers who
        were searched call as often as each other (`voiceprint.scoring.probabilities`). None without llr.
    margin: llr over that of the next best caller (of similarity where there is no llr); for others than the
        best, how far they are behind it, below 0. None when there is nobody else.
    verdict: "accepted"; "rejected" where half of all strangers would reach as much; "inconclusive" between:
        more speech, or another question, may tell. A cosine under the threshold is "rejected" where no target
        is set and the gallery is too small for an fpir; with a target such a gallery is "inconclusive".
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
        """The decision in a word."""
        if self.accepted:
            return "accepted"
        if self.too_small:
            return "inconclusive"
        return "rejected" if self.fpir is None or self.fpir >= 0.5 else "inconclusive"


class SeparatedVoice(_Answer):
    """One voice of a recording in which several may speak, and who it is.

    turns: when it speaks, in seconds of the recording. net_speech_s: seconds of speech in them.
    quality: of this voice by itself. matches: the k most likely callers, the best first; empty
        where the voice says too little or is too poor, which `quality.feedback` then says.
    ignored: the id of the caller among those to be ignored whose voice this is; `matches` is then empty.
    """

    turns: tuple[Turn, ...]
    net_speech_s: float
    quality: AudioQuality
    matches: tuple[Match, ...] = Field(default=(), repr=False)
    ignored: str | None = None

    @property
    def accepted(self) -> Match | None:
        """The most likely of the callers who are accepted; None where nobody is."""
        return next((match for match in self.matches if match.accepted), None)


class StreamResult(_Answer):
    """What is known of the caller of a call that is being heard, see `CallStream.result`.

    caller_id: whom the voice resembles most; None before there is enough speech, or with nobody enrolled.
    similarity: with that caller, as in `Match`; None without one. metadata: of that caller.
    accepted: whether the similarity reaches the threshold, of speech that is long and good enough.
    decided: whether this is safe to act upon: `accepted` says whether it is this caller, or nobody known.
    final: whether the call has ended, and this is the answer for all of it.
    audio_s, net_speech_s: seconds that were heard, and seconds of speech in them.
    feedback: what is wrong with the audio, as in `AudioQuality`.
    matches: the k nearest callers, the best first.
    voices: of a stream with `separate`, the voices of the call and who each is; known at the end.
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


class Verification(_Answer):
    """Whether a probe is the caller that it is claimed to be.

    accepted: `similarity` >= `threshold`, or where a target decides, `fmr` up to that.
    similarity: cosine, or with `calibrated_similarity` set, `probability`.
    threshold: None where a target decides.
    llr: natural log-likelihood ratio, as in `Match`; None where the gallery is too small for one.
    fmr: expected false-match rate, 0 to 1, were this llr the threshold: the share of strangers' claims to be
        this caller that reach it. None without llr.
    probability: that it is this caller and not a stranger, 0 to 1, if both are as likely beforehand; None
        without llr.
    """

    caller_id: str
    accepted: bool
    similarity: float
    threshold: float | None
    llr: float | None = None
    fmr: float | None = None
    probability: float | None = None


class ErasedPlace(_Answer):
    """A place that was searched after a deletion.

    state: "erased"; "remains", where something of the caller was found; "kept_by_server", in a
        server's files until it rewrites them; "there_again", where the caller was enrolled anew
        meanwhile; "not_searched", of a file that cannot be read.
    """

    place: str
    state: Literal["erased", "remains", "kept_by_server", "there_again", "not_searched"]
    detail: str


class DeletionReceipt(_Answer):
    """The removed voiceprints of a caller, and the places that were searched for remains.

    voiceprints: how many were removed. deleted_at, checked_at: ISO 8601 UTC with a `Z`.
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
        """Whether nothing was left anywhere."""
        return all(place.state == "erased" for place in self.places)


class Finding(_Answer):
    """One thing that `check` found wrong.

    code: short and stable, for programs; place: file, table, key, caller or voiceprint id;
    message: what is wrong and what to do.
    """

    code: str
    place: str
    message: str


class ErasureCheck(_Answer):
    """A search for remains of a deleted caller, see `voiceprint.privacy.erasure.remains_of`.

    deleted_at: when the store noted the deletion; None where it noted none. checked_at: when this was looked
    for. searched: the store and the files that were read.
    """

    caller_id: str
    deleted_at: str | None
    checked_at: str
    searched: tuple[str, ...]
    findings: tuple[Finding, ...]
