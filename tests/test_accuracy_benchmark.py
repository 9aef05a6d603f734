"""The figures of benchmarks/accuracy.py that are kept, and the tables that the README draws from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import accuracy_table  # noqa: E402
import index_table  # noqa: E402

FIGURES = json.loads((BENCHMARKS / "results/accuracy.json").read_text())


@pytest.mark.parametrize("name", accuracy_table.TABLES)
def test_a_marked_place_of_a_page_gets_the_table_of_the_kept_figures(name: str) -> None:
    page = f"before\n<!-- table: {name} -->\nold\n<!-- end -->\nafter\n"
    drawn = index_table.with_tables(page)
    assert "old" not in drawn
    assert index_table.with_tables(drawn) == drawn
    head, *lines = [line for line in drawn.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    assert {line.count("|") for line in lines} == {head.count("|")}


def test_the_table_of_bars_holds_every_pair_by_both_scores() -> None:
    rows = accuracy_table.bars(FIGURES).splitlines()[2:]
    assert len(rows) == len(FIGURES["pairs"])
    value, low, high = FIGURES["pairs"][1]["fnir_5"]
    assert f"{100 * value:.1f} % ({100 * low:.1f}-{100 * high:.1f})" in rows[1]


def test_the_kept_figures_are_of_speakers_who_were_not_fitted_to_and_reach_their_bars() -> None:
    found = {(row["enrolment"], row["probe"], row["score"]): row for row in FIGURES["pairs"]}
    assert FIGURES["gallery"] * 2 <= FIGURES["speakers"] + 1
    assert found["clean", "clean", "llr"]["rank_1"][0] > 0.99
    assert found["clean", "full", "llr"]["rank_1"][0] > 0.97
    assert found["clean", "full", "llr"]["fnir_5"][0] < 0.15
    assert found["full", "full 2", "llr"]["rank_1"][0] > 0.97
    assert found["clean", "clean", "llr"]["fnir_5"][0] <= 0.01
    assert found["clean", "narrow", "llr"]["fnir_5"][0] < 0.15
    assert found["narrow", "narrow 2", "llr"]["rank_1"][0] > 0.97
    for pair in (("clean", "full"), ("clean", "narrow"), ("narrow", "narrow 2")):
        assert found[(*pair, "llr")]["fnir_5"][0] < found[(*pair, "cosine")]["fnir_5"][0]
