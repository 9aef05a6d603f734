"""Scorings that refinements.py compares: what is fitted to some speakers, and how it scores others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from alternatives import normed as s_normed
from fit_scoring import CLEAN, CONDITIONS, LINE, LINES, REDUCED, SEED
from held_out import Matrix
from lines import limits_band
from numpy.typing import NDArray

from voiceprint.scoring import Pieces, Plda, fit_plda
from voiceprint.scoring.plda import raised, shrunk

Prints = NDArray[np.floating]
Score = Callable[[Prints, Prints, Prints], Matrix]  # plain and second prints, probes: [callers, probes]
Fit = Callable[[Pieces], Score]

COMBINED: dict[str, Callable[[Matrix, Matrix], Matrix]] = {
    "better": np.maximum,
    "mean": lambda first, second: (first + second) / 2.0,
    "log of the sum": np.logaddexp,
    "plain alone": lambda first, _: first,
    "second alone": lambda _, second: second,
}


def unit(vectors: Prints) -> Matrix:
    """Of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float64)


def stacked(train: Pieces, names: Sequence[str] = CONDITIONS) -> tuple[Matrix, NDArray[np.int64]]:
    """All conditions, and the speakers."""
    return np.concatenate([train.vectors[name] for name in names]).astype(np.float64), np.tile(
        train.speakers, len(names)
    )


def modelled(train: Pieces, within: float, between: float, power: float) -> Plda:
    """The model of all conditions."""
    vectors, speakers = stacked(train)
    shrinkages = {"within_shrinkage": within, "between_shrinkage": between}
    return fit_plda(vectors, speakers, **shrinkages, power=power)


def both(place: Callable[[Prints], Matrix], ratios: Callable[[Matrix, Matrix], Matrix], how: str) -> Score:
    """The scores of both prints, combined."""

    def score(plain: Prints, second: Prints, probes: Prints) -> Matrix:
        there = place(probes)
        return COMBINED[how](ratios(place(plain), there).T, ratios(place(second), there).T)

    return score


def plda(within: float, between: float, power: float = 1.0, how: str = "better") -> Fit:
    """Two covariances."""

    def fit(train: Pieces) -> Score:
        model = modelled(train, within, between, power)
        return both(model.coordinates, model.log_ratios, how)

    return fit


def cosine(how: str = "better") -> Fit:
    """Nothing is fitted."""
    return lambda _: both(unit, lambda prints, probes: probes @ prints.T, how)


def fused(scoring: Fit, weight: float) -> Fit:
    """The log ratio and so many times the cosine."""

    def fit(train: Pieces) -> Score:
        first, second = scoring(train), cosine()(train)
        return lambda *heard: first(*heard) + weight * second(*heard)

    return fit


def length_normed(within: float, between: float, power: float, share: float) -> Fit:
    """Whitened, and of length 1 again, before two covariances.

    Source: Garcia-Romero and Espy-Wilson, "Analysis of i-vector length normalization", Interspeech 2011.
    """

    def fit(train: Pieces) -> Score:
        vectors, speakers = stacked(train)
        vectors = unit(raised(vectors, power))
        mean = vectors.mean(axis=0)
        whiten = np.linalg.cholesky(np.linalg.inv(shrunk(np.cov(vectors.T), share)))

        def place(heard: Prints) -> Matrix:
            return unit((unit(raised(heard, power)) - mean) @ whiten)

        shrinkages = {"within_shrinkage": within, "between_shrinkage": between}
        model = fit_plda(place(stacked(train)[0]), speakers, **shrinkages)
        return both(lambda heard: model.coordinates(place(heard)), model.log_ratios, "better")

    return fit


def normed(scoring: Fit, nearest: int | None = None) -> Fit:
    """Less the mean of the scores with a cohort, over their deviation, of the prints and of the probe."""

    def fit(train: Pieces) -> Score:
        score, cohort = scoring(train), train.vectors[REDUCED]

        def of(plain: Prints, second: Prints, probes: Prints) -> Matrix:
            scores = score(plain, second, probes)
            of_probes, of_prints = score(cohort, cohort, probes).T, score(plain, second, cohort)
            return s_normed(scores, of_prints, of_probes, nearest or len(cohort))

        return of

    return fit


def without_channel(within: float, between: float, whole: Pieces) -> Fit:
    """The mean shift of a full and of a narrow band is taken off before the fit, and off prints and probes.

    whole: all pieces, as the lines were drawn by the place of a piece among all. What a print or probe is
    of must be told; so the shifts are those of the nearest of the three means.
    """
    narrow = {
        name: np.array(
            [
                limits_band(np.random.default_rng([SEED, place, number]))
                for place in range(len(whole.speakers))
            ]
        )
        for number, name in zip(range(LINES), LINE, strict=True)
    }

    def fit(train: Pieces) -> Score:
        kept = np.isin(whole.speakers, np.unique(train.speakers))
        kinds = {name: narrow[name][kept].astype(int) + 1 for name in LINE}
        kinds |= {name: np.zeros(int(kept.sum()), dtype=int) for name in (CLEAN, REDUCED)}
        clear = (train.vectors[CLEAN].astype(np.float64) + train.vectors[REDUCED]) / 2.0
        names = list(CONDITIONS)
        vectors, speakers = stacked(train)
        kind = np.concatenate([kinds[name] for name in names])
        moved = vectors - np.tile(clear, (len(names), 1))
        shifts = np.stack([moved[kind == one].mean(axis=0) for one in range(3)])
        centres = shifts + clear.mean(axis=0)
        model = fit_plda(vectors - shifts[kind], speakers, within_shrinkage=within, between_shrinkage=between)

        def place(heard: Prints) -> Matrix:
            distances = np.square(unit(heard)[:, None] - centres).sum(axis=2)
            return model.coordinates(heard - shifts[distances.mean(axis=0).argmin()])

        return both(place, model.log_ratios, "better")

    return fit
