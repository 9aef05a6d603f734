"""Sketches: a few fingerprints of a recording, by which copies of it are found.

Of all fingerprints of the speech, those with the least hash: a copy has the same fingerprints, and so mostly
the same least ones, wherever it begins (bottom-k sketch, after Broder, "On the resemblance and containment of
documents", 1997). A sketch takes 256 bytes, and is stored with a voiceprint. It identifies a recording;
neither the voice nor the words can be derived from it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.fingerprints import Fingerprint
from voiceprint.errors import InvalidArgumentError

SKETCH: Final = 64
"""Fingerprints of a sketch, 4 bytes each. Doubled, copies in noise at 10 dB are found more often, and a
voiceprint takes 256 bytes more."""

SAME_FINGERPRINTS: Final = 6
"""Fingerprints that two sketches share from which they are of one recording. Those of different recordings
share at most 2, of a copy without noise 15 and more. Doubled, half of the copies in noise at 20 dB are
missed."""

_HASH: Final = np.uint32(2654435761)  # Knuth's multiplicative hash: 2^32 by the golden ratio


def sketch_of(fingerprint: Fingerprint) -> str:
    """The sketch of a recording: base64 of up to 64 little-endian uint32, ascending; "" without speech."""
    bits = np.unique(fingerprint.bits[fingerprint.loud])
    least = np.sort(bits[np.argsort(bits * _HASH, kind="stable")[:SKETCH]])
    return base64.b64encode(least.astype("<u4").tobytes()).decode("ascii")


def check_sketch(sketch: str) -> None:
    """Raise `InvalidArgumentError` for a text that is no sketch."""
    try:
        sound = len(base64.b64decode(sketch, validate=True)) in range(0, 4 * SKETCH + 1, 4)
    except ValueError:  # not chained: it quotes the text
        sound = False
    if not sound:
        raise InvalidArgumentError(
            f"A sketch is base64 of up to {SKETCH} numbers of 4 bytes, and this text is not."
        )


def is_copy_of_any(sketch: str, others: Sequence[str]) -> bool:
    """Whether the recording of a sketch is that of another sketch, or a copy of it."""
    return bool((shared_fingerprints(sketch, others) >= SAME_FINGERPRINTS).any())


def shared_fingerprints(sketch: str, others: Sequence[str]) -> NDArray[np.int64]:
    """The number of fingerprints, 0 to `SKETCH`, that a sketch shares with each of the others."""
    raw = [base64.b64decode(other) for other in others]
    owners = np.repeat(np.arange(len(raw)), [len(one) // 4 for one in raw])
    shared = np.isin(_decoded(b"".join(raw)), _decoded(base64.b64decode(sketch)))
    return np.bincount(owners[shared], minlength=len(raw))


def _decoded(raw: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(raw, dtype="<u4")
