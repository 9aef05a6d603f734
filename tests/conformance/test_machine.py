"""Any run of operations leaves a store, a follower and a shared like a dict and a numpy brute force."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import best
from harness import HARNESSES, Harness
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray
from stores import Follower, exact, state, unit

from voiceprint import Voiceprint
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex

LIMIT = 3
NAMES = st.sampled_from(["alice", "bob", "Böb", "0", ":*[]", "a\0b"])
SEEDS = st.integers(0, 200)
SIMULATED = st.none() | st.integers(201, 205)
METADATA = st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.integers(0, 2), max_size=2)
DAYS = st.integers(1, 28).map(lambda day: f"2024-02-{day:02}T00:00:00.000000Z")


class StorageMachine(RuleBasedStateMachine):
    """model: what each caller must be; prints: (id, seed, seed of the print for simulated lines
    or None) of each caller's voiceprints, oldest first."""

    make: Callable[[], Harness]

    @initialize()
    def start(self) -> None:
        self.harness = type(self).make()
        self.model: dict[str, dict[str, Any]] = {}
        self.used: set[int] = set()
        self.follower = Follower()
        self.shared = SharedIndex("resemblyzer", 256)
        self.revision = self.harness.storage.revision()

    def _save(
        self,
        name: str,
        seed: int,
        augmented: int | None,
        metadata: dict[str, Any],
        day: str,
        id_: int | None,
        new: int,
    ) -> None:
        caller = self.model.setdefault(name, {"metadata": {}, "last_seen": day, "prints": []})
        caller["metadata"] = {**caller["metadata"], **metadata}
        caller["last_seen"] = max(caller["last_seen"], day)
        ids = [print_[0] for print_ in caller["prints"]]
        if id_ in ids:
            assert new == id_
            caller["prints"][ids.index(id_)] = (new, seed, augmented)
        else:
            assert new not in self.used
            self.used.add(new)
            caller["prints"] = [*caller["prints"], (new, seed, augmented)][-LIMIT:]

    @rule(
        name=NAMES,
        seed=SEEDS,
        augmented=SIMULATED,
        metadata=METADATA,
        day=DAYS,
        again=st.none() | st.integers(0, 2),
    )
    def save(
        self,
        name: str,
        seed: int,
        augmented: int | None,
        metadata: dict[str, Any],
        day: str,
        again: int | None,
    ) -> None:
        mine = self.model.get(name, {}).get("prints", [])
        id_ = mine[again][0] if again is not None and again < len(mine) else None
        saved = self.harness.storage.save(
            Voiceprint(name, unit(seed), metadata, day, day, id=id_, augmented=_unit(augmented))
        )
        self._save(name, seed, augmented, metadata, day, id_, saved.id)
        self._changed(True)

    @rule(batch=st.lists(st.tuples(NAMES, SEEDS, SIMULATED, METADATA, DAYS), max_size=6))
    def save_many(self, batch: list[tuple[str, int, int | None, dict[str, Any], str]]) -> None:
        prints = [
            Voiceprint(name, unit(seed), meta, day, day, augmented=_unit(augmented))
            for name, seed, augmented, meta, day in batch
        ]
        for given, saved in zip(batch, self.harness.storage.save_many(prints), strict=True):
            self._save(*given, None, saved.id)
        self._changed(bool(batch))

    @rule(name=NAMES, augmented=SIMULATED)
    def restore(self, name: str, augmented: int | None) -> None:
        """The caller as it is, but for the newest print's part for simulated lines."""
        if name in self.model:
            caller = self.harness.storage.get(name)
            *others, last = caller.voiceprints
            prints = (*others, last.model_copy(update={"augmented": _unit(augmented)}))
            before = self.model[name]["prints"][-1]
            changed = self.harness.storage.restore_many([caller.model_copy(update={"voiceprints": prints})])
            assert changed == (before[2] != augmented)
            self.model[name]["prints"][-1] = (*before[:2], augmented)
            self._changed(bool(changed))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        known = self.model.pop(name, None)
        assert self.harness.storage.delete(name) == len(known["prints"] if known else [])
        self._changed(known is not None)

    @rule(name=NAMES, metadata=METADATA, put=st.booleans())
    def update_metadata(self, name: str, metadata: dict[str, Any], put: bool) -> None:
        if name in self.model:
            before = self.model[name]["metadata"]
            after = metadata if put else {**before, **metadata}
            self.harness.storage.update_metadata(name, metadata, replace=put)
            self.model[name]["metadata"] = after
            # JSON text, in which True differs from 1, as it does for the store.
            self._changed(json.dumps(after) != json.dumps(before))

    @rule(name=NAMES, day=DAYS)
    def touch(self, name: str, day: str) -> None:
        assert self.harness.storage.touch(name, day) == (name in self.model)
        if name in self.model:
            self.model[name]["last_seen"] = max(day, self.model[name]["last_seen"])
        before, self.revision = self.revision, self.harness.storage.revision()
        assert self.revision >= before

    @rule()
    def reopen(self) -> None:
        self.harness.reopen()
        self._changed(False)

    @rule()
    def follow(self) -> None:
        self.follower.assert_in_step(self.harness.storage)
        assert self.follower.rebuilds == 1

    @rule(seed=SEEDS, k=st.integers(1, 7))
    def search(self, seed: int, k: int) -> None:
        probe = unit(seed)
        found = best(Gallery(self.harness.storage, self.shared), probe, k)
        scores = {
            name: max(float(probe @ unit(print_seed)) for _, print_seed, _ in caller["prints"])
            for name, caller in self.model.items()
        }
        wanted = sorted(scores.values(), reverse=True)[:k]
        assert np.allclose([scored.similarity for scored in found], wanted, atol=1e-5)
        names = [scored.caller_id for scored in found]
        assert len(set(names)) == len(names)
        for scored in found:
            assert abs(scores[scored.caller_id] - scored.similarity) < 1e-5

    def _changed(self, changed: bool) -> None:
        before, self.revision = self.revision, self.harness.storage.revision()
        assert self.revision > before if changed else self.revision == before

    @invariant()
    def like_the_model(self) -> None:
        assert {name: self._plain(record) for name, record in state(self.harness.storage).items()} == {
            name: (exact(caller["metadata"]), caller["last_seen"], self._embeddings(caller["prints"]))
            for name, caller in self.model.items()
        }

    @staticmethod
    def _plain(record: dict[str, Any]) -> tuple[Any, ...]:
        prints = [(id_, *vectors) for id_, _, _, _, *vectors in record["voiceprints"]]
        return record["metadata"], record["last_seen"], prints

    @staticmethod
    def _embeddings(prints: list[tuple[int, int, int | None]]) -> list[tuple[int, bytes, bytes | None]]:
        return [(id_, _bytes(unit(seed)), _bytes(_unit(augmented))) for id_, seed, augmented in prints]

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            self.follower.assert_in_step(self.harness.reopen())
            assert Gallery(self.harness.storage, self.shared).check() == []
            self.harness.end()


def _bytes(embedding: NDArray[np.float32] | None) -> bytes | None:
    return None if embedding is None else embedding.tobytes()


def _unit(seed: int | None) -> NDArray[np.float32] | None:
    return None if seed is None else unit(seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(HARNESSES))
def test_any_run_of_operations_leaves_the_store_like_a_dict(kind: str, tmp_path: Path) -> None:
    counter = itertools.count()
    make = staticmethod(lambda: HARNESSES[kind](tmp_path / f"store{next(counter)}"))
    machine = type("Machine", (StorageMachine,), {"make": make})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
