"""The embedding spaces of a store, by the recognizer: coverage, and the state of each snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import voiceprint
from voices import BandEncoder

from voiceprint import (
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SnapshotStatus,
    SpaceCoverage,
    SQLiteStorage,
    VoiceFingerprintConfig,
)


class OtherEncoder(BandEncoder):
    """An encoder whose space is that of the made-up voiceprints."""

    name = "other"
    dimension = 8


def test_the_encoders_in_use_come_first_and_then_the_spaces_with_most_callers() -> None:
    storage = MemoryStorage()
    recognizer = OpusAgentVoiceRecognizer(storage, encoder=OtherEncoder())
    assert recognizer.spaces() == [
        SpaceCoverage(
            encoder="other", dimension=8, voiceprints=0, callers=0, only=0, share=0.0, use="primary"
        )
    ]
    storage.save_many([voiceprint(f"c{n}", n) for n in range(4)])
    storage.save_many([voiceprint(f"c{n % 2}", n, encoder="old") for n in range(4)])
    storage.save_many([voiceprint("c9", 9, encoder="another"), voiceprint("c9", 9, encoder="other")])
    found = recognizer.spaces()
    assert [(one.encoder, one.voiceprints, one.callers, one.only, one.share, one.use) for one in found] == [
        ("other", 1, 1, 0, 0.2, "primary"),
        ("resemblyzer", 4, 4, 2, 0.8, None),
        ("old", 4, 2, 0, 0.4, None),
        ("another", 1, 1, 0, 0.2, None),
    ]
    assert [one.dimension for one in found] == [8, 256, 8, 8]


def test_the_secondary_encoder_comes_next() -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=OtherEncoder(), secondary=BandEncoder())
    assert [(one.encoder, one.dimension, one.use) for one in recognizer.spaces()] == [
        ("other", 8, "primary"),
        ("test-bands", 32, "secondary"),
    ]


def _snapshots(path: Path, setting: str | None = None) -> dict[str, SnapshotStatus]:
    config = VoiceFingerprintConfig(index_path=setting)
    with OpusAgentVoiceRecognizer(SQLiteStorage(path), config=config, encoder=OtherEncoder()) as recognizer:
        return {one.encoder: one for one in recognizer.snapshots()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two spaces, with a snapshot of the space "other" alone."""
    path = tmp_path / "callers.db"
    with SQLiteStorage(path) as storage:
        storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])
        storage.save_many([voiceprint("alice", 3, encoder="other"), voiceprint("bob", 4, encoder="other")])
        OpusAgentVoiceRecognizer(storage, encoder=OtherEncoder()).rebuild_index()
    return path


def test_each_space_has_a_snapshot_of_its_own_and_a_state(path: Path) -> None:
    found = _snapshots(path)
    assert list(found) == ["other", "resemblyzer"]
    assert (found["other"].state, found["other"].changes, found["other"].voiceprints) == ("current", 0, 2)
    written = Path(found["other"].path or "")
    assert found["other"].size == written.stat().st_size
    assert (found["resemblyzer"].state, found["resemblyzer"].size) == ("not_written", None)
    assert found["resemblyzer"].path == str(path.with_name("callers.db.index"))
    for setting in ("off", str(path.with_name("elsewhere"))):
        assert {one.state for one in _snapshots(path, setting).values()} <= {"off", "not_written"}
    assert _snapshots(path, "off")["other"].path is None


def test_a_snapshot_is_behind_after_enrollments_of_its_space(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        storage.save(voiceprint("carol", 5))
        assert _snapshots(path)["other"].state == "current"
        storage.save_many([voiceprint("carol", 6, encoder="other"), voiceprint("dora", 7, encoder="other")])
    found = _snapshots(path)["other"]
    assert (found.state, found.changes) == ("behind", 2)


def test_a_snapshot_with_removed_voiceprints_is_outdated(path: Path) -> None:
    snapshot = Path(_snapshots(path)["other"].path or "")
    content = snapshot.read_bytes()
    with SQLiteStorage(path) as storage:
        storage.delete("alice")
    assert _snapshots(path)["other"].state == "not_written"
    snapshot.write_bytes(content)
    assert _snapshots(path)["other"].state == "outdated"


def test_a_damaged_snapshot_or_one_of_another_store_is_unusable(path: Path, tmp_path: Path) -> None:
    snapshot = Path(_snapshots(path)["other"].path or "")
    content = snapshot.read_bytes()
    snapshot.write_bytes(content[:100])
    assert _snapshots(path)["other"].state == "unusable"
    with SQLiteStorage(tmp_path / "second.db") as storage:
        storage.save(voiceprint("alice", 1, encoder="other"))
    (tmp_path / snapshot.name.replace("callers", "second")).write_bytes(content)
    assert _snapshots(tmp_path / "second.db")["other"].state == "unusable"
