"""Made the golden files of this folder, once. They are not made anew: they show what was in the field.

    python tests/golden/make_golden.py

opusagent.json: what OpusAgent wrote before this library: one embedding a caller, some not of length 1,
times with and without a zone. opusagent.db: the same callers as its SQLite database.
format-2.json and schema-0002.db: this library's stores with two encoders, a deletion and metadata.
redis-2.json and redis-2-sharded.json: the same as the keys of a Redis store, of one shard and of three;
format-3.json, schema-0003.db, schema-0004.db and redis-3.json: the same with prints for simulated lines,
which schema-0003.db has in a column, as no released version wrote it. format-4.json, schema-0005.db and
redis-4.json: as the first, with commits and noted deletions. format-5.json, schema-0006.db and redis-5.json:
as those with prints for simulated lines, which are now named augmented voiceprints; backup-1.jsonl and
export-1.jsonl: of a store of before that, backup-2.jsonl and export-2.jsonl since. format-6.json,
schema-0008.db, redis-6.json, backup-3.jsonl and export-3.jsonl: with consents, a refusal, groups and
provenances.
opusagent-redis.json: OpusAgent's callers as its keys. See tests/redis_keys.py for what these files hold.
sample-voices.npz: Resemblyzer's embeddings of the sample voices, for installs without Resemblyzer.
index-1.snapshot: an index of ten vectors, written by the first form of snapshots, which is no longer read.
index-4.snapshot: forty vectors, searched by cells.
enrollment-1.progress: the notes of an interrupted run of enroll-csv, of a row that is enrolled and of one in
a change of the store that was begun. archive-0.progress: those of identify-archive, of two answers.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from voiceprint import (
    Consent,
    JSONStorage,
    ManifestRow,
    MemoryStorage,
    Provenance,
    RedisStorage,
    SQLiteStorage,
    Storage,
    Voiceprint,
    load_audio,
)
from voiceprint.encoder import ResemblyzerEncoder
from voiceprint.enrollment.progress import EnrollmentProgress
from voiceprint.identification.archive_progress import ArchiveProgress
from voiceprint.index import VectorIndex
from voiceprint.storage import back_up, export_callers

FOLDER = Path(__file__).parent
SAMPLES = FOLDER.parents[1] / "examples/voices"
sys.path.insert(0, str(FOLDER.parent))
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


def opusagent_database() -> None:
    callers = json.loads((FOLDER / "opusagent.json").read_text())
    database = sqlite3.connect(FOLDER / "opusagent.db")
    database.execute(
        "CREATE TABLE voiceprints (caller_id TEXT PRIMARY KEY, embedding BLOB, metadata TEXT, "
        "created_at TEXT, last_seen TEXT)"
    )
    for caller in callers.values():
        row = [caller[name] for name in ("caller_id", "embedding", "metadata", "created_at", "last_seen")]
        row[1] = np.array(row[1], dtype=np.float32).tobytes()
        row[2] = json.dumps(row[2]) if row[2] else None
        database.execute("INSERT INTO voiceprints VALUES (?, ?, ?, ?, ?)", row)
    database.commit()
    database.close()


def stores(json_file: str, database: str, keys: str, fill: Callable[[Storage], None]) -> None:
    for storage in (JSONStorage(FOLDER / json_file), SQLiteStorage(FOLDER / database)):
        fill(storage)
        Path(f"{storage.files()[0]}.lock").unlink()
    with redis_client() as client:
        fill(RedisStorage(client))
        write_keys(client, keys)


@contextmanager
def redis_client() -> Iterator[Any]:
    from redis_server import RedisServer

    server = RedisServer()
    try:
        with server.client() as client:
            yield client
    finally:
        server.end()


def write_keys(client: Any, name: str) -> None:
    from redis_keys import dump

    (FOLDER / name).write_text(json.dumps(dump(client), indent=1))


def lines() -> None:
    for version, fill_one in (("2", fill_augmented), ("3", fill_life)):
        storage = MemoryStorage()
        fill_one(storage, close=False)
        with (FOLDER / f"export-{version}.jsonl").open("wb") as stream:
            export_callers(storage, stream)
        back_up(storage, FOLDER / f"backup-{version}.jsonl")


def redis_keys() -> None:
    with redis_client() as client:
        for name, shards in (("redis-2.json", None), ("redis-2-sharded.json", 3)):
            fill(RedisStorage(client, shards=shards))
            write_keys(client, name)
            client.flushall()
        for caller_id, caller in json.loads((FOLDER / "opusagent.json").read_text()).items():
            client.set(f"voiceprint:{caller_id}", json.dumps(caller))
        write_keys(client, "opusagent-redis.json")


def embeddings() -> None:
    encoder = ResemblyzerEncoder()
    files = {path.relative_to(SAMPLES).as_posix(): path for path in sorted(SAMPLES.glob("*/*.flac"))}
    np.savez(FOLDER / "sample-voices.npz", **{n: encoder.embed(load_audio(f)[0]) for n, f in files.items()})


def index_snapshot() -> None:
    index = VectorIndex(4, exact_up_to=20)
    index.add(np.arange(0, 120, 3), np.random.default_rng(SEED).standard_normal((40, 4)))
    index.wait()
    index.save(FOLDER / "index-4.snapshot", stamp={"revision": "7"})


def progress_files() -> None:
    path = FOLDER / "enrollment-1.progress"
    rows = [ManifestRow(line, FOLDER, "alice", f"{line}.wav") for line in (2, 3)]
    with (
        JSONStorage(FOLDER / "format-6.json") as store,
        EnrollmentProgress(path, store, "tiny") as enrollment,
    ):
        enrollment.begin([(rows[0], "2024-12-31T00:00:00.000000Z")])
        enrollment.end([(rows[0], 7)])
        enrollment.begin([(rows[1], "2025-01-01T00:00:00.000000Z")])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE storing SET location = 'json:format-6.json'")  # not of this machine
    with ArchiveProgress(FOLDER / "archive-0.progress", "key", again=False, apart_from=()) as archive:
        accepted = ("accepted", "alice", 0.9, 0.001, "same_recording spoof_suspected")
        archive.add([("a.wav", "1:2", accepted), ("b.wav", "3:4", ("not_enrolled", None, None, None, ""))])


TIMES = {"created_at": "2025-01-01T00:00:00Z", "last_seen": "2025-01-02T00:00:00Z"}


def fill_augmented(storage: Storage, *, close: bool = True) -> None:
    rng = np.random.default_rng(SEED)
    for n in range(4):
        augmented = rng.standard_normal(8) if n < 2 else None
        vector = rng.standard_normal(8)
        name = f"caller {n % 3}"
        storage.save(Voiceprint(name, vector, {"n": n}, encoder="tiny", augmented=augmented, **TIMES))
    if close:
        storage.close()


def fill_life(storage: Storage, *, close: bool = True) -> None:
    rng = np.random.default_rng(SEED)
    consent = Consent(
        purpose="authentication", version="2026-01", obtained_at="2025-01-01T00:00:00Z",
        obtained_by="agent-17", source="call 99", expires_at="2100-01-01T00:00:00Z",
    )  # fmt: skip
    for n, name in enumerate(("alice", "bob", "bob", "refused")):
        storage.save(
            Voiceprint(
                name, rng.standard_normal(8), {"n": n}, encoder="tiny", augmented=rng.standard_normal(8),
                consent=consent if name == "alice" else None, groups=["home", "vip"][: n + 1],
                provenance=Provenance(source="call 7", quality=0.75, duration_s=9.5, net_speech_s=7.25),
                **TIMES,
            )
        )  # fmt: skip
    storage.opt_out("refused", reason="no biometrics", by="agent-17")
    storage.set_consent("pending", consent)
    if close:
        storage.close()


def fill(storage: Storage, name: str = "Zoë") -> None:
    rng = np.random.default_rng(SEED)
    times = TIMES
    with storage:
        for n in range(5):
            print_ = Voiceprint(f"caller {n % 2}", rng.standard_normal(8), {"n": n}, encoder="tiny", **times)
            storage.save(print_)
        storage.save(Voiceprint("gone", rng.standard_normal(256), **times))
        storage.save(Voiceprint("caller 0", rng.standard_normal(256), {"name": name}, **times))
        storage.delete("gone")


if __name__ == "__main__":
    opusagent()
    opusagent_database()
    stores("format-4.json", "schema-0005.db", "redis-4.json", fill)
    redis_keys()
    stores("format-5.json", "schema-0006.db", "redis-5.json", fill_augmented)
    stores("format-6.json", "schema-0008.db", "redis-6.json", fill_life)
    lines()
    embeddings()
    index_snapshot()
    progress_files()
