"""A damaged file is never taken for an empty or a shorter store, and never touched."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import forget_json_files, state, unit, voiceprint

from voiceprint import JSONStorage, StorageCorruptError, Voiceprint
from voiceprint.storage.base import START
from voiceprint.storage.json.format import parse_file

SECRET = "born in 1970"


def _assert_refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(StorageCorruptError) as caught:
        JSONStorage(path)
    message = str(caught.value)
    assert str(path) in message
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    forget_json_files()
    return message


@pytest.fixture
def valid(tmp_path: Path) -> dict[str, Any]:
    """The content of a small store with two callers, metadata, and a deletion."""
    with JSONStorage(tmp_path / "made" / "store.json") as storage:
        for n, name in enumerate(("alice", "bob", "alice", "gone")):
            simulated = unit(n + 10, 8) if n == 0 else None
            storage.save(
                Voiceprint(name, unit(n, 8), {"secret": SECRET}, encoder="tiny", augmented=simulated)
            )
        storage.delete("gone")
        content: dict[str, Any] = json.loads(storage.file_path.read_bytes())
        return content


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store" / "cut.json"
    path.parent.mkdir()
    with JSONStorage(tmp_path / "whole.json") as storage:
        storage.save(Voiceprint("alice", unit(1, 4), {"a": "é"}, encoder="tiny"))
        whole = storage.file_path.read_bytes()
        expected = state(storage)
    for length in range(len(whole.rstrip())):
        with pytest.raises(StorageCorruptError):
            parse_file(whole[:length], "cut.json")
        if length % 40 == 1:
            _assert_refused(path, whole[:length])
    path.write_bytes(whole.rstrip())
    assert state(JSONStorage(path)) == expected


@pytest.mark.parametrize("content", [b" ", b"\0" * 100, b"[]", b"null", b"5", b'"text"', b"{", b"[" * 5000])
def test_what_is_no_json_object_is_refused(path: Path, content: bytes) -> None:
    _assert_refused(path, content)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*at, key))
    elif isinstance(value, list):
        for place, item in enumerate(value[:3]):
            yield from _places(item, (*at, place))


def _planted(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    planted = copy.deepcopy(content)
    held = planted
    for step in at[:-1]:
        held = held[step]
    held[at[-1]] = value
    return planted


WRONG: list[Any] = [None, True, -1, 1.5, "wrong", [], {}, [["wrong"]], {"wrong": 1}, 2**63, 10**30]


def test_a_wrong_value_anywhere_is_refused_or_harmless_and_never_another_error(valid: dict[str, Any]) -> None:
    """A value that is accepted makes a store that works: it can be read, written and read again."""
    refused: list[str] = []
    for at in _places(valid):
        if "metadata" in at[:-1]:
            continue  # metadata is whatever the user says
        for wrong in WRONG:
            content = json.dumps(_planted(valid, at, wrong)).encode()
            try:
                records = parse_file(content, "store.json")
            except StorageCorruptError as error:
                refused.append(str(error))
                continue
            for caller in records.callers.values():
                caller.caller()
            assert records.feed_floor <= records.revision
            for since in (START, records.position, *records.commits):
                records.changes(since, "tiny")
            records.prints("tiny")
    assert len(refused) > 300
    assert not any(SECRET in message for message in refused)


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (("",), 5),
        (("", "format"), 7),
        (("", "format"), 2.0),
        (("", "identity"), ""),
        (("", "revision"), None),
        (("", "next_id"), 2),
        (("", "feed_floor"), 10**6),
        (("", "tombstones"), [[1]]),
        (("", "tombstones"), [[10**6, 1]]),
        (("", "tombstones"), [[1, 10**6]]),
        (("alice",), []),
        (("alice", "caller_id"), "bob"),
        (("alice", "voiceprints"), None),
        (("alice", "voiceprints", 0), None),
        (("alice", "voiceprints", 0, "id"), 2),
        (("alice", "voiceprints", 0, "id"), 0),
        (("alice", "voiceprints", 0, "revision"), 10**6),
        (("alice", "voiceprints", 0, "encoder"), None),
        (("alice", "voiceprints", 0, "encoder"), "resemblyzer"),
        (("alice", "voiceprints", 0, "embedding"), [1.0] * 7),
        (("alice", "voiceprints", 0, "embedding"), [0.0] * 8),
        (("alice", "voiceprints", 0, "embedding"), ["1.0"] * 8),
        (("alice", "voiceprints", 0, "embedding"), [None] * 8),
        (("alice", "voiceprints", 0, "augmented"), [1.0] * 7),
        (("alice", "voiceprints", 0, "augmented"), [0.0] * 8),
        (("alice", "voiceprints", 0, "augmented"), [None] * 8),
        (("alice", "voiceprints", 0, "augmented"), True),
        (("alice", "voiceprints", 0, "created_at"), "yesterday"),
        (("alice", "metadata"), "text"),
        (("x" * 513,), {"voiceprints": []}),
    ],
)
def test_broken_structure_is_refused(
    path: Path, valid: dict[str, Any], at: tuple[Any, ...], wrong: Any
) -> None:
    message = _assert_refused_beside(path, json.dumps(_planted(valid, at, wrong)).encode())
    assert SECRET not in message
    if at[0] == "alice" and wrong not in (0, 2, 10**6):
        assert "'alice'" in message or "'bob'" in message


def _assert_refused_beside(path: Path, content: bytes) -> str:
    folder = path.parent / "alone"
    folder.mkdir()
    return _assert_refused(folder / path.name, content)


def test_nan_infinity_and_metadata_too_deep_are_refused(path: Path, valid: dict[str, Any]) -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    for n, (at, wrong) in enumerate(
        [
            (("alice", "voiceprints", 0, "embedding", 0), float("nan")),
            (("alice", "voiceprints", 0, "embedding", 0), float("inf")),
            (("alice", "metadata"), {"deep": deep}),
        ]
    ):
        folder = path.parent / str(n)
        folder.mkdir()
        _assert_refused(folder / path.name, json.dumps(_planted(valid, at, wrong)).encode())


def test_errors_quote_neither_embeddings_nor_metadata(path: Path, valid: dict[str, Any]) -> None:
    digits = str(valid["alice"]["voiceprints"][0]["embedding"][0])[:8]
    text = json.dumps(valid)
    for cut in range(0, len(text), 7):
        with pytest.raises(StorageCorruptError) as caught:
            parse_file(text[:cut].encode(), "store.json")
        chain, error = "", caught.value
        while error is not None:
            chain, error = chain + str(error) + repr(error), error.__cause__
        assert SECRET not in chain
        assert digits not in chain


def test_metadata_that_may_not_be_saved_now_can_still_be_read(path: Path) -> None:
    JSONStorage(path).save(voiceprint("bob"))
    content = json.loads(path.read_bytes())
    content["bob"]["metadata"] = {"hash": 2**64 - 1, "large": "x" * 1_100_000}
    path.write_text(json.dumps(content))
    assert JSONStorage(path).get("bob").metadata == content["bob"]["metadata"]
    JSONStorage(path).touch("bob")
    JSONStorage(path).save(voiceprint("alice"))
    assert json.loads(path.read_bytes())["bob"]["metadata"] == content["bob"]["metadata"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_caller_who_stands_in_the_file_twice_is_damage(tmp_path, indent):
    path = tmp_path / "voiceprints.json"
    with JSONStorage(path) as storage:
        storage.save(voiceprint("alice", 1))
        storage.save(voiceprint("bob", 2))
    text = path.read_text() if indent is None else json.dumps(json.loads(path.read_text()), indent=indent)
    path.write_text(text.replace('"bob"', '"alice"'))
    before = path.read_bytes()
    forget_json_files()
    with pytest.raises(StorageCorruptError, match="twice"):
        JSONStorage(path)
    assert path.read_bytes() == before
