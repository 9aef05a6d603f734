"""The recall that was asked for, on recordings that the index does not hold, at voice-like vectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from vectors import assert_like, made_trained

from tools.gallery_model import GalleryModel
from voiceprint.index import VectorIndex
from voiceprint.index.ivf import IVFIndex

N = 30_000


class Held:
    """A gallery in an index, and probes with their nearest prints."""

    def __init__(self) -> None:
        gallery = GalleryModel.load().gallery(N)
        matrix = gallery.matrix()
        _, self.probes = gallery.probes(500)
        self.best = np.argsort(-(self.probes @ matrix.T), axis=1)[:, :5]
        self.index = VectorIndex(256, exact_up_to=N // 2)
        self.index.add(np.arange(N), matrix)
        assert self.index.wait(200)

    def found(self, k: int) -> NDArray[np.float64]:
        """The share of the k nearest that are found, for each probe."""
        _, ids = self.index.search(self.probes, k)
        pairs = zip(ids, self.best[:, :k], strict=True)
        return np.array([len(np.intersect1d(one, other)) / k for one, other in pairs])


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


def test_default_recall_finds_the_nearest_of_held_out_recordings(held: Held) -> None:
    status = held.index.status()
    assert status.structure == "ivf"
    assert status.recall >= status.recall_target == 0.99
    assert held.found(1).mean() >= 0.98
    assert held.found(5).mean() >= 0.95


def test_more_recall_is_had_for_looking_into_more(held: Held) -> None:
    found, statuses = [], []
    for target in (0.7, 0.99):
        held.index.tune(target)
        statuses.append(held.index.status())
        assert statuses[-1].recall >= statuses[-1].recall_target == target
        found.append(held.found(1).mean())
    assert found[0] < found[1]
    assert statuses[0].recall < statuses[1].recall
    assert statuses[0].nprobe < statuses[1].nprobe


def test_what_is_added_after_removals_is_found_by_its_codes() -> None:
    stored, added = (GalleryModel.load().gallery(n, seed).matrix() for n, seed in ((5_000, 1), (400, 2)))
    trained = IVFIndex.train(stored, 50)
    trained.add(np.arange(len(stored)), stored)
    changed = trained.without(np.arange(0, len(stored), 20))
    rows = len(stored) + np.arange(len(added))
    changed.add(rows, added)
    assert (changed.candidates(added, 10, 20) == rows[:, None]).any(axis=1).all()


@pytest.mark.usefixtures("every_candidate")
def test_recall_of_one_compares_with_all_and_less_scans_lists_again() -> None:
    index, model = made_trained(2_000)
    for change in (lambda: index.tune(1.0), index.train):
        change()
        assert index.status().structure == "exact"
        assert_like(index, model)
    index.tune(0.95)
    assert index.status().structure == "ivf"
    assert index.status().recall_target == 0.95


def test_recall_of_one_never_trains() -> None:
    index = VectorIndex(8, recall=1.0, exact_up_to=100)
    index.add(np.arange(1_000), np.random.default_rng(0).standard_normal((1_000, 8)))
    assert not index.status().training
    assert index.wait(30)
    assert (index.status().structure, index.status().trained_on) == ("exact", 0)


@pytest.mark.parametrize("recall", [0, -1, 1.01, True, "1", float("nan")])
def test_a_recall_that_makes_no_sense_is_refused_and_changes_nothing(held: Held, recall: object) -> None:
    before = held.index.status()
    with pytest.raises(ValueError, match="recall"):
        held.index.tune(recall)  # type: ignore[arg-type]
    assert held.index.status() == before
