"""Encoders: speech to embedding. `default_encoder` is the encoder that a process shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal

from voiceprint.encoder.base import Encoder, PartialEncoder, SpeechEmbedding
from voiceprint.encoder.external import ExternalEncoder
from voiceprint.encoder.onnx import OnnxEncoder, OnnxInt8Encoder
from voiceprint.encoder.resemblyzer import ResemblyzerEncoder

__all__ = [
    "Encoder",
    "ExternalEncoder",
    "OnnxEncoder",
    "OnnxInt8Encoder",
    "PartialEncoder",
    "ResemblyzerEncoder",
    "SpeechEmbedding",
    "default_encoder",
]


Kind = Literal["onnx", "onnx-int8", "resemblyzer"]
"""The encoders. "onnx" and "resemblyzer" give equal embeddings, "onnx-int8" nearly equal ones."""

_KINDS: Final[dict[str, Callable[[int], Encoder]]] = {
    "onnx": OnnxEncoder,
    "onnx-int8": OnnxInt8Encoder,
    "resemblyzer": ResemblyzerEncoder,
}


def default_encoder(kind: Kind = "onnx", threads: int = 0) -> Encoder:
    """The encoder that recognizers of this process share; it loads at its first use.

    threads: 0 lets the encoder choose.
    """
    return _shared(kind, threads)


@lru_cache(maxsize=8)
def _shared(kind: str, threads: int) -> Encoder:
    return _KINDS[kind](threads)
