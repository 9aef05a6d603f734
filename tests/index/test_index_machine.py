"""Any run of changes, merges, trainings, saves and loads leaves the index like a dict, and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from vectors import D, Model, assert_answer, assert_like, vectors

from voiceprint.index import IdSet, VectorIndex

OPTIONS: dict[str, Any] = {"exact_up_to": 40}
SEEDS = st.integers(0, 10**6)
IDS = st.lists(st.integers(0, 120), max_size=60)


class IndexMachine(RuleBasedStateMachine):
    """The index beside a dict; merges and trainings start by themselves and are waited for."""

    folder: Path
    interruption: Any

    @initialize(seed=SEEDS, n=st.integers(0, 100))
    def start(self, seed: int, n: int) -> None:
        self.interruption.meanwhile = lambda: None
        self.index, self.model, self.sets = VectorIndex(D, **OPTIONS), Model(), list[IdSet]()
        self.add(list(range(n)), seed)

    @rule(ids=IDS, seed=SEEDS)
    def add(self, ids: list[int], seed: int) -> None:
        # All different: among equal ones, faiss's search of 4-bit codes may leave some out.
        matrix = np.concatenate([np.empty((0, D)), *(vectors([seed, *at], 1) for at in enumerate(ids))])
        matrix = matrix.astype(np.float32)
        self.index.add(ids, matrix)
        self.model.update(zip(ids, matrix, strict=True))

    @rule(ids=st.one_of(IDS, st.lists(st.integers(0, 120), max_size=3)))
    def remove(self, ids: list[int]) -> None:
        assert self.index.remove(ids) == len(set(ids) & set(self.model))
        for id_ in ids:
            self.model.pop(id_, None)

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

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS, k=st.integers(1, 130), allowed=st.sets(st.integers(0, 130)))
    def search_among(self, seed: int, k: int, allowed: set[int]) -> None:
        queries = vectors(seed, 2)
        among = {id_: vector for id_, vector in self.model.items() if id_ in allowed}
        assert_answer(self.index.search(queries, k, allowed=allowed), queries, k, among)
        assert {id_ for id_ in allowed if id_ in self.index} == set(among)
        others = {id_: vector for id_, vector in self.model.items() if id_ not in allowed}
        assert_answer(self.index.search(queries, k, excluded=allowed), queries, k, others)

    @rule(ids=st.sets(st.integers(0, 130)))
    def keep_a_set(self, ids: set[int]) -> None:
        self.sets = [*self.sets[-3:], IdSet(ids)]

    @rule(seed=SEEDS, k=st.integers(1, 130))
    def search_among_the_kept_sets(self, seed: int, k: int) -> None:
        query = vectors(seed, 1)
        for ids in self.sets:
            among = {id_: vector for id_, vector in self.model.items() if id_ in ids}
            others = {id_: vector for id_, vector in self.model.items() if id_ not in ids}
            assert_answer(self.index.search(query, k, allowed=ids), query, k, among)
            assert_answer(self.index.search(query, k, excluded=ids), query, k, others)
            found, their_vectors = self.index.candidates(query, k, allowed=ids)
            assert set(found.tolist()) <= set(among)
            assert len(found) >= min(k, len(among))
            assert np.array_equal(their_vectors, self.index.vectors_of(found)[1])

    @invariant()
    def like_the_model(self) -> None:
        assert_like(self.index, self.model)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert self.index.wait(60)
            assert_like(self.index, self.model)


@pytest.mark.usefixtures("every_candidate", "small_chunks", "small_sets")
def test_any_run_of_changes_leaves_the_index_like_a_dict(tmp_path: Path, interruption: Any) -> None:
    machine = type("Machine", (IndexMachine,), {"folder": tmp_path, "interruption": interruption})
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
