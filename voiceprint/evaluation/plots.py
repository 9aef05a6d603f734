"""The plots of a report, as PNG. Needs matplotlib: `pip install opusagent-voiceprint[plots]`."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Final

import numpy as np

from voiceprint.evaluation.curves import BINS, probit
from voiceprint.evaluation.recommendation import TARGET, THRESHOLD
from voiceprint.evaluation.report import Report, RunResult

DPI: Final = 130
_TICKS: Final = (0.0001, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
_TARGET, _IMPOSTOR, _BEST = "tab:blue", "tab:orange", "tab:red"
_FEW: Final = 2  # most runs with intervals, and with lines at several thresholds

_Runs = Sequence[tuple[int, RunResult]]
_Drawing = Callable[[Any, _Runs], None]


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Report) -> dict[str, bytes]:
    """The plots of the report's figures, PNG by name: det, scores, identification, fpir."""
    runs = [(number, run) for number, run in enumerate(report.runs, 1) if run.verification is not None]
    searched = [(number, run) for number, run in runs if run.open_set]
    drawings: list[tuple[str, _Drawing, _Runs]] = [
        ("det", _det, runs),
        ("scores", _scores, runs),
        ("identification", _identification, searched),
        ("fpir", _fpir, [(number, run) for number, run in searched if len(run.open_set) > 1]),
    ]
    return {name: _png(drawing, shown) for name, drawing, shown in drawings if shown}


def _png(drawing: _Drawing, runs: _Runs) -> bytes:
    # Not pyplot, which would choose a window system, and hold the figure in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    drawing(figure, runs)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def _det(figure: Any, runs: _Runs) -> None:
    axes = figure.subplots()
    lowest = 0.02
    for number, run in runs:
        found = run.verification
        if found is not None:
            fmr, fnmr = np.array(found.det).T
            _step(
                axes,
                number,
                len(runs),
                fmr,
                fnmr,
                f"{_label(number, run)}: EER {100 * found.eer.value:.1f} %",
            )
            lowest = min(lowest, 0.7 * float(fmr[fmr > 0].min()))
    least = max(lowest, 1e-4)
    most = 0.35
    for _, run in runs:
        if run.verification is not None:
            fmr, fnmr = np.array(run.verification.det).T
            most = max(most, float(fnmr[fmr >= least].max()), float(fmr[fnmr >= least].max(initial=0.0)))
    most = min([tick for tick in _TICKS if tick >= most] or [_TICKS[-1]])
    _probit_axes(axes, least, least, most, most)
    axes.plot(probit([1e-5, 1 - 1e-5]), probit([1e-5, 1 - 1e-5]), color="0.7", linewidth=0.8, linestyle=":")
    axes.set(
        title="Verification: detection error trade-off",
        xlabel="false matches (FMR): impostors accepted",
        ylabel="false non-matches (FNMR): callers refused",
    )
    _legend(figure, axes, len(runs))


def _identification(figure: Any, runs: _Runs) -> None:
    axes = figure.subplots()
    least, dots = 0.02, []
    for number, run in runs:
        largest = run.open_set[-1]
        fpir, fnir = np.array(largest.curve).T
        _step(axes, number, len(runs), fpir, fnir, f"{_label(number, run)}: gallery of {largest.gallery}")
        least = min(least, 0.7 * float(fpir[fpir > 0].min()))
        at = largest.at_threshold
        if at is not None:
            dots.append((number, at.fpir.value, at.fnir.value))
    least = max(least, 1e-3)
    _probit_axes(axes, least, 0.002)
    for number, fpir, fnir in dots:
        # Points outside the axes, such as an error of 0, are drawn on the edge.
        x, y = probit([max(fpir, least)]), probit([min(max(fnir, 0.002), 0.99)])
        axes.plot(x, y, "o", color=_color(number, len(runs)), markersize=6, clip_on=False, zorder=5)
    axes.set(
        title="Open-set identification" + (", dot: the configured threshold" if _threshold(runs) else ""),
        xlabel="unknown callers who get a name (FPIR)",
        ylabel="enrolled callers who are missed (FNIR)",
    )
    _legend(figure, axes, len(runs))


def _fpir(figure: Any, runs: _Runs) -> None:
    from matplotlib.ticker import FuncFormatter

    axes = figure.subplots()
    sizes: set[int] = set()
    for number, run in runs:
        color, galleries = _color(number, len(runs)), [one.gallery for one in run.open_set]
        sizes.update(galleries)
        own = [one.at_threshold.fpir for one in run.open_set if one.at_threshold]
        if own:
            threshold = _threshold([(number, run)])
            axes.plot(
                galleries, [rate.value for rate in own], "o-", color=color, markersize=4,
                label=f"{_label(number, run)}: {THRESHOLD}={threshold:g}",
            )  # fmt: skip
            if len(runs) <= _FEW and all(rate.low is not None for rate in own):
                low, high = [rate.low for rate in own], [rate.high for rate in own]
                axes.fill_between(galleries, low, high, color=color, alpha=0.15, linewidth=0)
        targets = [one.target for one in run.open_set[-1].at_target]
        for place, target in enumerate(targets):
            axes.plot(
                galleries, [one.at_target[place].fpir.value for one in run.open_set],
                ("--", ":", "-.")[place % 3], marker=".", color=color, linewidth=1.2,
                label=f"{_label(number, run)}: {TARGET}={target:g}",
            )  # fmt: skip
        if not targets and (len(runs) <= _FEW or not own):
            for place, threshold in enumerate(run.thresholds):
                axes.plot(
                    galleries, [one.fpir_by_threshold[place].value for one in run.open_set],
                    ("--", ":", "-.")[place % 3], marker=".", color=color, linewidth=1.2,
                    label=f"{_label(number, run)}: at {threshold:.3f}",
                )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.grid(alpha=0.3)
    axes.set(
        title="Strangers who get a name, by size of gallery",
        xlabel="callers in the gallery",
        ylabel="unknown callers who get a name (FPIR)",
    )
    _legend(figure, axes, len(axes.get_lines()))


def _scores(figure: Any, runs: _Runs) -> None:
    """A panel for each run, and a column for each score, with an axis of its own."""
    scorers = list(dict.fromkeys(run.scorer for _, run in runs))
    columns = [[one for one in runs if one[1].scorer == scorer] for scorer in scorers]
    if len(columns) == 1 and len(runs) > 1:
        columns = [[*runs[::2]], [*runs[1::2]]]
    rows = max(map(len, columns))
    width = 7.5 if len(columns) == 1 else 5.5 * len(columns)
    figure.set_size_inches(width, 5.2 if rows == 1 else 1.2 + 3.2 * rows)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for scorer in scorers:
        spreads = [run.histogram for _, run in runs if run.scorer == scorer and run.histogram is not None]
        low, high = min(one.low for one in spreads), max(one.high for one in spreads)
        for place, column in enumerate(columns):
            for row, (number, run) in enumerate(column):
                if run.scorer == scorer:
                    _score_panel(grid[row][place], number, run)
                    grid[row][place].set_xlim(low, high)
    for place, column in enumerate(columns):
        for axes in grid[len(column) :, place]:
            axes.remove()
    figure.suptitle("Scores of probes against their own and other callers")
    figure.supylabel("share of the comparisons", fontsize="medium")
    shown = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        if "=" not in label
    }
    figure.legend(
        [*shown.values()], [*shown], loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )


def _score_panel(axes: Any, number: int, run: RunResult) -> None:
    from matplotlib.ticker import FuncFormatter

    found = run.histogram
    if found is None:
        return
    edges = np.linspace(found.low, found.high, BINS + 1)
    axes.stairs(found.impostors, edges, fill=True, alpha=0.45, color=_IMPOSTOR, label="other callers")
    if found.gallery is not None:
        axes.stairs(
            found.best_impostors, edges, color=_BEST, linewidth=1.4, label="best other caller in the gallery"
        )
    axes.stairs(found.targets, edges, fill=True, alpha=0.45, color=_TARGET, label="own caller")
    lines = [
        axes.axvline(score, color="0.3", linewidth=1.0, linestyle=style, label=setting)
        for (setting, score), style in zip(found.settings, cycle(("--", ":", "-.")), strict=False)
    ]
    if lines:
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
        axes.legend(handles=lines, loc="upper left", framealpha=0.9, edgecolor="none", fontsize="x-small")
    size = "" if found.gallery is None else f", gallery of {found.gallery}"
    axes.set_title(_label(number, run) + size, fontsize="small")
    axes.set_xlabel("log-likelihood ratio (llr)" if run.scorer == "llr" else run.scorer)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.grid(alpha=0.3)


def _step(axes: Any, number: int, runs: int, x: Any, y: Any, label: str) -> None:
    axes.plot(probit(x), probit(y), color=_color(number, runs), linewidth=1.6, label=label)


def _probit_axes(
    axes: Any, least_x: float, least_y: float, most_x: float = _TICKS[-1], most_y: float = _TICKS[-1]
) -> None:
    """Both axes in percent on the scale of the normal distribution."""
    for axis, least, most, limits in (
        (axes.xaxis, least_x, most_x, axes.set_xlim),
        (axes.yaxis, least_y, most_y, axes.set_ylim),
    ):
        ticks = [tick for tick in _TICKS if least <= tick <= most]
        axis.set_ticks(probit(ticks), [f"{100 * tick:g} %" for tick in ticks])
        limits(*probit([least, most]))
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.3)


def _legend(figure: Any, axes: Any, lines: int) -> None:
    if lines <= 4:
        place = "upper left" if axes.get_xscale() == "log" else "upper right"
        axes.legend(loc=place, framealpha=0.9, edgecolor="none", fontsize="small")
    else:
        figure.set_size_inches(7.5, 5.0 + 0.2 * lines)
        figure.legend(loc="outside lower center", frameon=False, fontsize="small")


def _color(number: int, runs: int) -> Any:
    from matplotlib import colormaps

    if runs <= 10:
        return colormaps["tab10"]((number - 1) % 10)
    return colormaps["turbo"](0.05 + 0.9 * (number - 1) / max(1, runs - 1))


def _label(number: int, run: RunResult) -> str:
    return f"{number}: {run.name}"


def _threshold(runs: _Runs) -> float | None:
    """The configured threshold of the first run."""
    at = runs[0][1].open_set[-1].at_threshold if runs[0][1].open_set else None
    return None if at is None else at.threshold
