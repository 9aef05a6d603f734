"""The verbs of the client: each builds the `Call` of its arguments, which both clients send.

Arguments are checked here as the recognizer does, so that a wrong one is the same error, without a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import Encoding
from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.client import answers
from voiceprint.client.calls import Call, part
from voiceprint.client.uploads import Audio, upload_of
from voiceprint.consent import CallerState, Consent, check_groups
from voiceprint.embedder import EmbeddingLike, check_one_source, own_embedding
from voiceprint.enrollment.check import EnrollmentCheck, OnSeveralVoices
from voiceprint.enrollment.enroller import EnrollmentOptions
from voiceprint.enrollment.provenance import source_of
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import InvalidArgumentError
from voiceprint.identification.query import Query, check_threshold
from voiceprint.models import (
    Caller,
    DeletionReceipt,
    Finding,
    SpaceCoverage,
    Verification,
    Voiceprint,
)
from voiceprint.privacy.audit.event import check_event_id
from voiceprint.validation import check_caller_id, check_metadata, shown

if TYPE_CHECKING:
    from voiceprint.index import IndexStatus

_LONGEST_PAGE: Final = 1000
"""Most callers of a page of the service."""

# Audio


def get_embedding(
    audio_buffer: Audio,
    *,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> Call[NDArray[np.float32]]:
    """The embedding of the voice: float32[d] of length 1. For the role admin.

    Raises `AudioQualityError` for audio without speech, and `DisabledError`.
    """
    return _on_audio(
        "embedding",
        lambda found: np.array(found["embedding"], np.float32),
        audio_buffer,
        AudioFormat(sample_rate, encoding, channel, channels),
    )


def check_enrollment(
    audio_buffer: Audio,
    *,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
) -> Call[EnrollmentCheck]:
    """Check whether `enroll_caller` accepts this audio: length, quality and number of voices. Nothing is
    stored."""
    return _on_audio(
        "quality",
        EnrollmentCheck.model_validate,
        audio_buffer,
        AudioFormat(sample_rate, encoding, channel, channels),
    )


def enroll_caller(
    caller_id: str,
    audio_buffer: Audio | None = None,
    metadata: dict[str, Any] | None = None,
    *,
    embedding: EmbeddingLike | None = None,
    encoder: str | None = None,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
    on_mismatch: OnMismatch = "store",
    on_several_voices: OnSeveralVoices = "refuse",
    consent: Consent | None = None,
    groups: Iterable[str] = (),
    source: str | None = None,
) -> Call[Voiceprint]:
    """Store a voiceprint of a new or enrolled caller, and return it.

    As `OpusAgentVoiceRecognizer.enroll_caller`. The embedding of the returned voiceprint is empty, unless the
    client has `embeddings`.
    """
    audio_format = AudioFormat(sample_rate, encoding, channel, channels)
    named = check_groups(groups)
    EnrollmentOptions(audio_format, on_mismatch, on_several_voices, False, consent, named, source).check()
    check_one_source(
        audio_buffer,
        embedding,
        encoder,
        audio_arguments=audio_format != PCM or on_several_voices != "refuse",
    )
    fields = {
        "metadata": None if metadata is None else check_metadata(metadata),
        "on_mismatch": _unless(on_mismatch, "store"),
        "on_several_voices": _unless(on_several_voices, "refuse"),
        "consent": None if consent is None else consent.model_dump(),
        "groups": list(named) or None,
        "source": source,
    }
    return _with_voice(
        f"callers/{_id(caller_id)}/voiceprints",
        answers.voiceprint,
        (audio_buffer, audio_format, embedding, encoder),
        fields,
        takes_augmented=True,
        takes_source=True,
        changes=True,
        has_voiceprints=True,
    )


def match_caller(
    audio_buffer: Audio | None = None,
    *,
    embedding: EmbeddingLike | None = None,
    encoder: str | None = None,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
    candidates: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    groups: Iterable[str] | None = None,
    not_groups: Iterable[str] = (),
    watch: Iterable[str] = (),
) -> Call[tuple[str, float, dict[str, Any]] | None]:
    """Identify the caller: (caller_id, similarity, metadata), or None for a stranger.

    As `OpusAgentVoiceRecognizer.match_caller`. metadata: empty where the key may not see it.
    """
    query = Query.checked(5, None, candidates, ignore, groups, not_groups, watch)
    audio_format = AudioFormat(sample_rate, encoding, channel, channels)
    return _with_voice(
        "match", answers.matched, (audio_buffer, audio_format, embedding, encoder), _fields(query)
    )


def identify(
    audio_buffer: Audio | None = None,
    k: int = 5,
    *,
    embedding: EmbeddingLike | None = None,
    encoder: str | None = None,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
    threshold: float | None = None,
    candidates: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    groups: Iterable[str] | None = None,
    not_groups: Iterable[str] = (),
    watch: Iterable[str] = (),
    separate: bool = False,
) -> Call[Any]:
    """The k most likely callers, the best first, and the decision, as `Identification`.

    As `OpusAgentVoiceRecognizer.identify`. separate: a list of `SeparatedVoice`, each with its own matches.
    """
    query = Query.checked(k, threshold, candidates, ignore, groups, not_groups, watch)
    audio_format = AudioFormat(sample_rate, encoding, channel, channels)
    check_one_source(audio_buffer, embedding, encoder, audio_arguments=audio_format != PCM or separate)
    return _with_voice(
        "identify/voices" if separate else "identify",
        answers.separated_voices if separate else answers.identification,
        (audio_buffer, audio_format, embedding, encoder),
        _fields(query),
    )


def verify_caller(
    caller_id: str,
    audio_buffer: Audio | None = None,
    *,
    embedding: EmbeddingLike | None = None,
    encoder: str | None = None,
    sample_rate: int | None = None,
    encoding: Encoding = "pcm",
    channel: int | None = None,
    channels: int = 1,
    threshold: float | None = None,
    watch: Iterable[str] = (),
) -> Call[Verification]:
    """Verify that the voice is that of the claimed caller.

    As `OpusAgentVoiceRecognizer.verify_caller`.
    """
    fields = {
        "threshold": None if threshold is None else check_threshold(threshold),
        "watch": list(check_groups(watch)) or None,
    }
    audio_format = AudioFormat(sample_rate, encoding, channel, channels)
    return _with_voice(
        f"callers/{_id(caller_id)}/verify",
        answers.verification,
        (audio_buffer, audio_format, embedding, encoder),
        fields,
    )


# Callers


def get_caller(caller_id: str) -> Call[Caller | None]:
    """The caller with metadata and voiceprints, or None."""
    path = f"callers/{_id(caller_id)}"
    return Call("GET", path, answers.caller, has_voiceprints=True, none_if_missing=True)


def caller_state(caller_id: str) -> Call[CallerState | None]:
    """The state of a caller, see `CallerState`; None for an id that the store does not have."""
    path = f"callers/{_id(caller_id)}"
    return Call("GET", path, lambda found: found["state"], none_if_missing=True)


def callers(*, after: str = "", limit: int | None = None) -> Call[answers.Page]:
    """A page of callers, in the order of their ids."""
    query = _query(after=after or None, limit=limit)
    return Call("GET", "callers", answers.page, has_voiceprints=True, query=query)


def find_callers(metadata: Mapping[str, Any], *, after: str, limit: int) -> Call[answers.Page]:
    """A page of the callers whose metadata has these values."""
    fields = {"metadata": check_metadata(dict(metadata)), "after": after, "limit": min(limit, _LONGEST_PAGE)}
    return Call("POST", "callers/search", answers.page, has_voiceprints=True, fields=fields)


def delete_caller(caller_id: str) -> Call[int]:
    """Remove a caller with all voiceprints and metadata; return the number of voiceprints."""
    path = f"callers/{_id(caller_id)}"
    return Call("DELETE", path, _voiceprints, changes=True, query={"receipt": "false"})


def delete_with_receipt(caller_id: str) -> Call[DeletionReceipt]:
    """`delete_caller` with a receipt."""
    path = f"callers/{_id(caller_id)}"
    return Call("DELETE", path, answers.receipt, changes=True, query={"receipt": "true"})


def delete_voiceprint(voiceprint_id: int) -> Call[bool]:
    """Remove one voiceprint; False for an unknown id. Its caller stays, also without another."""
    if isinstance(voiceprint_id, bool) or not isinstance(voiceprint_id, (int, np.integer)):
        raise InvalidArgumentError(f"The voiceprint id is {shown(voiceprint_id)}: give a whole number.")
    return Call("DELETE", f"voiceprints/{int(voiceprint_id)}", lambda found: found["deleted"], changes=True)


def update_metadata(caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Call[Caller]:
    """Merge `metadata` into the caller's, new keys winning, or `replace` it all; return the caller.

    Raises `CallerNotFoundError`, and `CallerOptedOutError`.
    """
    fields = {"metadata": check_metadata(metadata), "replace": replace}
    return _change("PATCH", f"callers/{_id(caller_id)}", fields)


def rename_caller(caller_id: str, new_id: str) -> Call[Caller]:
    """Give a caller another id; return the caller. The voiceprints get new ids, the times stay.

    Raises `CallerNotFoundError`, and `InvalidArgumentError` where there is a caller of the new id.
    """
    return _change("PATCH", f"callers/{_id(caller_id)}", {"caller_id": check_caller_id(new_id)})


def merge_callers(source: str, into: str) -> Call[tuple[Caller, list[int]]]:
    """Make one caller of two who are the same person: `OpusAgentVoiceRecognizer.merge_callers`."""
    return Call(
        "POST",
        f"callers/{_id(source)}/merge",
        answers.merged,
        changes=True,
        has_voiceprints=True,
        fields={"into": check_caller_id(into)},
    )


def set_consent(caller_id: str, consent: Consent) -> Call[Caller]:
    """Store a caller's consent in place of an earlier one; return the caller.

    Before the enrollment, this makes a caller without voiceprints. Raises `CallerOptedOutError`.
    """
    if not isinstance(consent, Consent):
        raise InvalidArgumentError(f"The consent is {shown(consent)}: give a Consent.")
    return _change("PUT", f"callers/{_id(caller_id)}/consent", consent.model_dump())


def opt_out(caller_id: str, *, reason: str | None = None, by: str | None = None) -> Call[int]:
    """Erase all voiceprints and data of a caller who refuses, and note the refusal; return the number of
    voiceprints."""
    path, fields = f"callers/{_id(caller_id)}/opt-out", {"reason": reason, "by": by}
    return Call("POST", path, _voiceprints, changes=True, query={"receipt": "false"}, fields=fields)


def opt_out_with_receipt(
    caller_id: str, *, reason: str | None = None, by: str | None = None
) -> Call[DeletionReceipt]:
    """`opt_out` with a receipt."""
    path, fields = f"callers/{_id(caller_id)}/opt-out", {"reason": reason, "by": by}
    return Call("POST", path, answers.receipt, changes=True, query={"receipt": "true"}, fields=fields)


def opt_in(caller_id: str) -> Call[Caller]:
    """End the refusal of a caller, who can be enrolled again; return the caller, without voiceprints.

    Raises `CallerNotFoundError` for an id that the store does not have.
    """
    return _change("POST", f"callers/{_id(caller_id)}/opt-in", None)


# Groups


def groups() -> Call[dict[str, int]]:
    """The number of callers with a voiceprint in each group, in the order of names."""
    return Call("GET", "groups", lambda found: found["groups"])


def members(group: str, *, after: str = "", limit: int | None = None) -> Call[answers.Page]:
    """A page of the callers with a voiceprint who are in a group."""
    (name,) = check_groups([group])
    query = _query(after=after or None, limit=limit)
    return Call("GET", f"groups/{part(name)}/members", answers.page, has_voiceprints=True, query=query)


def add_to_group(caller_id: str, *groups: str) -> Call[Caller]:
    """Add a caller to groups, which come into being with their first caller; return the caller.

    Raises `CallerNotFoundError`, and `CallerOptedOutError`.
    """
    return _change("POST", f"callers/{_id(caller_id)}/groups", {"groups": list(check_groups(groups))})


def remove_from_group(caller_id: str, *groups: str) -> Call[Caller]:
    """Remove a caller from groups, also from groups that the caller is not in; return the caller.

    Raises `CallerNotFoundError`.
    """
    path, named = f"callers/{_id(caller_id)}/groups", list(check_groups(groups))
    return Call("DELETE", path, answers.caller, changes=True, has_voiceprints=True, query={"group": named})


def set_groups(caller_id: str, groups: Iterable[str]) -> Call[Caller]:
    """Put a caller into these groups, and into no other; return the caller.

    Raises `CallerNotFoundError`, and `CallerOptedOutError`.
    """
    return _change("PUT", f"callers/{_id(caller_id)}/groups", {"groups": list(check_groups(groups))})


# Upkeep


def feedback(event_id: str, *, correct: bool, caller_id: str | None = None) -> Call[str]:
    """Record whether an answer was right; returns the id of this event.

    As `OpusAgentVoiceRecognizer.feedback`.
    """
    check_event_id(event_id)
    if not isinstance(correct, bool):
        raise InvalidArgumentError(f"correct is {shown(correct)}: True or False is allowed.")
    caller = None if caller_id is None else check_caller_id(caller_id)
    fields = {"event_id": event_id, "correct": correct, "caller_id": caller}
    return Call("POST", "feedback", lambda found: found["event_id"], changes=True, fields=fields)


def check(*, fix: bool = False) -> Call[list[Finding]]:
    """The faults of the store, and the differences of index and store; empty without any.

    fix: repair data that is derived from the records; no record is changed.
    """
    return Call(
        "POST",
        "check",
        lambda found: [Finding.model_validate(one) for one in found["findings"]],
        changes=fix,
        fields={"fix": fix},
    )


def index_status() -> Call[IndexStatus]:
    """The state of the index of one worker of the service."""
    return Call("GET", "index", answers.index_status)


def rebuild_index() -> Call[IndexStatus]:
    """Build the index of one worker of the service anew from the store, and write its snapshot."""
    return Call("POST", "index/rebuild", answers.index_status, changes=True)


def galleries() -> Call[list[str]]:
    """The names of the galleries that the key is for."""
    return Call("GET", "/v1/galleries", lambda found: [one["name"] for one in found["galleries"]])


def spaces() -> Call[list[SpaceCoverage]]:
    """The embedding spaces of the store, by encoder, and the callers that each covers."""
    return Call("GET", "spaces", lambda found: [SpaceCoverage.model_validate(one) for one in found["spaces"]])


def threshold_advice() -> Call[str | None]:
    """A sentence where the configured cosine threshold accepts many strangers; else None."""
    return Call("GET", "threshold-advice", lambda found: found["advice"])


def health() -> Call[dict[str, str]]:
    """Whether the service can answer: {"status": "ready", ...}, or what is not ready."""
    return Call("GET", "/readyz", lambda found: dict(found), statuses=frozenset({200, 503}))


# Parts of calls


def _id(caller_id: object) -> str:
    return part(check_caller_id(caller_id))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


def _unless(value: str, default: str) -> str | None:
    return None if value == default else value


def _query(**values: object) -> dict[str, str | list[str]]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _voiceprints(found: Mapping[str, Any]) -> int:
    return int(found["voiceprints"])


def _change(method: str, path: str, fields: Mapping[str, Any] | None) -> Call[Caller]:
    """A change of a caller, who is the answer."""
    return Call(method, path, answers.caller, changes=True, has_voiceprints=True, fields=fields)


def _fields(query: Query) -> dict[str, Any]:
    """The options of a query that differ from the defaults."""
    return {
        "k": None if query.k == 5 else query.k,
        "threshold": query.threshold,
        "candidates": query.candidates,
        "ignore": query.ignored or None,
        "groups": None if query.scope.groups is None else list(query.scope.groups),
        "not_groups": list(query.scope.not_groups) or None,
        "watch": list(query.watch) or None,
    }


def _on_audio(path: str, read: Any, audio: Audio, audio_format: AudioFormat) -> Call[Any]:
    upload = upload_of(audio, audio_format)
    return Call("POST", path, read, query=upload.query, audio=upload.content)


def _with_voice(
    path: str,
    read: Any,
    voice: tuple[Audio | None, AudioFormat, EmbeddingLike | None, str | None],
    fields: dict[str, Any],
    *,
    takes_augmented: bool = False,
    takes_source: bool = False,
    **more: Any,
) -> Call[Any]:
    """The call with audio or an embedding. fields: without those that are None."""
    audio, audio_format, embedding, encoder = voice
    check_one_source(audio, embedding, encoder, audio_arguments=audio_format != PCM)
    if audio is not None:
        upload = upload_of(audio, audio_format)
        if takes_source and upload.file is not None and fields["source"] is None:
            fields = {**fields, "source": source_of(upload.file)}
        fields = _given(fields)
        return Call("POST", path, read, query=upload.query, audio=upload.content, fields=fields, **more)
    assert embedding is not None  # noqa: S101  checked
    own = own_embedding(embedding)
    space = encoder
    if encoder is not None and not isinstance(encoder, str):
        raise InvalidArgumentError(
            f"The embedding is of the encoder {shown(encoder)}, which is no name: give that of an encoder."
        )
    if isinstance(embedding, Voiceprint):
        if encoder not in (None, embedding.encoder):
            raise InvalidArgumentError(
                f"encoder is {shown(encoder)}, and the voiceprint is of {embedding.encoder!r}: leave it out."
            )
        space = embedding.encoder
    fields = _given(fields)
    fields |= {"embedding": own.plain.tolist()} | ({} if space is None else {"encoder": space})
    if takes_augmented and own.augmented is not None:
        fields["augmented"] = own.augmented.tolist()
    return Call("POST", path, read, fields=fields, **more)
