"""How long is it from opening a large SQLite store to the first answer, and after others have changed it?

    python benchmarks/opening.py [--prints 1000000] [--folder FOLDER] [--cold]

Each opening is in a process of its own: without a snapshot, with one, and with one that is 1,000 changes
old; then the first match after 1,000 changes that another process made meanwhile. The time is that from
making the recogniser to the answer, without the encoder's (its embedding is given). Written to
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
from pathlib import Path
from typing import Any

import numpy as np
from filled_store import filled, name
from gallery_model import GalleryModel
from measuring import resident_bytes, spread
from numpy.typing import NDArray
from results_file import keep

from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, VoiceFingerprintConfig, Voiceprint, load_audio
from voiceprint.encoder import default_encoder

SAMPLE = Path(__file__).resolve().parents[1] / "examples" / "voices" / "amara" / "1.flac"
ADDED, REPLACED, DELETED = 400, 300, 300
ROUNDS = 50


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


def main() -> int:
    """Measure, print, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prints", type=int, default=1_000_000, help="voiceprints of the store")
    parser.add_argument("--folder", type=Path, help="where to put the store; default: temporary files")
    parser.add_argument("--cold", action="store_true", help="let the system forget the files before each")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--change", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--turn", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask is not None:
        print(json.dumps(ask(arguments.ask, arguments.prints, arguments.turn)))
        return 0
    if arguments.change is not None:
        change(arguments.change, arguments.prints, arguments.turn)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "voiceprints.db"
        filled(path, arguments.prints)
        figures = {"prints": arguments.prints, "changes": ADDED + REPLACED + DELETED}
        figures |= openings(path, arguments)
    for key, value in figures.items():
        print(f"  {key:32}{json.dumps(value)}")
    print(f"\nRaw figures: benchmarks/results/{keep(f'opening-{arguments.prints}', figures).name}")
    return 0


def openings(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One after the other; the second leaves the snapshot behind, if closing writes one."""

    def opened(task: str, turn: int, snapshot: str | None) -> dict[str, Any]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VOICE_")}
        if snapshot is not None:
            environment["VOICE_INDEX_PATH"] = snapshot
        if arguments.cold:
            forget(path.parent)
        command = [sys.executable, __file__, task, path, "--prints", str(arguments.prints)]
        done = subprocess.run(
            [*command, "--turn", str(turn)], stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        return json.loads(done.stdout) if done.stdout else {}

    without = opened("--ask", 0, "off")
    before = set(path.parent.iterdir())
    closing = opened("--ask", 0, None)
    written = {item.name: item.stat().st_size for item in set(path.parent.iterdir()) - before}
    if not written:
        print("No snapshot was written: what follows is without one.")
    with_one = opened("--ask", 0, None)
    opened("--change", 1, None)
    changed = opened("--ask", 1, None)
    return {
        "without_snapshot": without,
        "writing_snapshot": {"close_s": closing["close_s"], "bytes": written},
        "with_snapshot": with_one,
        "with_old_snapshot": changed,
    }


def ask(path: Path, prints: int, turn: int) -> dict[str, Any]:
    """Open the store, and ask for the last caller that was added in this turn (0: one of the gallery)."""
    audio, rate = load_audio(SAMPLE)
    config = VoiceFingerprintConfig(storage_backend="sqlite", storage_path=path)
    encoder = Given()
    warm_up(encoder)
    gallery = GalleryModel.load().gallery(prints)
    callers, probes = gallery.probes(ROUNDS)
    memory = resident_bytes()

    start = time.perf_counter()
    recognizer = OpusAgentVoiceRecognizer(config=config, encoder=encoder)
    right = asked(recognizer, encoder, turn, callers[0], probes[0])
    figures: dict[str, Any] = {"first_answer_s": round(time.perf_counter() - start, 3), "right": right}

    times = []
    for probe in probes:
        encoder.next = probe
        start = time.perf_counter()
        recognizer.identify(audio, k=1, sample_rate=rate)
        times.append(time.perf_counter() - start)
    figures["next_ms"] = spread(times, unit_s=1e-3, digits=3)
    figures["resident_mb"] = round((resident_bytes() - memory) / 1e6, 1)

    if turn:
        command = [sys.executable, __file__, "--change", path, "--prints", str(prints)]
        subprocess.run([*command, "--turn", str(turn + 1)], check=True)
        start = time.perf_counter()
        right = asked(recognizer, encoder, turn + 1, callers[0], probes[0])
        figures["after_changes_s"] = round(time.perf_counter() - start, 3)
        figures["after_changes_right"] = right
    start = time.perf_counter()
    getattr(recognizer, "close", recognizer.storage.close)()
    return figures | {"close_s": round(time.perf_counter() - start, 3)}


def warm_up(encoder: Given) -> None:
    """Load what the first match loads, over another store; how long that takes is not the question."""
    audio, rate = load_audio(SAMPLE)
    with tempfile.TemporaryDirectory() as folder, SQLiteStorage(Path(folder) / "small.db") as storage:
        encoder.next = added(0)[0]
        recognizer = OpusAgentVoiceRecognizer(storage, encoder=encoder)
        recognizer.enroll_caller("somebody", audio, sample_rate=rate)
        recognizer.identify(audio, sample_rate=rate)


def asked(
    recognizer: OpusAgentVoiceRecognizer,
    encoder: Given,
    turn: int,
    caller: int,
    probe: NDArray[np.float32],
) -> bool:
    """One match; whether the answer is right."""
    audio, rate = load_audio(SAMPLE)
    encoder.next = added(turn)[-1] if turn else probe
    found = recognizer.identify(audio, k=1, sample_rate=rate)
    expected = f"new {turn} {ADDED - 1:04}" if turn else name(caller)
    return bool(found) and found[0].caller_id == expected


def added(turn: int) -> NDArray[np.float32]:
    """The prints that a turn of changes adds."""
    return GalleryModel.load().gallery(ADDED, seed=1_000 + turn).matrix()


def change(path: Path, prints: int, turn: int) -> None:
    """Add, replace and delete, one caller each."""
    callers = int(GalleryModel.load().gallery(prints).callers()[-1])
    others = np.random.default_rng(turn).choice(callers, REPLACED + DELETED, replace=False).tolist()
    new = GalleryModel.load().gallery(REPLACED, seed=2_000 + turn).matrix()
    with SQLiteStorage(path) as storage:
        for number, vector in enumerate(added(turn)):
            storage.save(Voiceprint(f"new {turn} {number:04}", vector))
        for caller, vector in zip(others[:REPLACED], new, strict=True):
            known = storage.get(name(caller))
            if known is not None:
                storage.save(Voiceprint(name(caller), vector, id=known.voiceprints[0].id))
        for caller in others[REPLACED:]:
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
