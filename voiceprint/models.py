"""Records and results.

Embeddings and metadata are biometric or personal data: no repr shows them. Serialization leaves embeddings
out by default, so that no web framework sends them to a client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
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

from voiceprint._model import Frozen, Serialized, includes_embeddings, raise_ours
from voiceprint.answers import (
    Identification,
    Match,
    SeparatedVoice,
    StreamResult,
    Verdict,
    Verification,
    WatchHit,
)
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.consent import CallerState, Consent, OptOut, Provenance, check_groups
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
    "CallerState",
    "Consent",
    "DeletionReceipt",
    "ErasedPlace",
    "ErasureCheck",
    "Finding",
    "Identification",
    "Match",
    "OptOut",
    "Provenance",
    "SeparatedVoice",
    "SnapshotStatus",
    "SpaceCoverage",
    "StreamResult",
    "Verdict",
    "Verification",
    "VoiceFingerprintConfig",
    "Voiceprint",
    "WatchHit",
]

RESEMBLYZER_SPACE = "resemblyzer"

_VECTORS = ("embedding", "augmented")
_Vector = Annotated[NDArray[np.float32], WithJsonSchema({"type": "array", "items": {"type": "number"}})]


class Voiceprint(Serialized):
    """A voiceprint of a caller, with the caller's data.

    caller_id: 1 to 512 characters.
    embedding: array or list of numbers, stored as a read-only float32 unit vector (256 values in the space
        "resemblyzer").
    augmented: the same voice over simulated telephone lines (`voiceprint.enrollment.augmentation`), a vector
        like `embedding`, or None. Scores use both; similarity and the index use `embedding` alone.
    metadata: JSON object of the caller. consent, groups: of the caller, see `Caller`; saving adds them to the
        caller's.
    provenance: origin of this voiceprint, or None.
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
    consent: Consent | None = Field(default=None, repr=False)
    groups: tuple[str, ...] = ()
    provenance: Provenance | None = Field(default=None, repr=False)

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
            raise_ours(error)

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise_ours(error)

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

    @field_validator("groups", mode="before")
    @classmethod
    def _check_groups(cls, value: object) -> tuple[str, ...]:
        return check_groups(value)

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
            vector.tolist() if vector is not None and includes_embeddings(info) else None
        )
        return numbers

    @model_serializer(mode="wrap")
    def _without_embeddings(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if not includes_embeddings(info):
            for name in _VECTORS:
                fields.pop(name, None)
            if isinstance(fields.get("provenance"), dict):
                fields["provenance"].pop("fingerprints", None)  # of the audio
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


class Caller(Serialized, Frozen):
    """A caller with all voiceprints, the oldest first.

    `last_seen` moves with every enrollment and every accepted match. groups: sorted names. opt_out: set for
    a caller who refused; such a caller has neither voiceprints nor metadata, groups and consent. Serialized
    like `Voiceprint`, without embeddings unless `include_embeddings`.
    """

    caller_id: str
    metadata: dict[str, Any] = Field(default_factory=dict, repr=False)
    created_at: str | None = None
    last_seen: str | None = None
    voiceprints: tuple[Voiceprint, ...] = Field(default=(), repr=False)
    consent: Consent | None = Field(default=None, repr=False)
    opt_out: OptOut | None = None
    groups: tuple[str, ...] = ()


PlaceState = Literal["erased", "remains", "kept_by_server", "there_again", "not_searched"]
"""The result of a search of a place after a deletion, see `ErasedPlace`."""


class ErasedPlace(Frozen):
    """A place that was searched after a deletion.

    state: "erased"; "remains", data of the caller was found; "kept_by_server", until the server rewrites its
        files; "there_again", the caller was enrolled again meanwhile; "not_searched", a file that cannot be
        read.
    """

    place: str
    state: PlaceState
    detail: str


class DeletionReceipt(Frozen):
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


class Finding(Frozen):
    """A fault that `check` found.

    code: short and stable, for programs; place: file, table, key, caller or voiceprint id; message: the fault
    and its remedy.
    """

    code: str
    place: str
    message: str


class SpaceCoverage(Frozen):
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


class SnapshotStatus(Frozen):
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


class ErasureCheck(Frozen):
    """A search for remains of a deleted caller, see `voiceprint.privacy.erasure.remains_of`.

    deleted_at: time of the deletion; None where the store noted none. checked_at: time of the search.
    searched: the store and the files that were read.
    """

    caller_id: str
    deleted_at: str | None
    checked_at: str
    searched: tuple[str, ...]
    findings: tuple[Finding, ...]
