"""Changes of callers' lives by number, and their replay: for tests that kill the process that makes them."""

from __future__ import annotations

import random
from typing import Any

from stores import unit, voiceprint

from voiceprint import Consent, MemoryStorage, Storage, VoiceprintError

NAMES = ("alice", "bob", "carol", "dan")
GROUPS = ("vip", "fraud", "home")


def change(storage: Storage, number: int) -> None:
    """The change of this number, the same in every store that had the same changes before."""
    chance = random.Random(number)
    name, other = chance.sample(NAMES, 2)
    verb = chance.choice(
        ["save", "save", "save", "consent", "groups", "opt_out", "opt_in", "rename", "merge", "delete", "one"]
    )
    day = f"2024-01-01T00:00:{number % 60:02}.{number:06}Z"
    try:
        if verb == "save":
            storage.save(
                voiceprint(
                    name,
                    number,
                    metadata={"n": number},
                    groups=chance.sample(GROUPS, 1),
                    augmented=unit(number + 1) if number % 2 else None,
                    created_at=day,
                    last_seen=day,
                )
            )
        elif verb == "consent":
            storage.set_consent(name, Consent(purpose="test", version=str(number), obtained_at=day))
        elif verb == "groups":
            storage.set_groups(name, add=chance.sample(GROUPS, 1), remove=chance.sample(GROUPS, 1))
        elif verb == "opt_out":
            storage.opt_out(name, reason=f"no {number}")
        elif verb == "opt_in":
            storage.opt_in(name)
        elif verb == "rename":
            storage.rename(name, other)
        elif verb == "merge":
            storage.merge(name, other)
        elif verb == "delete":
            storage.delete(name)
        else:
            _delete_one(storage, name, chance.randrange(3))
    except VoiceprintError:  # a change that the state refuses, alike in every store
        pass


def _delete_one(storage: Storage, name: str, place: int) -> None:
    caller = storage.get(name)
    prints = () if caller is None else caller.voiceprints
    if place < len(prints):
        id_ = prints[place].id
        assert id_ is not None
        storage.delete_voiceprint(id_)


def content(storage: Storage) -> dict[str, Any]:
    """All that the changes decide: neither ids nor times, which differ from store to store."""
    return {
        caller.caller_id: (
            caller.metadata,
            caller.consent,
            None if caller.opt_out is None else caller.opt_out.reason,
            caller.groups,
            [
                (one.embedding.tobytes(), None if one.augmented is None else one.augmented.tobytes())
                for one in caller.voiceprints
            ],
        )
        for caller in storage.iter_callers()
    }


class Replay:
    """The content after each number of changes, by a store in memory."""

    def __init__(self) -> None:
        self._storage, self._contents = MemoryStorage(), [content(MemoryStorage())]

    def after(self, changes: int) -> dict[str, Any]:
        """The content after the first so many changes."""
        while len(self._contents) <= changes:
            change(self._storage, len(self._contents) - 1)
            self._contents.append(content(self._storage))
        return self._contents[changes]
