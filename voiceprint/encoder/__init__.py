"""Speech to embedding. `default_encoder` gives the encoder that the process shares."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from voiceprint.encoder.base import Encoder
from voiceprint.encoder.onnx import OnnxEncoder
from voiceprint.encoder.resemblyzer import ResemblyzerEncoder

__all__ = ["Encoder", "OnnxEncoder", "ResemblyzerEncoder", "default_encoder"]


def default_encoder(kind: Literal["onnx", "resemblyzer"] = "onnx", threads: int = 0) -> Encoder:
    """The encoder of all recognisers of this process that were given none; it loads at its first use.

    Both kinds give the same embeddings. threads: 0 lets the encoder choose.
    """
    return _shared(kind, threads)


@lru_cache(maxsize=8)
def _shared(kind: str, threads: int) -> Encoder:
    return OnnxEncoder(threads) if kind == "onnx" else ResemblyzerEncoder(threads)
