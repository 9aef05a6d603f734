"""The tables of accuracy.py for the documentation, drawn by index_table.py: see there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from results_file import RESULTS

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

Figures = dict[str, Any]


def drawn(name: str) -> str:
    """The table of a name of `TABLES`, as Markdown."""
    table, result = TABLES[name]
    return table(json.loads((RESULTS / f"{result}.json").read_text()))


def largest(figures: Figures) -> list[Figures]:
    """The rows of each population's largest gallery."""
    sizes: dict[str, int] = {}
    for row in figures["rows"]:
        sizes[row["population"]] = max(row["size"], sizes.get(row["population"], 0))
    return [row for row in figures["rows"] if row["size"] == sizes[row["population"]]]


def expected(figures: Figures) -> str:
    """What to expect: the two populations of more than one recording, on three pairs of lines."""
    pairs = (("clean", "clean"), ("narrow", "narrow"), ("clean", "narrow"))
    rows = [
        [*about(row), *(interval(row[f"{rate} at {target}"]) for target in (0.05, 0.01)
                        for rate in ("fnir", "fpir"))]
        for row in largest(figures)
        if row["population"] in ("chapters", "mobile") and (row["enrolled"], row["probe"]) in pairs
    ]  # fmt: skip
    return markdown((*ABOUT, "FNIR, 5 % wanted", "FPIR got", "FNIR, 1 % wanted", "FPIR got"), rows, 5)


def scores(figures: Figures) -> str:
    """Every pair of lines, by each score."""
    rows = [
        [*about(row), *(interval(row[f"{score} {rate}"]) for rate in ("rank_1", "fnir")
                        for score in ("cosine", "half-centered cosine", "llr"))]
        for row in largest(figures)
    ]  # fmt: skip
    heads = [f"{rate}, {score}" for rate in ("Right one first", "FNIR at FPIR 5 %")
             for score in ("cosine", "half-centered cosine", "llr")]  # fmt: skip
    return markdown((*ABOUT, *heads), rows, 5)


def targets(figures: Figures) -> str:
    """What a wanted FPIR gives, for every size of gallery."""
    rows = [
        [*about(row), *(percent(row[f"{rate} at {target}"][0]) for target in (0.01, 0.05)
                        for rate in ("fpir", "fnir", "exact fnir"))]
        for row in figures["rows"]
    ]  # fmt: skip
    heads = [
        f"{wanted}: {rate}" for wanted in ("1 %", "5 %") for rate in ("FPIR", "FNIR", "FNIR of the exact")
    ]
    return markdown((*ABOUT, *heads), rows, 5)


def probability(figures: Figures) -> str:
    """What `Match.probability` says, and how many of these answers are right."""
    rows = [
        [POPULATIONS[name], percent(row["said"]), percent(row["right"]), percent(row["answers"])]
        for name, some in figures["reliability"].items()
        for row in some
    ]
    return markdown(("Speakers", "Probability, mean", "Right", "Share of the answers"), rows, 1)


def galleries(figures: Figures) -> str:
    """The right caller among generated ones, first or not; and generated strangers who get a name."""
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
    "accuracy-galleries": (galleries, "candidates"),
}
ABOUT = ("Speakers", "Callers", "Enrolled", "On a line", "Called on")


def about(row: Figures) -> list[str]:
    """The first cells of a row."""
    return [POPULATIONS[row["population"]], str(row["size"]), f"{row['prints']} x {row['seconds']} s",
            LINES[row["enrolled"]], LINES[row["probe"]]]  # fmt: skip


def interval(rate: list[float]) -> str:
    """A rate with its interval of 95 %."""
    value, low, high = rate
    return f"{100 * value:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def percent(rate: float, digits: int = 1) -> str:
    """A share in percent."""
    return f"{100 * rate:.{digits}f} %"


def markdown(head: tuple[str, ...], rows: list[list[str]], texts: int) -> str:
    """A table whose first `texts` columns are texts, the others numbers."""
    marks = ["---"] * texts + ["--:"] * (len(head) - texts)
    return "".join(f"| {' | '.join(row)} |\n" for row in ([*head], marks, *rows))
