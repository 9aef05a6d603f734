"""Any run of changes, trainings, saves and loads leaves the index like a dict, and its cells in step."""

from __future__ import annotations

from pathlib import Path

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
from vectors import ALL, D, Interrupted, Model, assert_answer, assert_like, vectors

OPTIONS = {"exact_up_to": 40, "probes": ALL, "depth": 400}
SEEDS = st.integers(0, 10**6)
IDS = st.lists(st.integers(0, 120), max_size=60)


class IndexMachine(RuleBasedStateMachine):
    """The index beside a dict; training starts by itself and is waited for."""

    folder: Path

    @initialize(seed=SEEDS, n=st.integers(0, 100))
    def start(self, seed: int, n: int) -> None:
        self.index, self.model = Interrupted(D, **OPTIONS), Model()
        self.add(list(range(n)), seed)

    @rule(ids=IDS, seed=SEEDS)
    def add(self, ids: list[int], seed: int) -> None:
        # All different: of what is worst in every dimension, as it is where all is the same, faiss's search
        # of 4-bit codes tells nothing, even when asked for more than there are.
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
        if len(self.model) > OPTIONS["exact_up_to"]:
            assert self.index.status().structure == "cells"
        elif len(self.model) <= OPTIONS["exact_up_to"] // 2:
            assert self.index.status().structure == "exact"

    @rule(gone=IDS, come=IDS, seed=SEEDS)
    def train_amid_changes(self, gone: list[int], come: list[int], seed: int) -> None:
        self._amid_changes(gone, come, seed)
        with self.index.held():  # another training would be interrupted too, in its thread
            self.index.train()
            self.index.meanwhile = lambda: None

    @rule()
    def tune(self) -> None:
        self.index.tune()

    @rule(gone=IDS, come=IDS, seed=SEEDS)
    def save_amid_changes_and_load(self, gone: list[int], come: list[int], seed: int) -> None:
        self._amid_changes(gone, come, seed)
        with self.index.held():
            self.index.save(self.folder / "snapshot")
            self.index.meanwhile = lambda: None
        self.index = Interrupted.load(self.folder / "snapshot", **OPTIONS)

    def _amid_changes(self, gone: list[int], come: list[int], seed: int) -> None:
        """Let one of the ids go, or come, after each block that is copied."""
        self.index.wait(60)
        changes = [(self.remove, ([id_],)) for id_ in gone] + [(self.add, ([id_], seed)) for id_ in come]
        order = iter(np.random.default_rng(seed).permutation(len(changes)).tolist())

        def meanwhile() -> None:
            for n, _ in zip(order, range(4), strict=False):
                change, arguments = changes[n]
                change(*arguments)

        self.index.meanwhile = meanwhile

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS, k=st.integers(1, 130), allowed=st.sets(st.integers(0, 130)))
    def search_among(self, seed: int, k: int, allowed: set[int]) -> None:
        queries = vectors(seed, 2)
        among = {id_: vector for id_, vector in self.model.items() if id_ in allowed}
        assert_answer(self.index.search(queries, k, allowed=allowed), queries, k, among)
        assert {id_ for id_ in allowed if id_ in self.index} == set(among)

    @invariant()
    def like_the_model(self) -> None:
        assert_like(self.index, self.model)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert self.index.wait(60)
            assert_like(self.index, self.model)


@pytest.mark.usefixtures("all_candidates", "small_blocks")
def test_any_run_of_changes_leaves_the_index_like_a_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiceprint.index.vector_index._BLOCK", 16)
    machine = type("Machine", (IndexMachine,), {"folder": tmp_path})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=15, deadline=None)
    )


@pytest.mark.usefixtures("all_candidates", "small_blocks")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("saving", [False, True])
def test_what_changes_while_vectors_are_copied_is_taken_in(saving: bool, seed: int, tmp_path: Path) -> None:
    """Rows go and others take their places, in front of the copying and behind it."""
    chance = np.random.default_rng(seed)
    index, model = Interrupted(D, **OPTIONS), dict(enumerate(vectors(seed, 400)))
    with index.held():
        index.add(list(model), np.stack(list(model.values())))
        if saving:
            index.train()

    def meanwhile() -> None:
        for id_ in chance.integers(0, 420, size=12).tolist():
            index.remove([id_])
            model.pop(id_, None)
        for id_ in chance.integers(380, 500, size=5).tolist():
            (model[id_],) = vectors(int(chance.integers(10**6)), 1)
            index.add([id_], model[id_])

    with index.held():
        index.meanwhile = meanwhile
        if saving:
            index.save(tmp_path / "snapshot")
            index.meanwhile = lambda: None
            assert_like(Interrupted.load(tmp_path / "snapshot", **OPTIONS), model)
        else:
            index.train()
            index.meanwhile = lambda: None
        assert index.status().structure == "cells"
        assert_like(index, model)
