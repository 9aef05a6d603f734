"""Speech to embedding. `default_encoder` gives the encoder that the process shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal

from voiceprint.encoder.base import Encoder, PartialEncoder, SpeechEmbedding
from voiceprint.encoder.onnx import OnnxEncoder, OnnxInt8Encoder
from voiceprint.encoder.resemblyzer import ResemblyzerEncoder

__all__ = [
    "Encoder",
    "OnnxEncoder",
    "OnnxInt8Encoder",
    "PartialEncoder",
    "ResemblyzerEncoder",
    "SpeechEmbedding",
    "default_encoder",
]


Kind = Literal["onnx", "onnx-int8", "resemblyzer"]
"""How embeddings are computed; "onnx-int8" gives nearly the same as the others, which give the same."""

_KINDS: Final[dict[str, Callable[[int], Encoder]]] = {
    "onnx": OnnxEncoder,
    "onnx-int8": OnnxInt8Encoder,
    "resemblyzer": ResemblyzerEncoder,
}


def default_encoder(kind: Kind = "onnx", threads: int = 0) -> Encoder:
    """The encoder of all recognizers of this process that were given none; it loads at its first use.

    threads: 0 lets the encoder choose.
    """
    return _shared(kind, threads)


@lru_cache(maxsize=8)
def _shared(kind: str, threads: int) -> Encoder:
    return _KINDS[kind](threads)
