"""Tables and plots of accuracy.py and shortlist.py for the documentation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.report import RESULTS, markdown

POPULATIONS = {
    "train": "LibriSpeech, one session",
    "other": "LibriSpeech, one chapter",
    "chapters": "LibriSpeech, another chapter",
    "mobile": "mobile phones, half children, one session",
}
LINES = {
    "clean": "clear",
    "full": "8 kHz",
    "narrow": "300-3400 Hz",
    "noise": "noise at 10 dB",
}
SCORES = ("cosine", "half-centered cosine", "llr")
ABOUT = ("Speakers", "Callers", "Enrolled", "On a line", "Called on")

Figures = dict[str, Any]


def table(name: str) -> str:
    """The table with a name of `TABLES`, as Markdown."""
    function, result = TABLES[name]
    return function(json.loads((RESULTS / f"{result}.json").read_text()))


def largest(figures: Figures) -> list[Figures]:
    """The rows of each population's largest gallery."""
    sizes: dict[str, int] = {}
    for row in figures["rows"]:
        sizes[row["population"]] = max(row["size"], sizes.get(row["population"], 0))
    return [row for row in figures["rows"] if row["size"] == sizes[row["population"]]]


def expected(figures: Figures) -> str:
    """The two populations of more than one recording, on three pairs of lines."""
    pairs = (("clean", "clean"), ("narrow", "narrow"), ("clean", "narrow"))
    rows = [
        about(row)
        + [interval(row[f"{rate} at {target}"]) for target in (0.05, 0.01) for rate in ("fnir", "fpir")]
        for row in largest(figures)
        if row["population"] in ("chapters", "mobile") and (row["enrolled"], row["probe"]) in pairs
    ]
    return markdown((*ABOUT, "FNIR, 5 % wanted", "FPIR got", "FNIR, 1 % wanted", "FPIR got"), rows, 5)


def scores(figures: Figures) -> str:
    """Every pair of lines, by each score."""
    rows = [
        about(row) + [interval(row[f"{score} {rate}"]) for rate in ("rank_1", "fnir") for score in SCORES]
        for row in largest(figures)
    ]
    heads = [f"{rate}, {score}" for rate in ("Right one first", "FNIR at FPIR 5 %") for score in SCORES]
    return markdown((*ABOUT, *heads), rows, 5)


def targets(figures: Figures) -> str:
    """FPIR and FNIR for a wanted FPIR, for every size of gallery."""
    rates = ("fpir", "fnir", "exact fnir")
    rows = [
        about(row) + [percent(row[f"{rate} at {target}"][0]) for target in (0.01, 0.05) for rate in rates]
        for row in figures["rows"]
    ]
    names = ("FPIR", "FNIR", "FNIR of the exact")
    heads = [f"{wanted}: {name}" for wanted in ("1 %", "5 %") for name in names]
    return markdown((*ABOUT, *heads), rows, 5)


def probability(figures: Figures) -> str:
    """`Match.probability`, and the share of these answers that is right."""
    rows = [
        [POPULATIONS[name], percent(row["predicted"]), percent(row["right"]), percent(row["answers"])]
        for name, some in figures["reliability"].items()
        for row in some
    ]
    return markdown(("Speakers", "Probability, mean", "Right", "Share of the answers"), rows, 1)


def galleries(figures: Figures) -> str:
    """The right caller among generated ones, ranked first or not; and generated strangers who get a name."""
    lines = [name for name in figures["galleries"][0] if name in LINES]
    rows = [
        [
            f"{row['callers']:,}",
            *(percent(row[name], 0) for name in lines),
            *(percent(rate) for rate in row["fpir"].values()),
        ]
        for row in figures["galleries"]
    ]
    wanted = [f"FPIR, {percent(float(target), 0)} wanted" for target in figures["galleries"][0]["fpir"]]
    return markdown(("Callers", *(f"Probe: {LINES[name]}" for name in lines), *wanted), rows, 1)


TABLES: dict[str, tuple[Callable[[Figures], str], str]] = {
    "accuracy": (expected, "accuracy"),
    "accuracy-scores": (scores, "accuracy"),
    "accuracy-targets": (targets, "accuracy"),
    "accuracy-probability": (probability, "accuracy"),
    "accuracy-galleries": (galleries, "shortlist"),
}


def about(row: Figures) -> list[str]:
    """The first cells of a row."""
    return [
        POPULATIONS[row["population"]],
        str(row["size"]),
        f"{row['prints']} x {row['seconds']} s",
        LINES[row["enrolled"]],
        LINES[row["probe"]],
    ]


def interval(rate: list[float]) -> str:
    """A rate with its interval of 95 %."""
    value, low, high = rate
    return f"{100 * value:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def percent(rate: float, digits: int = 1) -> str:
    """A share in percent."""
    return f"{100 * rate:.{digits}f} %"


def _fpir(figure: Any, figures: Figures) -> None:
    axes = figure.subplots()
    wanted = figures["wanted"]
    axes.loglog(wanted, wanted, "k:", label="as wanted")
    shaded = ([0.4 * rate for rate in wanted], [2 * rate for rate in wanted])
    axes.fill_between(wanted, *shaded, color="k", alpha=0.08)
    for name, got in figures["got"].items():
        axes.loglog(wanted, [max(rate, 1e-3) for rate in got], "o-", markersize=4, label=name)
    axes.set_title("Strangers named, by a fit to other populations; shaded: 0.4 to 2 times")
    axes.set(xlabel="FPIR wanted", ylabel="FPIR got")


def _reliability(figure: Any, figures: Figures) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "k:", label="as predicted")
    for name, rows in figures["reliability"].items():
        probable, right = [row["predicted"] for row in rows], [row["right"] for row in rows]
        axes.plot(probable, right, "o-", markersize=4, label=name)
    axes.set_title("Answers that are right, half of the calls being of strangers")
    axes.set(xlabel="Match.probability", ylabel="share that is right")


PLOTS = {"fpir": _fpir, "reliability": _reliability}
