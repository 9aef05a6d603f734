"""How long is it from opening a large SQLite store to the first answer, and after others have changed it?

    python benchmarks/opening.py [--prints 1000000] [--folder FOLDER] [--cold]

Each opening is in a process of its own: without a snapshot, with one, and with one that is 1,000 changes
old; then the first match after 1,000 changes that another process made meanwhile. The time is that from
making the recognizer to the answer, without the encoder's (its embedding is given). Each first answer is
checked: it is a print that is stored, after changes the last that was added. Written to
results/opening-PRINTS.json.
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
from pathlib import Path
from typing import Any

import numpy as np
from filled_store import filled, name
from gallery_model import GalleryModel
from measuring import resident_bytes, spread, timed
from numpy.typing import NDArray
from results_file import RESULTS, keep

from voiceprint import (
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    VoiceFingerprintConfig,
    Voiceprint,
    load_audio,
)
from voiceprint.encoder import default_encoder

SAMPLE = Path(__file__).resolve().parents[1] / "examples" / "voices" / "amara" / "1.flac"
ROUNDS = 50


@dataclass(frozen=True)
class Turn:
    """So many changes that another process makes: four tenths new callers, the rest replaced or deleted."""

    number: int
    changes: int

    @property
    def added(self) -> int:
        """How many callers are new."""
        return max(1, 4 * self.changes // 10)

    @property
    def replaced(self) -> int:
        """How many callers get another print in place of the first."""
        return 3 * self.changes // 10

    @property
    def deleted(self) -> int:
        """How many callers go."""
        return self.changes - self.added - self.replaced

    def new(self) -> list[Voiceprint]:
        """The voiceprints of the new callers."""
        made = GalleryModel.load().gallery(self.added, seed=1_000 + self.number).matrix()
        return [Voiceprint(f"new {self.number} {place:04}", vector) for place, vector in enumerate(made)]


class Given:
    """An encoder that gives the embedding that it was told to."""

    name = default_encoder().name
    dimension = default_encoder().dimension
    sample_rate = default_encoder().sample_rate

    def __init__(self) -> None:
        self.next = np.empty(0, dtype=np.float32)

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
        """Whatever the audio."""
        return self.next

    def embed_batch(self, audios: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """As `embed`, for each."""
        return np.stack([self.next] * len(audios))

    def warm_up(self) -> None:
        """There is nothing to load."""


def main() -> int:
    """Measure, print, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prints", type=int, default=1_000_000, help="voiceprints of the store")
    parser.add_argument("--folder", type=Path, help="where to put the store; default: temporary files")
    parser.add_argument("--cold", action="store_true", help="let the system forget the files before each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to put the raw figures")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--change", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--turn", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--changes", type=int, default=1_000)
    arguments = parser.parse_args()
    turn = Turn(arguments.turn, arguments.changes)
    if arguments.ask is not None:
        print(json.dumps(ask(arguments.ask, arguments.prints, turn)))
        return 0
    if arguments.change is not None:
        change(arguments.change, arguments.prints, turn)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "voiceprints.db"
        filled(path, arguments.prints)
        figures = {"prints": arguments.prints, "changes": arguments.changes}
        figures |= openings(path, arguments)
    for key, value in figures.items():
        print(f"  {key:32}{json.dumps(value)}")
    kept = keep(f"opening-{arguments.prints}", figures, folder=arguments.results)
    print(f"\nRaw figures: {kept.name} in {arguments.results}")
    return 0


def openings(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One after the other; the second leaves the snapshot behind, if closing writes one."""

    def opened(task: str, turn: int, **settings: str) -> dict[str, Any]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VOICE_")}
        if arguments.cold:
            forget(path.parent)
        told = run(task, path, arguments.prints, Turn(turn, arguments.changes), environment | settings)
        return json.loads(told) if told else {}

    without = opened("--ask", 0, VOICE_INDEX_PATH="off")
    before = set(path.parent.iterdir())
    closing = opened("--ask", 0)
    written = {
        item.name: item.stat().st_size
        for item in set(path.parent.iterdir()) - before
        if not item.name.endswith(("-wal", "-shm"))  # SQLite's own
    }
    if not written:
        print("No snapshot was written: what follows is without one.")
    with_one = opened("--ask", 0)
    opened("--change", 1)
    changed = opened("--ask", 1)
    return {
        "without_snapshot": without,
        "writing_snapshot": {"close_s": closing["close_s"], "bytes": written},
        "with_snapshot": with_one,
        "with_old_snapshot": changed,
    }


def run(task: str, path: Path, prints: int, turn: Turn, environment: dict[str, str]) -> str:
    """This script in a process of its own; what it printed."""
    command = [sys.executable, __file__, task, path, "--prints", str(prints)]
    command += ["--turn", str(turn.number), "--changes", str(turn.changes)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def ask(path: Path, prints: int, turn: Turn) -> dict[str, Any]:
    """Open the store after this turn of changes (0: none yet), and ask."""
    audio, rate = load_audio(SAMPLE)
    config = VoiceFingerprintConfig(storage_backend="sqlite", storage_path=path)
    encoder = Given()
    gallery = GalleryModel.load().gallery(prints)
    _, probes = gallery.probes(ROUNDS)
    first = Voiceprint(name(0), next(gallery.blocks()).vectors[0])
    warm_up(encoder, first)
    memory = resident_bytes()

    def right(wanted: Voiceprint) -> bool:
        """Whether the first answer is the caller of a print that is stored."""
        encoder.next = wanted.embedding
        found = recognizer.identify(audio, k=1, sample_rate=rate)
        return bool(found) and found[0].caller_id == wanted.caller_id

    wanted = turn.new()[-1] if turn.number else first
    start = time.perf_counter()
    recognizer = OpusAgentVoiceRecognizer(config=config, encoder=encoder)
    figures: dict[str, Any] = {"right": right(wanted)}
    snapshot = path.with_name(f"{path.name}.index")
    figures["first_answer_s"] = round(time.perf_counter() - start, 3)

    def asked(probe: NDArray[np.float32]) -> None:
        encoder.next = probe
        recognizer.identify(audio, k=1, sample_rate=rate)

    times = [timed(lambda probe=probe: asked(probe)) for probe in probes]
    figures["next_ms"] = spread(times, unit_s=1e-3, digits=3)
    figures["resident_mb"] = round((resident_bytes() - memory) / 1e6, 1)

    if turn.number:
        following = Turn(turn.number + 1, turn.changes)
        run("--change", path, prints, following, dict(os.environ))
        wanted = following.new()[-1]
        start = time.perf_counter()
        figures["after_changes_right"] = right(wanted)
        figures["after_changes_s"] = round(time.perf_counter() - start, 3)
    if os.environ.get("VOICE_INDEX_PATH") != "off" and not snapshot.exists():
        figures["rebuild_s"] = round(timed(recognizer.rebuild_index), 3)
    return figures | {"close_s": round(timed(recognizer.close), 3)}


def warm_up(encoder: Given, print_: Voiceprint) -> None:
    """Load what the first match loads, over another store; how long that takes is not the question."""
    audio, rate = load_audio(SAMPLE)
    with MemoryStorage() as storage:
        storage.save(print_)
        encoder.next = print_.embedding
        OpusAgentVoiceRecognizer(storage, encoder=encoder).identify(audio, sample_rate=rate)


def change(path: Path, prints: int, turn: Turn) -> None:
    """Add, replace and delete, a caller at a time."""
    callers = int(GalleryModel.load().gallery(prints).callers()[-1])
    others = 1 + np.random.default_rng(turn.number).choice(callers, turn.replaced + turn.deleted, False)
    replacing = GalleryModel.load().gallery(turn.replaced, seed=2_000 + turn.number).matrix()
    with SQLiteStorage(path) as storage:
        for voiceprint in turn.new():
            storage.save(voiceprint)
        for caller, vector in zip(others.tolist(), replacing, strict=False):
            known = storage.get(name(caller))
            if known is not None:  # it may have gone in the turn before
                storage.save(Voiceprint(name(caller), vector, id=known.voiceprints[0].id))
        for caller in others[turn.replaced :].tolist():
            storage.delete(name(caller))


def forget(folder: Path) -> None:
    """Have the system drop what it keeps of the files in memory."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
