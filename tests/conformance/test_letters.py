"""Caller ids and metadata of every kind: kept to the letter, or refused with InvalidArgumentError."""

from __future__ import annotations

import sys
import unicodedata
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pytest
from harness import Harness
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import exact, unit, voiceprint

from voiceprint import InvalidArgumentError, Storage, Voiceprint


def _one_of_each_category() -> list[str]:
    """One character of each Unicode category, the last of each: far from ASCII."""
    found: dict[str, str] = {}
    for point in range(sys.maxunicode + 1):
        found[unicodedata.category(chr(point))] = chr(point)
    del found["Cs"]  # surrogates are halves of characters
    return sorted(found.values())


HOSTILE_IDS = [
    *_one_of_each_category(),
    "\0",
    "a\0b",
    "x" * 512,
    "\U0001f600" * 512,
    ":",
    "*",
    "voiceprint:*",
    "[a-z]?",
    "'; DROP TABLE voiceprints; --",
    '"quoted"',
    "a\\b",
    "line\nbreak\r\n",
    " ",
    " alice",
    "Alice",
    "ALICE",
    "é",
    "e\u0301",
    "1",
    "01",
    "null",
    "{}",
    "__proto__",
    "../../etc/passwd",
    "%s%n",
    "\ufeffbom",
]


def test_hostile_caller_ids_are_kept_to_the_letter(harness: Harness) -> None:
    harness.storage.save_many(
        [voiceprint(name, n, metadata={"name": name}) for n, name in enumerate(HOSTILE_IDS)]
    )
    for storage in harness.both():
        assert [caller.caller_id for caller in storage.iter_callers(page=5)] == sorted(HOSTILE_IDS)
        for n, name in enumerate(HOSTILE_IDS):
            caller = storage.get(name)
            assert (caller.caller_id, caller.metadata) == (name, {"name": name})
            assert np.allclose(caller.voiceprints[0].embedding, unit(n), atol=1e-6)


def test_hostile_callers_are_changed_and_deleted_one_at_a_time(harness: Harness) -> None:
    harness.storage.save_many([voiceprint(name) for name in HOSTILE_IDS])
    left = len(HOSTILE_IDS)
    for name in HOSTILE_IDS:
        assert harness.storage.touch(name)
        harness.storage.update_metadata(name, {"k": 1})
        assert harness.storage.delete(name) == 1
        left -= 1
        assert harness.storage.count() == left
    assert harness.reopen().count_callers() == 0


class Color(str, Enum):
    RED = "red"


def test_a_caller_id_of_a_str_subclass_is_its_plain_value(harness: Harness) -> None:
    harness.storage.save(Voiceprint(Color.RED, unit(0), {"color": Color.RED}))
    caller = harness.reopen().get("red")
    assert type(caller.caller_id) is str
    assert exact(caller.metadata) == "{'color': 'red'}"


KEPT: list[Any] = [
    {},
    {"": ""},
    {"a": None, "b": True, "c": False, "d": 0, "e": 1, "f": 1.0, "g": -0.0},
    {"big": 2**63 - 1, "small": -(2**63)},
    {"floats": [5e-324, 1.7976931348623157e308, 0.1, 1e22, 1 / 3]},
    {"text": "".join(HOSTILE_IDS), "esc": '\\"\b\f\n\r\t\x7f\u2028'},
    {"z": 1, "a": 2, "order": {"b": 1, "a": 2}},
    {"list": [[], {}, [[]], "", None]},
    {name: n for n, name in enumerate(HOSTILE_IDS)},
    {"embedding": [1, 2], "id": 5, "caller_id": "bob", "voiceprints": []},
    {"large": "x" * 900_000},
]


@pytest.mark.parametrize(
    "metadata", KEPT, ids=lambda metadata: repr(metadata)[:30].encode("ascii", "replace")
)
def test_metadata_is_kept_to_the_letter(harness: Harness, metadata: dict[str, Any]) -> None:
    harness.storage.save(voiceprint("saved", metadata=metadata))
    harness.storage.save(voiceprint("updated", 1))
    harness.storage.update_metadata("updated", metadata)
    for storage in harness.both():
        for caller in storage.callers():
            assert exact(caller.metadata) == exact(metadata)


def test_metadata_of_64_levels_is_kept_and_of_65_refused(harness: Harness) -> None:
    deep: Any = "end"
    for _ in range(63):
        deep = [deep]
    harness.storage.save(voiceprint(metadata={"deep": deep}))
    with pytest.raises(InvalidArgumentError, match="nested"):
        harness.storage.update_metadata("alice", {"deep": [deep]})
    assert harness.reopen().get("alice").metadata == {"deep": deep}


def _endless() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    return endless


REFUSED = {
    "nan": {"x": float("nan")},
    "infinity": {"x": [float("-inf")]},
    "tuple": {"x": (1, 2)},
    "set": {"x": {1}},
    "bytes": {"x": b"1"},
    "object": {"x": object()},
    "decimal": {"x": Decimal(1)},
    "int of numpy": {"x": np.int64(1)},
    "float32 of numpy": {"x": np.float32(0.1)},
    "array": {"x": np.zeros(2)},
    "too big": {"x": 2**63},
    "too small": {"x": -(2**63) - 1},
    "huge int": {"x": 10**5000},
    "surrogate": {"x": "\ud800"},
    "surrogate key": {"\udfff": 1},
    "int key": {1: 1},
    "None key": {None: 1},
    "nested key": {"a": [{"b": {2: 1}}]},
    "list": [1],
    "text": "{}",
    "endless": _endless(),
    "over 1 MB": {"x": "y" * 1_000_001},
    "many small": {"x": [0] * 500_000},
}


@pytest.mark.parametrize("metadata", REFUSED.values(), ids=REFUSED)
def test_metadata_that_would_not_come_back_the_same_is_refused(harness: Harness, metadata: Any) -> None:
    harness.storage.save(voiceprint(metadata={"a": 1}))
    for use in (
        lambda: Voiceprint("alice", unit(1), metadata),
        lambda: harness.storage.update_metadata("alice", metadata),
        lambda: harness.storage.update_metadata("alice", metadata, replace=True),
    ):
        with pytest.raises(InvalidArgumentError):
            use()
    assert harness.reopen().get("alice").metadata == {"a": 1}


def test_merging_cannot_grow_metadata_past_its_limit(harness: Harness) -> None:
    harness.storage.save(voiceprint(metadata={"a": "x" * 600_000}))
    for use in (
        lambda: harness.storage.save(voiceprint(metadata={"b": "x" * 600_000})),
        lambda: harness.storage.update_metadata("alice", {"b": "x" * 600_000}),
    ):
        with pytest.raises(InvalidArgumentError, match="larger"):
            use()
    assert list(harness.reopen().get("alice").metadata) == ["a"]


def test_a_float64_of_numpy_is_kept_as_the_float_that_it_is(harness: Harness) -> None:
    harness.storage.save(voiceprint(metadata={"x": np.float64(0.1)}))
    assert exact(harness.reopen().get("alice").metadata) == "{'x': 0.1}"


@pytest.mark.parametrize(
    "embedding",
    [
        [],
        [[1.0] * 256],
        [0.0] * 256,
        [float("nan")] * 256,
        [float("inf")] + [0.0] * 255,
        [1.0] * 255,
        ["1.0"] * 256,
        [True] * 256,
        [1j] * 256,
        np.ones(256, dtype=complex),
        [None] * 256,
        ["x"] * 256,
        "text",
        None,
        5.0,
        {"a": 1},
        [[1.0], [1.0, 2.0]],
    ],
    ids=lambda embedding: repr(embedding)[:20],
)
def test_what_is_no_embedding_is_refused(storage: Storage, embedding: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"embedding|values"):
        storage.save(Voiceprint("alice", embedding))
    assert storage.count() == 0


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
caller_ids = st.text(min_size=1, max_size=512).filter(lambda text: text.isprintable() or len(text) < 40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(caller_ids, st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.integers(0, 10**6))
def test_whatever_may_be_stored_comes_back_as_it_was(
    harness: Harness, caller_id: str, metadata: dict[str, Any], seed: int
) -> None:
    """Bounds: ids and metadata equal in every type and sign; embeddings within 1e-6 a component."""
    storage = harness.reopen()
    storage.delete(caller_id)
    storage.save(Voiceprint(caller_id, unit(seed).astype(np.float64) * (1 + seed), metadata))
    caller = harness.reopen().get(caller_id)
    assert caller.caller_id == caller_id
    assert exact(caller.metadata) == exact(metadata)
    assert np.allclose(caller.voiceprints[0].embedding, unit(seed), rtol=0, atol=1e-6)
