"""Enroll voiceprints, and remove single ones."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from voiceprint.consent import Consent
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Voiceprint
from voiceprint.server.access import Access, CallerId, WithEmbeddings, allowed
from voiceprint.server.audio import Body, parsed, read_body
from voiceprint.server.schemas import EnrollAnswer, EnrollOptions

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["voiceprints"])


@router.post("/callers/{caller_id}/voiceprints", operation_id="enroll_caller", status_code=201)
async def enroll(
    access: Annotated[Access, Depends(allowed("enroll"))],
    caller_id: CallerId,
    body: Annotated[Body, Depends(read_body)],
    embeddings: WithEmbeddings,
) -> EnrollAnswer:
    """Enroll a voiceprint of a new or enrolled caller, from audio or an embedding."""
    fields = parsed(body.fields, "embedding", "augmented", "metadata", "consent", "groups")

    def work() -> EnrollAnswer:
        options = EnrollOptions.of(fields)
        if options.embedding is not None and body.audio is not None:
            raise InvalidArgumentError("The request has audio and an embedding: send one of them.")
        if options.augmented is not None and options.embedding is None:
            raise InvalidArgumentError(
                "The request has an augmented embedding alone: send the embedding too."
            )
        with access.acting() as recognizer:
            embedding = options.embedding
            if options.augmented is not None:
                space = options.encoder or recognizer.encoder.name
                embedding = Voiceprint(caller_id, embedding, encoder=space, augmented=options.augmented)
            stored = recognizer.enroll_caller(
                caller_id,
                body.recording() if options.embedding is None else None,
                options.metadata,
                embedding=embedding,
                encoder=options.encoder,
                on_mismatch=options.on_mismatch,
                on_several_voices=options.on_several_voices,
                consent=None if options.consent is None else Consent(**options.consent),
                groups=options.groups,
                source=options.source,
            )
        return EnrollAnswer.of_enrolled(
            stored, embeddings=embeddings, metadata=access.principal.sees_metadata
        )

    return await access.service.work.run(work)
