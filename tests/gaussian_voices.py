"""Voices of a known Gaussian model, as unit embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.scoring import CallerPrints, Projection

DIMENSION = 12
IDENTITY = Projection.identity("toy", DIMENSION)


def voices(
    speakers: int, each: int, *, seed: int = 1, within: float = 0.1, shift: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings float32[n, 12], and their speakers; shift: of all recordings, as a line would."""
    chance = np.random.default_rng(seed)
    center, line = np.full(DIMENSION, 1.0), np.eye(DIMENSION)[0]
    points = np.repeat(center + 0.3 * chance.standard_normal((speakers, DIMENSION)), each, axis=0)
    points += within * chance.standard_normal(points.shape) + shift * line
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), np.repeat(np.arange(speakers), each)


def callers(speakers: int, *, each: int = 1, seed: int = 1, augmented: bool = False) -> list[CallerPrints]:
    """Enrolled callers, with or without augmented prints; voices of one seed are of the same speakers."""
    plain = voices(speakers, each, seed=seed)[0].reshape(speakers, each, DIMENSION)
    line = voices(speakers, each, seed=seed, shift=0.5)[0].reshape(plain.shape)
    return [CallerPrints(a, b if augmented else b[:0]) for a, b in zip(plain, line, strict=True)]
