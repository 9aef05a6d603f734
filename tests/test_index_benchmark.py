"""The benchmark of the index runs as a whole, its table says what was measured, and the README shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import index_table
from contenders import CONTENDERS

ROOT = Path(__file__).resolve().parents[1]
SIZES = [200, 400]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run: its folder of results, and what it printed."""
    folder = tmp_path_factory.mktemp("results")
    options = f"""
        --sizes {SIZES[0]} {SIZES[1]} --probes 30 --writes 5
        --only index flat hnswlib loop-json --loop-up-to {SIZES[0]} --results {folder}
    """
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "index.py", *options.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def figures(run):
    return json.loads((run[0] / "index-400.json").read_text())


def test_every_structure_is_measured_at_every_size(figures):
    measured = {(row["size"], row["contender"]): row["state"] for row in figures["rows"]}
    assert len(measured) == 8
    for size in SIZES:
        assert measured[size, "index"] == measured[size, "flat"] == "ran"
    assert measured[200, "loop-json"] == "ran"
    assert measured[400, "loop-json"] == "not run"
    assert figures["commit"]


def test_exact_searches_find_what_is_exact(figures):
    """Three independent ones agree: faiss's, the loop's and the reference that all are held against."""
    for row in figures["rows"]:
        if row["state"] == "ran" and row["contender"] in ("flat", "loop-json"):
            assert row["searches"][0]["recall_at_1"] == 1
            assert row["searches"][0]["recall_at_5"] == 1


def test_index_is_written_to_while_it_is_searched_and_grows(figures):
    rows = [row for row in figures["rows"] if row["contender"] == "index"]
    assert all({"add_us", "replace_us", "remove_us", "search_us"} == set(row["writes"]) for row in rows)
    assert [grown["to"] for grown in figures["growth"]] == SIZES
    assert all(grown["searches"] > 0 for grown in figures["growth"])


def test_table_is_printed(run):
    assert "VectorIndex" in run[1]
    assert "recall@5" in run[1]


def test_plots_are_drawn_where_matplotlib_is(run):
    pytest.importorskip("matplotlib")
    for name in ("index-400-latency.png", "index-400-recall.png"):
        assert (run[0] / name).read_bytes().startswith(b"\x89PNG")


def row(contender, *searches, state="ran"):
    return {
        "size": 10_000,
        "contender": contender,
        "threads": 1,
        "state": state,
        "build_s": 1.0,
        "bytes_per_vector": 1_234,
        "searches": [
            {
                "recall_at_1": first,
                "recall_at_5": five,
                "us": {"p50": us, "p90": us, "p99": us, "max": us},
            }
            for first, five, us in searches
        ],
    }


def test_graph_is_shown_at_the_least_effort_that_finds_as_much_as_the_index():
    graph = row("hnswlib", (0.99, 0.90, 100), (1.0, 0.96, 200), (1.0, 0.99, 400))
    figures = {"k": 5, "rows": [row("index", (0.995, 0.95, 150)), graph]}
    assert index_table.shown_search(figures, graph)["us"]["p50"] == 200


def test_graph_that_never_finds_as_much_is_shown_where_it_finds_most():
    graph = row("hnswlib", (0.90, 0.90, 100), (0.92, 0.93, 200), (0.92, 0.93, 400))
    figures = {"k": 5, "rows": [row("index", (1.0, 1.0, 150)), graph]}
    assert index_table.shown_search(figures, graph)["us"]["p50"] == 200


def test_table_says_what_was_not_run_and_guesses_nothing():
    rows = [
        row("index", (1.0, 1.0, 150)),
        row("loop-json", state="not run"),
        row("usearch", state="not installed"),
    ]
    head, lines = index_table.table({"k": 5, "rows": rows})
    assert lines[0][:3] == ["10,000", "VectorIndex", "0.15 ms"]
    assert lines[0][head.index("bytes a print")] == "1,234"
    assert lines[1][1:4] == ["loop over JSON", "not run", "-"]
    assert lines[2][1:4] == ["usearch", "not installed", "-"]


def test_every_structure_of_the_table_has_a_title_of_its_own():
    assert len({kind.title for kind in CONTENDERS.values()}) == len(CONTENDERS)


def test_readme_shows_the_kept_results():
    page = (ROOT / "README.md").read_text()
    assert re.search(r"<!-- table: [\w-]+ -->\n\n\| Voiceprints .*\n\| --- ", page)
    assert index_table.with_tables(page) == page, "run `python benchmarks/index_table.py`"
