"""Files of every version that was in the field open without loss, for ever."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import (
    Follower,
    assert_augmented,
    assert_embedding,
    assert_life,
    forget_json_files,
    ids_of,
    state,
    voiceprint,
)

from voiceprint import JSONStorage, MemoryStorage
from voiceprint.storage import digest, import_callers, restore
from voiceprint.storage.base import START, Position
from voiceprint.storage.deletions import deletion_digest

OLD_TIMES = {
    "alice": ("2024-01-15T10:30:00.000000Z", "2024-02-15T10:30:00.123456Z"),
    "böb": ("2024-01-15T10:30:00.000000Z", "2024-02-15T10:30:00.123456Z"),
    "+1 555 0100": (None, None),
}


@pytest.fixture
def old(golden: Path, path: Path) -> dict[str, Any]:
    """The content of OpusAgent's file, of which a copy lies at `path`."""
    shutil.copy(golden / "opusagent.json", path)
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _assert_adopted(storage: JSONStorage, old: dict[str, Any]) -> None:
    assert [caller.caller_id for caller in storage.callers()] == sorted(old)
    for name, record in old.items():
        caller = storage.get(name)
        assert caller.metadata == record["metadata"]
        assert (caller.created_at, caller.last_seen) == OLD_TIMES[name]
        assert len(caller.voiceprints) == 1
        assert caller.voiceprints[0].encoder == "resemblyzer"
        assert_embedding(caller.voiceprints[0].embedding, np.array(record["embedding"]))


def test_a_file_of_opusagent_opens_without_loss_and_untouched(path: Path, old: dict[str, Any]) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns
    storage = JSONStorage(path)
    _assert_adopted(storage, old)
    state(storage)
    assert storage.check() == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(path.parent.iterdir()) == [path]


def test_the_first_change_keeps_all_of_an_adopted_file(path: Path, old: dict[str, Any]) -> None:
    storage = JSONStorage(path)
    before = state(storage)
    follower = Follower()
    follower.assert_in_step(storage)
    ids = ids_of(storage.get_all())
    saved = storage.save(voiceprint("new"))
    assert saved.id not in ids
    follower.assert_in_step(storage)
    forget_json_files()
    storage = JSONStorage(path)
    after = state(storage)
    del after["new"]
    assert after == before
    _assert_adopted_without_new(storage, old)


def _assert_adopted_without_new(storage: JSONStorage, old: dict[str, Any]) -> None:
    storage.delete("new")
    _assert_adopted(storage, old)


def test_the_ids_of_an_adopted_file_are_the_same_in_every_process(path: Path, old: dict[str, Any]) -> None:
    script = (
        "import sys; from voiceprint import JSONStorage\n"
        "print({p.caller_id: p.id for p in JSONStorage(sys.argv[1]).get_all()})"
    )
    here = {print_.caller_id: print_.id for print_ in JSONStorage(path).get_all()}
    there = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert there.strip() == repr(here)


def test_a_record_with_nothing_but_an_embedding_is_adopted(path: Path, old: dict[str, Any]) -> None:
    path.write_text(json.dumps({"alice": {"embedding": old["alice"]["embedding"]}}))
    caller = JSONStorage(path).get("alice")
    assert (caller.metadata, caller.created_at, caller.last_seen) == ({}, None, None)
    JSONStorage(path).touch("alice", "2020-01-01T00:00:00Z")
    JSONStorage(path).save(voiceprint())
    assert JSONStorage(path).get("alice").created_at is None


def test_an_old_file_without_callers_is_an_empty_store(path: Path) -> None:
    path.write_text("{}")
    assert state(JSONStorage(path)) == {}


@pytest.mark.parametrize("field", ["embedding", "caller_id", "metadata", "created_at"])
def test_a_damaged_old_record_is_refused(path: Path, old: dict[str, Any], field: str) -> None:
    from voiceprint import StorageCorruptError

    old["alice"][field] = 5
    path.write_text(json.dumps(old))
    content = path.read_bytes()
    with pytest.raises(StorageCorruptError, match="alice"):
        JSONStorage(path)
    assert path.read_bytes() == content


def test_a_file_of_format_2_opens_as_it_was_written(golden: Path, path: Path) -> None:
    shutil.copy(golden / "format-2.json", path)
    content = json.loads(path.read_bytes())
    storage = JSONStorage(path)
    assert storage.check() == []
    assert storage.identity() == content[""]["identity"]
    assert storage.revision() == 8
    assert [ids_of(caller.voiceprints) for caller in storage.callers()] == [[3, 5, 7], [2, 4]]
    assert storage.get("caller 0").metadata == {"n": 4, "name": "Zoë\0"}
    assert storage.get("caller 1").last_seen == "2025-01-02T00:00:00.000000Z"
    for caller in storage.callers():
        for print_, kept in zip(caller.voiceprints, content[caller.caller_id]["voiceprints"], strict=True):
            assert print_.embedding.tobytes() == np.float32(kept["embedding"]).tobytes()
    changes = storage.changes(START, encoder="resemblyzer")
    assert (changes.removed.tolist(), changes.ids.tolist()) == ([1, 6], [7])
    Follower("tiny").assert_in_step(storage)
    assert storage.save(voiceprint("new")).id == 8


def test_a_file_of_format_3_opens_with_its_augmented_prints(golden: Path, path: Path) -> None:
    shutil.copy(golden / "format-3.json", path)
    content = json.loads(path.read_bytes())
    assert content[""]["format"] == 3
    storage = JSONStorage(path)
    assert storage.check() == []
    assert_augmented(storage)
    kept = content["caller 1"]["voiceprints"][0]["simulated"]
    assert storage.get("caller 1").voiceprints[0].augmented.tobytes() == np.float32(kept).tobytes()


def test_a_file_of_format_4_opens_with_its_commits_and_deletions(golden: Path, path: Path) -> None:
    shutil.copy(golden / "format-4.json", path)
    header = json.loads(path.read_bytes())[""]
    storage = JSONStorage(path)
    assert storage.check() == []
    assert storage.position() == tuple(header["commits"][-1])
    assert [storage.changes(Position(*commit)) is not None for commit in header["commits"]] == [True] * 8
    [deletion] = storage.deletions()
    assert deletion.digest == deletion_digest(storage.identity(), "gone")


def test_a_file_of_format_5_opens_with_its_augmented_voiceprints(golden: Path, path: Path) -> None:
    shutil.copy(golden / "format-5.json", path)
    assert json.loads(path.read_bytes())[""]["format"] == 5
    storage = JSONStorage(path)
    assert storage.check() == []
    assert_augmented(storage)


def test_a_file_of_format_6_opens_with_consents_groups_and_refusals(golden: Path, path: Path) -> None:
    shutil.copy(golden / "format-6.json", path)
    assert json.loads(path.read_bytes())[""]["format"] == 6
    storage = JSONStorage(path)
    assert storage.check() == []
    assert_life(storage)


def test_exports_and_backups_of_version_3_bring_consents_groups_and_refusals(golden: Path) -> None:
    with MemoryStorage() as imported, MemoryStorage() as restored:
        with (golden / "export-3.jsonl").open("rb") as lines:
            import_callers(imported, lines)
        restore(restored, golden / "backup-3.jsonl")
        assert digest(imported) == digest(restored)
        assert_life(imported)
        assert_life(restored)


@pytest.mark.parametrize("version", [1, 2])
def test_exports_and_backups_of_every_version_bring_the_augmented_voiceprints(
    golden: Path, version: int
) -> None:
    with MemoryStorage() as imported, MemoryStorage() as restored:
        with (golden / f"export-{version}.jsonl").open("rb") as lines:
            import_callers(imported, lines)
        restore(restored, golden / f"backup-{version}.jsonl")
        assert digest(imported) == digest(restored)
        assert_augmented(imported)
        assert_augmented(restored)


def test_the_first_change_of_an_older_format_keeps_all_and_older_libraries_out(
    golden: Path, path: Path
) -> None:
    shutil.copy(golden / "format-2.json", path)
    storage = JSONStorage(path)
    before = state(storage)
    storage.save(voiceprint("new"))
    storage.delete("new")
    assert json.loads(path.read_bytes())[""]["format"] == 6
    forget_json_files()
    assert state(JSONStorage(path)) == before
