"""Encoders: speech to embedding. `default_encoder` is the encoder that a process shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal

from voiceprint.encoder.base import Encoder, PartialEncoder, SpeechEmbedding
from voiceprint.encoder.onnx import OnnxEncoder, OnnxInt8Encoder
from voiceprint.encoder.resemblyzer import ResemblyzerEncoder
from voiceprint.encoder.torch_encoder import Device, TorchEncoder, cuda_encoder

__all__ = [
    "Encoder",
    "OnnxEncoder",
    "OnnxInt8Encoder",
    "PartialEncoder",
    "ResemblyzerEncoder",
    "SpeechEmbedding",
    "TorchEncoder",
    "default_encoder",
]


Kind = Literal["onnx", "onnx-int8", "resemblyzer"]
"""The encoders. "onnx" and "resemblyzer" give equal embeddings, "onnx-int8" nearly equal ones."""

_KINDS: Final[dict[str, Callable[[int], Encoder]]] = {
    "onnx": OnnxEncoder,
    "onnx-int8": OnnxInt8Encoder,
    "resemblyzer": ResemblyzerEncoder,
}


def default_encoder(kind: Kind = "onnx", threads: int = 0, device: Device = "cpu") -> Encoder:
    """The encoder that recognizers of this process share; it loads at its first use.

    threads: 0 lets the encoder choose. device: "auto" is CUDA where it can be used, otherwise the CPU.

    Raises `ConfigurationError` where `device` is "cuda" and CUDA or that encoder for it is absent.
    """
    return _shared(kind, threads, device)


@lru_cache(maxsize=8)
def _shared(kind: str, threads: int, device: Device) -> Encoder:
    if device != "cpu":
        return cuda_encoder(kind, device) or _shared(kind, threads, "cpu")
    return _KINDS[kind](threads)
