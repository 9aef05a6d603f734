"""Draw the plots of accuracy.py beside its result: FPIR wanted and got, and whether probabilities are right.

python benchmarks/accuracy_plots.py benchmarks/results/accuracy.json
"""

from __future__ import annotations

import sys
from typing import Any

from plot_files import main


def _fpir(figure: Any, figures: dict[str, Any]) -> None:
    axes = figure.subplots()
    wanted = figures["wanted"]
    axes.loglog(wanted, wanted, "k:", label="as wanted")
    axes.fill_between(
        wanted, [0.4 * rate for rate in wanted], [2 * rate for rate in wanted], color="k", alpha=0.08
    )
    for name, got in figures["got"].items():
        axes.loglog(wanted, [max(rate, 1e-3) for rate in got], "o-", markersize=4, label=name)
    axes.set(
        title="Strangers named, by a fit to other populations; shaded: 0.4 to 2 times",
        xlabel="FPIR wanted",
        ylabel="FPIR got",
    )


def _reliability(figure: Any, figures: dict[str, Any]) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "k:", label="as said")
    for name, rows in figures["reliability"].items():
        axes.plot(
            [row["said"] for row in rows], [row["right"] for row in rows], "o-", markersize=4, label=name
        )
    axes.set(
        title="Answers that are right, half of the calls being of strangers",
        xlabel="Match.probability",
        ylabel="share that is right",
    )


PLOTS = {"fpir": _fpir, "reliability": _reliability}

if __name__ == "__main__":
    sys.exit(main(__doc__, PLOTS))
