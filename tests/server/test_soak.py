"""The promises of the service under mixed load, while its workers are killed: `benchmarks.soak`, in small.

VOICE_SOAK_MINUTES=N: minutes of load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import fresh_url

MINUTES = os.environ.get("VOICE_SOAK_MINUTES", "0.3")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_killed_workers_lose_nothing_that_was_acknowledged(tmp_path: Path, store: str) -> None:
    url = f"sqlite:{tmp_path}/callers.db" if store == "sqlite" else fresh_url()
    options = ("--minutes", MINUTES, "--kill-every", "6", "--calls", "2", "--most-growth", "9")
    command = [sys.executable, "-m", "benchmarks.soak", "--store", url, *options, "--results", tmp_path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280 + 60 * float(MINUTES))
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads((tmp_path / f"soak-{store}.json").read_text())
    outcomes = figures["outcomes"]
    assert figures["faults"] == []
    assert outcomes["killed workers"] >= 2
    assert min(outcomes[name] for name in ("enroll: 201", "identify: 200", "call: answered")) > 0
