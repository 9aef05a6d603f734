"""Agreement of one caller's voiceprints: copies of a recording, other people's voices, the best of many.

research/agreement.md has the figures for both limits, which hold for the embeddings of Resemblyzer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.models import RESEMBLYZER_SPACE, Voiceprint

SAME_RECORDING: Final = 0.998
"""Cosine from which two prints are of the same recording.

Copies of 5 s: 1.0 as WAV or mu-law once more; at least this in 94 % from mu-law to A-law, in 82 % as OGG.
Different recordings: at most 0.971 of 5 s, 0.977 of 10 s and 0.988 of 20 s, one following the other in a
session. A copy at another volume or with other cuts is mostly below, and only costs a slot. A lower limit
would treat long recordings of one session as copies.
"""

SAME_AUDIO: Final = 0.99999
"""Cosine from which two prints are of the same recording in a space without a measured limit.

Embedding the same samples twice gives 1 to six digits. A copy in another encoding is mostly below, and only
costs a slot. A lower limit would merge recordings of a caller in a space whose cosines are all high.
"""

ALIKE: Final = 0.7
"""Agreement from which a new print sounds like the caller's other prints.

False alarms: new prints of 5 s of the caller, of another session where the set has one, are below this with
one other print in 0.8 to 4 % on the same simulated line, and in 2 to 10 % on another (32 % between a 300 to
3400 Hz line and a noisy one); with two others in 0 to 3 % (21 %); of 10 s in none (11 %). Detections: prints
of other people are below it in 35 to 93 %, least often on the same telephone line. 0.65 has a third of the
false alarms, and 14 to 79 % detections.
"""


def same_recording(embedding: NDArray[np.float32], others: Sequence[Voiceprint]) -> Voiceprint | None:
    """The voiceprint among `others`, of the same encoder, of the recording of this embedding, or None."""
    best = max(others, key=lambda other: float(embedding @ other.embedding), default=None)
    if best is None or float(embedding @ best.embedding) < same_recording_limit(best.encoder):
        return None
    return best


def same_recording_limit(encoder: str) -> float:
    """Cosine from which two prints of this encoder are of the same recording."""
    return SAME_RECORDING if is_measured(encoder) else SAME_AUDIO


def sounds_alike(new: NDArray[np.float32], others: Sequence[Voiceprint]) -> bool:
    """Whether a new print sounds like the caller's others, at least one, of the same encoder.

    new: its unit embedding [d], or [n, d] with that for simulated lines. True for an encoder without a
    measured limit.
    """
    return not is_measured(others[0].encoder) or agreement(new, others) >= ALIKE


def is_measured(encoder: str) -> bool:
    """Whether the limits of this module were measured on the embeddings of this encoder."""
    return encoder == RESEMBLYZER_SPACE


def agreement(new: NDArray[np.float32], others: Sequence[Voiceprint]) -> float:
    """The cosine of a new print with the mean of others, -1 to 1.

    The greatest over plain and augmented embeddings, so that a caller on a clear line agrees with the same
    caller on a telephone.
    """
    means = [_mean([other.embedding for other in others])]
    augmented = [other.augmented for other in others if other.augmented is not None]
    if augmented:
        means.append(_mean(augmented))
    return float((np.atleast_2d(new) @ np.stack(means).T).max())


def _mean(embeddings: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    total = np.sum(embeddings, axis=0)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-6), dtype=np.float32)


def best_agreeing(
    embeddings: NDArray[np.float32],
    qualities: Sequence[float],
    count: int,
    encoder: str = RESEMBLYZER_SPACE,
) -> list[int]:
    """The indices, in order, of the `count` recordings of one caller that agree best.

    While there are more, the recording with the lowest mean cosine to those left is dropped: a recording of
    another person, or of a bad line, goes first. Of equal means, to two decimals, the one of the lowest
    quality is dropped, and then the later one. A copy of a retained recording stays, and does
    not count.

    embeddings: float32[n, d] of length 1, of `encoder`; qualities: `AudioQuality.score` of each.
    """
    cosines, limit = embeddings @ embeddings.T, same_recording_limit(encoder)
    originals = [int(np.argmax(row[: place + 1] >= limit)) for place, row in enumerate(cosines)]
    left = [place for place, original in enumerate(originals) if place == original]
    while len(left) > count:
        mean = {i: (cosines[i, left].sum() - cosines[i, i]) / (len(left) - 1) for i in left}
        left.remove(min(left, key=lambda i: (round(float(mean[i]), 2), qualities[i], -i)))
    return [place for place, original in enumerate(originals) if original in left]
