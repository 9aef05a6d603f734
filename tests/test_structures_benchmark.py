"""The benchmark of search structures runs as a whole, and chooses the least setting that finds enough."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from families import STRUCTURES, Structure, ladder
from structures import DEPTHS, K, Trial

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "structures.py"
PRINTS = 1_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run of all structures: its figures by name, and what it printed."""
    folder = tmp_path_factory.mktemp("results")
    options = f"--prints {PRINTS} --probes 50 --results {folder}"
    done = subprocess.run(
        [sys.executable, SCRIPT, *options.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((folder / f"structures-{PRINTS}.json").read_text())
    assert figures["commit"]
    return {row["structure"]: row for row in figures["rows"]}, done.stdout


def test_every_structure_is_measured_and_finds_enough(run):
    rows, printed = run
    assert list(rows) == list(STRUCTURES)
    for name, row in rows.items():
        assert row["state"] == "reached", name
        assert row["recall_at_1"] >= 0.98, name
        assert row["recall_at_5"] >= 0.93, name
        assert name in printed


def test_flat_search_finds_what_is_exact(run):
    assert run[0]["flat"]["recall_at_1"] == run[0]["flat"]["recall_at_5"] == 1


def test_graph_is_the_one_that_cannot_remove_in_place(run):
    fixed = {name for name, row in run[0].items() if row["remove_us"] is None}
    assert fixed == {name for name in STRUCTURES if name.startswith("hnsw")}


def test_what_a_structure_takes_counts_the_vectors_that_it_scores_from(run):
    for name, row in run[0].items():
        assert row["bytes_per_vector"] >= 4 * 256, name
    assert run[0]["ivf-fp16 none"]["bytes_per_vector"] > run[0]["ivf-sq8 none"]["bytes_per_vector"] + 200


class Stepwise(Structure):
    """Proposes the right row as the candidate number 20, from the effort 4 on."""

    efforts = (1, 2, 4, 8)

    def candidates(self, queries, depth, effort):
        wrong = np.arange(100, 100 + depth)
        found = np.tile(wrong, (len(queries), 1))
        if effort >= 4 and depth >= 25:
            found[:, 20:25] = np.arange(K)
        return found

    def remove(self, row):
        raise RuntimeError("not this one")


@pytest.fixture
def trial():
    """Over a thousand vectors, of which the first are the nearest of the only probe."""
    probe = np.array([[1, 0]], dtype=np.float32)
    vectors = np.zeros((PRINTS, 2), dtype=np.float32)
    vectors[:K, 0] = 1 - 0.1 * np.arange(K)
    return Trial(Stepwise(), vectors, np.tile(probe, (10, 1)), np.tile(np.arange(K), (10, 1)))


def test_least_effort_that_finds_enough_is_taken_for_each_number_of_candidates(trial):
    enough = [depth for depth in DEPTHS if depth >= 25]
    assert list(trial.settings((0.995, 0.95))) == [(depth, 4) for depth in enough]


def test_setting_that_finds_too_little_is_not_among_those_to_choose_from(trial):
    assert trial.recalls(512, 2) == (0, 0)
    assert trial.recalls(16, 8) == (0, 0)
    assert trial.recalls(32, 8) == (1, 1)


def test_scores_are_computed_from_the_vectors(trial):
    assert trial.search(trial.probes[0], 32, 8) == list(range(K))


def test_structure_without_removal_is_told_as_such(trial):
    assert trial.removal() is None


def test_ladder_rises_from_end_to_end():
    steps = ladder(1, 474, 1.15)
    assert steps[0] == 1
    assert steps[-1] == 474
    assert list(steps) == sorted(set(steps))
