"""Calls with a voice: embed, check, enroll, match, identify, verify.

Arguments are checked here as the recognizer does, so that a wrong one is the same error, without a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import Encoding
from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.client import answers
from voiceprint.client.calls import Call, id_part
from voiceprint.client.uploads import Audio, upload_of
from voiceprint.consent import Consent, check_groups
from voiceprint.embedder import EmbeddingLike, check_one_source, own_embedding
from voiceprint.enrollment.check import EnrollmentCheck, OnSeveralVoices
from voiceprint.enrollment.enroller import EnrollmentOptions
from voiceprint.enrollment.provenance import source_of
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import InvalidArgumentError
from voiceprint.identification.query import Query, check_threshold
from voiceprint.models import (
    Verification,
    Voiceprint,
)
from voiceprint.validation import check_metadata, shown

if TYPE_CHECKING:
    pass


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
        f"callers/{id_part(caller_id)}/voiceprints",
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
        f"callers/{id_part(caller_id)}/verify",
        answers.verification,
        (audio_buffer, audio_format, embedding, encoder),
        fields,
    )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


def _unless(value: str, default: str) -> str | None:
    return None if value == default else value


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
