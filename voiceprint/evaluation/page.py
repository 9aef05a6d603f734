"""The files of a report: a self-contained HTML page, the plots, and JSON."""

from __future__ import annotations

import base64
import re
from functools import partial
from html import escape
from pathlib import Path
from typing import Final

import orjson

from voiceprint._files import replacement
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation import plots
from voiceprint.evaluation.report import Report
from voiceprint.evaluation.tables import Table, recommendations, remarks, summary, tables

NAME: Final = "report"

# The first bytes of the files of a report; other files of these names are not replaced.
_HEADS: Final = {
    ".json": re.compile(rb'\{\s*"format":'),
    ".html": re.compile(rb"<!DOCTYPE html>"),
    ".png": re.compile(rb"\x89PNG\r\n"),
}

_CAPTIONS: Final = {
    "det": "Errors of verification as the threshold moves: the nearer to the lower left corner, the better. "
    "EER: the error where the curve meets the dotted diagonal.",
    "scores": "Scores of probes with their own caller, with other callers, and with the best of many others. "
    "No threshold separates the overlap of the red line and the blue area. A dashed line is the threshold of "
    "a setting; that of a target FPIR moves with the gallery, and is drawn at its median.",
    "identification": "Errors of a search of the largest gallery as the threshold moves.",
    "fpir": "The best of more callers has a higher score: a threshold fits one size of gallery, a target "
    "FPIR follows the size.",
}

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .2rem; }
p, li { max-width: 46rem; } .explanation, figcaption, footer { color: #555; margin: .2rem 0 .6rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .9rem .25rem 0; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #999; text-align: left; }
.figures td + td, .figures th + th { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
"""


def as_json(report: Report) -> bytes:
    """The report as indented JSON; equal reports give equal bytes."""
    return orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def as_page(report: Report, drawn: dict[str, bytes]) -> str:
    """The report as one page of HTML; drawn: the plots, PNG by name."""
    parts = [f"<p><strong>{escape(' '.join(report.sessions.summary))}</strong></p>"]
    parts += [f"<p>{escape(summary(report))} Folders: {escape(', '.join(report.folders))}.</p>"]
    first, *others = tables(report)
    parts.append(_table(first, "words"))
    parts += [_table(table, "figures") for table in others]
    notes = remarks(report)
    if notes:
        parts.append("<h2>Left out, and to know</h2><ul>")
        parts += [f"<li>{escape(note)}</li>" for note in notes]
        parts.append("</ul>")
    if drawn:
        parts.append("<h2>Plots</h2>")
    for name, png in drawn.items():
        data = base64.b64encode(png).decode()
        parts.append(
            f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>"
        )
    for heading, sentences in recommendations(report):
        parts.append(f"<h2>{escape(heading)}</h2><ul>")
        parts += [f"<li>{escape(sentence)}</li>" for sentence in sentences]
        parts.append("</ul>")
    settings = ", ".join(f"{key} {value}" for key, value in report.as_dict()["settings"].items())
    parts.append(
        f"<footer><p>In brackets: 95 % confidence, over speakers. voiceprint {escape(report.voiceprint)}. "
        f"Settings: {escape(settings)}.</p></footer>"
    )
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>How well callers are recognized</title><style>{_STYLE}</style></head>\n"
        f"<body>\n<h1>How well callers are recognized</h1>\n{body}\n</body>\n</html>\n"
    )


def prepare_folder(folder: Path) -> None:
    """Create the folder of a report. Raises `InvalidArgumentError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgumentError(f"cannot make the folder {folder}: {error.strerror}") from error


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json, report.html and, where matplotlib is installed, the plots into a folder.

    Returns:
        The files; without matplotlib no plots, neither as files nor in the page.

    Raises:
        InvalidArgumentError: a file cannot be written.
    """
    prepare_folder(folder)
    drawn = plots.draw(report) if plots.available() else {}
    files = {f"{NAME}.json": as_json(report), f"{NAME}.html": as_page(report, drawn).encode()}
    files |= {f"{name}.png": png for name, png in drawn.items()}
    try:
        for name, content in files.items():
            path = Path(folder, name)
            kind = f"the {path.suffix[1:].upper()} of a report"
            ours = partial(_starts_with, _HEADS[path.suffix])
            with replacement(path, ours=ours, kind=kind) as stream:
                stream.write(content)
    except OSError as error:
        raise InvalidArgumentError(f"cannot write to the folder {folder}: {error.strerror}") from error
    return [Path(folder, name) for name in files]


def _starts_with(pattern: re.Pattern[bytes], head: bytes) -> bool:
    return pattern.match(head) is not None


def _table(table: Table, kind: str) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<h2>{escape(table.title)}</h2><p class="explanation">{escape(table.explanation)}</p>'
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )
