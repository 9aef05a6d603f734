"""`render`: the templates of the console as pages."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from starlette.responses import HTMLResponse

import voiceprint

FOLDER: Final = Path(__file__).parent


def render(
    template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A page, or a part of one, of a template."""
    text = _environment.get_template(template).render(**values)
    return HTMLResponse(text, status_code=status, headers=headers)


def _percent(share: float | None) -> str:
    """A share as percent, with two digits that count."""
    if share is None:
        return "–"
    percent = 100.0 * share
    if percent == 0.0 or percent >= 10.0:
        return f"{percent:.0f} %"
    return f"{percent:.2g} %" if percent >= 0.01 else "< 0.01 %"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1.0 else f"{value:.1f} s"


def _time(text: str | None) -> str:
    """A time of a record, ISO 8601 UTC, for a reader; a narrow column breaks it before the clock."""
    if not text:
        return "–"
    whole = Markup('<time><span class="nowrap">{}</span> <span class="nowrap">{}</span></time>')
    return whole.format(text[:10], text[11:19])


def _clock(seconds: float) -> str:
    """A time in seconds since 1970, for a reader."""
    return _time(datetime.fromtimestamp(seconds, timezone.utc).isoformat())


_WORDS: Final = {
    "accepted": "Accepted",
    "rejected": "Rejected",
    "inconclusive": "Inconclusive",
    "not_enrolled": "Nobody enrolled",
    "opted_out": "Opted out",
    "expired": "Expired",
    "enrolled": "Enrolled",
    "pending": "Pending",
}


def _json(value: object) -> str:
    """A value of a record as JSON, for a reader or an attribute."""
    return json.dumps(value, ensure_ascii=False)


def word(code: object) -> str:
    """A code of an answer, such as "not_enrolled" or "AudioQualityError", for a reader."""
    text = str(code)
    return _WORDS.get(text, re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", text).capitalize())


# Always escapes: ids, groups and metadata are texts of other people.
_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    percent=_percent, number=_number, seconds=_seconds, time=_time, clock=_clock, word=word,
    quote=lambda text: quote(text, safe=""), json=_json,
)  # fmt: skip
_environment.globals["version"] = voiceprint.__version__
