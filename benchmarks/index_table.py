"""The result table of index.py, and its place in the documentation.

    python -m benchmarks.index_table        draws the tables of README and docs from their results

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and is drawn from
benchmarks/results/NAME.json; those of accuracy.json have several names, see accuracy_table.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import accuracy_table, index, report

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/accuracy.md", ROOT / "docs/index.md")
_PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Draw them."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
    return 0


def with_tables(page: str) -> str:
    """The page with its tables drawn anew."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{_drawn(place[2])}\n{place[3]}", page)


def _drawn(name: str) -> str:
    return (
        accuracy_table.drawn(name)
        if name in accuracy_table.TABLES
        else report.markdown(*index.table(_result(name)), texts=2)
    )


def _result(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((report.RESULTS / f"{name}.json").read_text())
    return figures


if __name__ == "__main__":
    sys.exit(main())
