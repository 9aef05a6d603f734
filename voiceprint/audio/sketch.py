"""Sketches: a few fingerprints of a recording, by which copies of it are found.

Of all fingerprints of the speech, those with the least hash: a copy has the same fingerprints, and so mostly
the same least ones, wherever it begins (bottom-k sketch, after Broder, "On the resemblance and containment of
documents", 1997). A sketch takes 256 bytes, and is stored with a voiceprint. It identifies a recording;
neither the voice nor the words can be derived from it.
"""

from __future__ import annotations

import base64
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.fingerprints import Fingerprint

SKETCH: Final = 64
"""Fingerprints of a sketch, 4 bytes each. Doubled, copies in noise at 10 dB are found more often, and a
voiceprint takes 256 bytes more."""

SAME_FINGERPRINTS: Final = 6
"""Fingerprints that two sketches share from which they are of one recording. Those of different recordings
share at most 2, of a copy without noise 15 and more. Doubled, half of the copies in noise at 20 dB are missed."""

_HASH: Final = np.uint32(2654435761)  # Knuth's multiplicative hash: 2^32 by the golden ratio


def sketch_of(fingerprint: Fingerprint) -> str:
    """The sketch of a recording: base64 of up to 64 little-endian uint32, ascending; "" without speech."""
    bits = np.unique(fingerprint.bits[fingerprint.loud])
    least = np.sort(bits[np.argsort(bits * _HASH, kind="stable")[:SKETCH]])
    return base64.b64encode(least.astype("<u4").tobytes()).decode("ascii")


def is_same_recording(first: str, second: str) -> bool:
    """Whether two sketches are of one recording."""
    return shared_fingerprints(first, second) >= SAME_FINGERPRINTS


def shared_fingerprints(first: str, second: str) -> int:
    """The number of fingerprints that two sketches share, 0 to `SKETCH`."""
    return len(np.intersect1d(_decoded(first), _decoded(second), assume_unique=True))


def _decoded(sketch: str) -> NDArray[np.uint32]:
    return np.frombuffer(base64.b64decode(sketch), dtype="<u4")
