"""Fails each write, flush and rename of a change in turn, and looks what is left.

    LD_PRELOAD=FAULTS.so python tests/failing_disk.py FAULTS.so SCHEME FOLDER ERRNO

Prints how many calls there were to fail, and how often the new state was there after an error.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

from stores import forget_json_files, state, unit, voiceprint

from voiceprint import StorageError
from voiceprint.storage import open_storage


def main(library: str, scheme: str, folder: str, code: int) -> None:
    faults = ctypes.CDLL(library)
    failed = kept = 0
    while True:
        url = f"{scheme}:{Path(folder, str(failed))}"
        storage = open_storage(url)
        storage.save(voiceprint("alice", 1))
        before = state(storage)
        faults.fault_arm(failed + 1, code)
        error: Exception | None = None
        try:
            bob = voiceprint("bob", 2, augmented=unit(5))
            storage.save_many([bob, voiceprint("alice", 3)])
        except StorageError as raised:
            error = raised
        finally:
            fired = faults.fault_disarm()
        for reopened in (False, True):
            if reopened:
                storage.close()
                forget_json_files()
                storage = open_storage(url)
            after = state(storage)
            changed = "bob" in after
            if error is None:
                assert changed, "an acknowledged save is lost"
            if changed:
                assert len(after["alice"]["voiceprints"]) == 2, "half a change"
                assert storage.get("bob").voiceprints[0].augmented is not None, "half a change"
            else:
                assert after == before, "half a change"
        kept += error is not None and changed
        storage.save(voiceprint("carol", 4))
        assert storage.check() == []
        storage.close()
        if not fired:
            assert error is None
            break
        failed += 1
    print(json.dumps({"failed": failed, "kept": kept}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
