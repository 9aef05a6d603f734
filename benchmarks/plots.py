"""Draw the plots of a result of index.py beside it: latency against size, and recall against latency.

python benchmarks/plots.py benchmarks/results/index-1000000.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from index_table import shown_search


def main() -> int:
    """Draw the results that are named."""
    if not sys.argv[1:]:
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        draw(Path(name))
    return 0


def draw(result: Path) -> list[Path]:
    """Write RESULT-latency.png and RESULT-recall.png; without matplotlib say so, and draw nothing."""
    if importlib.util.find_spec("matplotlib") is None:
        print("No plots: matplotlib is not installed (pip install opusagent-voiceprint[plots]).")
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = json.loads(result.read_text())
    drawn = []
    for name, plot in (("latency", _latency), ("recall", _recall)):
        drawing, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        plot(axes, figures)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        drawn.append(result.with_name(f"{result.stem}-{name}.png"))
        drawing.savefig(drawn[-1], dpi=120, metadata={"Software": None})
        pyplot.close(drawing)
    print(f"Plots: {', '.join(path.name for path in drawn)}")
    return drawn


def _latency(axes: Any, figures: dict[str, Any]) -> None:
    """p50 against the number of voiceprints, at equal recall."""
    for contender, rows in _by_contender(figures).items():
        times = [shown_search(figures, row)["us"]["p50"] / 1e3 for row in rows]
        axes.loglog([row["size"] for row in rows], times, marker="o", label=CONTENDERS[contender].title)
    axes.set(xlabel="voiceprints", ylabel="median search, ms", title="One search at a time")


def _recall(axes: Any, figures: dict[str, Any]) -> None:
    """Recall against p50 at the largest size."""
    size, k = max(figures["sizes"]), figures["k"]
    for contender, rows in _by_contender(figures).items():
        if contender.startswith("loop"):
            continue
        points = [made for row in rows if row["size"] == size for made in row["searches"]]
        if points:
            times = [made["us"]["p50"] / 1e3 for made in points]
            recalls = [made[f"recall_at_{k}"] for made in points]
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


if __name__ == "__main__":
    sys.exit(main())
