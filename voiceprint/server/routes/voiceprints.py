"""Enroll voiceprints, and remove single ones."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel

from voiceprint.consent import Consent
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Voiceprint
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.access import Access, CallerId, WithEmbeddings, changing
from voiceprint.server.audio import Body, parsed, read_body
from voiceprint.server.schemas import EnrollAnswer, EnrollOptions
from voiceprint.storage.records import MAX_ID

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["voiceprints"])


@router.post("/callers/{caller_id}/voiceprints", operation_id="enroll_caller", status_code=201)
async def enroll(
    access: Annotated[Access, Depends(changing("enroll"))],
    caller_id: CallerId,
    body: Annotated[Body, Depends(read_body)],
    embeddings: WithEmbeddings,
) -> EnrollAnswer:
    """Enroll a voiceprint of a new or enrolled caller, from audio or an embedding."""
    fields = parsed(body.fields, "embedding", "augmented", "metadata", "consent", "groups")

    def work(recognizer: OpusAgentVoiceRecognizer) -> EnrollAnswer:
        options = EnrollOptions.of(fields)
        if options.embedding is not None and body.audio is not None:
            raise InvalidArgumentError("The request has audio and an embedding: send one of them.")
        if options.augmented is not None and options.embedding is None:
            raise InvalidArgumentError(
                "The request has an augmented embedding alone: send the embedding too."
            )
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

    def again(recognizer: OpusAgentVoiceRecognizer, answer: EnrollAnswer) -> EnrollAnswer:
        caller = recognizer.storage.get(answer.caller_id)
        for print_ in () if caller is None else caller.voiceprints:
            if print_.id == answer.id:
                return EnrollAnswer.of_enrolled(
                    print_, embeddings=embeddings, metadata=access.principal.sees_metadata
                )
        return answer  # removed since

    return await access.change(work, EnrollAnswer, again)


class DeletedAnswer(BaseModel):
    """deleted: whether there was such a voiceprint."""

    deleted: bool


@router.delete("/voiceprints/{voiceprint_id}", operation_id="delete_voiceprint")
async def delete_voiceprint(
    access: Annotated[Access, Depends(changing("admin"))],
    voiceprint_id: Annotated[
        int,
        Path(
            ge=1, le=MAX_ID, description="Id of the voiceprint, see `GET callers/{caller_id}`.", examples=[17]
        ),
    ],
) -> DeletedAnswer:
    """Remove one voiceprint. Its caller stays, also without another."""
    return await access.change(
        lambda recognizer: DeletedAnswer(deleted=recognizer.delete_voiceprint(voiceprint_id)), DeletedAnswer
    )
