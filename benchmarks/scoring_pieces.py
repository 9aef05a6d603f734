"""The embeddings that robust_scoring.py compares: those that are fitted to, and the measured lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fit_gallery_model import enumerate_recordings
from fit_scoring import CLEAN, REDUCED, embedded

from voiceprint.audio.conditions import Condition
from voiceprint.audio.denoise import reduce_noise
from voiceprint.audio.lows import restore_lows
from voiceprint.encoder import default_encoder
from voiceprint.scoring import Pieces

LINES = {
    "full": "telephone:band=full,snr=20",
    "narrow": "telephone:snr=20",
    "loud": "telephone:band=full,snr=10",
    "alaw": "telephone:band=full,snr=20,law=alaw",
}
SECOND = ("full", "narrow")  # lines with another noise as well, for both sides, and simulated at enrolment
PLAIN = (
    (CLEAN, CLEAN),
    (CLEAN, "full"),
    ("full", CLEAN),
    ("full", "full 2"),
    (CLEAN, "narrow"),
    ("narrow", "narrow 2"),
)
WITHOUT_NOISE = (
    (REDUCED, REDUCED), (REDUCED, "full -"), ("full -", REDUCED), ("full -", "full 2 -"),
    (REDUCED, "narrow -"), ("narrow -", "narrow 2 -"), (REDUCED, "loud -"), (REDUCED, "alaw -"),
    (CLEAN, "full -"),
)  # fmt: skip
SIMULATED = ("full 3 -", "narrow 3 -")


def all_pieces(folder: Path) -> Pieces:
    """Those that are fitted to, and the measured lines; "-" is cleaned."""
    fitted, _ = embedded(folder)
    encoder = default_encoder()
    made: dict[str, list[Any]] = {}
    for _, (_, audio) in enumerate_recordings(folder):
        heard = {name: Condition.parse(line).apply(audio, 1) for name, line in LINES.items()}
        for number in (2, 3):
            heard |= {
                f"{name} {number}": Condition.parse(LINES[name]).apply(audio, number) for name in SECOND
            }
        heard |= {f"{name} -": restore_lows(reduce_noise(one)) for name, one in heard.items()}
        for name, vector in zip(heard, encoder.embed_batch(list(heard.values())), strict=True):
            made.setdefault(name, []).append(vector)
    vectors = dict(fitted.vectors) | {name: np.stack(one) for name, one in made.items()}
    return Pieces(vectors, fitted.speakers)


def wide(condition: str) -> bool:
    """Whether no line limits the band: to be seen in the spectrum of the audio."""
    return condition in (CLEAN, REDUCED)


def short(pair: tuple[str, str]) -> str:
    """The heading of a column."""
    return " > ".join("clean" if name in (CLEAN, REDUCED) else name.removesuffix(" -") for name in pair)
