"""Mutated audio files give audio or a typed error, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SLOWEST_S = 2.0
MOST_MB = 300.0

RUN = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import fuzz_containers
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # what grows without end fails rather than swaps
fuzz_containers.main(int(sys.argv[2]), int(sys.argv[3]))
"""


def test_mutated_containers_give_audio_or_a_typed_error(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("av")
    count = request.config.getoption("--mutations")
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(Path(__file__).parent), str(count), str(seed)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["formats"] >= 10
    assert found["good"] > count / 10, "the mutations are too harsh to test much"
    assert found["refused"] > count / 10, "the mutations are too mild to test much"
    assert found["slowest_s"] < SLOWEST_S, f"seed {seed}: {found['slowest']}"
    assert found["peak_mb"] < MOST_MB, f"seed {seed}"
