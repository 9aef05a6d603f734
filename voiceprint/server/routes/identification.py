"""The routes on the voice of a recording: identify, verify, quality, embedding."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from voiceprint.errors import InvalidArgumentError
from voiceprint.server.access import Access, CallerId, allowed
from voiceprint.server.audio import Body, parsed, read_body
from voiceprint.server.schemas import (
    EmbeddingAnswer,
    IdentifyAnswer,
    MatchCallerAnswer,
    MatchOptions,
    QualityAnswer,
    VerifyAnswer,
    VerifyOptions,
    VoicesAnswer,
)

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["identification"])

Identifies = Annotated[Access, Depends(allowed("identify"))]
AudioBody = Annotated[Body, Depends(read_body)]
_LISTS = ("embedding", "candidates", "ignore", "groups", "not_groups", "watch")


def probe_of(body: Body, options: MatchOptions | VerifyOptions) -> dict[str, Any]:
    """The audio or embedding of a request, as arguments of the recognizer's methods."""
    if options.embedding is not None:
        if body.audio is not None:
            raise InvalidArgumentError("The request has audio and an embedding: send one of them.")
        return {"embedding": options.embedding, "encoder": options.encoder}
    return {"audio_buffer": body.recording()}


@router.post("/identify", operation_id="identify")
async def identify(access: Identifies, body: AudioBody) -> IdentifyAnswer:
    """Name the most likely callers, the best first, and the decision."""
    fields = parsed(body.fields, *_LISTS)

    def work() -> IdentifyAnswer:
        options = MatchOptions.of(fields)
        with access.acting() as recognizer:
            probe = probe_of(body, options)
            more = options.model_dump(exclude={"embedding", "encoder"})
            found = recognizer.identify(**probe, **more)
        return IdentifyAnswer.of(found, metadata=access.principal.sees_metadata)

    return await access.service.work.run(work)


@router.post("/match", operation_id="match_caller")
async def match_caller(access: Identifies, body: AudioBody) -> MatchCallerAnswer:
    """Name the caller, or nobody, and note that the caller was seen.

    As `identify`, with the accepted caller alone. `k` and `threshold` are not used.
    """
    fields = parsed(body.fields, *_LISTS)

    def work() -> MatchCallerAnswer:
        options = MatchOptions.of(fields)
        with access.acting() as recognizer:
            probe = probe_of(body, options)
            more = options.model_dump(exclude={"embedding", "encoder", "k", "threshold"})
            found = recognizer.match_caller(**probe, **more)
        return MatchCallerAnswer.of(found, metadata=access.principal.sees_metadata)

    return await access.service.work.run(work)


@router.post("/identify/voices", operation_id="identify_voices")
async def identify_voices(access: Identifies, body: AudioBody) -> VoicesAnswer:
    """Identify each voice of a recording by itself, such as both parties of a call on one line."""
    fields = parsed(body.fields, *_LISTS)

    def work() -> VoicesAnswer:
        options = MatchOptions.of(fields)
        if options.embedding is not None:
            raise InvalidArgumentError("An embedding is of one voice: send audio.")
        with access.acting() as recognizer:
            more = options.model_dump(exclude={"embedding", "encoder"})
            found = recognizer.identify(body.recording(), separate=True, **more)
        return VoicesAnswer.of(found, metadata=access.principal.sees_metadata)

    return await access.service.work.run(work)


@router.post("/callers/{caller_id}/verify", operation_id="verify")
async def verify(access: Identifies, caller_id: CallerId, body: AudioBody) -> VerifyAnswer:
    """Verify that the voice is that of the claimed caller."""
    fields = parsed(body.fields, "embedding", "watch")

    def work() -> VerifyAnswer:
        options = VerifyOptions.of(fields)
        with access.acting() as recognizer:
            probe = probe_of(body, options)
            found = recognizer.verify_caller(
                caller_id, **probe, threshold=options.threshold, watch=options.watch
            )
        return VerifyAnswer.model_validate(found.model_dump())

    return await access.service.work.run(work)


@router.post("/quality", operation_id="check_enrollment")
async def check_enrollment(
    access: Annotated[Access, Depends(allowed("identify", "enroll"))], body: AudioBody
) -> QualityAnswer:
    """Measure the quality of audio, and say whether an enrollment accepts it. Nothing is stored."""

    def work() -> QualityAnswer:
        with access.acting() as recognizer:
            check = recognizer.check_enrollment(body.recording())
        return QualityAnswer.model_validate(check.model_dump())

    return await access.service.work.run(work)


@router.post("/embedding", operation_id="get_embedding")
async def get_embedding(
    access: Annotated[Access, Depends(allowed("admin"))], body: AudioBody
) -> EmbeddingAnswer:
    """Compute the embedding of a voice. Nothing is stored."""

    def work() -> EmbeddingAnswer:
        with access.acting() as recognizer:
            embedding = recognizer.get_embedding(body.recording())
            return EmbeddingAnswer(embedding=embedding.tolist(), encoder=recognizer.encoder.name)

    return await access.service.work.run(work)
