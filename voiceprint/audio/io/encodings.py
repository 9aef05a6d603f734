"""Sample encodings of buffers: arrays by their dtype, raw bytes by the name of an encoding.

The names are FFmpeg's. Telephones use G.711 "mulaw" (North America, Japan) or "alaw" (elsewhere).
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import g711
from voiceprint.audio.io.formats import file_in_buffer
from voiceprint.errors import InvalidAudioError

AudioBuffer = npt.NDArray[Any] | bytes | bytearray | memoryview
"""Audio input of the library."""

Encoding = Literal["pcm", "pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "mulaw", "alaw"]
"""The encoding of samples:

    pcm         an array by its dtype; bytes as pcm_s16le, the usual format of voice agents and telephony
    pcm_u8      unsigned 8 bits, 128 is zero
    pcm_s16le   signed, little-endian, 16 bits
    pcm_s24le   24 bits, packed: three bytes per sample
    pcm_s32le   32 bits
    pcm_f32le   float of 32 bits in [-1, 1]
    mulaw       G.711 mu-law, 8 bits (PCMU, g711_ulaw)
    alaw        G.711 A-law, 8 bits (PCMA, g711_alaw)
"""


class AudioFormat(NamedTuple):
    """The format of audio buffers; see `Recording.from_buffer` for its fields."""

    sample_rate: int | None = None
    encoding: Encoding = "pcm"
    channel: int | None = None
    channels: int = 1


PCM: Final = AudioFormat()
"""Mono, 16 bits, 16 kHz."""

_ITEMS: Final[dict[str, np.dtype[Any]]] = {
    "pcm": np.dtype("<i2"),
    "pcm_u8": np.dtype("u1"),
    "pcm_s16le": np.dtype("<i2"),
    "pcm_s24le": np.dtype("V3"),  # numpy has no 24-bit integer
    "pcm_s32le": np.dtype("<i4"),
    "pcm_f32le": np.dtype("<f4"),
    "mulaw": np.dtype("u1"),
    "alaw": np.dtype("u1"),
}
_ARRAYS: Final = ("i2", "i4", "u1", "f4", "f8")


def check_encoding(encoding: object) -> Encoding:
    """Validate an encoding.

    Raises:
        InvalidAudioError: the name is unknown; the message lists all names.
    """
    for name in get_args(Encoding):
        if isinstance(encoding, str) and encoding == name:
            return name  # type: ignore[no-any-return]
    shown = repr(encoding[:40]) if isinstance(encoding, str) else type(encoding).__name__
    raise InvalidAudioError(f"encoding must be one of {', '.join(get_args(Encoding))}, not {shown}")


def sample_bytes(encoding: Encoding) -> int:
    """Bytes per sample."""
    return _ITEMS[encoding].itemsize


def default_rate(encoding: Encoding) -> int:
    """Default sample rate in Hz: 8000 for G.711, else 16000."""
    return 8000 if encoding in ("mulaw", "alaw") else 16000


FILE_HEAD: Final = 16
"""Bytes by which the start of a file is recognized."""


def refuse_file(data: bytes | memoryview | npt.NDArray[Any]) -> None:
    """Refuse the bytes of an audio file in place of raw samples: as samples, they would be noise.

    data: a buffer, or the first chunk of a stream; fewer than `FILE_HEAD` bytes pass.

    Raises:
        InvalidAudioError: names the format.
    """
    if isinstance(data, np.ndarray):
        if data.ndim != 1 or data.dtype.str not in ("|u1", "<i2"):
            return
        data = data[:FILE_HEAD].tobytes()
    name = file_in_buffer(bytes(data[:FILE_HEAD]))
    if name is not None:
        raise InvalidAudioError(
            f"audio begins like a file, this is {name}: use load_audio(path), or the samples of the file"
        )


def coded(audio_buffer: object, encoding: Encoding) -> npt.NDArray[Any]:
    """The buffer as an array with one encoded element per sample.

    Checks types only, and copies only a bytearray, so that its owner can resize it.

    Raises:
        InvalidAudioError: the type is not accepted, or does not match the encoding.
    """
    if isinstance(audio_buffer, memoryview):
        audio_buffer = _viewed(audio_buffer)
    if isinstance(audio_buffer, bytearray):
        audio_buffer = bytes(audio_buffer)
    if isinstance(audio_buffer, bytes | memoryview):
        refuse_file(audio_buffer)
        return _from_bytes(audio_buffer, encoding)
    if not isinstance(audio_buffer, np.ndarray):
        _refuse_type(audio_buffer)
    if isinstance(audio_buffer, np.ma.MaskedArray):
        raise InvalidAudioError("audio is a masked array: fill the masked samples, audio.filled(0)")
    samples = np.asarray(audio_buffer)  # subclasses may redefine any operation
    refuse_file(samples)
    kind = samples.dtype.kind + str(samples.dtype.itemsize)
    name = "structured or text" if samples.dtype.kind in "VSU" else samples.dtype.name
    if encoding == "pcm":
        if kind not in _ARRAYS:
            raise InvalidAudioError(
                f"audio has dtype {name}: convert it to int16, int32, uint8, float32 or float64"
            )
    elif encoding == "pcm_s24le" or kind != _ITEMS[encoding].str[1:]:
        wanted = "bytes" if encoding == "pcm_s24le" else f"bytes or an array of {_ITEMS[encoding].name}"
        raise InvalidAudioError(
            f"audio has dtype {name}, which is not {encoding}: give {wanted}, or leave the encoding out"
        )
    return samples


def decoded(samples: npt.NDArray[Any], encoding: Encoding) -> npt.NDArray[Any]:
    """Decode the output of `coded`, or a part, to integers or floats of the same shape."""
    if encoding == "mulaw" or encoding == "alaw":
        return g711.decode(samples, encoding)
    if encoding != "pcm_s24le":
        return samples
    wide = np.zeros((len(samples), 4), dtype=np.uint8)
    wide[:, 1:] = samples.view(np.uint8).reshape(-1, 3)  # the upper three bytes, as little-endian
    return wide.view("<i4")[:, 0]


def _viewed(view: memoryview) -> memoryview | npt.NDArray[Any]:
    """A view of bytes unchanged; one of numbers, such as of an `array.array`, as array."""
    try:
        if view.format in ("B", "b", "c") and view.ndim == 1:
            if view.c_contiguous:
                return view.cast("B") if view.nbytes else memoryview(b"")  # empty views cannot be cast
            raise InvalidAudioError("audio is a memoryview with gaps: give bytes(view)")
        return np.asarray(view)
    except (ValueError, TypeError, BufferError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, InvalidAudioError):
            raise
        raise InvalidAudioError(f"audio is a memoryview that cannot be read ({error}): give bytes") from error


def _from_bytes(data: bytes | memoryview, encoding: Encoding) -> npt.NDArray[Any]:
    item = _ITEMS[encoding]
    if len(data) % item.itemsize:
        taken = ' (what "pcm" takes bytes for)' if encoding == "pcm" else ""
        raise InvalidAudioError(
            f"audio of {len(data)} bytes is not a whole number of samples of {8 * item.itemsize} bits"
            f"{taken}: give all of it, or its encoding"
        )
    return np.frombuffer(data, dtype=item) if len(data) else np.zeros(0, dtype=item)


def _refuse_type(value: object) -> NoReturn:
    name = type(value).__name__
    if isinstance(value, list | tuple):
        advice = "convert it with np.asarray(audio, dtype=np.float32)"
    else:
        advice = "load files with load_audio(path)" if isinstance(value, str) else "give its samples"
    raise InvalidAudioError(f"audio must be a numpy array or bytes, not {name}: {advice}")
