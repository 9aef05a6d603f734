"""Made the golden files of this folder, once. They are not made anew: they show what was in the field.

    python tests/golden/make_golden.py

opusagent.json: what OpusAgent wrote before this library: one embedding a caller, some not of length 1,
times with and without a zone. format-2.json: this library's file with two encoders, a deletion and metadata.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from voiceprint import JSONStorage, Voiceprint

FOLDER = Path(__file__).parent
SEED = 20250101


def opusagent() -> None:
    rng = np.random.default_rng(SEED)
    callers = {}
    for name, scale in (("alice", 1.0), ("böb", 7.5), ("+1 555 0100", 0.01)):
        vector = rng.standard_normal(256)
        embedding = np.round(scale * vector / np.linalg.norm(vector), 6)
        callers[name] = {
            "caller_id": name,
            "embedding": embedding.tolist(),
            "metadata": {"name": name, "visits": 3, "tags": ["vip", None]},
            "created_at": "2024-01-15T10:30:00",
            "last_seen": "2024-02-15T10:30:00.123456+00:00",
        }
    callers["böb"]["metadata"] = {}
    callers["+1 555 0100"]["created_at"] = callers["+1 555 0100"]["last_seen"] = None
    (FOLDER / "opusagent.json").write_text(json.dumps(callers, indent=2))


def format_2() -> None:
    rng = np.random.default_rng(SEED)
    path = FOLDER / "format-2.json"
    times = {"created_at": "2025-01-01T00:00:00Z", "last_seen": "2025-01-02T00:00:00Z"}
    with JSONStorage(path) as storage:
        for n in range(5):
            print_ = Voiceprint(f"caller {n % 2}", rng.standard_normal(8), {"n": n}, encoder="tiny", **times)
            storage.save(print_)
        storage.save(Voiceprint("gone", rng.standard_normal(256), **times))
        storage.save(Voiceprint("caller 0", rng.standard_normal(256), {"name": "Zoë\0"}, **times))
        storage.delete("gone")
    path.with_name(f"{path.name}.lock").unlink()


if __name__ == "__main__":
    opusagent()
    format_2()
