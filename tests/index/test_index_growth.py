"""The index trains by itself, in the background, and goes on answering and taking in changes."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from vectors import D, assert_like, made, made_trained, vectors

from voiceprint.index import VectorIndex
from voiceprint.index.ivf import IVFIndex

SMALL: dict[str, Any] = {"exact_up_to": 200}


def test_it_trains_beyond_the_bound_and_again_when_it_has_doubled_and_not_between() -> None:
    index, _ = made(200, **SMALL)
    assert index.status().structure == "exact"
    trained = []
    for id_ in range(5_000, 5_900):
        index.add([id_], vectors(id_, 1))
        assert index.wait(60)
        trained.append(index.status().trained_on)
    assert sorted(set(trained)) == [201, 403, 807]
    assert index.check() == []


def test_it_compares_with_all_again_when_it_has_shrunk() -> None:
    index, model = made_trained(300)
    gone = list(model)[:200]
    index.remove(gone[:199])
    assert index.status().structure == "ivf"
    index.remove(gone[199:])
    assert index.wait(60)
    assert (index.status().structure, index.status().trained_on) == ("exact", 0)
    assert_like(index, {id_: vector for id_, vector in model.items() if id_ not in gone})
    index.add(gone, np.stack([model[id_] for id_ in gone]))
    assert index.wait(60)
    assert index.status().structure == "ivf"


def test_filling_is_one_training() -> None:
    index = VectorIndex(D, **SMALL)

    def blocks() -> Iterator[tuple[Any, Any]]:
        for start in range(0, 1_000, 100):
            yield np.arange(start, start + 100), vectors(start, 100)
            assert not index.status().training

    index.fill(blocks())
    assert index.wait(60)
    assert index.status().trained_on == 1_000


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Trainings stop in their middle: the first event tells that one has, the second lets them go on."""
    stopped, go_on = threading.Event(), threading.Event()
    train = IVFIndex.train.__func__

    def slowly(cls: type[IVFIndex], sample: Any, lists: int) -> IVFIndex:
        made = train(cls, sample, lists)
        stopped.set()
        assert go_on.wait(60)
        return made

    monkeypatch.setattr(IVFIndex, "train", classmethod(slowly))
    return stopped, go_on


@pytest.mark.usefixtures("every_candidate", "small_chunks")
def test_what_comes_and_goes_during_a_training_is_there_and_a_second_one_follows_when_due(slow: Any) -> None:
    stopped, go_on = slow
    index, model = VectorIndex(D, **SMALL), dict(enumerate(vectors(0, 300)))
    index.add(list(model), np.stack(list(model.values())))
    assert stopped.wait(60)
    assert not index.wait(0)
    assert not index.wait(0.01)
    assert index.status().training
    more = dict(enumerate(vectors(1, 900), start=250))
    index.add(list(more), np.stack(list(more.values())))
    index.remove(range(100))
    model = {id_: vector for id_, vector in (model | more).items() if id_ >= 100}
    assert_like(index, model)
    go_on.set()
    assert index.wait(60)
    assert index.status().trained_on == len(model)
    assert not index.status().training
    assert_like(index, model)


def test_waiting_is_also_for_a_training_that_another_thread_asked_for(slow: Any) -> None:
    stopped, go_on = slow
    index, _ = made(100, exact_up_to=150)
    with ThreadPoolExecutor(2) as pool:
        training = pool.submit(index.train)
        assert stopped.wait(60)
        assert not index.wait(0.01)
        waiting = pool.submit(index.wait)
        go_on.set()
        assert waiting.result(60)
        training.result(60)
    assert index.status().structure == "ivf"


def test_an_index_that_nobody_uses_any_more_goes_when_its_training_ends(slow: Any) -> None:
    stopped, go_on = slow
    index = VectorIndex(D, **SMALL)
    index.add(np.arange(300), vectors(0, 300))
    assert stopped.wait(60)
    (thread,) = [one for one in threading.enumerate() if one.name == "voiceprint-index"]
    gone = weakref.ref(index)
    del index
    go_on.set()
    thread.join(60)
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, np.linalg.LinAlgError])
def test_a_training_that_fails_leaves_the_index_working_and_is_tried_again_later(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        raise error("no")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "voiceprint.index"):
        patch.setattr(IVFIndex, "train", fail)
        index, model = made(300, **SMALL)
        index.add([5], vectors(7, 1))  # not at every change, which would be all the time
        model[5] = vectors(7, 1)[0]
        assert index.wait(60)
        assert len(calls) == 1
        assert [error.__name__ in record.getMessage() for record in caplog.records] == [True]
        assert_like(index, model)
        with pytest.raises(error):
            index.train()
        assert_like(index, model)
    monkeypatch.setattr("voiceprint.index.maintenance.time.monotonic", lambda: time.time() + 1e6)
    index.add([5], model[5][None])
    assert index.wait(60)
    assert index.status().structure == "ivf"
    assert index.check() == []


def test_status_says_why_all_vectors_are_compared(caplog: pytest.LogCaptureFixture) -> None:
    assert "as fast as anything else" in made(100, exact_up_to=200)[0].status().reason
    assert "a recall of 1 is asked for" in made(300, exact_up_to=200, recall=1.0)[0].status().reason
    assert made_trained()[0].status().reason == ""
    assert caplog.text == ""


def test_almost_equal_vectors_are_all_compared_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = VectorIndex(256, exact_up_to=200)
    index.add(np.arange(1_000), np.repeat(vectors(1, 2, 256), 500, axis=0) + 1e-3 * vectors(2, 1_000, 256))
    assert index.wait(60)
    index.train()
    status = index.status()
    assert (status.structure, status.trained_on) == ("exact", 1_000)
    assert "too many vectors are almost equal" in status.reason
    assert "a search takes time in proportion to the number of vectors" in status.reason
    assert (
        caplog.text.count("All 1000 vectors are compared: an inverted file does not give a recall of 0.99")
        == 1
    )


def test_few_vectors_are_never_trained_on() -> None:
    index, model = made(15, exact_up_to=0)
    index.train()
    assert index.status().structure == "exact"
    assert_like(index, model)
    index.add([1], vectors(1, 1))
    assert index.wait(60)
    assert index.status().structure == "ivf"


EXIT = """
import numpy as np
from voiceprint.index import VectorIndex
index = VectorIndex(64, exact_up_to=200)
index.add(np.arange(20_000), np.random.default_rng(0).standard_normal((20_000, 64)))
assert index.status().training
"""


def test_the_interpreter_ends_well_during_a_training() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
