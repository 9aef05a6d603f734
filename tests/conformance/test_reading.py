"""Reading keeps its promises: pages, lookups, bulk scans, and objects that are the reader's own."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Harness
from stores import ids_of, scanned, state, unit, voiceprint

from voiceprint import InvalidArgumentError, Storage, StorageError, Voiceprint
from voiceprint.storage.base import START


def test_an_empty_store_has_nothing(harness: Harness) -> None:
    for storage in harness.both():
        assert storage.get("alice") is None
        assert (storage.get_all(), storage.callers(), storage.get_many([1, 2])) == ([], [], {})
        assert (storage.count(), storage.count_callers()) == (0, 0)
        assert list(storage.scan()) == []
        assert state(storage) == {}


def test_get_many_leaves_out_what_is_not_there(storage: Storage) -> None:
    saved = storage.save_many([voiceprint("alice"), voiceprint("bob", 1)])
    asked = [saved[1].id, 10**6, 0, -1, 2**70, saved[0].id, saved[1].id]
    assert storage.get_many(iter(asked)) == {print_.id: print_ for print_ in saved}
    assert storage.get_many(np.array([saved[0].id, -1])) == {saved[0].id: saved[0]}
    assert all(type(id_) is int for id_ in storage.get_many(np.array([saved[0].id])))


@pytest.mark.parametrize("id_", ["1", 1.0, 1.5, None, b"1"])
def test_get_many_refuses_what_is_no_id(storage: Storage, id_: object) -> None:
    storage.save(voiceprint())
    with pytest.raises(InvalidArgumentError, match="id"):
        storage.get_many([id_])


def test_callers_of_voiceprints_come_whole_and_once_in_the_order_of_the_ids(harness: Harness) -> None:
    names = ["bob", "alice", "bob", "carol", "alice", "bob"]
    saved = harness.storage.save_many(
        [voiceprint(name, n, metadata={name: n}) for n, name in enumerate(names)]
    )
    asked = [saved[5].id, 10**6, 0, -1, 2**70, saved[1].id, saved[0].id, saved[1].id]
    for storage in harness.both():
        wanted = [storage.get("bob"), storage.get("alice")]
        assert [len(caller.voiceprints) for caller in wanted] == [3, 2]
        assert storage.callers_of(iter(asked)) == wanted
        assert storage.callers_of(np.array(asked[:2])) == wanted[:1]
        assert list(Storage.get_many(storage, asked)) == [saved[5].id, saved[1].id, saved[0].id]  # inherited
        assert storage.callers_of([]) == storage.callers_of([10**6]) == []
    storage.delete("bob")
    assert [caller.caller_id for caller in storage.callers_of(asked)] == ["alice"]


def test_callers_are_read_by_their_ids_in_the_order_that_was_asked_for(harness: Harness) -> None:
    assert harness.storage.get_callers(["alice"]) == {}
    harness.storage.save_many([voiceprint(f"c{n // 2}", n, metadata={"n": n}) for n in range(2_400)])
    asked = ["nobody", *(f"c{n}" for n in reversed(range(1_200))), "c7"]
    for storage in harness.both():
        found = storage.get_callers(iter(asked))
        assert [*found] == asked[1:-1]
        assert found == Storage.get_callers(storage, asked)  # inherited
        assert len(found["c3"].voiceprints) == 2
        assert storage.get_callers([]) == {}


@pytest.mark.parametrize("ids", ["c1", ["c1", ""], [7], None])
def test_ids_that_name_no_callers_are_refused(storage: Storage, ids: object) -> None:
    storage.save(voiceprint("c1"))
    with pytest.raises(InvalidArgumentError, match="id"):
        storage.get_callers(ids)


def test_callers_of_more_voiceprints_than_one_statement_takes_are_all_found(storage: Storage) -> None:
    saved = storage.save_many([voiceprint(f"c{n // 2}", n) for n in range(1_300)])
    wanted = [f"c{n}" for n in range(650)]
    assert [caller.caller_id for caller in storage.callers_of(ids_of(saved))] == wanted
    assert [caller.caller_id for caller in storage.callers_of(ids_of(reversed(saved)))] == wanted[::-1]


@pytest.mark.parametrize("id_", ["1", 1.0, None])
def test_callers_of_refuses_what_is_no_id(storage: Storage, id_: object) -> None:
    with pytest.raises(InvalidArgumentError, match="id"):
        storage.callers_of([id_])


def test_pages_give_every_caller_once_in_the_order_of_code_points(harness: Harness) -> None:
    # Capitals before small letters, é after z, and what UTF-16 would sort the other way round.
    names = ["B", "a", "ab", "b", "z", "é", "\uffee", "\U0001f600", "\x00", " ", "10", "9"]
    harness.storage.save_many([voiceprint(name) for name in names])
    storage = harness.reopen()
    for size in (1, 2, 5, len(names), len(names) + 1):
        pages, after = [], ""
        while page := storage.callers(after=after, limit=size):
            assert len(page) <= size
            pages += [caller.caller_id for caller in page]
            after = page[-1].caller_id
        assert pages == sorted(names)
        assert [caller.caller_id for caller in storage.iter_callers(page=size)] == sorted(names)
    assert [caller.caller_id for caller in storage.callers(after="a", limit=2)] == ["ab", "b"]
    assert [caller.caller_id for caller in storage.callers(after="aa", limit=1)] == ["ab"]


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, None])
def test_a_page_size_that_is_no_whole_number_from_1_is_refused(storage: Storage, limit: object) -> None:
    with pytest.raises(InvalidArgumentError, match="page size"):
        storage.callers(limit=limit)
    with pytest.raises(InvalidArgumentError, match="page size"):
        storage.scan(batch_size=limit)


@pytest.mark.parametrize("after", [None, 5, b"a"])
def test_a_page_after_what_is_no_text_is_refused(storage: Storage, after: object) -> None:
    with pytest.raises(InvalidArgumentError):
        storage.callers(after=after)


@pytest.mark.parametrize("caller_id", ["", None, 5, b"alice", "x" * 513, "\ud800"])
def test_what_cannot_be_a_caller_id_is_refused_by_every_method(storage: Storage, caller_id: object) -> None:
    for call in (
        storage.get,
        storage.delete,
        storage.touch,
        lambda name: storage.update_metadata(name, {}),
    ):
        with pytest.raises(InvalidArgumentError):
            call(caller_id)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
def test_scan_gives_all_of_one_space_in_batches(harness: Harness, size: int) -> None:
    saved = harness.storage.save_many([voiceprint(f"c{n // 3}", n) for n in range(7)])
    harness.storage.save(voiceprint("d", 1, encoder="other"))
    batches = list(harness.reopen().scan(batch_size=size))
    assert [len(ids) for ids, _ in batches] == [size] * (7 // size) + [7 % size] * bool(7 % size)
    assert all(matrix.shape == (len(ids), 256) for ids, matrix in batches)
    assert sorted(scanned(harness.storage)) == ids_of(saved)


def test_the_spaces_of_two_encoders_are_kept_apart(harness: Harness) -> None:
    one = harness.storage.save(voiceprint("alice"))
    two = harness.storage.save(voiceprint("alice", encoder="other"))
    storage = harness.reopen()
    assert sorted(scanned(storage)) == [one.id]
    assert sorted(scanned(storage, "other")) == [two.id]
    assert scanned(storage, "unknown") == {}
    assert storage.changes(START, encoder="unknown").ids.size == 0
    for encoder, id_ in (("resemblyzer", one.id), ("other", two.id)):
        assert storage.changes(START, encoder=encoder).ids.tolist() == [id_]
    assert ids_of(storage.get("alice").voiceprints) == [one.id, two.id]


def test_what_is_read_is_the_readers_own(storage: Storage) -> None:
    metadata = {"a": {"b": [1]}}
    saved = storage.save(voiceprint(metadata=metadata))
    before = state(storage)
    metadata["a"]["b"].append(2)
    readers = (
        lambda: saved,
        lambda: storage.get("alice"),
        lambda: storage.get("alice").voiceprints[0],
        lambda: storage.get_all()[0],
        lambda: storage.callers()[0],
        lambda: storage.get_many([saved.id])[saved.id],
        lambda: storage.callers_of([saved.id])[0],
        lambda: storage.callers_of([saved.id])[0].voiceprints[0],
        lambda: storage.update_metadata("alice", {}),
    )
    for read in readers:
        read().metadata["a"]["b"].append(3)
        read().metadata["new"] = 1
        assert state(storage) == before
    saved.caller_id = "mallory"
    saved.embedding = unit(5)
    assert state(storage) == before


def test_embeddings_that_are_read_cannot_change_the_store(storage: Storage) -> None:
    saved = storage.save(voiceprint())
    before = state(storage)
    arrays = [saved.embedding, storage.get("alice").voiceprints[0].embedding, next(storage.scan())[1]]
    arrays.append(storage.changes(START).embeddings)
    for array in arrays:
        if array.flags.writeable:
            array[:] = 0
        else:
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
        assert state(storage) == before


def test_a_closed_store_answers_nothing(harness: Harness) -> None:
    storage = harness.storage
    storage.save(voiceprint())
    storage.close()
    storage.close()
    uses = (
        lambda: storage.save(voiceprint()),
        lambda: storage.save_many([voiceprint()]),
        lambda: storage.delete("alice"),
        lambda: storage.update_metadata("alice", {}),
        lambda: storage.touch("alice"),
        lambda: storage.get("alice"),
        lambda: storage.get_all(),
        lambda: storage.get_many([1]),
        lambda: storage.callers_of([1]),
        lambda: storage.callers(),
        lambda: list(storage.iter_callers()),
        lambda: storage.count(),
        lambda: storage.count_callers(),
        lambda: storage.revision(),
        lambda: storage.changes(START),
        lambda: list(storage.scan()),
        lambda: storage.check(),
        lambda: storage.identity(),
    )
    for use in uses:
        with pytest.raises(StorageError, match="closed"):
            use()
    assert "alice" not in repr(storage)
    harness.ended = True


def test_the_context_manager_closes(harness: Harness) -> None:
    with harness.storage as storage:
        storage.save(voiceprint())
    with pytest.raises(StorageError, match="closed"):
        storage.count()
    harness.ended = True


def test_no_repr_shows_an_embedding_or_metadata(storage: Storage) -> None:
    secret = "born 1970"
    saved = storage.save(Voiceprint("alice", unit(3), {"secret": secret}))
    digits = f"{float(saved.embedding[0]):.4f}".lstrip("-")
    things = (
        storage,
        saved,
        storage.get("alice"),
        storage.changes(START),
        storage.check(),
        storage.get_all(),
    )
    for thing in things:
        for text in (repr(thing), str(thing)):
            assert secret not in text
            assert digits not in text
            assert "array(" not in text


def test_the_identity_is_fixed_once_written_and_of_no_other_store(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    identity = harness.storage.identity()
    assert identity
    harness.storage.save(voiceprint(seed=1))
    assert harness.reopen().identity() == identity
