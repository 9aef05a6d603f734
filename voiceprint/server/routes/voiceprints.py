"""Enroll voiceprints, and remove single ones."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from voiceprint.consent import Consent
from voiceprint.errors import InvalidArgumentError
from voiceprint.server.access import Access, CallerId, allowed
from voiceprint.server.audio import Body, parsed, read_body
from voiceprint.server.schemas import EnrollOptions, VoiceprintAnswer

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["voiceprints"])


@router.post("/callers/{caller_id}/voiceprints", operation_id="enroll_caller", status_code=201)
async def enroll(
    access: Annotated[Access, Depends(allowed("enroll"))],
    caller_id: CallerId,
    body: Annotated[Body, Depends(read_body)],
) -> VoiceprintAnswer:
    """Enroll a voiceprint of a new or enrolled caller, from audio or an embedding."""
    fields = parsed(body.fields, "embedding", "metadata", "consent", "groups")

    def work() -> VoiceprintAnswer:
        options = EnrollOptions.of(fields)
        if options.embedding is not None and body.audio is not None:
            raise InvalidArgumentError("The request has audio and an embedding: send one of them.")
        with access.acting() as recognizer:
            stored = recognizer.enroll_caller(
                caller_id,
                body.recording() if options.embedding is None else None,
                options.metadata,
                embedding=options.embedding,
                encoder=options.encoder,
                on_mismatch=options.on_mismatch,
                on_several_voices=options.on_several_voices,
                consent=None if options.consent is None else Consent(**options.consent),
                groups=options.groups,
                source=options.source,
            )
        return VoiceprintAnswer.of(stored)

    return await access.service.work.run(work)
