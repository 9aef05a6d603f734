"""Export, import and copies between stores: nothing is lost, and a bad line or copy is told."""

from __future__ import annotations

import io
import json

import pytest
from stores import state, unit, voiceprint

from voiceprint import InvalidArgumentError, JSONStorage, MemoryStorage, StorageError
from voiceprint.storage.transfer import copy_callers, digest, export_callers, import_callers


@pytest.fixture
def source():
    """Callers with gaps in their ids, times, two spaces, hostile names and metadata."""
    with MemoryStorage() as storage:
        storage.save(voiceprint("gone"))
        for seed, name in enumerate(["alice", "bob", "alice", "Ünïcode \n\0 🎙", "alice"]):
            storage.save(voiceprint(name, seed, metadata={"z": seed, "a": [None, {"b": -0.0}], "ü": "\n"}))
        storage.save(voiceprint("bob", 3, encoder="other", created_at="2020-02-02", augmented=unit(4, 8)))
        storage.delete("gone")
        yield storage


def content(storage):
    """All but the revisions, which are each store's own."""
    callers = state(storage)
    for caller in callers.values():
        caller["metadata"] = sorted(caller["metadata"])
        caller["voiceprints"] = [(p[0], *p[2:]) for p in caller["voiceprints"]]
    return callers


def exported(storage) -> bytes:
    stream = io.BytesIO()
    export_callers(storage, stream)
    return stream.getvalue()


def test_what_is_exported_and_imported_is_the_same_to_the_bit(source, tmp_path):
    told: list[int] = []
    text = exported(source)
    assert len(text.splitlines()) == 3
    assert [json.loads(line)["caller_id"] for line in text.splitlines()] == sorted(state(source))
    with JSONStorage(tmp_path / "target.json") as target:
        report = import_callers(target, io.BytesIO(text), progress=told.append)
        assert (report.callers, report.voiceprints, report.changed) == (3, 6, 3)
        assert told == [3]
        assert content(target) == content(source)
        assert exported(target) == text
        assert digest(target) == digest(source) == report.digest


def test_a_print_without_one_for_simulated_lines_is_exported_as_it_always_was(source):
    prints = [one for line in exported(source).splitlines() for one in json.loads(line)["voiceprints"]]
    assert [sorted(one) for one in prints if "augmented" not in one] == [
        ["created_at", "embedding", "encoder", "id"]
    ] * 5


def test_an_import_made_twice_changes_nothing_more(source):
    with MemoryStorage() as target:
        import_callers(target, io.BytesIO(exported(source)))
        revision = target.revision()
        assert import_callers(target, io.BytesIO(exported(source))).changed == 0
        assert target.revision() == revision


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b'{"caller_id": "x"}',
        b'{"caller_id": "", "voiceprints": []}',
        b'{"caller_id": "x", "voiceprints": [{"embedding": [1]}]}',
        b'{"caller_id": "x", "voiceprints": [{"id": 1, "embedding": [1, 2]}]}',
        b'{"caller_id": "x", "voiceprints": [{"id": "1", "embedding": [1, 2]}]}',
        b'{"caller_id": "x", "voiceprints": [{"id": 1, "encoder": "o", "embedding": [1], "augmented": 7}]}',
        b'{"caller_id": "x", "voiceprints": [7]}',
        b'{"caller_id": "x", "voiceprints": [], "metadata": 3}',
        b'{"caller_id": "x", "voiceprints": [], "last_seen": "soon"}',
    ],
)
def test_a_bad_line_is_told_by_its_number_and_its_page_is_not_stored(source, line):
    lines = exported(source).splitlines(keepends=True)
    with MemoryStorage() as target:
        with pytest.raises(InvalidArgumentError, match="Line 4"):
            import_callers(target, [*lines, line])
        assert target.count_callers() == 0


def test_every_cut_of_the_last_line_is_told(source):
    text = exported(source)
    last = text.rindex(b'{"caller_id"')
    for end in range(last + 1, len(text) - 1, 37):
        with MemoryStorage() as target, pytest.raises(InvalidArgumentError, match="Line 3"):
            import_callers(target, io.BytesIO(text[:end]))


def test_errors_of_an_import_show_no_metadata(source):
    line = exported(source).splitlines()[0].replace(b'"id":', b'"secret":')
    with MemoryStorage() as target, pytest.raises(InvalidArgumentError) as error:
        import_callers(target, [line])
    assert "[" not in str(error.value)


@pytest.mark.slow
def test_a_copy_that_was_broken_off_is_resumed(source):
    class BrokenOffError(Exception):
        pass

    for number in range(2_500):
        source.save(voiceprint(f"caller {number:04}", number))
    with MemoryStorage() as target:

        def stop(done: int) -> None:
            if done >= 2_000:
                raise BrokenOffError

        with pytest.raises(BrokenOffError):
            copy_callers(source, target, progress=stop)
        assert target.count_callers() == 2_000
        report = copy_callers(source, target)
        assert (report.callers, report.changed) == (2_503, 503)
        assert content(target) == content(source)
        assert report.digest == digest(source)


def test_callers_that_only_the_target_has_stay(source):
    with MemoryStorage() as target:
        for number in range(20):  # so that its ids are not those of the source
            target.save(voiceprint(f"filler {number}"))
            target.delete(f"filler {number}")
        target.save(voiceprint("carol"))
        copy_callers(source, target)
        assert set(state(target)) == {*state(source), "carol"}


def test_ids_that_others_have_in_the_target_stop_the_copy(source):
    with MemoryStorage() as target:
        for number in range(3):
            target.save(voiceprint(f"other {number}"))
        before = state(target)
        with pytest.raises(InvalidArgumentError, match="empty store"):
            copy_callers(source, target)
        assert state(target) == before


def test_a_store_is_not_copied_onto_itself(source):
    with pytest.raises(InvalidArgumentError, match="both source and target"):
        copy_callers(source, source)


def test_a_target_that_others_write_to_meanwhile_fails_the_verification(source):
    with MemoryStorage() as target:

        def meddle(_: int) -> None:
            target.delete("bob")

        with pytest.raises(StorageError, match="Copy again"):
            copy_callers(source, target, progress=meddle)


def test_digests_of_different_callers_differ(source):
    before = digest(source)
    source.touch("alice")
    assert digest(source) != before
