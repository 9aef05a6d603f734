"""The benchmark of the index runs on generated and on own vectors, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.index", "--results", folder, "--probes", "30", *options],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = folder.glob("*.json")
    return json.loads(result.read_text()), done.stdout


@pytest.mark.parametrize("own", [False, True])
def test_index_and_flat_search_are_measured_at_every_size(tmp_path: Path, own: bool) -> None:
    options = ["--sizes", "200", "400"]
    if own:
        np.save(tmp_path / "own.npy", np.random.default_rng(0).standard_normal((500, 16)))
        options += ["--vectors", str(tmp_path / "own.npy")]
    figures, printed = run(tmp_path / "results", *options)
    rows = figures["rows"]
    assert [(row["size"], row["search"]) for row in rows] == [
        (size, search) for size in (200, 400) for search in ("VectorIndex", "faiss flat")
    ]
    for row in rows:  # both compare with all: float16 may exchange neighbors that are as good as equal
        assert row["recall_at_1"] >= 0.9
        assert row["recall_at_k"] >= 0.9
    assert all(row["recall_at_1"] == row["recall_at_k"] == 1 for row in rows if row["search"] == "faiss flat")
    assert [(grown["from"], grown["to"]) for grown in figures["growth"]] == [(50, 200), (100, 400)]
    assert set(rows[0]["writes_ms"]) == {"add", "replace", "remove", "search"}
    assert "| 400 | VectorIndex |" in printed
