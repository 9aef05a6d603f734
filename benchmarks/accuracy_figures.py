"""What accuracy.py computes of the searches of a cell: error rates with intervals, and bars."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from accuracy_trials import SCORES, Cell, Floats, Found, Outcome
from numpy.typing import NDArray

from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import Counts, bootstrap_all, rule_of_three

FPIR: Final = 0.05
"""Where scores are compared."""

TARGETS: Final = (0.01, 0.05)
WANTED: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""FPIR of the plot."""

BINS: Final = (0.0, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0)
"""Edges of probabilities."""

LEAST, MOST, MOST_AT_1 = 0.4, 2.0, 3.0
"""FPIR got, in targets: at 5 %, and the most at 1 %."""

WORSE: Final = 1.3
"""FNIR in that of the threshold that is exact in hindsight."""

MARGIN: Final = 0.01
"""Added to both FNIR before their ratio is taken: of none missed, one more would be infinitely worse."""

RESAMPLES: Final = 200


def figures(cell: Cell, outcome: Outcome, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The row of a cell: rates as [value, low, high], 95 % over speakers."""
    names = [f"{score} {rate}" for score in SCORES for rate in ("rank_1", "fnir")]
    names += [f"{rate} at {target}" for target in TARGETS for rate in ("fpir", "fnir", "exact fnir")]

    def rates(drawn: Counts) -> list[float | None]:
        known, strange = drawn[outcome.callers], drawn[outcome.strangers]
        if not known.sum() or not strange.sum():
            return [None] * len(names)
        values: list[float | None] = []
        for score in SCORES:
            one = outcome.found[score]
            values += [metrics.rank_one(one.first, known), fnir_at(one, FPIR, known, strange)]
        for target in TARGETS:
            values += [
                float(np.average(outcome.rates[1] <= target, weights=strange)),
                float(np.average(missed(outcome, target), weights=known)),
                fnir_at(outcome.found["llr"], target, known, strange),
            ]
        return values

    values = rates(np.ones(outcome.speakers))
    row: dict[str, Any] = {**cell._asdict(), "searches": [len(outcome.callers), len(outcome.strangers)]}
    if resamples:
        intervals = bootstrap_all(rates, outcome.speakers, resamples=resamples)
        for name, value, interval in zip(names, values, intervals, strict=True):
            assert value is not None
            found = rule_of_three(interval, value, outcome.speakers)
            row[name] = [round(number, 4) for number in (value, *(found or (0.0, 1.0)))]
    else:
        row |= {name: [value] for name, value in zip(names, values, strict=True)}
    return row


def fnir_at(found: Found, target: float, known: Floats, strange: Floats) -> float:
    """FNIR at the threshold of exactly this FPIR, in hindsight and for all galleries of the cell."""
    threshold = metrics.threshold_at_fpir(found.best, target, strange)
    return metrics.fnir(found.true, found.first, threshold, known)


def missed(outcome: Outcome, target: float) -> NDArray[np.bool_]:
    """Which callers the product does not name at a wanted FPIR."""
    return np.asarray(~outcome.found["llr"].first | (outcome.rates[0] > target))


def likelihoods(outcome: Outcome) -> dict[str, float]:
    """Cllr of the llrs as they are, and with the best calibration in hindsight, bits."""
    return {
        "cllr": round(metrics.cllr(outcome.targets, outcome.impostors), 4),
        "min_cllr": round(metrics.min_cllr(outcome.targets, outcome.impostors), 4),
    }


def wanted_and_got(outcomes: list[Outcome]) -> list[float]:
    """Mean FPIR of some cells at each of `WANTED`."""
    rates = np.mean([[(one.rates[1] <= wanted).mean() for wanted in WANTED] for one in outcomes], axis=0)
    return [round(float(rate), 4) for rate in rates]


def reliability(outcomes: list[Outcome]) -> list[dict[str, float]]:
    """Of answers by `Match.probability`: its mean, and how many are right, if half are strangers'."""
    said, right, weights = [], [], []
    for one in outcomes:
        for probable, true in (
            (one.probable[0], one.found["llr"].first),
            (one.probable[1], np.zeros(len(one.probable[1]), dtype=np.bool_)),
        ):
            said.append(probable)
            right.append(true)
            weights.append(np.full(len(probable), 1.0 / len(probable)))
    probable, true, weight = (np.concatenate(some) for some in (said, right, weights))
    place = np.clip(np.digitize(probable, BINS) - 1, 0, len(BINS) - 2)
    return [
        {
            "said": round(float(np.average(probable[place == number], weights=weight[place == number])), 4),
            "right": round(float(np.average(true[place == number], weights=weight[place == number])), 4),
            "answers": round(float(weight[place == number].sum() / weight.sum()), 4),
        }
        for number in range(len(BINS) - 1)
        if (place == number).any()
    ]


def ratio(row: dict[str, Any], target: float) -> float:
    """FNIR in that of the exact threshold."""
    return float((row[f"fnir at {target}"][0] + MARGIN) / (row[f"exact fnir at {target}"][0] + MARGIN))


def bars(row: dict[str, Any]) -> dict[str, bool]:
    """Which bars the row meets."""
    one, five = (row[f"fpir at {target}"][0] / target for target in TARGETS)
    return {
        f"FPIR at 5 % is {LEAST} to {MOST:g} x": LEAST <= five <= MOST,
        f"FPIR at 1 % is {MOST_AT_1:g} x at most": one <= MOST_AT_1,
        f"FNIR at 5 % is {WORSE} x exact at most": ratio(row, FPIR) <= WORSE,
    }


def logistic(targets: Floats, impostors: Floats) -> tuple[float, float]:
    """Scale and offset of the llr = scale (score - offset) with the least Cllr, by Newton's method."""
    scores = np.concatenate([targets, impostors])
    true = np.repeat([1.0, 0.0], [len(targets), len(impostors)])
    weights = np.where(true > 0, 0.5 / len(targets), 0.5 / len(impostors))
    inputs = np.stack([scores, np.ones(len(scores))], axis=1)
    found = np.array([1.0, -scores.mean()])
    for _ in range(50):
        chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ found, -500.0, 500.0)))
        curvature = (inputs * (weights * chance * (1.0 - chance))[:, None]).T @ inputs
        found = found - np.linalg.solve(curvature + 1e-9 * np.eye(2), inputs.T @ (weights * (chance - true)))
    return float(found[0]), float(-found[1] / found[0])
