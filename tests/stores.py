"""The means of the tests of the record stores: made-up voiceprints, one comparator, one follower."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint import Caller, Provenance, Storage, Voiceprint
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.base import START, Position
from voiceprint.storage.json.file import JSONFile

DIMENSION = 256
# A stored embedding is float32; its own unit length is kept to about 1e-7.
TOLERANCE = 1e-6

State = dict[str, dict[str, Any]]


def unit(seed: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """A random unit vector, the same for the same seed."""
    vector = np.random.default_rng(seed).standard_normal(dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def voiceprint(caller_id: str = "alice", seed: int = 0, **fields: Any) -> Voiceprint:
    """A voiceprint with a made-up embedding."""
    dimension = DIMENSION if fields.get("encoder", RESEMBLYZER_SPACE) == RESEMBLYZER_SPACE else 8
    return Voiceprint(caller_id, unit(seed, dimension), **fields)


def state(storage: Storage) -> State:
    """All that a store shows of its callers, in plain values that compare by ==, read in every way it has.

    Asserts on the way that the ways agree with each other.
    """
    callers = list(storage.iter_callers(page=7))
    names = [caller.caller_id for caller in callers]
    assert names == sorted(names)
    assert storage.count_callers() == len(callers)
    prints = [print_ for caller in callers for print_ in caller.voiceprints]
    assert storage.get_all() == prints
    assert storage.count() == len(prints)
    ids = [print_.id for print_ in prints]
    assert len(set(ids)) == len(ids)
    assert storage.get_many(ids) == {print_.id: print_ for print_ in prints}
    scanned: dict[int, NDArray[np.float32]] = {}
    for encoder in {print_.encoder for print_ in prints}:
        for batch, embeddings in storage.scan(encoder=encoder, batch_size=3):
            scanned.update(zip(batch.tolist(), embeddings, strict=True))
    assert sorted(scanned) == sorted(ids)
    for print_ in prints:
        assert np.array_equal(scanned[print_.id], print_.embedding)
        assert abs(float(np.linalg.norm(print_.embedding)) - 1) < 1e-5
        assert print_.revision <= storage.revision()
    assert storage.count_enrolled() == sum(bool(caller.voiceprints) for caller in callers)
    for encoder in {print_.encoder for print_ in prints}:
        groups: dict[str, list[int | None]] = {}
        for print_ in prints:
            for name in print_.groups if print_.encoder == encoder else ():
                groups.setdefault(name, []).append(print_.id)
        found = storage.group_ids(encoder=encoder)
        assert {name: sorted(ids.tolist()) for name, ids in found.items()} == {
            name: sorted(ids) for name, ids in groups.items()
        }
    for caller in callers:
        assert_same_caller(storage.get(caller.caller_id), caller)
        assert all(
            (print_.consent, print_.groups) == (caller.consent, caller.groups)
            for print_ in caller.voiceprints
        )
        if caller.opt_out is not None:
            assert (caller.voiceprints, caller.metadata) == ((), {})
            assert (caller.groups, caller.consent) == ((), None)
    return {caller.caller_id: _plain(caller) for caller in callers}


def _plain(caller: Caller) -> dict[str, Any]:
    return {
        "metadata": exact(caller.metadata),
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        "details": (caller.consent, caller.opt_out, caller.groups),
        "voiceprints": [
            (
                print_.id,
                print_.revision,
                print_.encoder,
                print_.created_at,
                print_.embedding.tobytes(),
                None if print_.augmented is None else print_.augmented.tobytes(),
                print_.provenance,
            )
            for print_ in caller.voiceprints
        ],
    }


def exact(value: Any) -> str:
    """Tells apart what == does not: True from 1, 1 from 1.0, 0.0 from -0.0."""
    return repr(value)


def assert_same_caller(one: Caller | None, other: Caller) -> None:
    assert one is not None
    assert one.caller_id == other.caller_id
    assert _plain(one) == _plain(other)


def assert_embedding(one: NDArray[np.float32], other: NDArray[Any]) -> None:
    """The same direction, within the rounding of float32."""
    assert one.dtype == np.float32
    wanted = np.asarray(other, dtype=np.float64)
    assert np.allclose(one, wanted / np.linalg.norm(wanted), rtol=0, atol=TOLERANCE)


def assert_augmented(storage: Storage) -> None:
    """A golden store of `make_golden.fill_augmented` is complete, and can be written to."""
    rng = np.random.default_rng(20250101)
    wanted: list[NDArray[Any] | None] = []
    for n in range(4):
        wanted.append(rng.standard_normal(8) if n < 2 else None)
        found = storage.get_many([n + 1])[n + 1]
        assert_embedding(found.embedding, rng.standard_normal(8))
        if wanted[n] is None:
            assert found.augmented is None
        else:
            assert_embedding(found.augmented, wanted[n])
    before = state(storage)
    assert list(before) == ["caller 0", "caller 1", "caller 2"]
    Follower("tiny").assert_in_step(storage)
    storage.save(voiceprint("new", augmented=unit(1)))
    assert np.array_equal(storage.get("new").voiceprints[0].augmented, unit(1))
    storage.delete("new")
    assert state(storage) == before


def assert_life(storage: Storage) -> None:
    """A golden store of `make_golden.fill_life` is complete, and can be written to."""
    before = state(storage)
    assert list(before) == ["alice", "bob", "pending", "refused"]
    rng = np.random.default_rng(20250101)
    alice, bob = storage.get("alice"), storage.get("bob")
    assert alice is not None
    assert bob is not None
    for print_ in (*alice.voiceprints, *bob.voiceprints):
        assert_embedding(print_.embedding, rng.standard_normal(8))
        assert print_.augmented is not None
        assert_embedding(print_.augmented, rng.standard_normal(8))
        assert print_.provenance == Provenance(
            source="call 7", quality=0.75, duration_s=9.5, net_speech_s=7.25
        )
    assert alice.consent is not None
    assert (alice.consent.version, alice.consent.obtained_by, alice.consent.source) == (
        "2026-01",
        "agent-17",
        "call 99",
    )
    assert alice.consent.expires_at == "2100-01-01T00:00:00.000000Z"
    assert (alice.groups, bob.groups) == (("home",), ("home", "vip"))
    refused, pending = storage.get("refused"), storage.get("pending")
    assert refused is not None
    assert refused.opt_out is not None
    assert (refused.opt_out.reason, refused.opt_out.by) == ("no biometrics", "agent-17")
    assert pending is not None
    assert (pending.consent, pending.voiceprints) == (alice.consent, ())
    Follower("tiny").assert_in_step(storage)
    storage.save(voiceprint("new", augmented=unit(1)))
    storage.delete("new")
    assert state(storage) == before


class Follower:
    """A derived index at its simplest: a dict of embeddings, kept by the change feed alone."""

    def __init__(self, encoder: str = RESEMBLYZER_SPACE) -> None:
        self.encoder = encoder
        self.embeddings: dict[int, NDArray[np.float32]] = {}
        self.groups: dict[int, tuple[str, ...]] = {}
        self.position: Position | None = None
        self.rebuilds = 0

    def catch_up(self, storage: Storage) -> None:
        more = True
        while more:
            changes = None if self.position is None else storage.changes(self.position, encoder=self.encoder)
            if changes is None:
                self.rebuilds += 1
                self.position = storage.position()
                self.embeddings = scanned(storage, self.encoder)
                self.groups = _groups(storage, self.encoder)
                continue
            for id_ in changes.removed.tolist():
                self.embeddings.pop(id_, None)
                self.groups.pop(id_, None)
            for id_ in changes.ids.tolist():
                self.groups.pop(id_, None)
            assert changes.groups.keys() <= set(changes.ids.tolist())
            self.groups.update(changes.groups)
            self.embeddings.update(zip(changes.ids.tolist(), changes.embeddings, strict=True))
            assert changes.position.revision >= self.position.revision
            self.position, more = changes.position, changes.more

    def assert_in_step(self, storage: Storage) -> None:
        self.catch_up(storage)
        assert_same_embeddings(self.embeddings, scanned(storage, self.encoder))
        assert self.groups == _groups(storage, self.encoder)


def _groups(storage: Storage, encoder: str) -> dict[int, tuple[str, ...]]:
    """The names of the groups of each voiceprint in groups."""
    groups: dict[int, list[str]] = {}
    for name, ids in storage.group_ids(encoder=encoder).items():
        for id_ in ids.tolist():
            groups.setdefault(id_, []).append(name)
    return {id_: tuple(sorted(names)) for id_, names in groups.items()}


def scanned(storage: Storage, encoder: str = RESEMBLYZER_SPACE) -> dict[int, NDArray[np.float32]]:
    """The embeddings of one space by id, read by `scan`."""
    found: dict[int, NDArray[np.float32]] = {}
    for ids, embeddings in storage.scan(encoder=encoder):
        assert ids.dtype == np.int64
        assert embeddings.dtype == np.float32
        assert not set(ids.tolist()) & set(found)
        found.update(zip(ids.tolist(), embeddings, strict=True))
    return found


def assert_same_embeddings(
    one: dict[int, NDArray[np.float32]], other: dict[int, NDArray[np.float32]]
) -> None:
    assert sorted(one) == sorted(other)
    for id_ in one:
        assert np.array_equal(one[id_], other[id_])


def uses(storage: Storage, secret: str) -> list[Callable[[], object]]:
    """Most of what can be asked of a store with the caller alice; nothing of it may tell the secret."""
    return [
        lambda: storage.save(voiceprint("bob", 5, metadata={"secret": secret})),
        lambda: storage.save_many([voiceprint("alice", n, metadata={"secret": secret}) for n in range(2)]),
        lambda: storage.restore_many([]) or storage.delete("bob"),
        lambda: storage.update_metadata("alice", {"secret": secret}),
        lambda: storage.touch("alice"),
        lambda: storage.get("alice"),
        lambda: storage.get_many([1]),
        lambda: storage.callers_of([1]),
        lambda: storage.callers(),
        lambda: storage.count(),
        lambda: storage.count_callers(),
        lambda: storage.revision(),
        lambda: storage.changes(START),
        lambda: list(storage.scan()),
    ]


def ids_of(voiceprints: Iterable[Voiceprint]) -> list[int | None]:
    return [print_.id for print_ in voiceprints]


def forget_json_files() -> None:
    """Make this process know no more of the JSON files than a new one would."""
    JSONFile.forget_all()
