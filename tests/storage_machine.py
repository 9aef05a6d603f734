"""A state machine over a store, its followers and its indexes, compared with a dict and a numpy brute force.

Callers have voiceprints of three embedding spaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from galleries import best
from harness import Harness
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray
from stores import Follower, exact, ids_of, state, unit

from voiceprint import CallerOptedOutError, Consent, InvalidArgumentError, Voiceprint
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.storage.base import SpaceCounts
from voiceprint.storage.pruning import SpacePruneReport, prune_space

LIMIT = 3
DIMENSIONS = {"resemblyzer": 256, "small": 192, "large": 512}
NAMES = st.sampled_from(["alice", "bob", "Böb", "0", ":*[]", "a\0b"])
SPACES = st.sampled_from([*DIMENSIONS])
SEEDS = st.integers(0, 200)
AUGMENTED = st.none() | st.integers(201, 205)
METADATA = st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.integers(0, 2), max_size=2)
GROUPS = st.sets(st.sampled_from(["vip", "fraud", "home"]), max_size=2)
DAYS = st.integers(1, 28).map(lambda day: f"2024-02-{day:02}T00:00:00.000000Z")


class Print(NamedTuple):
    """A voiceprint of the model.

    augmented: the seed of its augmented embedding, or None. day: of its enrollment.
    """

    id: int
    space: str
    seed: int
    augmented: int | None
    day: str = ""

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The embedding, and the augmented one."""
        return unit(self.seed, DIMENSIONS[self.space]), _unit(self.augmented, self.space)


class StorageMachine(RuleBasedStateMachine):
    """model: what each caller must be; prints: the `Print`s of each caller, oldest first.

    A caller who has opted out has neither prints nor metadata, consent and groups.
    """

    make: Callable[[], Harness]

    @initialize()
    def start(self) -> None:
        self.harness = type(self).make()
        self.model: dict[str, dict[str, Any]] = {}
        self.used: set[int] = set()
        self.followers = [Follower(space) for space in DIMENSIONS]
        self.shared = {space: SharedIndex(space, size) for space, size in DIMENSIONS.items()}
        self.revision = self.harness.storage.revision()

    def _save(self, name: str, new: Print, metadata: dict[str, Any], day: str, id_: int | None) -> None:
        caller = self.model.setdefault(name, _caller())
        caller["metadata"] = {**caller["metadata"], **metadata}
        caller["last_seen"] = max(caller["last_seen"] or "", day)
        prints = caller["prints"]
        new = new._replace(day=day)
        ids = ids_of(prints)
        if id_ in ids:
            assert new.id == id_
            prints[ids.index(id_)] = new
        else:
            assert new.id not in self.used
            self.used.add(new.id)
            prints.append(new)
        others = [one for one in prints if one.space == new.space and one is not new]
        for surplus in others[: max(0, len(others) + 1 - LIMIT)]:
            prints.remove(surplus)

    @rule(
        name=NAMES,
        space=SPACES,
        seed=SEEDS,
        augmented=AUGMENTED,
        metadata=METADATA,
        day=DAYS,
        again=st.none() | st.integers(0, 4),
    )
    def save(
        self,
        name: str,
        space: str,
        seed: int,
        augmented: int | None,
        metadata: dict[str, Any],
        day: str,
        again: int | None,
    ) -> None:
        mine = self.model.get(name, {}).get("prints", [])
        id_ = mine[again].id if again is not None and again < len(mine) else None
        print_ = Print(0, space, seed, augmented)
        if self._refused(name, lambda: self.harness.storage.save(_voiceprint(name, print_, metadata, day))):
            return
        saved = self.harness.storage.save(_voiceprint(name, print_, metadata, day, id=id_))
        self._save(name, print_._replace(id=saved.id), metadata, day, id_)
        self._changed(True)

    @rule(batch=st.lists(st.tuples(NAMES, SPACES, SEEDS, AUGMENTED, METADATA, DAYS), max_size=6))
    def save_many(self, batch: list[tuple[str, str, int, int | None, dict[str, Any], str]]) -> None:
        given = [(name, Print(0, *print_), metadata, day) for name, *print_, metadata, day in batch]
        for name in {one[0] for one in given}:
            prints = [_voiceprint(*one) for one in given]
            if self._refused(name, lambda prints=prints: self.harness.storage.save_many(prints)):
                return
        saved = self.harness.storage.save_many([_voiceprint(*one) for one in given])
        for (name, print_, metadata, day), stored in zip(given, saved, strict=True):
            self._save(name, print_._replace(id=stored.id), metadata, day, None)
        self._changed(bool(batch))

    @rule(name=NAMES, augmented=AUGMENTED)
    def restore(self, name: str, augmented: int | None) -> None:
        """The caller as it is, but for the newest print's part for simulated lines."""
        if self.model.get(name, {}).get("prints"):
            caller = self.harness.storage.get(name)
            before = self.model[name]["prints"][-1]
            *others, last = caller.voiceprints
            last = last.model_copy(update={"augmented": _unit(augmented, before.space)})
            restored = caller.model_copy(update={"voiceprints": (*others, last)})
            changed = self.harness.storage.restore_many([restored])
            assert changed == (before.augmented != augmented)
            self.model[name]["prints"][-1] = before._replace(augmented=augmented)
            self._changed(bool(changed))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        known = self.model.pop(name, None)
        assert self.harness.storage.delete(name) == len(known["prints"] if known else [])
        self._changed(known is not None)

    @rule(names=st.lists(NAMES, max_size=4), space=SPACES, delete_callers=st.booleans())
    def delete_voiceprints(self, names: list[str], space: str, delete_callers: bool) -> None:
        removed, _, _ = self._without(names, space, delete_callers)
        assert removed == self.harness.storage.delete_voiceprints(
            names, encoder=space, delete_callers=delete_callers
        )
        self._changed(removed > 0)

    @rule(space=SPACES, delete_callers=st.booleans())
    def prune(self, space: str, delete_callers: bool) -> None:
        names = [name for name, caller in self.model.items() if _of_space(caller, space)]
        if names:
            only = [name for name in names if len(_of_space(self.model[name], space)) == self._count(name)]
            removed, callers, gone = self._without(names, space, delete_callers)
            report = prune_space(self.harness.storage, space, delete_callers=delete_callers, dry_run=False)
            kept = () if delete_callers else tuple(sorted(only))
            assert report == SpacePruneReport(space, removed, callers, tuple(sorted(gone)), kept)
            self._changed(removed > 0)

    def _count(self, name: str) -> int:
        return len(self.model[name]["prints"])

    def _without(self, names: list[str], space: str, delete_callers: bool) -> tuple[int, int, list[str]]:
        """Take the voiceprints of a space from the model: their number, the callers who lose them and stay,
        and those who are gone."""
        removed, callers, gone = 0, 0, []
        for name in {*names} & self.model.keys():
            mine = _of_space(self.model[name], space)
            if not mine:
                continue
            if len(mine) < self._count(name):
                self.model[name]["prints"] = [one for one in self.model[name]["prints"] if one.space != space]
                callers += bool(mine)
            elif delete_callers:
                del self.model[name]
                gone.append(name)
            else:
                continue
            removed += len(mine)
        return removed, callers, gone

    @rule(name=NAMES, metadata=METADATA, put=st.booleans())
    def update_metadata(self, name: str, metadata: dict[str, Any], put: bool) -> None:
        if metadata and self._refused(
            name, lambda: self.harness.storage.update_metadata(name, metadata, replace=put)
        ):
            return
        if name in self.model:
            before = self.model[name]["metadata"]
            after = metadata if put else {**before, **metadata}
            self.harness.storage.update_metadata(name, metadata, replace=put)
            self.model[name]["metadata"] = after
            # JSON text, in which True differs from 1, as it does for the store.
            self._changed(json.dumps(after) != json.dumps(before))

    @rule(name=NAMES, day=DAYS)
    def touch(self, name: str, day: str) -> None:
        can_call = name in self.model and not self.model[name]["opted_out"]
        assert self.harness.storage.touch(name, day) == can_call
        if can_call:
            self.model[name]["last_seen"] = max(day, self.model[name]["last_seen"] or "")
        before, self.revision = self.revision, self.harness.storage.revision()
        assert self.revision >= before

    # A caller's life

    def _refused(self, name: str, change: Callable[[], object]) -> bool:
        """Whether the caller has opted out; the change is then refused, and nothing changes."""
        if not self.model.get(name, {}).get("opted_out"):
            return False
        with pytest.raises(CallerOptedOutError):
            change()
        self._changed(False)
        return True

    @rule(name=NAMES, version=st.sampled_from("12"))
    def set_consent(self, name: str, version: str) -> None:
        consent = Consent(purpose="test", version=version, obtained_at="2024-01-01T00:00:00Z")
        if self._refused(name, lambda: self.harness.storage.set_consent(name, consent)):
            return
        self.harness.storage.set_consent(name, consent)
        before = self.model.setdefault(name, _caller())
        is_new, before["consent"] = before["consent"] != consent, consent
        self._changed(is_new)

    @rule(name=NAMES, reason=st.none() | st.just("no"))
    def opt_out(self, name: str, reason: str | None) -> None:
        before = self.model.get(name, _caller())
        assert self.harness.storage.opt_out(name, reason=reason) == len(before["prints"])
        if not before["opted_out"]:
            self.model[name] = _caller() | {"opted_out": True, "reason": reason}
        self._changed(not before["opted_out"])

    @rule(name=NAMES)
    def opt_in(self, name: str) -> None:
        if name in self.model:
            was_out = self.model[name]["opted_out"]
            self.harness.storage.opt_in(name)
            if was_out:
                self.model[name] = _caller()
            self._changed(was_out)

    @rule(name=NAMES, add=GROUPS, remove=GROUPS)
    def set_groups(self, name: str, add: set[str], remove: set[str]) -> None:
        if self._refused(name, lambda: self.harness.storage.set_groups(name, add=add, remove=remove)):
            return
        if name in self.model:
            before = self.model[name]["groups"]
            after = (before - remove) | add
            changed = self.harness.storage.set_groups(name, add=add, remove=remove)
            assert {*changed.groups} == after
            self.model[name]["groups"] = after
            self._changed(after != before)

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        if name == new or name not in self.model:
            return
        if self._refused(name, lambda: self.harness.storage.rename(name, new)):
            return
        if new in self.model:
            with pytest.raises(InvalidArgumentError, match="already"):
                self.harness.storage.rename(name, new)
            self._changed(False)
            return
        renamed = self.harness.storage.rename(name, new)
        caller = self.model[new] = self.model.pop(name)
        caller["prints"] = self._with_new_ids(caller["prints"], ids_of(renamed.voiceprints))
        self._changed(True)

    def _with_new_ids(self, prints: list[Print], ids: list[int | None]) -> list[Print]:
        assert len(prints) == len(ids)
        mine = {one.id for one in prints}
        self.used |= {id_ for id_ in ids if id_ is not None}
        assert not mine & {*ids}
        return [one._replace(id=id_) for one, id_ in zip(prints, ids, strict=True) if id_ is not None]

    @rule(name=NAMES, into=NAMES)
    def merge(self, name: str, into: str) -> None:
        if name == into or name not in self.model or into not in self.model:
            return
        for one in (name, into):
            if self._refused(one, lambda: self.harness.storage.merge(name, into)):
                return
        merged, _ = self.harness.storage.merge(name, into)
        moved, target = self.model.pop(name), self.model[into]
        stored = {(one.space, one.seed) for one in target["prints"]}
        new = [one for one in moved["prints"] if (one.space, one.seed) not in stored]
        mine = {one.id for one in target["prints"]}
        both = sorted([*target["prints"], *new], key=lambda one: one.day)
        remaining = [
            one
            for place, one in enumerate(both)
            if sum(other.space == one.space for other in both[place + 1 :]) < LIMIT
        ]
        target["prints"] = [
            one if one.id in mine else one._replace(id=id_)
            for one, id_ in zip(remaining, ids_of(merged.voiceprints), strict=True)
            if id_ is not None
        ]
        self.used |= set(ids_of(target["prints"]))
        target["metadata"] = {**moved["metadata"], **target["metadata"]}
        seen = [time for time in (moved["last_seen"], target["last_seen"]) if time]
        target["last_seen"] = max(seen, default=None)
        target["groups"] |= moved["groups"]
        # Neither ends, so the one of the first caller stays.
        target["consent"] = moved["consent"] or target["consent"]
        self._changed(True)

    @rule(name=NAMES, place=st.integers(0, 4))
    def delete_voiceprint(self, name: str, place: int) -> None:
        prints = self.model.get(name, {}).get("prints", [])
        if place < len(prints):
            assert self.harness.storage.delete_voiceprint(prints[place].id) is True
            assert self.harness.storage.delete_voiceprint(prints[place].id) is False
            del prints[place]
            self._changed(True)

    @rule()
    def reopen(self) -> None:
        self.harness.reopen()
        self._changed(False)

    @rule()
    def follow(self) -> None:
        for follower in self.followers:
            follower.assert_in_step(self.harness.storage)
            assert follower.rebuilds == 1

    @rule(seed=SEEDS, k=st.integers(1, 7), space=SPACES)
    def search(self, seed: int, k: int, space: str) -> None:
        probe = unit(seed, DIMENSIONS[space])
        scores = {
            name: max(float(probe @ print_.vectors()[0]) for print_ in _of_space(caller, space))
            for name, caller in self.model.items()
            if _of_space(caller, space)
        }
        if space != "resemblyzer":  # ranked by likelihood, if there are callers enough: all of them are found
            k = len(scores) + 1
        found = best(Gallery(self.harness.storage, self.shared[space]), probe, k)
        wanted = sorted(scores.values(), reverse=True)[:k]
        assert np.allclose(sorted((one.similarity for one in found), reverse=True), wanted, atol=1e-5)
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
            name: (
                exact(caller["metadata"]),
                caller["last_seen"],
                caller["consent"],
                (caller["opted_out"], caller["reason"]),
                caller["groups"],
                [(one.id, one.space, *map(_bytes, one.vectors())) for one in caller["prints"]],
            )
            for name, caller in self.model.items()
        }

    @invariant()
    def covered_like_the_model(self) -> None:
        covered = {}
        for space, dimension in DIMENSIONS.items():
            counts = [(len(_of_space(one, space)), len(one["prints"])) for one in self.model.values()]
            mine = [(count, all_) for count, all_ in counts if count]
            if mine:
                only = sum(count == all_ for count, all_ in mine)
                covered[space] = SpaceCounts(dimension, sum(count for count, _ in mine), len(mine), only)
        assert self.harness.storage.coverage() == covered
        assert self.harness.storage.spaces() == {space: one.voiceprints for space, one in covered.items()}

    @staticmethod
    def _plain(record: dict[str, Any]) -> tuple[Any, ...]:
        prints = [(id_, space, *vectors) for id_, _, space, _, *vectors, _ in record["voiceprints"]]
        consent, opt_out, groups = record["details"]
        refusal = (False, None) if opt_out is None else (True, opt_out.reason)
        return record["metadata"], record["last_seen"], consent, refusal, {*groups}, prints

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            storage = self.harness.reopen()
            for follower in self.followers:
                follower.assert_in_step(storage)
            for shared in self.shared.values():
                assert Gallery(storage, shared).check() == []
            self.harness.end()


def run_machine(make: Callable[[], Harness], *, examples: int) -> None:
    """Run the machine, each example on a new store."""
    run_state_machine_as_test(
        type("Machine", (StorageMachine,), {"make": staticmethod(make)}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def _voiceprint(name: str, print_: Print, metadata: dict[str, Any], day: str, **fields: Any) -> Voiceprint:
    embedding, augmented = print_.vectors()
    return Voiceprint(
        name, embedding, metadata, day, day, augmented=augmented, encoder=print_.space, **fields
    )


def _caller() -> dict[str, Any]:
    """A caller of the model, without anything yet."""
    return {
        "metadata": {},
        "last_seen": None,
        "consent": None,
        "opted_out": False,
        "reason": None,
        "groups": set(),
        "prints": [],
    }


def _of_space(caller: dict[str, Any], space: str) -> list[Print]:
    return [print_ for print_ in caller["prints"] if print_.space == space]


def _bytes(embedding: NDArray[np.float32] | None) -> bytes | None:
    return None if embedding is None else embedding.tobytes()


def _unit(seed: int | None, space: str) -> NDArray[np.float32] | None:
    return None if seed is None else unit(seed, DIMENSIONS[space])
