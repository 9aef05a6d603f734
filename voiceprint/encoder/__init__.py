"""Encoders: speech to embedding. `default_encoder` is the encoder that a process shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from voiceprint.config import EncoderSpec, VoiceFingerprintConfig
from voiceprint.encoder.base import Encoder, PartialEncoder, SpeechEmbedding, SpeechEncoder
from voiceprint.encoder.external import ExternalEncoder
from voiceprint.encoder.model_encoder import ModelEncoder
from voiceprint.encoder.model_file import absolute_path
from voiceprint.encoder.onnx import OnnxEncoder, OnnxInt8Encoder
from voiceprint.encoder.onnx_file import OnnxFileEncoder
from voiceprint.encoder.resemblyzer import ResemblyzerEncoder
from voiceprint.encoder.sherpa import SherpaEncoder
from voiceprint.encoder.torch_encoder import Device, TorchEncoder, cuda_encoder
from voiceprint.errors import ConfigurationError
from voiceprint.validation import shown

__all__ = [
    "Encoder",
    "ExternalEncoder",
    "OnnxEncoder",
    "OnnxFileEncoder",
    "OnnxInt8Encoder",
    "PartialEncoder",
    "ResemblyzerEncoder",
    "SherpaEncoder",
    "SpeechEmbedding",
    "SpeechEncoder",
    "TorchEncoder",
    "configured_encoder",
    "default_encoder",
    "secondary_encoder",
]

_BUILT_IN: Final[dict[str, Callable[[int], Encoder]]] = {
    "onnx": OnnxEncoder,
    "onnx-int8": OnnxInt8Encoder,
    "resemblyzer": ResemblyzerEncoder,
}
_FROM_FILE: Final[dict[str, type[ModelEncoder]]] = {"onnx": OnnxFileEncoder, "sherpa": SherpaEncoder}


def default_encoder(
    spec: str = "onnx", threads: int = 0, sha256: str | None = None, device: Device = "cpu"
) -> Encoder:
    """The encoder that recognizers of this process share; it loads at its first use.

    spec: "onnx", "onnx-int8" or "resemblyzer", which give nearly equal embeddings; or "sherpa:PATH" or
        "onnx:PATH", the file of a speaker model.
    threads: 0 lets the encoder choose. sha256: digest that the file must have, 64 hex digits; None for any.
    device: "auto" is CUDA where it can be used, otherwise the CPU.

    Raises `ConfigurationError` for another spec, a digest without a file, or where `device` is "cuda" and
    CUDA or that encoder for it is absent; and `EncoderError` for a file that cannot be used.
    """
    try:
        program, path = EncoderSpec.parse(spec)
    except ValueError as error:
        raise ConfigurationError(f"The encoder is {shown(spec)}: {error}.") from None
    if path is None and sha256 is not None:
        raise ConfigurationError(
            f"VOICE_ENCODER_SHA256 is set, and VOICE_ENCODER is {program!r}, which is no file: set "
            "VOICE_ENCODER=sherpa:PATH, or unset the digest."
        )
    # The absolute path, because a relative one names another file after a change of the folder.
    return _shared(program, None if path is None else absolute_path(path), threads, sha256, device)


def configured_encoder(config: VoiceFingerprintConfig) -> Encoder:
    """The `default_encoder` of the settings."""
    return default_encoder(
        config.encoder, config.encoder_threads, config.encoder_sha256, config.encoder_device
    )


def secondary_encoder(config: VoiceFingerprintConfig) -> Encoder | None:
    """The encoder of `encoder_secondary`, None without one. On the CPU, where CUDA is for the other alone."""
    spec = config.encoder_secondary
    if spec is None:
        return None
    return default_encoder(spec, config.encoder_threads, config.encoder_secondary_sha256)


@lru_cache(maxsize=8)
def _shared(program: str, path: str | None, threads: int, sha256: str | None, device: Device) -> Encoder:
    if device != "cpu":
        kind = program if path is None else f"{program}:{path}"
        return cuda_encoder(kind, device) or _shared(program, path, threads, sha256, "cpu")
    return _BUILT_IN[program](threads) if path is None else _FROM_FILE[program](path, threads, sha256)
