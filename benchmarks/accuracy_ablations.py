"""What moves with each constant of the scoring, leave one population out: accuracy.py --ablations.

Each line changes one constant. Printed for galleries of 10 callers, or fewer, and for the largest: the
geometric mean over cells of the FNIR at a true FPIR of 5 % (plus 1 %), the mean FPIR got for 1 and for 5 %
wanted, and the share of the bars of accuracy.py that are met. One cell of few speakers says little; these
are means of 36 and 18.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import numpy as np
from accuracy_figures import FPIR, MARGIN, bars, figures
from accuracy_trials import SIZES, cells_of, run, sizes_of
from fit_scoring import BETWEEN_SHRINKAGE, WITHIN_SHRINKAGE, fit
from populations import WORKERS, Population, but

from voiceprint.scoring import Projection, impostors, scorer

SHARE: Final = 0.5
"""Of the draws of accuracy.py."""


class Change(NamedTuple):
    """A constant, and what it is in place of what it ships as."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:g}"


SHIPPED: Final = Change("as it ships", 0)
CHANGES: Final = (
    SHIPPED,
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


def ablations(found: dict[str, Population]) -> list[dict[str, Any]]:
    """A row for each change, printed as it is there."""
    rows = []
    print(f"{'':24}{'10 callers or fewer':^44}   {'the largest galleries':^44}\n{'':24}" + "   ".join(
        f"{'FNIR':>7} {'FPIR 1 %':>9} {'5 %':>6} {'5 % max':>8} {'bars':>5}    " for _ in range(2)
    ))  # fmt: skip
    # The workers get the change, as they have the constants of their own.
    with ProcessPoolExecutor(
        WORKERS, mp_context=get_context("spawn"), initializer=take, initargs=(found,)
    ) as pool:
        for change, row in zip(CHANGES, pool.map(changed, CHANGES), strict=True):
            rows.append({"constant": change.name, "value": change.value} | row)
            print(f"{change!s:24}" + "   ".join(
                f"{part['fnir']:7.4f} {part['fpir at 0.01']:9.4f} {part['fpir at 0.05']:6.3f} "
                f"{part['most']:8.3f} {part['bars']:5.2f}    " for part in row.values()
            ), flush=True)  # fmt: skip
    return rows


_FOUND: dict[str, Population] = {}


def take(found: dict[str, Population]) -> None:
    """Begin a worker."""
    _FOUND.update(found)


def changed(change: Change) -> dict[str, dict[str, float]]:
    """The row of a change, in a worker."""
    small, large = [], []
    with changing(change) as settings:
        for name, one in _FOUND.items():
            projection: Projection = fit(but(_FOUND, name), **settings)
            sizes = sizes_of(len(one.speakers))
            for cell in cells_of(one, (sizes[0], sizes[-1])):
                row = figures(cell, run(one, cell, projection, SHARE), resamples=0)
                if cell.size <= SIZES[0]:
                    small.append(row)
                if cell.size == sizes[-1] > SIZES[0]:
                    large.append(row)
    return {"small": summarized(small), "large": summarized(large)}


@contextmanager
def changing(change: Change) -> Iterator[dict[str, float]]:
    """The constant has its other value; gives what `fit` takes."""
    settings = {"within_shrinkage": WITHIN_SHRINKAGE, "between_shrinkage": BETWEEN_SHRINKAGE}
    if change == SHIPPED:
        yield settings
    elif change.name in settings:
        yield settings | {change.name: change.value}
    else:
        module = impostors if hasattr(impostors, change.name) else scorer
        with patch.object(module, change.name, change.value):
            yield settings


def summarized(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The means of some rows."""
    logs = [np.log(row["exact fnir at 0.05"][0] + MARGIN) for row in rows]
    got = [row[f"fpir at {FPIR}"][0] for row in rows]
    return {
        "fnir": round(float(np.exp(np.mean(logs)) - MARGIN), 4),
        "fpir at 0.01": round(float(np.mean([row["fpir at 0.01"][0] for row in rows])), 4),
        "fpir at 0.05": round(float(np.mean(got)), 4),
        "most": round(float(np.max(got)), 4),
        "bars": round(float(np.mean([value for row in rows for value in bars(row).values()])), 4),
    }
