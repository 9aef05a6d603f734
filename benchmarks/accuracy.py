"""How sure are the answers, of people unlike those whom the scoring was fitted to?

    python benchmarks/accuracy.py DATA [--cache FILE] [--ablations]

Leave one population out: the projection is fitted to three of the populations of populations.py, and the
fourth is measured, enrolled over one line and probed over another, in galleries of several sizes. Telephone
lines and noise are simulated; train, other and mobile are of one session a speaker, which flatters.

Of each cell: rank-1 and FNIR at a true FPIR of 5 % by cosine, by half-centered cosine and by the product's
llr; FPIR and FNIR at a wanted FPIR, and the FNIR of the threshold that is exact in hindsight; Cllr. In
brackets 95 %, over speakers. Then the bars of FPIR and FNIR, and which cells miss them. Written to
results/accuracy.json, with plots. --ablations: what moves with each constant, see accuracy_ablations.py.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, Final

import numpy as np
from accuracy_figures import (
    BINS,
    TARGETS,
    WANTED,
    bars,
    figures,
    likelihoods,
    logistic,
    ratio,
    reliability,
    wanted_and_got,
)
from accuracy_trials import SCORES, Cell, Outcome, cells_of, run, sizes_of
from fit_scoring import fit
from populations import WORKERS, Population, arguments, but, populations
from results_file import keep

from voiceprint.scoring import Projection
from voiceprint.scoring.calibration import OFFSET, SCALE

EVERY: Final = 20
"""One of so many false claims comes back from a worker: there are millions."""


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = arguments(__doc__)
    parser.add_argument("--ablations", action="store_true", help="what moves with each constant, instead")
    options = parser.parse_args()
    # One thread each: two processes that share two cores wait for each other otherwise.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    start = time.perf_counter()
    found = populations(options.data, options.cache)
    embedded = time.perf_counter() - start
    if options.ablations:
        from accuracy_ablations import ablations

        keep("accuracy-ablations", {"rows": ablations(found)})
        return 0
    result = measure(found) | {"embedding_s": round(embedded)}
    result["seconds"] = round(time.perf_counter() - start)
    print(f"{result['seconds']} s, of which {round(embedded)} s to embed")
    path = keep("accuracy", result)
    from accuracy_plots import PLOTS
    from plot_files import draw

    draw(path, PLOTS)
    return 0


def measure(found: dict[str, Population]) -> dict[str, Any]:
    """All figures that are kept, printed on the way."""
    work = []
    for name, one in found.items():
        projection = fit(but(found, name))
        work += [(one, cells, projection) for cells in by_pair(cells_of(one))]
    outcomes: dict[Cell, Outcome] = {}
    rows: list[dict[str, Any]] = []
    print(head())
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        for some in pool.map(measured, *zip(*work, strict=True)):
            for cell, row, outcome in some:
                rows.append(row)
                outcomes[cell] = outcome
                print(line(row), flush=True)
    largest = [cell for cell in outcomes if cell.size == max(sizes_of(len(found[cell.population].speakers)))]
    chosen = {
        name: [outcomes[cell] for cell in largest if cell.population == name and cell.probe != "noise"]
        for name in found
    }
    summary = summarized(rows)
    calibrations = {
        name: [round(value, 3) for value in calibrated([one for other in but(chosen, name) for one in other])]
        for name in found
    }
    print(f"Scale and offset of the llr, fitted to all but: {calibrations}")
    return {
        "speakers": {name: len(one.speakers) for name, one in found.items()},
        "rows": rows,
        "bars": summary,
        "wanted": WANTED,
        "got": {name: wanted_and_got(some) for name, some in chosen.items()},
        "bins": BINS,
        "reliability": {name: reliability(some) for name, some in chosen.items()},
        "calibrations": calibrations,
    }


def by_pair(cells: list[Cell]) -> list[list[Cell]]:
    """The cells of each enrollment and pair of lines: what a worker takes at a time."""
    groups: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell[:-1]].append(cell)
    return [*groups.values()]


def measured(
    one: Population, cells: list[Cell], projection: Projection
) -> list[tuple[Cell, dict[str, Any], Outcome]]:
    """The row and the searches of each cell."""
    rows = []
    for cell in cells:
        outcome = run(one, cell, projection)
        row = figures(cell, outcome) | likelihoods(outcome)
        rows.append((cell, row, replace(outcome, impostors=outcome.impostors[::EVERY])))
    return rows


def calibrated(outcomes: list[Outcome]) -> tuple[float, float]:
    """The scale and offset that fit these best, each cell counting alike."""
    chance = np.random.default_rng(0)
    targets = np.concatenate([chance.choice(one.targets, 300) for one in outcomes])
    impostors = np.concatenate([chance.choice(one.impostors, 3_000) for one in outcomes])
    return logistic(targets / SCALE + OFFSET, impostors / SCALE + OFFSET)


def summarized(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many cells meet each bar, printed with those that do not."""
    summary = {}
    for name in bars(rows[0]):
        failed = [row for row in rows if not bars(row)[name]]
        print(f"{name}: {len(rows) - len(failed)} of {len(rows)} cells")
        for row in failed:
            print(f"    {title(row)}: FPIR {row['fpir at 0.01'][0]:.3f} / {row['fpir at 0.05'][0]:.3f}, "
                  f"FNIR / exact {ratio(row, 0.05):.2f}")  # fmt: skip
        summary[name] = {"met": len(rows) - len(failed), "of": len(rows), "failed": [*map(title, failed)]}
    return summary


def title(row: dict[str, Any]) -> str:
    """What a row is of."""
    return (
        f"{row['population']} {row['prints']} x {row['seconds']} s, {row['enrolled']} > {row['probe']}, "
        f"{row['size']} callers"
    )


def head() -> str:
    """Of the printed table."""
    columns = " ".join(f"{score:>24}" for score in SCORES)
    return (
        f"{'':48}{columns}  wanted 1 %: FPIR FNIR/exact  5 %: FPIR              FNIR/exact   Cllr  min\n"
        f"{'':48}" + " ".join(f"{'rank-1 FNIR at FPIR 5 %':>24}" for _ in SCORES)
    )


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    scores = " ".join(
        f"{row[f'{score} rank_1'][0]:6.3f} {interval(row[f'{score} fnir']):>17}" for score in SCORES
    )
    one, five = (
        f"{row[f'fnir at {target}'][0]:.3f}/{row[f'exact fnir at {target}'][0]:.3f}" for target in TARGETS
    )
    return (
        f"{title(row):48}{scores}  {row['fpir at 0.01'][0]:16.3f} {one:>11}"
        f"  {interval(row['fpir at 0.05']):>20} {five:>14}  {row['cllr']:5.3f} {row['min_cllr']:5.3f}"
    )


def interval(rate: list[float]) -> str:
    """A rate with its interval."""
    return f"{rate[0]:.3f} ({rate[1]:.2f}-{rate[2]:.2f})"


if __name__ == "__main__":
    sys.exit(main())
