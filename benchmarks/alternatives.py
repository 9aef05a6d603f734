"""Scorings that robust_scoring.py compares: what is fitted to some speakers, and how it scores others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fit_scoring import CLEAN, CONDITIONS, LINE, REDUCED
from numpy.typing import NDArray
from scoring_pieces import wide

from voiceprint.scoring import Pieces, fit_plda

Matrix = NDArray[np.float64]
Score = Callable[[str, NDArray[Any], str, NDArray[Any]], Matrix]
Fit = Callable[[Pieces], Callable[[Pieces], Score]]


def unit(vectors: NDArray[Any], power: float = 1.0) -> Matrix:
    """Of length 1, after a power of each value."""
    raised = (
        vectors.astype(np.float64) if power == 1.0 else np.maximum(vectors, 0.0).astype(np.float64) ** power
    )
    return np.asarray(raised / np.linalg.norm(raised, axis=-1, keepdims=True))


def views(
    test: Pieces, condition: str, which: NDArray[Any], simulated: tuple[str, ...]
) -> list[NDArray[Any]]:
    """The embedding, and those of simulated lines where a clean enrolment has them."""
    names = (condition, *(simulated if wide(condition) else ()))
    return [test.vectors[name][which] for name in names]


def cosine(*, power: float = 1.0, simulated: tuple[str, ...] = (), how: str = "average") -> Fit:
    """Nothing is fitted. how: the average of the conditions, or the max or mean of the scores with each."""

    def score(test: Pieces) -> Score:
        def of(enrolled: str, first: NDArray[Any], probe: str, second: NDArray[Any]) -> Matrix:
            prints = [unit(one, power) for one in views(test, enrolled, first, simulated)]
            probes = unit(test.vectors[probe][second], power)
            if how == "average":
                return np.asarray(unit(np.mean(prints, axis=0)) @ probes.T)
            scores = np.stack([one @ probes.T for one in prints])
            return np.asarray(scores.max(axis=0) if how == "max" else scores.mean(axis=0))

        return of

    return lambda _: score


def mapped(how: str, *, share: float = 0.5, dimensions: int | None = None, norm: bool = False) -> Fit:
    """The cosine after a fitted map: "centre" by channel, "wccn" (with `dimensions`: LDA) or "ridge"."""

    def fit(train: Pieces) -> Callable[[Pieces], Score]:
        stacked = np.concatenate([train.vectors[name] for name in CONDITIONS]).astype(np.float64)
        mean, matrix = stacked.mean(axis=0), np.eye(stacked.shape[1])
        if how == "wccn":
            model = fit_plda(
                stacked,
                np.tile(train.speakers, len(CONDITIONS)),
                within_shrinkage=share,
                between_shrinkage=0.0,
                dimensions=dimensions,
            )
            matrix = model.transform
        elif how == "ridge":
            clean = np.tile(train.vectors[REDUCED], (len(CONDITIONS), 1)).astype(np.float64)
            there, back = stacked - mean, clean - clean.mean(axis=0)
            covariance = there.T @ there / len(there)
            level = 3.0 * np.trace(covariance) / len(mean) * np.eye(len(mean))
            matrix = matrix + np.linalg.solve(covariance + level, there.T @ (back - there) / len(there))
        of_wide = np.mean([train.vectors[name].mean(axis=0) for name in (CLEAN, REDUCED)], axis=0)
        of_line = np.mean([train.vectors[name].mean(axis=0) for name in LINE], axis=0)

        def place(test: Pieces, name: str, which: NDArray[Any]) -> Matrix:
            centre = (of_wide if wide(name) else of_line) if how == "centre" else mean
            return unit((test.vectors[name][which] - centre) @ matrix)

        cohorts = [place(train, name, np.arange(len(train.speakers))) for name in (REDUCED, *LINE[:2])]
        cohort = np.concatenate(cohorts)

        def score(test: Pieces) -> Score:
            def of(enrolled: str, first: NDArray[Any], probe: str, second: NDArray[Any]) -> Matrix:
                prints, probes = place(test, enrolled, first), place(test, probe, second)
                return (
                    normed(prints @ probes.T, prints @ cohort.T, probes @ cohort.T)
                    if norm
                    else np.asarray(prints @ probes.T)
                )

            return of

        return score

    return fit


def normed(scores: Matrix, of_prints: Matrix, of_probes: Matrix, nearest: int = 100) -> Matrix:
    """Adaptive symmetric normalisation by the nearest of a cohort."""
    means, deviations = [], []
    for one in (of_prints, of_probes):
        top = np.sort(one, axis=1)[:, -nearest:]
        means.append(top.mean(axis=1))
        deviations.append(top.std(axis=1))
    return np.asarray(
        ((scores - means[0][:, None]) / deviations[0][:, None] + (scores - means[1]) / deviations[1]) / 2.0
    )


def plda(
    within: float,
    between: float,
    *,
    dimensions: int | None = None,
    simulated: tuple[str, ...] = (),
    how: str = "average",
    power: float = 1.0,
) -> Fit:
    """Two covariances. how: simulated lines averaged with the plain print; "better": of that and it."""

    def fit(train: Pieces) -> Callable[[Pieces], Score]:
        stacked = unit(np.concatenate([train.vectors[name] for name in CONDITIONS]), power)
        model = fit_plda(
            stacked,
            np.tile(train.speakers, len(CONDITIONS)),
            within_shrinkage=within,
            between_shrinkage=between,
            dimensions=dimensions,
        )

        def score(test: Pieces) -> Score:
            def of(enrolled: str, first: NDArray[Any], probe: str, second: NDArray[Any]) -> Matrix:
                prints = [
                    model.coordinates(unit(one, power)) for one in views(test, enrolled, first, simulated)
                ]
                probes = model.coordinates(unit(test.vectors[probe][second], power))
                scores = model.log_ratios(np.mean(prints, axis=0), probes).T
                better = np.maximum(scores, model.log_ratios(prints[0], probes).T)
                return better if how == "better" else scores

            return of

        return score

    return fit
