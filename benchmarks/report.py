"""The results of the benchmarks: JSON with commit, CPU and versions, tables and plots.

    python -m benchmarks.report      draws the tables of README and docs anew

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and is drawn from benchmarks/results.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"  # the plots of committed results, which the pages show
VOICES = ROOT / "examples" / "voices"
_PACKAGES = ("numpy", "scipy", "torch", "resemblyzer", "faiss-cpu", "onnxruntime", "soxr", "orjson")

Plots = Mapping[str, Callable[[Any, dict[str, Any]], None]]
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Draw the tables."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        page.write_text(with_tables(page.read_text()))
    return 0


def with_tables(page: str) -> str:
    """The page with its tables drawn anew."""
    return _TABLE.sub(lambda place: f"{place[1]}\n{_table(place[2])}\n{place[3]}", page)


def _table(name: str) -> str:
    from benchmarks import accuracy_report, index  # which import this module

    if name in accuracy_report.TABLES:
        return accuracy_report.table(name)
    return index.markdown(json.loads((RESULTS / f"{name}.json").read_text()))


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A command line with the module's docstring as its help, and `--results`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the raw figures")
    return parser


def write(name: str, figures: dict[str, Any], folder: Path, *, packages: Sequence[str] = ()) -> Path:
    """Write `figures` to FOLDER/NAME.json, stamped with commit, time, CPU and versions, and print the path.

    packages: packages besides the product's own whose versions are recorded; they may be absent.
    """
    stamp = {
        "benchmark": name,
        "commit": _commit() or "unknown",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in (*_PACKAGES, *packages)},
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(layout(stamp | figures) + "\n")
    print(f"Raw figures: {path}")
    return path


def layout(value: Any, indent: int = 1) -> str:
    """JSON with each list item on one line, and each dict on one line if it fits into 110 characters."""
    line = json.dumps(value)
    if not isinstance(value, dict | list) or len(line) <= 110:
        return line
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(name))}: {layout(part, indent + 1)}" for name, part in value.items()]
    else:
        parts = [json.dumps(part) for part in value]
    inner = ",\n".join(" " * indent + part for part in parts)
    return f"{line[0]}\n{inner}\n{' ' * (indent - 1)}{line[-1]}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A Markdown table whose first `texts` columns are text and whose others are numbers."""
    marks = ["---"] * texts + ["--:"] * (len(head) - texts)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, marks, *rows))


def draw(result: Path, plots: Plots) -> None:
    """Write RESULT-NAME.png for each plot, a function of a matplotlib figure and the figures of `result`.

    The plots lie beside the result, and those of RESULTS in IMAGES.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print("No plots: matplotlib is not installed (pip install opusagent-voiceprint[plots]).")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures = json.loads(result.read_text())
    for name, plot in plots.items():
        figure = Figure(figsize=(7.5, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        plot(figure, figures)
        for axes in figure.axes:
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize="small")
        folder = IMAGES if result.parent == RESULTS else result.parent
        path = folder / f"{result.stem}-{name}.png"
        figure.savefig(path, dpi=120, metadata={"Software": None})
        print(f"Plot: {path}")


def _commit() -> str:
    command = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # no git
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    sys.exit(main())
