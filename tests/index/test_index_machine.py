"""Any run of changes, merges, trainings, saves and loads leaves the index like a dict, and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import IDS, SEEDS, IndexMachine
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test
from vectors import D, assert_like, vectors

from voiceprint.index import VectorIndex

OPTIONS: dict[str, Any] = {"exact_up_to": 40}


class VectorIndexMachine(IndexMachine):
    """Merges and trainings start by themselves and are waited for."""

    folder: Path
    interruption: Any

    def begin(self) -> None:
        self.interruption.meanwhile = lambda: None
        self.index = VectorIndex(D, **OPTIONS)

    @rule()
    def wait(self) -> None:
        assert self.index.wait(60)
        status = self.index.status()
        if len(self.model) > OPTIONS["exact_up_to"]:
            assert (status.structure, status.buffered < 16) == ("ivf", True)
        elif len(self.model) <= OPTIONS["exact_up_to"] // 2:
            assert status.structure == "exact"

    @rule(gone=IDS, come=IDS, seed=SEEDS)
    def train_amid_changes(self, gone: list[int], come: list[int], seed: int) -> None:
        self._amid_changes(gone, come, seed)
        self.index.train()
        self.interruption.meanwhile = lambda: None

    @rule()
    def tune(self) -> None:
        self.index.tune()

    @rule(gone=IDS, come=IDS, seed=SEEDS)
    def save_amid_changes_and_load(self, gone: list[int], come: list[int], seed: int) -> None:
        self.index.save(self.folder / "snapshot")
        before = dict(self.model)
        loaded = VectorIndex.load(self.folder / "snapshot", **OPTIONS)
        assert loaded.wait(60)
        assert_like(loaded, before)
        self._amid_changes(gone, come, seed)
        self.index.save(self.folder / "snapshot")
        self.interruption.meanwhile = lambda: None
        assert VectorIndex.load(self.folder / "snapshot", **OPTIONS).check() == []
        self.index = loaded
        self.model = before

    def _amid_changes(self, gone: list[int], come: list[int], seed: int) -> None:
        """Let some of the ids go, or come, at each interruption."""
        self.index.wait(60)
        changes = [(self.remove, ([id_],)) for id_ in gone] + [(self.add, ([id_], seed)) for id_ in come]
        order = iter(np.random.default_rng(seed).permutation(len(changes)).tolist())

        def meanwhile() -> None:
            for n, _ in zip(order, range(4), strict=False):
                change, arguments = changes[n]
                change(*arguments)

        self.interruption.meanwhile = meanwhile

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert self.index.wait(60)
            assert_like(self.index, self.model)


@pytest.mark.usefixtures("every_candidate", "small_chunks", "small_sets")
def test_any_run_of_changes_leaves_the_index_like_a_dict(tmp_path: Path, interruption: Any) -> None:
    machine = type("Machine", (VectorIndexMachine,), {"folder": tmp_path, "interruption": interruption})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=15, deadline=None)
    )
    assert interruption.count


@pytest.mark.usefixtures("every_candidate", "small_chunks")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("what", ["train", "merge", "save"])
def test_changes_at_every_step_of_the_maintenance_are_taken_in(
    what: str, seed: int, tmp_path: Path, interruption: Any
) -> None:
    """Rows go and others take their ids, in front of the copying and behind it."""
    chance = np.random.default_rng(seed)
    index, model = VectorIndex(D, **OPTIONS), dict(enumerate(vectors(seed, 400)))
    index.add(list(model), np.stack(list(model.values())))
    assert index.wait(60)

    def meanwhile() -> None:
        if interruption.count > 60:  # each merge would be the reason for another
            return
        for id_ in chance.integers(0, 420, size=12).tolist():
            index.remove([id_])
            model.pop(id_, None)
        for id_ in chance.integers(380, 500, size=5).tolist():
            (model[id_],) = vectors(int(chance.integers(10**6)), 1)
            index.add([id_], model[id_])

    interruption.count, interruption.meanwhile = 0, meanwhile
    if what == "train":
        index.train()
    elif what == "save":
        index.save(tmp_path / "snapshot")
    else:
        more = dict(enumerate(vectors(seed + 100, 40), start=500))
        model |= more
        index.add(list(more), np.stack(list(more.values())))
    assert index.wait(60)
    assert interruption.count > 3 or (what, interruption.count > 0) == ("save", True)
    assert index.status().structure == "ivf"
    assert_like(index, model)
    if what == "save":
        loaded = VectorIndex.load(tmp_path / "snapshot", **OPTIONS)
        assert loaded.check() == []
        assert 300 < len(loaded) <= 520


@pytest.mark.usefixtures("every_candidate", "small_chunks")
def test_a_snapshot_is_of_its_start(tmp_path: Path, interruption: Any) -> None:
    index, model = VectorIndex(D, **OPTIONS), dict(enumerate(vectors(1, 100)))
    index.add(list(model), np.stack(list(model.values())))
    assert index.wait(60)

    def meanwhile() -> None:
        interruption.meanwhile = lambda: None
        index.remove(range(50))
        index.add([60, 200], vectors(2, 2))

    interruption.meanwhile = meanwhile
    index.save(tmp_path / "snapshot")
    assert_like(VectorIndex.load(tmp_path / "snapshot", **OPTIONS), model)
    changed = {id_: vector for id_, vector in model.items() if id_ >= 50} | dict(
        zip((60, 200), vectors(2, 2), strict=True)
    )
    assert_like(index, changed)
