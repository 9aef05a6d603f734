"""One of several processes that enroll, delete, touch and match on one store at once.

    python tests/busy_process.py URL NUMBER PROCESSES ROUNDS

It writes a line, waits for one, and at the end writes what it did, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import suppress

from galleries import best
from stores import unit, voiceprint

from voiceprint.errors import StorageUnavailableError
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage import open_storage

SHARED = ("shared 0", "shared 1")


def main(url: str, me: int, processes: int, rounds: int) -> None:
    chance = random.Random(me)
    storage, shared = open_storage(url), SharedIndex(RESEMBLYZER_SPACE, 256)
    Gallery(storage, shared).refresh()  # so that what follows has to be caught up with
    storage.save(voiceprint(f"hello {me}", me))
    wait()
    for other in range(processes):
        (found,) = best(Gallery(storage, shared), unit(other), 1)
        assert found.caller_id == f"hello {other}"
    own: dict[str, int] = {}
    shown: dict[str, int] = {}
    for n in range(rounds):
        seed = 10_000 * (me + 1) + n
        name = chance.choice(SHARED)
        storage.save(voiceprint(name, seed, metadata={f"process {me}": n}))
        shown[name] = n
        assert len(storage.get(name).voiceprints) <= 3
        storage.save(voiceprint(f"{me}/{n}", seed + 5_000))
        own[f"{me}/{n}"] = seed + 5_000
        (found,) = best(Gallery(storage, shared), unit(seed + 5_000), 1)
        assert found.caller_id == f"{me}/{n}"
        with suppress(StorageUnavailableError):  # a touch gives up after some seconds, and a match goes on
            assert storage.touch(chance.choice(sorted(own)))
        if chance.random() < 0.4:
            gone = chance.choice(sorted(own))
            assert storage.delete(gone) == 1
            assert best(Gallery(storage, shared), unit(own.pop(gone)), 1)[0].caller_id != gone
    print(json.dumps({"own": own, "told": shown}), flush=True)


def wait() -> None:
    """Until all processes have come here."""
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
