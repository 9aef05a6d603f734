"""How sure are the answers, for people unlike those to whom the scoring was fitted?

    python -m benchmarks.accuracy DATA [--cache FILE] [--ablations]

Leave one population out: the projection is fitted to three of the populations of tools/populations.py, and
the fourth is measured, enrolled over one line and probed over another, in galleries of several sizes.
Telephone lines and noise are simulated; train, other and mobile have one session a speaker, which flatters.

A row for each cell: rank-1 and FNIR at a true FPIR of 5 % by cosine, half-centered cosine and the product's
llr; FPIR and FNIR for a wanted FPIR, and the FNIR of the threshold that is exact in hindsight; Cllr. In
brackets 95 %, over speakers. --ablations: the means of the error rates with each constant of the scoring
changed, by itself.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks.accuracy_report import PLOTS
from benchmarks.accuracy_trials import SCORES, SIZES, Cell, Flags, Floats, Outcome, cells_of, run, sizes_of
from benchmarks.report import command_line, draw, write
from tools.fit_scoring import BETWEEN_SHRINKAGE, WITHIN_SHRINKAGE, fit
from tools.populations import WORKERS, Population, add_recordings, but, populations
from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import Counts, bootstrap, rule_of_three
from voiceprint.evaluation.scoring import logistic_regression
from voiceprint.scoring import Projection, impostors, scorer
from voiceprint.scoring.calibration import OFFSET, SCALE

FPIR: Final = 0.05  # at which scores are compared
TARGETS: Final = (0.01, 0.05)
WANTED: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # FPIR of the plot
BINS: Final = (0.0, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0)  # edges of probabilities
RESAMPLES: Final = 200
IMPOSTORS_KEPT: Final = 20  # a worker returns every 20th false claim, of millions


def main() -> int:
    """Measure, print, write the figures."""
    parser = command_line(__doc__)
    add_recordings(parser)
    parser.add_argument("--ablations", action="store_true", help="change each constant instead")
    options = parser.parse_args()
    # One thread each: two processes that share two cores wait for each other otherwise.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    found = populations(options.data, options.cache)
    if options.ablations:
        write("accuracy-ablations", {"rows": ablations(found)}, options.results)
    else:
        draw(write("accuracy", measure(found), options.results), PLOTS)
    return 0


def measure(found: dict[str, Population]) -> dict[str, Any]:
    """All figures, printed on the way."""
    work = []
    for name, one in found.items():
        projection = fit(but(found, name))
        by_lines: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
        for cell in cells_of(one):
            by_lines[cell[:-1]].append(cell)
        work += [(one, cells, projection) for cells in by_lines.values()]
    outcomes: dict[Cell, Outcome] = {}
    rows: list[dict[str, Any]] = []
    print(
        f"{'':48}" + "".join(f"{f'{score}: rank 1, FNIR':>33}" for score in SCORES) + "   FPIR for 1 %, 5 %"
    )
    with workers() as pool:
        for measured in pool.map(measure_cells, *zip(*work, strict=True)):
            for cell, row, outcome in measured:
                rows.append(row)
                outcomes[cell] = outcome
                print(line(row), flush=True)
    largest: dict[str, list[Outcome]] = defaultdict(list)
    for cell, outcome in outcomes.items():
        if cell.size == sizes_of(len(found[cell.population].speakers))[-1] and cell.probe != "noise":
            largest[cell.population].append(outcome)
    return {
        "speakers": {name: len(one.speakers) for name, one in found.items()},
        "rows": rows,
        "wanted": WANTED,
        "got": {name: fpir_got(some) for name, some in largest.items()},
        "bins": BINS,
        "reliability": {name: reliability(some) for name, some in largest.items()},
        "calibrations": {
            name: calibration([o for some in but(largest, name) for o in some]) for name in found
        },
    }


def workers(*initial: Any) -> ProcessPoolExecutor:
    """Processes; spawned, as the libraries of a parent with threads do not survive a fork."""
    return ProcessPoolExecutor(
        WORKERS, get_context("spawn"), initializer=_FOUND.update if initial else None, initargs=initial
    )


def measure_cells(
    one: Population, cells: list[Cell], projection: Projection
) -> list[tuple[Cell, dict[str, Any], Outcome]]:
    """The row and the searches of each cell, in a worker."""
    rows = []
    for cell in cells:
        outcome = run(one, cell, projection)
        row = error_rates(cell, outcome) | {
            "cllr": round(metrics.cllr(outcome.targets, outcome.impostors), 4),
            "min_cllr": round(metrics.min_cllr(outcome.targets, outcome.impostors), 4),
        }
        rows.append((cell, row, replace(outcome, impostors=outcome.impostors[::IMPOSTORS_KEPT])))
    return rows


def error_rates(cell: Cell, outcome: Outcome, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The row of a cell: rates as [value, low, high], 95 % over speakers; [value] without resamples."""
    names = [f"{score} {rate}" for score in SCORES for rate in ("rank_1", "fnir")]
    names += [f"{rate} at {target}" for target in TARGETS for rate in ("fpir", "fnir", "exact fnir")]

    def rates(drawn: Counts) -> list[float | None]:
        known, strange = drawn[outcome.callers], drawn[outcome.strangers]
        if not known.sum() or not strange.sum():
            return [None] * len(names)
        values: list[float | None] = []
        for score in SCORES:
            values.append(metrics.rank_one(outcome.found[score].first, known))
            values.append(fnir_at(outcome, score, FPIR, known, strange))
        for target in TARGETS:
            values.append(float(np.average(outcome.rates[1] <= target, weights=strange)))
            values.append(float(np.average(missed(outcome, target), weights=known)))
            values.append(fnir_at(outcome, "llr", target, known, strange))
        return values

    values = rates(np.ones(outcome.speakers))
    row: dict[str, Any] = {**cell._asdict(), "searches": [len(outcome.callers), len(outcome.strangers)]}
    if not resamples:
        return row | {name: [value] for name, value in zip(names, values, strict=True)}
    intervals = bootstrap(rates, outcome.speakers, resamples=resamples)
    for name, value, interval in zip(names, values, intervals, strict=True):
        found = rule_of_three(interval, value or 0.0, outcome.speakers)
        row[name] = [round(number, 4) for number in (value or 0.0, *(found or (0.0, 1.0)))]
    return row


def fnir_at(outcome: Outcome, score: str, target: float, known: Floats, strange: Floats) -> float:
    """FNIR at the threshold with exactly this FPIR, in hindsight and for all galleries of the cell."""
    found = outcome.found[score]
    threshold = metrics.threshold_at_fpir(found.best, target, strange)
    return metrics.fnir(found.true, found.first, threshold, known)


def missed(outcome: Outcome, target: float) -> Flags:
    """The enrolled callers whom the product does not name at a wanted FPIR, bool[n]."""
    return np.asarray(~outcome.found["llr"].first | (outcome.rates[0] > target))


def fpir_got(outcomes: list[Outcome]) -> list[float]:
    """Mean FPIR of several cells at each of `WANTED`."""
    rates = np.mean([[(one.rates[1] <= wanted).mean() for wanted in WANTED] for one in outcomes], axis=0)
    return [round(float(rate), 4) for rate in rates]


def reliability(outcomes: list[Outcome]) -> list[dict[str, float]]:
    """The mean of `Match.probability` in each of its bins, and the share of right answers, if half of the
    calls are of strangers."""
    probable = np.concatenate([part for one in outcomes for part in one.probable])
    right = np.concatenate(
        [
            part
            for one in outcomes
            for part in (one.found["llr"].first, np.zeros(len(one.strangers), np.bool_))
        ]
    )
    weight = np.concatenate(
        [np.full(len(part), 1.0 / len(part)) for one in outcomes for part in one.probable]
    )
    place = np.clip(np.digitize(probable, BINS) - 1, 0, len(BINS) - 2)
    return [
        {
            "predicted": round(
                float(np.average(probable[place == number], weights=weight[place == number])), 4
            ),
            "right": round(float(np.average(right[place == number], weights=weight[place == number])), 4),
            "answers": round(float(weight[place == number].sum() / weight.sum()), 4),
        }
        for number in range(len(BINS) - 1)
        if (place == number).any()
    ]


def calibration(outcomes: list[Outcome]) -> list[float]:
    """`SCALE` and `OFFSET` of the llr with the least Cllr, each cell with the same weight."""
    chance = np.random.default_rng(0)
    targets = np.concatenate([chance.choice(one.targets, 300) for one in outcomes])
    others = np.concatenate([chance.choice(one.impostors, 3_000) for one in outcomes])
    labels = np.repeat([1.0, 0.0], [len(targets), len(others)])
    weights = np.where(labels > 0, 0.5 / len(targets), 0.5 / len(others))
    deviations = np.concatenate([targets, others]) / SCALE + OFFSET
    scale, shift = logistic_regression(deviations, labels, weights)
    return [round(scale, 3), round(-shift / scale, 3)]


def line(row: dict[str, Any]) -> str:
    """A row as printed."""
    cell = (
        f"{row['population']} {row['prints']} x {row['seconds']} s, {row['enrolled']} > {row['probe']}, "
        f"{row['size']} callers"
    )
    scores = "".join(
        f"{row[f'{score} rank_1'][0]:10.3f} {'{:.3f} ({:.2f}-{:.2f})'.format(*row[f'{score} fnir']):>22}"
        for score in SCORES
    )
    return f"{cell:48}{scores}   {row['fpir at 0.01'][0]:.3f}, {row['fpir at 0.05'][0]:.3f}"


class Change(NamedTuple):
    """A constant of the scoring, and its value in place of the one that ships."""

    name: str
    value: float


CHANGES: Final = (
    Change("as it ships", 0),
    *(Change("CENTERING", value) for value in (0.0, 0.3, 0.45, 0.75, 0.85, 1.0)),
    *(Change("PRIOR_PRINTS", value) for value in (0, 5, 20, 40)),
    *(Change("LEVEL_WEIGHT", value) for value in (0.0, 0.25, 0.75, 1.0)),
    *(Change("LEVEL_CALLERS", value) for value in (5, 10, 40, 80)),
    *(Change("UPPER_SHARE", value) for value in (0.1, 0.4, 0.7)),
    *(Change("PRIOR_CALLERS", value) for value in (0, 2, 10, 20)),
    *(Change("PRIOR_FREEDOM", value) for value in (5, 20, 1000)),
    *(Change("within_shrinkage", value) for value in (0.4, 0.6, 0.9)),
    *(Change("between_shrinkage", value) for value in (0.2, 0.6, 0.8)),
)
ABLATION_SHARE: Final = 0.5  # of the draws
MARGIN: Final = 0.01  # added to an FNIR before its logarithm: one miss more than none is not infinitely worse

_FOUND: dict[str, Population] = {}


def ablations(found: dict[str, Population]) -> list[dict[str, Any]]:
    """A row for each change, for galleries of at most 10 callers and for the largest, printed on the way."""
    rows = []
    with workers(found) as pool:
        for change, row in zip(CHANGES, pool.map(ablate, CHANGES), strict=True):
            rows.append({"constant": change.name, "value": change.value} | row)
            print(rows[-1], flush=True)
    return rows


def ablate(change: Change) -> dict[str, dict[str, float]]:
    """The row of a change, in a worker."""
    small, large = [], []
    with changed(change) as settings:
        for name, one in _FOUND.items():
            projection = fit(but(_FOUND, name), **settings)
            sizes = sizes_of(len(one.speakers))
            for cell in cells_of(one, sorted({sizes[0], sizes[-1]})):
                row = error_rates(cell, run(one, cell, projection, ABLATION_SHARE), resamples=0)
                if cell.size <= SIZES[0]:
                    small.append(row)
                if cell.size == sizes[-1] > SIZES[0]:
                    large.append(row)
    return {"small": means(small), "large": means(large)}


@contextmanager
def changed(change: Change) -> Iterator[dict[str, float]]:
    """The constant has its other value; yields the settings of `fit`."""
    settings = {"within_shrinkage": WITHIN_SHRINKAGE, "between_shrinkage": BETWEEN_SHRINKAGE}
    if change == CHANGES[0]:
        yield settings
    elif change.name in settings:
        yield settings | {change.name: change.value}
    else:
        module = impostors if hasattr(impostors, change.name) else scorer
        with patch.object(module, change.name, change.value):
            yield settings


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric mean of FNIR at a true FPIR of 5 %, and mean FPIR for 1 and 5 % wanted, with the largest."""
    logs = [np.log(row[f"exact fnir at {FPIR}"][0] + MARGIN) for row in rows]
    got = {target: [row[f"fpir at {target}"][0] for row in rows] for target in TARGETS}
    values = {"fnir": np.exp(np.mean(logs)) - MARGIN, "most": np.max(got[FPIR])}
    values |= {f"fpir at {target}": np.mean(some) for target, some in got.items()}
    return {name: round(float(value), 4) for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
