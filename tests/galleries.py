"""Searches of a gallery without a recognizer."""

from __future__ import annotations

from numpy.typing import NDArray

from voiceprint import Match, VoiceFingerprintConfig
from voiceprint.embedder import Probe
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query


def best(gallery: Gallery, probe: NDArray, callers: int) -> list[Match]:
    """The most similar callers of a unit vector."""
    config = VoiceFingerprintConfig(similarity_threshold=0.75)
    return Identifier(gallery, config).identify(Probe(probe), Query(callers))
