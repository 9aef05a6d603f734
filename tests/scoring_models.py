"""Voices of a known Gaussian model, and small backends fitted to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.scoring import Backend, Pieces, fit_backend

DIMENSION = 12


def voices(
    speakers: int, each: int, *, seed: int = 1, within: float = 0.1, shift: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings float32[n, 12], and their speakers; shift: of all recordings, as a line would."""
    chance = np.random.default_rng(seed)
    centre, line = np.full(DIMENSION, 1.0), np.eye(DIMENSION)[0]
    points = np.repeat(centre + 0.3 * chance.standard_normal((speakers, DIMENSION)), each, axis=0)
    points += within * chance.standard_normal(points.shape) + shift * line
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), np.repeat(np.arange(speakers), each)


def pieces(speakers: int = 40, seed: int = 1) -> Pieces:
    """Each voice three times, clean and through a line."""
    clean, numbers = voices(speakers, 3, seed=seed)
    noisy, _ = voices(speakers, 3, seed=seed, within=0.15, shift=0.5)
    return Pieces({"clean": clean, "line": noisy}, numbers)


def fitted(speakers: int = 40, seed: int = 1) -> Backend:
    pairs = (("clean", "clean"), ("clean", "line"))
    return fit_backend(pieces(speakers, seed), encoder="toy", pairs=pairs, tail_pairs=pairs, seed=seed)
