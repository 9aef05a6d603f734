"""The tables of accuracy.py for the README, drawn by index_table.py: see there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from results_file import RESULTS

LINES = {
    "clean": "wide band",
    "full": "8 kHz, 20 dB noise",
    "full 2": "8 kHz, 20 dB noise",
    "narrow": "300-3400 Hz, 20 dB noise",
    "narrow 2": "300-3400 Hz, 20 dB noise",
}

Figures = dict[str, Any]


def drawn(name: str) -> str:
    """The table of a name of `TABLES`, as Markdown."""
    return TABLES[name](json.loads((RESULTS / "accuracy.json").read_text()))


def bars(figures: Figures) -> str:
    """Each pair of conditions, by cosine and by llr."""
    rows = [
        [
            LINES[row["enrolment"]], LINES[row["probe"]], row["score"],
            interval(row["rank_1"]), interval(row["fnir_5"]), percent(row["eer"]),
        ]
        for row in figures["pairs"]
    ]  # fmt: skip
    wanted = percent(figures["fpir"], 0)
    return markdown(("Enrolled", "Probe", "By", "Right one first", f"FNIR at FPIR {wanted}", "EER"), rows, 3)


def durations(figures: Figures) -> str:
    """Durations of the probe."""
    rows = [
        [LINES[row["probe"]], f"{row['seconds']} s", interval(row["rank_1"]), interval(row["fnir_5"])]
        for row in figures["durations"]
    ]
    return markdown(
        ("Probe", "Speech", "Right one first", f"FNIR at FPIR {percent(figures['fpir'], 0)}"), rows, 1
    )


def quality(figures: Figures) -> str:
    """Tenths of the quality score."""
    rows = [
        [f"{row['from']:.2f} to {row['to']:.2f}", percent(row["fnir"]), percent(row["fpir"])]
        for row in figures["quality"]["deciles"]
    ]
    return markdown(("Quality score of the probe", "FNIR", "FPIR"), rows, 1)


def targets(figures: Figures) -> str:
    """Measured rates at the thresholds for a wanted FPIR."""
    wanted = figures["targets"][0]["targets"]
    rows = []
    for row in figures["targets"]:
        cells = [
            f"{percent(fpir)} / {percent(fnir)}" for fpir, fnir in zip(row["fpir"], row["fnir"], strict=True)
        ]
        rows.append([f"{row['callers']:,}", LINES[row["enrolment"]], LINES[row["probe"]], *cells])
    for row in figures["generated_fpir"]:
        cells = [f"{percent(fpir)} / -" for fpir in row["shipped tail"]]
        rows.append([f"{row['callers']:,}, generated", LINES["clean"], LINES["clean"], *cells])
    heads = ("Callers", "Enrolled", "Probe", *(f"{percent(one, 0)} wanted" for one in wanted))
    return markdown(heads, rows, 3)


def probability(figures: Figures) -> str:
    """What the threshold of the probability does."""
    rates = ("fpir", "fnir", "right_of_named")
    rows = [
        [LINES[row["enrolment"]], LINES[row["probe"]], *(percent(row[name]) for name in rates)]
        for row in figures["probability"]["pairs"]
    ]
    heads = ("Enrolled", "Probe", "Strangers named", "Callers missed", "Names that are right")
    return markdown(heads, rows, 2)


def galleries(figures: Figures) -> str:
    """How often the right caller is first, by the size of the gallery."""
    names = [name for name in figures["candidates"][0] if name != "callers"]
    rows = [
        [f"{row['callers']:,}", *(percent(row[name]["first by llr"], 0) for name in names)]
        for row in figures["candidates"]
    ]
    shown = [LINES[name.split(" > ")[1].split()[0]] for name in names]
    return markdown(("Callers", *(f"Probe: {name}" for name in shown)), rows, 1)


TABLES: dict[str, Callable[[Figures], str]] = {
    "accuracy-bars": bars,
    "accuracy-durations": durations,
    "accuracy-quality": quality,
    "accuracy-targets": targets,
    "accuracy-probability": probability,
    "accuracy-galleries": galleries,
}


def percent(share: float, digits: int = 1) -> str:
    """0.0123 as "1.2 %"."""
    return f"{100 * share:.{digits}f} %"


def interval(values: list[float]) -> str:
    """A share with its interval."""
    value, low, high = values
    return f"{percent(value)} ({100 * low:.1f}-{100 * high:.1f})"


def markdown(heads: tuple[str, ...], rows: list[list[str]], words: int) -> str:
    """A table whose first columns hold words, and the others figures."""
    lines = [list(heads), ["---"] * words + ["--:"] * (len(heads) - words), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
