"""The model of voices behind the scores: probabilistic linear discriminant analysis, two covariances.

A unit embedding, its values raised to a power, is mean + voice + recording. Voices and recordings (what was
said, on which line, in which noise) are Gaussians, so that in the right coordinates every dimension stands
alone: there the recordings vary by 1 and the voices by `between`. Whether two embeddings are of one voice is
then a ratio of likelihoods that is known in closed form, for one print of a caller or several.

Source: Brümmer and de Villiers, "The speaker partitioning problem", Odyssey 2010. The power: the values are
never negative and many of them near 0, unlike a Gaussian's, which a power under 1 mends; so do Perronnin,
Sánchez and Mensink, "Improving the Fisher kernel for large-scale image classification", ECCV 2010.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError

Matrix = NDArray[np.float64]
Numbers = NDArray[np.integer]
Real = TypeVar("Real", bound=np.floating)

# Of the real callers whom the log ratio put first among a million generated ones, the nearest 50 prints of
# such a query missed 4.9 %; without the mean 11.0 %, with as much of it as of the gradient 9.7 % (by a model
# without a power; what is missed with it: benchmarks/candidates.py).
_MEAN_IN_QUERY = 0.5


@dataclass(frozen=True)
class Plda:
    """mean: float64[d]. transform: float64[d, k], embedding to coordinates. between: float64[k], > 0.

    power: that values are raised to first, over 0 to 1; those below 0 count as 0, unless it is 1.
    """

    mean: Matrix = field(repr=False)
    transform: Matrix = field(repr=False)
    between: Matrix = field(repr=False)
    power: float = 1.0

    def coordinates(self, embeddings: NDArray[np.floating]) -> Matrix:
        """float64[n, k] of embeddings, float[n, d], of any length > 0 each: only directions count."""
        vectors = raised(np.asarray(embeddings, dtype=np.float64), self.power)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():  # NaN as well
            raise InvalidArgumentError(
                "An embedding of length 0 or with values that are no numbers: no voice"
            )
        return np.asarray((vectors / lengths - self.mean) @ self.transform)

    def rough_coordinates(self, embeddings: NDArray[np.float32]) -> Matrix:
        """`coordinates` of unit embeddings, to six digits in less than half of the time."""
        mean, transform = self._rough
        if self.power != 1.0:
            embeddings = raised(embeddings, self.power)
            embeddings /= np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))[:, None]
        return np.asarray((embeddings - mean) @ transform, dtype=np.float64)

    @cached_property
    def _rough(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.mean.astype(np.float32), self.transform.astype(np.float32)

    def log_ratio(self, means: Matrix, counts: Numbers, probe: Matrix) -> Matrix:
        """ln of p(prints and probe | one voice) / p(prints and probe | two), float64[callers].

        means: of the coordinates of each caller's prints, float64[callers, k]. counts: of prints that each
        mean stands for, int[callers]. probe: coordinates, float64[k].
        """
        shares = np.asarray(counts, dtype=np.float64)[:, None] * self.between
        shares /= shares + 1.0
        expected = means * shares
        # What is not known of the voice after so many prints, and the recording of the probe.
        spread = self._spread(shares)
        alone = self.between + 1.0
        return np.asarray(
            0.5 * (np.log(alone / spread) + probe**2 / alone - (probe - expected) ** 2 / spread).sum(axis=1)
        )

    def log_ratios(self, means: Matrix, probes: Matrix, of_caller: Matrix | None = None) -> Matrix:
        """`log_ratio` of every probe, float64[n, k], with every caller by one print: float64[n, callers].

        of_caller: `shares_of_callers` of the means, where it is known.
        """
        shares = self.between / (self.between + 1.0)
        spread, alone = self._spread(shares), self.between + 1.0
        of_probe = 0.5 * (np.log(alone / spread) + probes**2 / alone - probes**2 / spread).sum(axis=1)
        if of_caller is None:
            of_caller = self.shares_of_callers(means)
        return np.asarray((probes * (shares / spread)) @ means.T + of_probe[:, None] - of_caller)

    def shares_of_callers(self, means: Matrix) -> Matrix:
        """What each caller takes off the `log_ratios` with any probe, float64[callers]."""
        shares = self.between / (self.between + 1.0)
        return np.asarray(0.5 * (means**2 @ (shares**2 / self._spread(shares))))

    def index_vectors(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        """Unit vectors float32[n, k] whose cosines propose those callers whom the log ratio puts first.

        For an index of prints, and for the probe that searches it: coordinates, weighed as the log ratio
        weighs their products. Of the callers that it puts first among 60,000, none was missed by the nearest
        50; the cosine of the embeddings missed up to one in six: benchmarks/robust_scoring.py.
        """
        shares = self.between / (self.between + 1.0)
        weighed = self.coordinates(embeddings) * np.sqrt(shares / self._spread(shares))
        lengths = np.linalg.norm(weighed, axis=1, keepdims=True)
        return np.asarray(weighed / np.maximum(lengths, 1e-12), dtype=np.float32)

    def query(self, probe: Matrix) -> NDArray[np.float32]:
        """The unit vector, float32[d], to search an index of plain embeddings with; probe: coordinates.

        It is the gradient of the log ratio at the print that the probe makes one expect, and some of the mean
        of all voices in place of what a gradient leaves out, that prints far from it are less likely: second
        to `index_vectors`, where the index is to stay as it is. Values count as their powers: with the slope
        of the power, at the mean of all or at the probe, more were missed.
        """
        shares = self.between / (self.between + 1.0)
        gradient = self.transform @ (probe * (1.0 - shares**2) * shares / self._spread(shares))
        return np.asarray(_unit(_unit(gradient) + _MEAN_IN_QUERY * _unit(self.mean)), dtype=np.float32)

    def _spread(self, shares: Matrix) -> Matrix:
        """How a probe varies around what is expected after the prints: voice and recording."""
        return np.asarray(self.between * (1.0 - shares) + 1.0)


def _unit(vector: Matrix) -> Matrix:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def fit_plda(
    embeddings: NDArray[np.floating],
    speakers: Numbers,
    *,
    within_shrinkage: float,
    between_shrinkage: float,
    dimensions: int | None = None,
    power: float = 1.0,
) -> Plda:
    """The model of embeddings, float[n, d], and the numbers of their speakers, int[n].

    Each speaker counts alike. The covariances of few speakers are mostly chance in most directions, so
    each is drawn towards one that is the same in all directions (Ledoit and Wolf 2004), by so large a
    share, 0..1. Embeddings of one piece of speech on several lines are recordings of one speaker as well.

    Raises:
        InvalidArgumentError: fewer than two speakers, or none with two embeddings.
    """
    vectors = raised(np.asarray(embeddings, dtype=np.float64), power)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if vectors.ndim != 2 or len(vectors) != len(speakers) or not (lengths > 0).all():
        raise InvalidArgumentError("A fit takes embeddings, float[n, d] of length > 0, and n speakers")
    vectors = vectors / lengths
    _, numbers, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    several = counts > 1
    if len(counts) < 2 or not several.any():
        raise InvalidArgumentError(
            f"A fit takes two speakers or more, some with two embeddings or more, not {len(counts)} speakers "
            f"with at most {int(counts.max(initial=0))}"
        )
    means = np.zeros((len(counts), vectors.shape[1]))
    np.add.at(means, numbers, vectors)
    means /= counts[:, None]
    mean = means.mean(axis=0)
    rest = vectors - means[numbers]
    weights = np.where(several, 1.0 / np.maximum(counts - 1, 1), 0.0)[numbers] / several.sum()
    within = shrunk((rest * weights[:, None]).T @ rest, within_shrinkage)
    between = shrunk((means - mean).T @ (means - mean) / (len(counts) - 1), between_shrinkage)
    whiten = np.linalg.cholesky(np.linalg.inv(within))
    values, directions = np.linalg.eigh(whiten.T @ between @ whiten)
    kept = slice(None, None, -1) if dimensions is None else slice(-1, -dimensions - 1, -1)
    return Plda(mean, whiten @ directions[:, kept], np.maximum(values[kept], 1e-6), power)


def raised(embeddings: NDArray[Real], power: float) -> NDArray[Real]:
    """Of the same shape and precision; values below 0 count as 0, unless the power is 1."""
    if power == 1.0:
        return embeddings
    vectors = np.maximum(embeddings, 0.0, dtype=embeddings.dtype)
    if power != 0.75:
        return np.asarray(vectors**power, dtype=embeddings.dtype)
    roots = np.sqrt(vectors)  # the package's power, at a twentieth of the time that a power takes
    return np.asarray(roots * np.sqrt(roots), dtype=embeddings.dtype)


def shrunk(covariance: Matrix, share: float) -> Matrix:
    """The covariance drawn towards one that is the same in all directions, by a share of 0..1."""
    if not 0.0 <= share <= 1.0:
        raise InvalidArgumentError(f"A shrinkage is a share of 0..1, not {share}")
    level = float(np.trace(covariance)) / len(covariance)
    return np.asarray((1.0 - share) * covariance + share * level * np.eye(len(covariance)))
