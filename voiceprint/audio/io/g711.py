"""G.711, the coding of telephone lines: 8-bit mu-law and A-law codes to 16-bit samples and back.

Source: ITU-T Recommendation G.711 (11/88), "Pulse code modulation (PCM) of voice frequencies",
tables 1a/1b (A-law) and 2a/2b (mu-law). A code is a sign bit, three bits of segment (each twice as
coarse as the one below) and four bits of step within it, sent with all bits inverted (mu-law) or
every second one (A-law). The recommendation's values have 14 bits with their sign (mu-law) and 13
(A-law); this module shifts them up to 16, so the loudest codes decode to 32124 and 32256.

Encoding truncates the magnitude to the recommendation's precision and selects its interval, as libsndfile
does, the same for both signs. (SoX rounds first, which moves 383 and 1147 of the 65536 samples, all at the
border of two intervals, to the neighboring code.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from voiceprint.errors import InvalidAudioError

_T = TypeVar("_T", bound=np.generic)

Law = Literal["mulaw", "alaw"]

Codes = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]

_MULAW_BIAS: Final = 33  # added to a magnitude, so that each segment starts at a power of two
_MULAW_TOP: Final = 8191  # the biased magnitude at which mu-law clips, 14 bits with the sign
_ALAW_EVEN_BITS: Final = 0x55
_SIGN: Final = 0x80
_BLOCK: Final = 1 << 20  # codes decoded together


def decode(codes: Codes, law: Law) -> Samples:
    """Decode uint8 codes to int16 samples of the same shape.

    Raises:
        InvalidAudioError: `codes` is not an array of uint8, or `law` is neither "mulaw" nor "alaw".
    """
    _check(codes, np.uint8, law)
    flat, table = codes.reshape(-1), _decoded(law)
    decoded = np.empty(flat.shape, dtype=np.int16)
    # In blocks: numpy converts the indices to int64, 230 MB for an hour.
    for start in range(0, len(flat), _BLOCK):
        decoded[start : start + _BLOCK] = np.take(table, flat[start : start + _BLOCK])
    return decoded.reshape(codes.shape)


def encode(samples: Samples, law: Law) -> Codes:
    """Encode int16 samples, at 8 kHz on a telephone line, to uint8 codes of the same shape.

    Raises:
        InvalidAudioError: `samples` is not an array of int16, or `law` is neither "mulaw" nor "alaw".
    """
    _check(samples, np.int16, law)
    return np.take(_encoded(law), samples.astype(np.uint16))  # -1 is the last of 65536 entries


def _check(values: object, dtype: type[np.generic], law: object) -> None:
    if law not in ("mulaw", "alaw"):
        raise InvalidAudioError('G.711 has the laws "mulaw" and "alaw": give one of them')
    if not isinstance(values, np.ndarray) or values.dtype.newbyteorder("=") != dtype:
        kind = f"array of {values.dtype.name}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InvalidAudioError(f"G.711 needs an array of {dtype.__name__}, not {kind}")


@lru_cache(maxsize=2)
def _decoded(law: Law) -> Samples:
    """int16[256]: the sample of every code."""
    code = np.arange(256)
    if law == "mulaw":
        bits = code ^ 0xFF
        segment, step = bits >> 4 & 7, bits & 15
        size = ((2 * step + _MULAW_BIAS << segment) - _MULAW_BIAS) << 2
        negative = bits & _SIGN > 0
    else:
        bits = code ^ _ALAW_EVEN_BITS
        segment, step = bits >> 4 & 7, bits & 15
        # The two lowest segments have equal steps: the lowest lacks the leading bit of the others.
        size = (2 * step + 1 + 32 * (segment > 0) << np.maximum(segment - 1, 0)) << 3
        negative = bits & _SIGN == 0
    return _read_only(np.where(negative, -size, size).astype(np.int16))


@lru_cache(maxsize=2)
def _encoded(law: Law) -> Codes:
    """uint8[65536]: the code of every sample, by its bits as an unsigned number."""
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    if law == "mulaw":
        size = np.minimum((np.abs(sample) >> 2) + _MULAW_BIAS, _MULAW_TOP)
        segment = _bit_length(size) - 6
        bits = (sample < 0) * _SIGN | segment << 4 | size >> segment + 1 & 15
        code = bits ^ 0xFF
    else:
        size = np.minimum(np.abs(sample) >> 3, 4095)
        segment = np.maximum(_bit_length(size) - 5, 0)
        bits = (sample >= 0) * _SIGN | segment << 4 | size >> np.maximum(segment, 1) & 15
        code = bits ^ _ALAW_EVEN_BITS
    return _read_only(code.astype(np.uint8))


def _bit_length(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return np.frexp(values.astype(np.float64))[1].astype(np.int32)


def _read_only(table: npt.NDArray[_T]) -> npt.NDArray[_T]:
    table.flags.writeable = False  # callers share it
    return table
