"""The audio of a request: a file or raw samples, as the body or the field `audio` of a form; in memory."""

from __future__ import annotations

import io
import json
from typing import Annotated, Any, Final, NamedTuple

from fastapi import Depends, Query, Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from voiceprint._stages import timed
from voiceprint.audio import Encoding, Recording
from voiceprint.audio.io.encodings import AudioFormat
from voiceprint.audio.io.reader import open_stream
from voiceprint.errors import InvalidArgumentError, InvalidAudioError
from voiceprint.server.access import service_of
from voiceprint.server.problems import ProblemError

_NAME: Final = "The audio"
_FIELD_BYTES: Final = 2_000_000  # of a field: metadata is up to 1 MB as JSON, and may be escaped


class AudioQuery(NamedTuple):
    """The format of raw samples, of the query; all None for a file with a header."""

    encoding: str | None
    rate: int | None
    channel: int | None
    channels: int


async def audio_query(
    encoding: Annotated[
        Encoding | None,
        Query(description="Encoding of raw samples; leave out for a file with a header.", examples=["mulaw"]),
    ] = None,
    rate: Annotated[
        int | None,
        Query(description="Hz of raw samples, 8000 to 48000; 8000 for G.711 by default.", examples=[8000]),
    ] = None,
    channel: Annotated[
        int | None,
        Query(ge=0, le=7, description="Index of the channel to use, from 0; all are mixed without."),
    ] = None,
    channels: Annotated[int, Query(ge=1, le=8, description="Interleaved channels of raw samples.")] = 1,
) -> AudioQuery:
    """The query parameters of audio."""
    return AudioQuery(encoding, rate, channel, channels)


class Body(NamedTuple):
    """The body of a request: its audio, if there is any, and its other fields.

    audio: of a file or raw samples. fields: of a form or a JSON object.
    """

    audio: bytes | None
    fields: dict[str, Any]
    audio_format: AudioQuery
    max_audio_s: float

    @timed("decode")
    def recording(self) -> Recording:
        """The recording. Decodes it: not for the event loop. Raises `InvalidAudioError`."""
        if self.audio is None:
            raise InvalidAudioError(
                "The request has no audio: send it as the body, or as the field `audio` of a form."
            )
        if not self.audio:
            raise InvalidAudioError("The audio is empty.")
        encoding, rate, channel, channels = self.audio_format
        if encoding is None and rate is None:
            # No more is decoded: an hour of silence as FLAC is 1 MB, and takes 20 s.
            longest_s = self.max_audio_s
            recording = Recording.read(
                lambda: open_stream(io.BytesIO(self.audio or b""), _NAME, longest_s=longest_s), channel
            )
            recording.name = None  # the source of an enrollment is that of the request
        else:
            buffer = AudioFormat(rate, encoding or "pcm", channel, channels)  # type: ignore[arg-type]
            recording = Recording.from_buffer(
                self.audio, buffer.sample_rate, encoding=buffer.encoding, channel=channel, channels=channels
            )
        if recording.duration_s > self.max_audio_s:
            raise InvalidAudioError(
                f"The audio is {recording.duration_s:.0f} s long: at most {self.max_audio_s:g} s are "
                "accepted (VOICE_SERVER_MAX_AUDIO_S)."
            )
        return recording


async def read_body(request: Request, audio_format: Annotated[AudioQuery, Depends(audio_query)]) -> Body:
    """The dependency of routes that take audio, or JSON in its place."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    limit = service_of(request).settings.max_audio_s
    if kind == "multipart/form-data":
        audio, fields = await _form(request)
        # For the Idempotency-Key: of a form as it was parsed, as the boundary differs with each request.
        request.state.form_parts = audio or b"", json.dumps(fields, sort_keys=True).encode()
    else:
        try:
            content = await request.body()
        except ClientDisconnect:
            raise ProblemError(400, "RequestError", "The connection ended within the body.") from None
        if kind == "application/json":
            audio, fields = None, _json(content)
        else:
            audio, fields = content, {}
    return Body(audio, fields, audio_format, limit)


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        raise InvalidArgumentError("The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"The body is a JSON {type(value).__name__}: send an object.")
    return value


async def _form(request: Request) -> tuple[bytes | None, dict[str, Any]]:
    """The audio and the fields of a form. Fields that are JSON objects or lists are parsed."""
    parser = _InMemoryParser(request.headers, request.stream(), max_files=1, max_fields=100)
    parser.max_part_size = _FIELD_BYTES
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        message = getattr(error, "message", None) or str(error)
        raise InvalidArgumentError(f"The form cannot be read: {message}") from error
    try:
        return await _parts(form.multi_items())
    finally:
        await form.close()


async def _parts(items: list[tuple[str, UploadFile | str]]) -> tuple[bytes | None, dict[str, Any]]:
    audio: bytes | None = None
    fields: dict[str, Any] = {}
    for name, value in items:
        if isinstance(value, UploadFile):
            if name != "audio":
                raise InvalidArgumentError(f"The form has a file {name[:40]!r}: send the field `audio`.")
            audio = await value.read()
        elif name == "audio":
            raise InvalidArgumentError("The field `audio` has no file name: send it as a file.")
        else:
            fields[name] = value
    return audio, fields


class _InMemoryParser(MultiPartParser):
    # Larger ones would go into a temporary file, and audio is biometric data. `BodyLimits` bounds the memory.
    spool_max_size = 1 << 40


def parsed(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """The fields, of which the named ones may be JSON texts, as in a form. Raises `InvalidArgumentError`."""
    found = dict(fields)
    for name in names:
        if isinstance(value := found.get(name), str):
            try:
                found[name] = json.loads(value)
            except (ValueError, RecursionError):
                raise InvalidArgumentError(
                    f"The field `{name}` is not valid JSON: lists and objects are JSON in a form, such as "
                    '["amara", "bruno"].'
                ) from None
    return found
