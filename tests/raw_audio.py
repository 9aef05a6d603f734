"""Audio without a header, as libsndfile writes it: the reference for what ours must read."""

from __future__ import annotations

import io
from typing import Any

import pytest
import soundfile

from voiceprint.audio import Encoding

# Each encoding with what libsndfile calls it.
SUBTYPES: dict[Encoding, str] = {
    "pcm_u8": "PCM_U8",
    "pcm": "PCM_16",
    "pcm_s16le": "PCM_16",
    "pcm_s24le": "PCM_24",
    "pcm_s32le": "PCM_32",
    "pcm_f32le": "FLOAT",
    "mulaw": "ULAW",
    "alaw": "ALAW",
}
every_encoding = pytest.mark.parametrize("encoding", SUBTYPES)


def raw(samples: Any, encoding: Encoding, rate: int = 8000) -> bytes:
    """`samples` in [-1, 1] as libsndfile writes them without a header."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="RAW", subtype=SUBTYPES[encoding], endian="LITTLE")
    return file.getvalue()
