"""How long from opening a large store to the first answer, and after other processes changed it?

    python -m benchmarks.opening [--prints 1000000] [--folder FOLDER] [--cold] [--postgresql URL]

Each opening has a process of its own: without a snapshot of the index, with one, and with one that is 1,000
changes old; then the first match after 1,000 changes by another process. Times run from building the
recognizer to the answer, without the encoder's (its embedding is given). Each first answer is checked: it
must be a stored print, after changes the last that was added. `trained_s` is the time until the index
is trained, which is when the next matches are measured; `cpu_s` the processor time of this process alone.

The store is a SQLite file, or the PostgreSQL database of a URL, empty at first, which keeps the voiceprints.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.filled_store import caller_id, fill_store
from benchmarks.measure import resident_bytes, spread_ms, timed
from benchmarks.report import ROOT, VOICES, command_line, write
from tools.gallery_model import GalleryModel
from voiceprint import (
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Voiceprint,
    load_audio,
    open_storage,
)
from voiceprint.encoder import default_encoder

Vector = NDArray[np.float32]


class FixedEncoder:
    """An encoder whose embedding is set beforehand, whatever the audio."""

    name = default_encoder().name
    dimension = default_encoder().dimension
    sample_rate = default_encoder().sample_rate
    embedding = np.empty(0, dtype=np.float32)

    def embed(self, audio: Vector) -> Vector:  # noqa: ARG002
        """The embedding that was set."""
        return self.embedding

    def embed_batch(self, audios: list[Vector]) -> Vector:
        """The embedding that was set, once for each."""
        return np.stack([self.embedding] * len(audios))

    def warm_up(self) -> None:
        """Nothing needs loading."""


@dataclass(frozen=True)
class Changes:
    """Changes by another process: 4 in 10 add callers, 3 replace prints, 3 delete callers. turn: a seed."""

    turn: int
    count: int

    def added(self) -> list[Voiceprint]:
        """The voiceprints of the new callers."""
        vectors = GalleryModel.load().gallery(max(1, 4 * self.count // 10), seed=1_000 + self.turn).matrix()
        return [Voiceprint(f"new {self.turn} {n:04}", vector) for n, vector in enumerate(vectors)]

    def apply(self, url: str, prints: int) -> None:
        """Change the store of `prints` generated voiceprints, a caller at a time."""
        model, added, part = GalleryModel.load(), self.added(), 3 * self.count // 10
        callers = int(model.gallery(prints).callers()[-1])
        others = 1 + np.random.default_rng(self.turn).choice(callers, self.count - len(added), replace=False)
        vectors = model.gallery(part, seed=2_000 + self.turn).matrix()
        with open_storage(url) as storage:
            for voiceprint in added:
                storage.save(voiceprint)
            for number, vector in zip(others.tolist(), vectors, strict=False):
                caller = storage.get(caller_id(number))
                if caller is not None:  # an earlier turn may have deleted it
                    storage.save(Voiceprint(caller.caller_id, vector, id=caller.voiceprints[0].id))
            for number in others[part:].tolist():
                storage.delete(caller_id(number))


def main() -> int:
    """Measure, print, write the raw figures; or be one of the processes that are measured."""
    parser = command_line(__doc__)
    parser.add_argument("--prints", type=int, default=1_000_000, help="voiceprints of the store")
    parser.add_argument("--folder", type=Path, help="folder for the store; default: temporary files")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache first")
    parser.add_argument("--changes", type=int, default=1_000)
    parser.add_argument("--probes", type=int, default=50, help="matches that are measured after the first")
    parser.add_argument("--turn", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--postgresql", metavar="URL", help="of an empty database, in place of a SQLite file")
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--change", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    changes = Changes(arguments.turn, arguments.changes)
    if arguments.ask is not None:
        print(json.dumps(ask(arguments, changes)))
        return 0
    if arguments.change is not None:
        changes.apply(arguments.change, arguments.prints)
        return 0
    figures = {"prints": arguments.prints, "changes": arguments.changes}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        url = arguments.postgresql or f"sqlite:{folder / 'voiceprints.db'}"
        with open_storage(url) as storage:
            fill_store(storage, arguments.prints)
        figures |= openings(url, folder, arguments)
    for name, value in figures.items():
        print(f"  {name:32}{json.dumps(value)}")
    kind = "-postgresql" if arguments.postgresql else ""
    write(f"opening{kind}-{arguments.prints}", figures, arguments.results)
    return 0


def openings(url: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The openings in order; the second writes the snapshot when it closes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOICE_")}
    environment["VOICE_INDEX_PATH"] = str(folder / "voiceprints.index")

    def opened(task: str, turn: int = 0, **settings: str) -> dict[str, Any]:
        if arguments.cold:
            drop_from_page_cache(folder)
        printed = run(task, url, arguments, Changes(turn, arguments.changes), environment | settings)
        return json.loads(printed) if printed else {}

    without = opened("--ask", VOICE_INDEX_PATH="off")
    before = set(folder.iterdir())
    closing = opened("--ask")
    written = {
        item.name: item.stat().st_size
        for item in set(folder.iterdir()) - before
        if not item.name.endswith(("-wal", "-shm"))  # SQLite's own
    }
    figures = {
        "without_snapshot": without,
        "writing_snapshot": {"close_s": closing["close_s"], "bytes": written},
        "with_snapshot": opened("--ask"),
    }
    opened("--change", 1)
    return figures | {"with_old_snapshot": opened("--ask", 1)}


def run(
    task: str, url: str, arguments: argparse.Namespace, changes: Changes, environment: dict[str, str]
) -> str:
    """This module in a process of its own; returns its output."""
    command = [sys.executable, "-m", "benchmarks.opening", task, url, "--prints", str(arguments.prints)]
    command += ["--probes", str(arguments.probes)]
    command += ["--turn", str(changes.turn), "--changes", str(changes.count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=ROOT)
    return done.stdout


def ask(arguments: argparse.Namespace, changes: Changes) -> dict[str, Any]:
    """Open the store after these changes (turn 0: before any), and match."""
    url: str = arguments.ask
    audio, rate = load_audio(VOICES / "amara" / "1.flac")
    encoder = FixedEncoder()
    gallery = GalleryModel.load().gallery(arguments.prints)
    probes = gallery.probes(arguments.probes)[1]
    stored = Voiceprint(caller_id(0), next(gallery.blocks()).vectors[0])
    with MemoryStorage() as other:  # loads the libraries, which is not the question
        other.save(stored)
        encoder.embedding = stored.embedding
        OpusAgentVoiceRecognizer(other, encoder=encoder).identify(audio, sample_rate=rate)
    memory = resident_bytes()

    def finds(wanted: Voiceprint) -> bool:
        encoder.embedding = wanted.embedding
        found = recognizer.identify(audio, k=1, sample_rate=rate)
        return bool(found) and found[0].caller_id == wanted.caller_id

    def match(probe: Vector) -> None:
        encoder.embedding = probe
        recognizer.identify(audio, k=1, sample_rate=rate)

    wanted = changes.added()[-1] if changes.turn else stored
    start, used = time.perf_counter(), time.process_time()
    recognizer = OpusAgentVoiceRecognizer(open_storage(url), encoder=encoder)
    figures: dict[str, Any] = {"right": finds(wanted)}
    figures["first_answer_s"] = round(time.perf_counter() - start, 3)
    figures["first_answer_cpu_s"] = round(time.process_time() - used, 3)
    while recognizer.index_status().training:
        time.sleep(0.02)
    figures["trained_s"] = round(time.perf_counter() - start, 3)
    figures["trained_cpu_s"] = round(time.process_time() - used, 3)
    figures["next_ms"] = spread_ms([timed(partial(match, probe)) for probe in probes])
    figures["resident_mb"] = round((resident_bytes() - memory) / 1e6, 1)
    if changes.turn:
        following = Changes(changes.turn + 1, changes.count)
        run("--change", url, arguments, following, dict(os.environ))
        wanted = following.added()[-1]
        start = time.perf_counter()
        figures["after_changes_right"] = finds(wanted)
        figures["after_changes_s"] = round(time.perf_counter() - start, 3)
    snapshot = Path(os.environ["VOICE_INDEX_PATH"])
    if snapshot != Path("off") and not snapshot.exists():
        figures["rebuild_s"] = round(timed(recognizer.rebuild_index), 3)
    return figures | {"close_s": round(timed(recognizer.close), 3)}


def drop_from_page_cache(folder: Path) -> None:
    """Let the system drop the pages of these files, so that the next opening reads the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
