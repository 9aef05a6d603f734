"""How many voiceprints there are of each embedding space, on every store."""

from __future__ import annotations

from harness import Harness
from stores import voiceprint

from voiceprint import Caller


def test_the_voiceprints_of_each_space_are_counted(harness: Harness) -> None:
    assert harness.storage.spaces() == {}
    first = harness.storage.save(voiceprint("alice", 1))
    harness.storage.save_many([voiceprint("bob", 2), voiceprint("bob", 3, encoder="other")])
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 2, "other": 1}
    harness.storage.save(voiceprint("alice", 4, id=first.id, encoder="other"))
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 1, "other": 2}
    harness.storage.delete("bob")
    prints = (voiceprint("carol", 5, id=90, encoder="third: n:x"),)
    harness.storage.restore_many([Caller(caller_id="carol", voiceprints=prints)])
    for storage in harness.both():
        assert storage.spaces() == {"other": 1, "third: n:x": 1}
