"""Speech to embedding. `default_encoder` gives the encoder that the process shares."""

from __future__ import annotations

from voiceprint.encoder.base import Encoder
from voiceprint.encoder.resemblyzer import ResemblyzerEncoder

__all__ = ["Encoder", "ResemblyzerEncoder", "default_encoder"]

_DEFAULT = ResemblyzerEncoder()  # costs nothing until it is used


def default_encoder() -> Encoder:
    """The encoder of all recognisers of this process that were given none; it loads at its first use."""
    return _DEFAULT
