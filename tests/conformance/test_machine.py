"""Any run of operations leaves a store, its followers and its indexes like a dict and a numpy brute force."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from harness import HARNESSES, redis_shards_harness
from storage_machine import run_machine

MACHINES = {**HARNESSES, "redis-shards": redis_shards_harness}


# Coverage takes as long again here, for lines that the other tests of each store cover.
@pytest.mark.no_cover
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(MACHINES))
def test_any_run_of_operations_leaves_the_store_like_a_dict(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    counter = itertools.count()
    runs = request.config.getoption("--runs")
    run_machine(lambda: MACHINES[kind](tmp_path / f"store{next(counter)}"), examples=runs)
