"""The embeddings that accuracy.py measures: pieces of 5 s as the product enrols and hears them.

Of each condition there are "NAME plain", the embedding; "NAME best", the one without noise, where it is
noisy; and for enrolment "NAME second", the print that the product keeps beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from as_heard import best, second
from fit_gallery_model import PIECE_S, enumerate_recordings
from fit_scoring import embedded
from lines import random_line
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, assess
from voiceprint.audio.conditions import Condition
from voiceprint.encoder import default_encoder
from voiceprint.scoring import Pieces

LINES = {
    "clean": ("as-is", 1),
    "full": ("telephone:band=full,snr=20", 1),
    "narrow": ("telephone:snr=20", 1),
    "full 2": ("telephone:band=full,snr=20", 2),  # the same line on another day
    "narrow 2": ("telephone:snr=20", 2),
}
ENROLLED = ("clean", "full", "narrow")
HEARD = ("clean", "full 2", "narrow 2")  # in other durations
DURATIONS_S = (2, 3, 10)
SPOILT = 2  # versions of each piece, of all qualities
QUALITY = "quality"

Audio = NDArray[np.float32]


def all_pieces(folder: Path) -> Pieces:
    """Those that are fitted to, and those that are measured. What has no embedding is NaN."""
    fitted, _ = embedded(folder)
    parts = list(enumerate_recordings(folder))
    made: dict[str, list[Any]] = {}
    for place, (recording, (_, audio)) in enumerate(parts):
        nearby = parts[place + 1 : place + 2]
        longer = np.concatenate([audio, nearby[0][1][1]]) if nearby and nearby[0][0] == recording else None
        for name, vector in versions_of(audio, longer, place):
            made.setdefault(name, []).append(vector)
    if len(parts) != len(fitted.speakers):
        sys.exit("A piece has no speech.")
    vectors = dict(fitted.vectors) | {name: np.stack(one).astype(np.float32) for name, one in made.items()}
    return Pieces(vectors, fitted.speakers)


def versions_of(audio: Audio, longer: Audio | None, place: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """All of a piece; longer: with the next of its recording, where there is one."""
    encoder = default_encoder()
    for name, (line, seed) in LINES.items():
        heard = Condition.parse(line).apply(audio, seed)
        plain = encoder.embed(heard)
        yield f"{name} plain", plain
        yield f"{name} best", best(heard, plain)
        if name in ENROLLED:
            yield f"{name} second", second(heard, plain)
        if name in HEARD:
            for seconds in DURATIONS_S:
                part = audio[: seconds * SAMPLE_RATE] if seconds <= PIECE_S else longer
                missing = np.full(encoder.dimension, np.nan, dtype=np.float32)
                found = missing if part is None else best(Condition.parse(line).apply(part, seed))
                yield f"{name}, {seconds} s", found
    for number in range(SPOILT):
        chance = np.random.default_rng([11, place, number])
        heard = spoilt(audio, chance)
        score = np.full(encoder.dimension, assess(heard).score, dtype=np.float32)
        yield f"{QUALITY} {number}", score
        yield f"spoilt {number}", best(heard)


def spoilt(audio: Audio, chance: np.random.Generator) -> Audio:
    """A piece cut shorter, half of them through a line, in noise, some of them clipped."""
    heard = audio[: round(chance.uniform(1.0, PIECE_S) * SAMPLE_RATE)]
    if chance.random() < 0.5:
        heard = random_line(heard, chance)
    level = float(np.sqrt(np.mean(heard**2)))
    noise = chance.standard_normal(len(heard)) * level * 10.0 ** (-chance.uniform(2.0, 40.0) / 20.0)
    heard = (heard + noise).astype(np.float32)
    if chance.random() < 0.3:
        heard = np.clip(heard * chance.uniform(2.0, 12.0) / np.abs(heard).max(), -1.0, 1.0)
    return np.clip(heard, -1.0, 1.0).astype(np.float32)
