"""Plots of a benchmark's result, as PNG files beside it. Without matplotlib there are none."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Plots = Mapping[str, Callable[[Any, dict[str, Any]], None]]


def main(description: str | None, plots: Plots) -> int:
    """Draw the results that the command line names."""
    if not sys.argv[1:]:
        sys.exit(description)
    for name in sys.argv[1:]:
        draw(Path(name), plots)
    return 0


def draw(result: Path, plots: Plots) -> list[Path]:
    """Write RESULT-NAME.png of each plot, which takes a figure of matplotlib and the figures of RESULT."""
    if importlib.util.find_spec("matplotlib") is None:
        print("No plots: matplotlib is not installed (pip install opusagent-voiceprint[plots]).")
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures = json.loads(result.read_text())
    drawn = []
    for name, plot in plots.items():
        figure = Figure(figsize=(7.5, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        plot(figure, figures)
        for axes in figure.axes:
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize="small")
        drawn.append(result.with_name(f"{result.stem}-{name}.png"))
        figure.savefig(drawn[-1], dpi=120, metadata={"Software": None})
    print(f"Plots: {', '.join(path.name for path in drawn)}")
    return drawn
