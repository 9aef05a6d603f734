"""Draw the plots of accuracy.py beside its result: DET, and FPIR and rank-1 against the size of the gallery.

python benchmarks/accuracy_plots.py benchmarks/results/accuracy.json
"""

from __future__ import annotations

import sys
from typing import Any

from plot_files import main

from voiceprint.evaluation.curves import probit

TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5)
SHOWN = (("clean", "clean"), ("clean", "full"), ("clean", "narrow"))
NAMES = {"clean": "clean", "full": "8 kHz line", "narrow": "300-3400 Hz line"}


def _det(figure: Any, figures: dict[str, Any]) -> None:
    axes = figure.subplots()
    for colour, pair in enumerate(SHOWN):
        for row in figures["pairs"]:
            if (row["enrolment"], row["probe"]) == pair:
                fmr, fnmr = zip(*row["det"], strict=True)
                line = "-" if row["score"] == "llr" else ":"
                label = f"{NAMES[pair[0]]}, probe {NAMES[pair[1]]}, {row['score']}"
                axes.plot(probit(fmr), probit(fnmr), line, color=f"C{colour}", label=label)
    for axis, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.set_ticks(probit(TICKS), [f"{100 * tick:g} %" for tick in TICKS])
        limits(*probit((TICKS[0], TICKS[-1])))
    axes.set(
        title="Verification of speakers who were not fitted to",
        xlabel="strangers accepted (FMR)", ylabel="callers refused (FNMR)",
    )  # fmt: skip


def _gallery(figure: Any, figures: dict[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    for place, target in enumerate(figures["generated_fpir"][0]["targets"]):
        small = [row for row in figures["targets"] if (row["enrolment"], row["probe"]) == SHOWN[0]]
        made = figures["generated_fpir"]
        sizes = [row["callers"] for row in (*small, *made)]
        rates = [row["fpir"][place] for row in small] + [row["shipped tail"][place] for row in made]
        left.loglog(sizes, [max(rate, 1e-3) for rate in rates], "o-", color=f"C{place}", markersize=4)
        left.axhline(target, color=f"C{place}", linestyle=":", label=f"wanted: {100 * target:g} %")
    left.set(
        title="FPIR at thresholds that follow",
        xlabel="callers",
        ylabel="strangers who get a name",
        ylim=(1e-3, 1),
    )
    for name in (one for one in figures["candidates"][0] if one != "callers"):
        rows = figures["candidates"]
        right.semilogx(
            [row["callers"] for row in rows],
            [row[name]["first by llr"] for row in rows],
            "o-",
            label=name.replace(" plain", "").replace(" best", ""),
        )
    right.set(title="The right caller is first", xlabel="callers", ylim=(0, 1.02))


PLOTS = {"det": _det, "gallery": _gallery}

if __name__ == "__main__":
    sys.exit(main(__doc__, PLOTS))
