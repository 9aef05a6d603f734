"""Plots of a result of index.py: latency against size, and recall against latency."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.index_table import shown_search


def _latency(figure: Any, figures: dict[str, Any]) -> None:
    """p50 against the number of voiceprints, at equal recall."""
    axes = figure.subplots()
    for contender, rows in _by_contender(figures).items():
        times = [shown_search(figures, row)["us"]["p50"] / 1e3 for row in rows]
        axes.loglog([row["size"] for row in rows], times, marker="o", label=CONTENDERS[contender].title)
    axes.set(xlabel="voiceprints", ylabel="median search, ms", title="One search at a time")


def _recall(figure: Any, figures: dict[str, Any]) -> None:
    """Recall against p50 at the largest size."""
    axes = figure.subplots()
    size, k = max(figures["sizes"]), figures["k"]
    for contender, rows in _by_contender(figures).items():
        if contender.startswith("loop"):
            continue
        points = [point for row in rows if row["size"] == size for point in row["searches"]]
        if points:
            times = [point["us"]["p50"] / 1e3 for point in points]
            recalls = [point[f"recall_at_{k}"] for point in points]
            axes.semilogx(times, recalls, marker="o", label=CONTENDERS[contender].title)
    axes.set(xlabel="median search, ms", ylabel=f"recall@{k}", title=f"{size:,} voiceprints")


def _by_contender(figures: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows that ran, with the first setting of threads."""
    threads = min(row["threads"] for row in figures["rows"])
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in figures["rows"]:
        if row["state"] == "ran" and row["threads"] == threads:
            grouped.setdefault(row["contender"], []).append(row)
    return grouped


PLOTS = {"latency": _latency, "recall": _recall}
