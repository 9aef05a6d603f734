"""Callers are found by metadata with the types of JSON, in pages, on every store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness import Harness
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import exact, voiceprint

from voiceprint import InvalidArgumentError, MemoryStorage, Storage
from voiceprint.storage.sql import SQLStorage

if TYPE_CHECKING:
    from typing import TypeGuard

# Pairwise different values, of which some are equal in SQL or in Python.
VALUES: list[Any] = [
    1, 1.0, True, "1", "1.0", "true", 0, 0.0, False, "", None, "null", [], {}, [1], [1.0], [True], ["1"],
    {"a": 1}, {"a": 1.0}, {"a": 1, "b": [None]}, {"a": None}, "a", "a\0", "a\0b", "a\0c", "\0", "\\u0000",
    "\1", "\\0", "A", "ä", "a\u0308", "\U0001f600", "'", '"', "%", "a" * 100, "a" * 101, "a" * 20_000,
    "a" * 19_999 + "b",
    2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 1e300, 0.1, 1e16, "{}", "[1]", '{"a":1}',
]  # fmt: skip


def fill(storage: Storage) -> None:
    storage.save_many(
        [voiceprint(f"c{n:02}", n % 5, metadata={"key": value, "n": n}) for n, value in enumerate(VALUES)]
    )
    storage.save_many([voiceprint("none", 1), voiceprint("other", 2, metadata={"keys": 1, "n": -1})])
    storage.save(voiceprint("nul", 3, metadata={"n": "\0", "key": 1}))  # a NUL character in another value


def can_index(storage: Storage) -> TypeGuard[SQLStorage]:
    """Whether the store has indexes of metadata."""
    return isinstance(storage, SQLStorage) and storage.sealing is None


def names(callers: list[Any]) -> list[str]:
    return [caller.caller_id for caller in callers]


@pytest.mark.parametrize("indexed", [False, True])
def test_each_value_finds_the_callers_who_have_it_and_no_other(harness: Harness, indexed: bool) -> None:
    fill(harness.storage)
    if indexed:
        if not can_index(harness.storage):
            pytest.skip("this store has no index of metadata")
        harness.storage.index_metadata("key")
    for storage in harness.both():
        for n, value in enumerate(VALUES):
            wanted = [f"c{n:02}", *(["nul"] if exact(value) == "1" else [])]
            assert names(storage.find_callers({"key": value})) == wanted, n
            assert names(storage.find_callers({"key": value, "n": n})) == wanted[:1]
            assert storage.find_callers({"key": value, "n": float(n)}) == []
        assert storage.find_callers({"key": 1, "n": "\0"}) == [storage.get("nul")]
        assert storage.find_callers({"key": "nobody's"}) == storage.find_callers({"Key": 1}) == []


def test_found_callers_are_whole(storage: Storage) -> None:
    storage.save_many([voiceprint("alice", n, metadata={"plan": "gold", "n": n}) for n in range(3)])
    (found,) = storage.find_callers({"plan": "gold"})
    assert found == storage.get("alice")
    assert len(found.voiceprints) == 3
    found.metadata["plan"] = "silver"
    assert names(storage.find_callers({"plan": "gold"})) == ["alice"]


def test_the_order_of_the_keys_of_an_object_is_no_matter(storage: Storage) -> None:
    storage.save(voiceprint("alice", metadata={"at": {"city": "Bonn", "zip": [{"a": 1, "b": 2}]}}))
    assert names(storage.find_callers({"at": {"zip": [{"b": 2, "a": 1}], "city": "Bonn"}})) == ["alice"]
    assert storage.find_callers({"at": {"city": "Bonn"}}) == []


@pytest.mark.parametrize(
    "key", ["with space", "ä:x@y/z+1.5-_", 'a"b', "a'b", "a\\b", "a%b", "$", "", "a\0b", "k" * 41]
)
def test_any_key_can_be_asked_for(storage: Storage, key: str) -> None:
    storage.save(voiceprint("alice", metadata={key: "x", "other": "y"}))
    storage.save(voiceprint("bob", metadata={key: "y", "other": "x"}))
    assert names(storage.find_callers({key: "x"})) == ["alice"]
    assert names(storage.find_callers({key: "y", "other": "x"})) == ["bob"]


def test_pages_follow_each_other_in_the_order_of_ids(harness: Harness) -> None:
    harness.storage.save_many(
        [
            voiceprint(f"c{n:04}", n % 7, metadata={"odd": n % 2 == 1, "nul": "\0" * (n % 3)})
            for n in range(1_200)
        ]
    )
    wanted = [f"c{n:04}" for n in range(1, 1_200, 2)]
    for storage in harness.both():
        found, after = list[str](), ""
        while page := storage.find_callers({"odd": True}, after=after, limit=170):
            found += names(page)
            after = page[-1].caller_id
        assert found == wanted
        assert names(storage.find_callers({"odd": True}, limit=1, after="c0500")) == ["c0501"]
        assert len(storage.find_callers({"odd": True})) == 600


def test_a_store_that_does_not_exist_has_nobody(harness: Harness) -> None:
    assert harness.storage.find_callers({"plan": "gold"}) == []
    assert harness.storage.exists() == (not harness.persists)


@pytest.mark.parametrize(
    "metadata", [{}, None, "plan", {"a": float("nan")}, {1: "a"}, {"a": {1}}, [("a", 1)]]
)
def test_what_no_metadata_can_have_is_refused(storage: Storage, metadata: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="etadata"):
        storage.find_callers(metadata)


def test_a_bad_page_is_refused(storage: Storage) -> None:
    for page in ({"limit": 0}, {"after": 5}):
        with pytest.raises(InvalidArgumentError):
            storage.find_callers({"a": 1}, **page)


def test_a_changed_value_is_found_under_the_new_one_alone(storage: Storage) -> None:
    if can_index(storage):
        storage.index_metadata("plan")
    storage.save(voiceprint("alice", metadata={"plan": "gold"}))
    storage.update_metadata("alice", {"plan": "silver\0"})
    assert storage.find_callers({"plan": "gold"}) == []
    assert names(storage.find_callers({"plan": "silver\0"})) == ["alice"]
    storage.delete("alice")
    assert storage.find_callers({"plan": "silver\0"}) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
METADATA = st.dictionaries(st.sampled_from(["plan", "a b", 'q"']), JSON, max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=st.lists(METADATA, min_size=1, max_size=6), at=st.integers(0, 5), data=st.data())
def test_every_store_finds_what_the_memory_finds(
    storage: Storage, stored: list[dict[str, Any]], at: int, data: st.DataObject
) -> None:
    if can_index(storage) and "plan" not in storage.metadata_indexes():
        storage.index_metadata("plan")
    for n in range(6):
        storage.delete(f"c{n}")
    with MemoryStorage() as model:
        for n, metadata in enumerate(stored):
            for one in (storage, model):
                one.save(voiceprint(f"c{n}", n, metadata=metadata))
        asked = stored[at % len(stored)] or {"plan": data.draw(JSON)}
        assert names(storage.find_callers(asked)) == names(model.find_callers(asked))
