"""The linear projection of embeddings to the axes in which speakers differ most, and its comparison.

Fitted once to speech of known speakers over several telephone lines (tools/fit_scoring.py), and applied to
galleries of other speakers, microphones and lines. Other embedding spaces use the identity: the score then
orders like the cosine of centered embeddings.

Sources: Brümmer and de Villiers, "The speaker partitioning problem", Odyssey 2010 (the two-covariance model).
Garcia-Romero and Espy-Wilson, "Analysis of i-vector length normalization", Interspeech 2011.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import cached_property
from voiceprint.errors import InvalidArgumentError

Vectors = NDArray[np.float64]

_IDENTITY_SHARE: Final = 0.5  # equal on all axes, so that the score increases with the cosine


@dataclass(frozen=True)
class Prior:
    """Statistics of the fitted speakers, blended into those of a gallery of few callers.

    mean, augmented_mean: of plain and augmented embeddings, float64[d].
    augmentation_axis: float64[d], the direction from the plain to the augmented print of clean enrollment;
        that of telephone enrollment is opposite.
    pair_mean, pair_std: of the scores of different speakers.
    """

    mean: Vectors = field(repr=False)
    augmented_mean: Vectors = field(repr=False)
    augmentation_axis: Vectors = field(repr=False)
    pair_mean: float = 0.0
    pair_std: float = 1.0


@dataclass(frozen=True)
class Projection:
    """A linear map of embeddings, and the comparison of projected embeddings.

    space: name of the embedding space.
    transform: float64[d, k]; the fitted speech has variance 1 on every axis.
    speaker_share: float64[k], over 0, below 1: the between-speaker part of that variance.
    prior: of the fitted speakers; None for the identity.
    """

    space: str
    transform: Vectors = field(repr=False)
    speaker_share: Vectors = field(repr=False)
    prior: Prior | None = field(default=None, repr=False)

    @classmethod
    def identity(cls, space: str, dimension: int) -> Projection:
        """The projection of a space without a fit."""
        return cls(space, np.eye(dimension), np.full(dimension, _IDENTITY_SHARE))

    @property
    def dimension(self) -> int:
        """Length of the embeddings, d."""
        return len(self.transform)

    def project(self, embeddings: NDArray[np.floating]) -> Vectors:
        """Project unit embeddings, float[n, d], to float64[n, k].

        Raises:
            InvalidArgumentError: another dimension.
        """
        if np.ndim(embeddings) != 2 or np.shape(embeddings)[1] != self.dimension:
            raise InvalidArgumentError(
                f"Embeddings of {self.space!r} are float32[n, {self.dimension}], not {np.shape(embeddings)}"
            )
        return np.asarray(np.asarray(embeddings, dtype=np.float64) @ self.transform)

    @cached_property
    def _transform_float32(self) -> NDArray[np.float32]:
        return self.transform.astype(np.float32)

    def normalize(self, projected: Vectors) -> Vectors:
        """Scale each row to the length sqrt(k), the expected length at variance 1."""
        lengths = np.linalg.norm(projected, axis=-1, keepdims=True)
        return np.asarray(projected * (np.sqrt(projected.shape[-1]) / np.maximum(lengths, 1e-9)))

    def compare(self, probes: Vectors, callers: Vectors) -> Vectors:
        """Scores, float64[n, m], of normalized projected embeddings, float64[n, k] and float64[m, k].

        The log-likelihood ratio of one voice against two in the two-covariance model, without its constant.
        """
        cross, square = self._weights
        return np.asarray((probes * cross) @ callers.T - (probes**2 @ square)[:, None] - callers**2 @ square)

    @cached_property
    def _weights(self) -> tuple[Vectors, Vectors]:
        """The weights of the products and of the squares in `compare`, float64[k]."""
        share = self.speaker_share
        return share / (1.0 - share**2), 0.5 * share**2 / (1.0 - share**2)

    def compare_float32(self, probe: Vectors, embeddings: NDArray[np.float32], center: Vectors) -> Vectors:
        """`compare` of a normalized projected embedding, float64[k], with embeddings, float32[n, d], less
        `center`, to five digits: float64[n], in a fifth of the time."""
        cross, square = self._weights
        projected = embeddings @ self._transform_float32
        projected -= center.astype(np.float32)
        products = projected @ (probe * cross).astype(np.float32)
        # Two sums of the squares, for the length and for the score.
        projected *= projected
        sums = projected @ np.stack([np.ones_like(square), square], axis=1).astype(np.float32)
        scale = np.sqrt(self.dimension / np.maximum(sums[:, 0], 1e-18, dtype=np.float64))
        return np.asarray(scale * products - probe**2 @ square - scale**2 * sums[:, 1])

    def save(self, path: str) -> None:
        """Write an `.npz` file. Requires a prior."""
        assert self.prior is not None  # noqa: S101  the identity is never saved
        arrays = {
            "transform": self.transform,
            "speaker_share": self.speaker_share,
            "mean": self.prior.mean,
            "augmented_mean": self.prior.augmented_mean,
            "augmentation_axis": self.prior.augmentation_axis,
            "pairs": np.array([self.prior.pair_mean, self.prior.pair_std]),
        }
        stored: dict[str, Any] = {name: array.astype(np.float32) for name, array in arrays.items()}
        np.savez_compressed(path, space=np.array(self.space), **stored)


@lru_cache(maxsize=1)
def _fitted() -> Projection:
    with as_file(files("voiceprint.scoring") / "projection.npz") as path, np.load(path) as stored:
        arrays = {name: stored[name].astype(np.float64) for name in stored.files if name != "space"}
        pair_mean, pair_std = arrays.pop("pairs").tolist()
        transform, share = arrays.pop("transform"), arrays.pop("speaker_share")
        prior = Prior(**arrays, pair_mean=pair_mean, pair_std=pair_std)
        return Projection(str(stored["space"]), transform, share, prior)


@lru_cache(maxsize=8)
def projection_for(space: str, dimension: int) -> Projection:
    """The projection of the package for a space, or the identity for a space without a fit."""
    fitted = _fitted()
    return fitted if fitted.space == space else Projection.identity(space, dimension)
