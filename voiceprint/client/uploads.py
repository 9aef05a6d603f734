"""Audio as the body of a request: lossless, in the encoding in which it is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import AudioBuffer, Recording
from voiceprint.audio.io.buffers import rate_of, selected
from voiceprint.audio.io.encodings import AudioFormat, Encoding
from voiceprint.errors import InvalidAudioError

Audio = AudioBuffer | Recording | os.PathLike[str]
"""Audio input of the client: as of the recognizer, or the path of a file."""

_ENCODINGS: Final[Mapping[str, tuple[Encoding, str]]] = {
    "i2": ("pcm_s16le", "<i2"),
    "i4": ("pcm_s32le", "<i4"),
    "u1": ("pcm_u8", "u1"),
    "f4": ("pcm_f32le", "<f4"),
    "f8": ("pcm_f32le", "<f4"),  # the first step of the conversion is float32 in any case
}
"""The encoding and dtype on the wire of arrays that are PCM."""


class Upload(NamedTuple):
    """The bytes of audio, the parameters of the query that describe them, and the path of their file."""

    content: bytes
    query: dict[str, str]
    file: str | None = None


def upload_of(audio: Audio, audio_format: AudioFormat) -> Upload:
    """The upload of audio; a file is sent as it is. Raises `InvalidAudioError`."""
    if isinstance(audio, os.PathLike):
        return _file(Path(audio), audio_format)
    if isinstance(audio, Recording):
        recording = Recording.from_buffer(audio, *audio_format)  # refuses a choice of channels
        samples, axis = selected(recording.source, recording.sample_rate, "pcm", None, 1)
        return _array(samples, axis, "pcm", recording.sample_rate)._replace(file=recording.name)
    rate, encoding, channel, channels = audio_format
    return _array(*selected(audio, rate_of(rate, encoding), encoding, channel, channels), encoding, rate)


def _file(path: Path, audio_format: AudioFormat) -> Upload:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidAudioError(f"{path} cannot be read: {error.strerror or error}.") from error
    query: dict[str, Any] = {}
    if audio_format.encoding != "pcm":
        query = {"encoding": audio_format.encoding, "channels": audio_format.channels}
    query |= {"rate": audio_format.sample_rate, "channel": audio_format.channel}
    return Upload(content, {k: str(v) for k, v in query.items() if v is not None}, str(path))


def _array(samples: NDArray[Any], axis: int | None, encoding: Encoding, rate: int | None) -> Upload:
    """Encoded samples; axis: of their channels, None for 1-D."""
    if encoding == "pcm":
        encoding, dtype = _ENCODINGS[samples.dtype.kind + str(samples.dtype.itemsize)]
        with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, which the service refuses
            samples = samples.astype(dtype, copy=False)
    query = {"encoding": encoding} | ({} if rate is None else {"rate": str(rate)})
    if axis is not None:
        query["channels"] = str(samples.shape[axis])
        samples = np.moveaxis(samples, axis, -1)
    return Upload(samples.tobytes(), query)
