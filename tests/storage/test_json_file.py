"""The JSON store's file: its layout, mode, place, and what happens when others touch it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from stores import Follower, forget_json_files, state, unit, voiceprint

from voiceprint import InvalidArgumentError, JSONStorage, StorageUnavailableError
from voiceprint._files import replace_file
from voiceprint.storage.base import Position


def test_the_file_is_one_json_object_with_a_line_a_caller(path: Path) -> None:
    with JSONStorage(path) as storage:
        storage.save_many([voiceprint("bob", 1), voiceprint("al\nice", 2, metadata={"a": 1})])
        storage.save(voiceprint("bob", 3))
        revision, identity = storage.revision(), storage.identity()
        position = storage.position()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 5
    for line in lines[1:-1]:
        json.loads(b"{" + line.rstrip(b",") + b"}")
    with path.open() as stream:
        content = json.load(stream)
    assert sorted(content) == ["", "al\nice", "bob"]
    assert content[""] == {
        "format": 6,
        "identity": identity,
        "revision": revision,
        "next_id": 4,
        "feed_floor": 0,
        "commits": [[1, content[""]["commits"][0][1]], [*position]],
        "tombstones": [],
        "deletions": {},
    }
    assert [print_["id"] for print_ in content["bob"]["voiceprints"]] == [1, 3]
    assert np.array_equal(np.float32(content["bob"]["voiceprints"][1]["embedding"]), unit(3))
    assert content["al\nice"]["metadata"] == {"a": 1}


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        JSONStorage(path).save(voiceprint())
    finally:
        os.umask(old)
    for entry in path.parent.iterdir():
        assert entry.stat().st_mode & 0o777 == 0o600


def test_reading_writes_nothing(path: Path) -> None:
    storage = JSONStorage(path)
    assert state(storage) == {}
    assert list(path.parent.iterdir()) == []


def test_the_first_write_makes_the_missing_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.json"
    storage = JSONStorage(path)
    assert not path.parent.exists()
    storage.save(voiceprint())
    forget_json_files()
    assert JSONStorage(path).count() == 1


def test_a_symbolic_link_stays_a_link_to_the_file(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "real" / "store.json"
    real.parent.mkdir()
    path.symlink_to(real)
    through_link, direct = JSONStorage(path), JSONStorage(real)
    through_link.save(voiceprint())
    assert path.is_symlink()
    assert direct.count() == 1
    assert through_link.location == direct.location == f"json:{real}"


def test_a_relative_path_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = JSONStorage("store.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    storage.save(voiceprint())
    assert (tmp_path / "store.json").exists()


@pytest.mark.parametrize("bad", ["", b"bytes", "a\0b"])
def test_what_is_no_path_is_refused(bad: object) -> None:
    with pytest.raises(InvalidArgumentError, match="path"):
        JSONStorage(bad)


def test_a_folder_or_a_path_through_a_file_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place in (tmp_path, tmp_path / "file" / "store.json", loop, tmp_path / ("x" * 300)):
        with pytest.raises(StorageUnavailableError, match=r"Nothing was changed"):
            JSONStorage(place)
    assert (tmp_path / "file").read_text() == "text"


def test_two_handles_share_the_records_and_one_may_be_closed(path: Path) -> None:
    one, two = JSONStorage(path), JSONStorage(path)
    one.save(voiceprint())
    assert two.count() == 1
    one.close()
    two.save(voiceprint("bob"))
    assert two.count() == 2


def test_handles_stay_in_step_when_many_other_files_are_opened_between(tmp_path: Path, path: Path) -> None:
    one = JSONStorage(path)
    for n in range(10):
        JSONStorage(tmp_path / f"{n}.json")
    two = JSONStorage(path)
    assert one._file is two._file
    one.save(voiceprint())
    two.save(voiceprint("bob"))
    assert one.revision() == two.revision() == 2


def _follow(storage: JSONStorage) -> Follower:
    follower = Follower()
    follower.assert_in_step(storage)
    return follower


def _assert_followed(follower: Follower, storage: JSONStorage, since: Position, rebuilds: int = 2) -> None:
    assert storage.position() != since
    assert storage.changes(since) is None
    follower.assert_in_step(storage)
    assert follower.rebuilds == rebuilds
    storage.save(voiceprint("after", 77))
    follower.assert_in_step(storage)
    assert follower.rebuilds == rebuilds


def test_a_file_restored_from_a_backup_is_noticed(tmp_path: Path, path: Path) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint("alice"))
    shutil.copy(path, tmp_path / "backup")
    storage.save(voiceprint("bob", 1))
    follower, since = _follow(storage), storage.position()
    shutil.copy(tmp_path / "backup", path)
    assert [caller.caller_id for caller in storage.callers()] == ["alice"]
    _assert_followed(follower, storage, since)


def test_a_file_edited_by_hand_is_noticed(path: Path) -> None:
    storage = JSONStorage(path)
    storage.save_many([voiceprint("alice"), voiceprint("bob", 1)])
    follower, since = _follow(storage), storage.position()
    content = json.loads(path.read_bytes())
    del content["bob"]
    path.write_text(json.dumps(content, indent=1))
    assert storage.count() == 1
    _assert_followed(follower, storage, since)


def test_a_reader_that_sees_a_change_before_its_writer_has_ended_keeps_the_feed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint("alice"))
    follower = _follow(storage)
    rebuilds = follower.rebuilds

    def replace_and_read(path: Path, content: bytes) -> int:
        descriptor = replace_file(path, content)
        assert storage.count() == 2
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr("voiceprint.storage.json.file.replace_file", replace_and_read)
        storage.save(voiceprint("bob", 1))
    follower.assert_in_step(storage)
    storage.save(voiceprint("carol", 2))
    follower.assert_in_step(storage)
    assert follower.rebuilds == rebuilds
    assert JSONStorage(path).count() == 3


def test_another_store_put_in_place_is_noticed_even_at_the_same_revision(tmp_path: Path, path: Path) -> None:
    other = JSONStorage(tmp_path / "other.json")
    other.save(voiceprint("mallory", 9))
    storage = JSONStorage(path)
    storage.save(voiceprint("alice"))
    follower, since = _follow(storage), storage.position()
    shutil.copy(other.file_path, path)
    with pytest.raises(StorageUnavailableError, match="another store"):
        storage.get("mallory")
    anew = JSONStorage(path)
    assert anew.get("mallory") is not None
    _assert_followed(follower, anew, since)


def test_a_file_damaged_and_healed_while_open_is_read_again(path: Path) -> None:
    from voiceprint import StorageCorruptError

    storage = JSONStorage(path)
    storage.save(voiceprint())
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    for use in (storage.count, lambda: storage.save(voiceprint("bob")), lambda: storage.get("alice")):
        with pytest.raises(StorageCorruptError):
            use()
    assert [finding.code for finding in storage.check()] == ["corrupt"]
    assert path.read_bytes() == content[:-5]
    path.write_bytes(content)
    assert storage.count() == 1
    assert storage.check() == []


def test_check_tells_of_a_caller_over_the_limit(path: Path) -> None:
    JSONStorage(path).save_many([voiceprint(seed=n) for n in range(3)])
    finding = JSONStorage(path, max_voiceprints_per_caller=2).check()[0]
    assert (finding.code, finding.place) == ("too_many_voiceprints", "caller 'alice'")
    assert JSONStorage(path).check() == []


def test_the_feed_forgets_old_deletions_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.storage.state.MAX_TOMBSTONES", 3)
    storage = JSONStorage(path)
    storage.save_many([voiceprint(f"c{n}", n) for n in range(6)])
    positions = [storage.position()]
    for n in range(5):
        storage.delete(f"c{n}")
        positions.append(storage.position())
    for known in (storage, None):
        if known is None:
            forget_json_files()
        reader = known or JSONStorage(path)
        assert [reader.changes(since) is None for since in positions] == [
            True,
            True,
            False,
            False,
            False,
            False,
        ]
        assert len(reader.changes(positions[2]).removed) == 3
