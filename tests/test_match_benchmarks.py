"""The benchmarks of a match and of opening a store: stages add up, and the answers are right."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from filled_store import fill, name
from gallery_model import GalleryModel
from match import Stages

from voiceprint import MemoryStorage

pytestmark = pytest.mark.slow

OPENING = Path(__file__).resolve().parents[1] / "benchmarks" / "opening.py"
MATCH = OPENING.with_name("match.py")


class Clock:
    """Time that passes only when something is said to take it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_stage_inside_another_counts_for_itself_alone(clock):
    def inner():
        clock.now += 2

    def outer():
        clock.now += 1
        parts.inner()
        parts.inner()
        clock.now += 4
        return "answer"

    parts = SimpleNamespace(inner=inner, outer=outer)
    stages = Stages(clock)
    stages.wrap(parts, "inside", "inner")
    stages.wrap(parts, "around", "outer")
    assert parts.outer() == "answer"
    assert stages.seconds == {"inside": 4, "around": 5}


def test_stage_that_fails_is_counted_and_fails(clock):
    def failing():
        clock.now += 3
        raise KeyError("gone")

    parts = SimpleNamespace(failing=failing)
    stages = Stages(clock)
    stages.wrap(parts, "stage", "failing")
    with pytest.raises(KeyError, match="gone"):
        parts.failing()
    assert stages.seconds == {"stage": 3}


def test_work_of_other_threads_is_no_stage(clock):
    parts = SimpleNamespace(work=lambda: setattr(clock, "now", clock.now + 1))
    stages = Stages(clock)
    stages.wrap(parts, "stage", "work")
    thread = threading.Thread(target=parts.work)
    thread.start()
    thread.join()
    assert clock.now == 1
    assert stages.seconds == {}


def test_filled_store_holds_the_gallery():
    gallery = GalleryModel.load().gallery(300)
    with MemoryStorage() as storage:
        fill(storage, gallery)
        assert storage.count() == 300
        caller = storage.get(name(0))
        assert caller is not None
        own = gallery.matrix()[gallery.callers() == 0]
        stored = np.stack([voiceprint.embedding for voiceprint in caller.voiceprints])
        np.testing.assert_allclose(stored, own, atol=1e-6)


def test_every_opening_of_a_store_gives_the_right_answer(tmp_path):
    options = f"--prints 500 --changes 100 --folder {tmp_path} --results {tmp_path}"
    done = subprocess.run(
        [sys.executable, OPENING, *options.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "opening-500.json").read_text())
    for opening in ("without_snapshot", "with_snapshot", "with_old_snapshot"):
        assert figures[opening]["right"], opening
    assert figures["with_old_snapshot"]["after_changes_right"]


def test_stages_of_a_match_are_kept_with_what_linear_searches_take(tmp_path):
    options = f"--prints 400 --rounds 4 --results {tmp_path}"
    done = subprocess.run(
        [sys.executable, MATCH, *options.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "match-400.json").read_text())
    assert figures["named_right"] == figures["matches"] == 4
    assert {"encoder", "search", "records", "scores", "touch", "beside", "total"} <= figures["ms"].keys()
    assert figures["ms"]["beside"]["max"] < figures["ms"]["total"]["max"]
    assert figures["linear_ms"].keys() == {"loop", "product"}
