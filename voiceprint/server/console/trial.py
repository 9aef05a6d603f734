"""Try it: identify a voice from a file, or from the microphone while it speaks."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from voiceprint.answers import Identification, Match, StreamResult
from voiceprint.errors import AudioQualityError, InvalidArgumentError, VoiceprintError
from voiceprint.server.access import check_gallery, check_role, service_of
from voiceprint.server.console.pages import word
from voiceprint.server.console.picture import ScorePicture, picture_of
from voiceprint.server.console.visit import ConsoleRoute, Posted, Visit, find_session, is_same_origin, visitor
from voiceprint.server.problems import ProblemError, public_message
from voiceprint.streaming import CallStream

router = APIRouter(prefix="/g/{gallery}", route_class=ConsoleRoute)

Identifier = Annotated[Visit, Depends(visitor("identify"))]

_SHOWN: Final = 3  # matches of an answer: a reader compares the first with the next
_BLOCK_S: Final = 0.48
"""Seconds of audio that a thread takes at once: a block of `CallStream`, which gives no answer for less."""
_LONGEST_S: Final = 120.0
"""Seconds after which a trial ends: an answer is decided within seconds. Doubled, a page that was left open
holds its audio for twice as long."""
_SILENCE_S: Final = 15.0
"""Seconds without a message after which a trial ends: the page sends ten a second."""
_MESSAGE_BYTES: Final = 256 * 1024  # 2.7 s at 48 kHz, where the page sends a tenth of a second
_POLICY_VIOLATION: Final = 1008


@router.get("/try")
async def trial_page(visit: Identifier) -> Response:
    """The page."""

    def work() -> ScorePicture | None:
        with visit.acting() as recognizer:
            return picture_of(recognizer)

    return visit.page("try.html", picture=await visit.service.work.run(work), answer=None, fault=None)


@router.post("/try")
async def trial_of_file(visit: Identifier, body: Posted) -> Response:
    """The page with the answer to a file."""

    def work() -> tuple[ScorePicture | None, dict[str, Any] | None, str | None]:
        with visit.acting() as recognizer:
            picture = picture_of(recognizer)
            try:
                found = recognizer.identify(body.recording(), k=_SHOWN)
            except AudioQualityError as error:  # an answer too: the page says what is wrong with the audio
                return picture, None, str(error)
        return picture, _of_identification(found, visit, picture), None

    picture, answer, fault = await visit.service.work.run(work)
    return visit.page("try.html", picture=picture, answer=answer, fault=fault)


@router.websocket("/try/stream")
async def trial_stream(socket: WebSocket, gallery: str) -> None:
    """The running answers to a microphone.

    The page sends a JSON text with `rate`, then 16-bit little-endian samples of one channel, and at the end
    the text "stop". Answers are JSON texts.
    """
    try:
        if not is_same_origin(socket):
            raise ProblemError(403, "FormError", "Another site must not use the microphone's connection.")
        session = await find_session(socket)
        service = service_of(socket)
        check_gallery(service, session.principal, gallery)
        check_role(session.principal, "identify")
    except VoiceprintError:  # closed before it is accepted: the browser gets 403
        await socket.close(_POLICY_VIOLATION)
        return
    await socket.accept()
    # The request of a page has the same `state`.
    visit = Visit(socket, service, session, gallery)  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(_serve(socket, visit), _LONGEST_S + _SILENCE_S)
    except (WebSocketDisconnect, asyncio.TimeoutError):
        pass  # the page is gone, or forgotten
    except VoiceprintError as error:
        await _send(socket, {"type": "error", "detail": public_message(error)})
    finally:
        if socket.application_state is WebSocketState.CONNECTED:
            await socket.close()


async def _serve(socket: WebSocket, visit: Visit) -> None:
    rate = _rate(await _receive(socket))
    run = visit.service.work.run

    def begin() -> tuple[CallStream, ScorePicture | None]:
        with visit.acting() as recognizer:
            return recognizer.stream(sample_rate=rate, k=_SHOWN), picture_of(recognizer)

    stream, picture = await run(begin)

    def feed(audio: bytes, is_last: bool) -> StreamResult:
        with visit.acting():
            if audio:
                stream.feed(audio)
            return stream.finish() if is_last else stream.result()

    with stream:
        buffer, received, is_last = bytearray(), 0, False
        while not is_last:
            message = await _receive(socket)
            if isinstance(message, str):
                is_last = True
            else:
                buffer += message
                received += len(message)
                is_last = received > _LONGEST_S * rate * 2
            if is_last or len(buffer) >= _BLOCK_S * rate * 2:
                # The session may have ended meanwhile.
                await find_session(socket, is_use=False, is_request=False)
                whole = len(buffer) - len(buffer) % 2
                answer = await run(feed, bytes(buffer[:whole]), is_last)
                del buffer[:whole]
                await _send(socket, _of_stream(answer, visit, picture))


async def _receive(socket: WebSocket) -> str | bytes:
    """The next message. Raises `WebSocketDisconnect`, and `TimeoutError` for a page that sends nothing."""
    message = await asyncio.wait_for(socket.receive(), _SILENCE_S)
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    content: str | bytes | None = message.get("text")
    content = message.get("bytes") if content is None else content
    if content is None or len(content) > _MESSAGE_BYTES:
        raise InvalidArgumentError(f"A message has more than {_MESSAGE_BYTES} bytes: send less at once.")
    return content


def _rate(message: str | bytes) -> int:
    """The rate of the first message. Raises `InvalidArgumentError`."""
    try:
        rate = json.loads(message)["rate"]
    except (ValueError, TypeError, KeyError, RecursionError):
        rate = None
    if not isinstance(rate, int) or not 8_000 <= rate <= 48_000:
        raise InvalidArgumentError("The first message is JSON with the rate of the audio, 8000 to 48000 Hz.")
    return rate


async def _send(socket: WebSocket, answer: dict[str, Any]) -> None:
    if socket.client_state is WebSocketState.CONNECTED:
        await socket.send_text(json.dumps(answer))


def _of_identification(found: Identification, visit: Visit, picture: ScorePicture | None) -> dict[str, Any]:
    return _answer(found.verdict, found, found.reasons, visit, picture) | {"final": True}


def _of_stream(found: StreamResult, visit: Visit, picture: ScorePicture | None) -> dict[str, Any]:
    return _answer(found.verdict, found.matches, found.reasons, visit, picture) | {
        "type": "answer",
        "decided": found.decided,
        "final": found.final,
        "audio_s": round(found.audio_s, 1),
        "net_speech_s": round(found.net_speech_s, 1),
        "feedback": [word(code) for code in found.feedback],
    }


def _answer(
    verdict: object,
    matches: Any,
    reasons: tuple[str, ...],
    visit: Visit,
    picture: ScorePicture | None,
) -> dict[str, Any]:
    rows = [_row(match, visit) for match in matches]
    score = _score(matches[0], picture) if matches else None
    return {
        "verdict": str(verdict),
        "word": word(verdict),
        "matches": rows,
        "reasons": [word(code) for code in reasons],
        "score": score,
        "x": None if score is None or picture is None else picture.x(score),
        "says": None if score is None or picture is None else sentence(score, picture),
    }


def _row(match: Match, visit: Visit) -> dict[str, Any]:
    return {
        "caller_id": match.caller_id,
        "similarity": match.similarity,
        "llr": match.llr,
        "fpir": match.fpir,
        "probability": match.probability,
        "accepted": match.accepted,
        "may_read": visit.may("enroll"),
    }


def _score(match: Match, picture: ScorePicture | None) -> float | None:
    """The score of a match on the scale of the picture."""
    if picture is None:
        return None
    return match.llr if picture.scale == "llr" else match.similarity


def sentence(score: float, picture: ScorePicture) -> str:
    """The place of a score among strangers and known callers, in words."""
    strangers, known = picture.stranger_scores, picture.known_scores
    text = (
        f"Of {len(strangers)} enrolled callers, each left out as a stranger, "
        f"{int((strangers >= score).sum())} score as high."
    )
    if len(known):
        text += f" Of {len(known)} voiceprints of known callers, {int((known <= score).sum())} score as low."
    return text
