"""How long does a whole match take, audio in, answer out, and which part of it takes how long?

    python -m benchmarks.match [--prints 100000] [--rounds 100] [--store FILE]

The sample voices are enrolled among generated callers in a SQLite store, and `match_caller` gets other
recordings of them once the index is trained. The audio stage (conversion, speech, quality) is timed by
itself; the encoder, the store and the index by wrapping their public methods; scores and decision are the
rest. `identify(embedding=...)` gets further recordings of generated callers, so it has no encoder. Linear
searches are timed in the same run: comparing the embedding with all in memory, in a loop and as one product.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.filled_store import caller_id, fill_file
from benchmarks.measure import Clock, resident_bytes, spread_ms, timed
from benchmarks.report import VOICES, command_line, write
from tools.gallery_model import GalleryModel
from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, load_audio
from voiceprint.audio import Recording
from voiceprint.encoder import default_encoder
from voiceprint.index import VectorIndex

ENROLLED = 2  # utterances of each sample voice; the others are probes
STAGES = {
    "audio": "audio to 16 kHz mono, speech, quality",
    "encoder": "encoder",
    "sync": "index: is it up to date?",
    "search": "index: search",
    "records": "records of the shortlist",
    "touch": "last_seen",
    "decision": "scores, decision, all else",
    "without encoder": "all but the encoder",
    "total": "total",
}
EMBEDDING_STAGES = ("sync", "search", "records", "decision", "total")
LINEAR = {"loop": "linear, a loop", "product": "linear, a matrix product"}
LINEAR_ROUNDS = {"loop": 5, "product": 20}


class Stages:
    """Seconds that each stage of the current match took in this thread, without the stages inside it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []
        self._thread = threading.get_ident()

    def wrap(self, owner: Any, stage: str, *names: str) -> None:
        """Time these methods of a class or object, where it has them."""
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, self._timed(getattr(owner, name), stage))

    def _timed(self, original: Any, stage: str) -> Any:
        def timed_method(*args: Any, **settings: Any) -> Any:
            if threading.get_ident() != self._thread:  # background work belongs to no stage
                return original(*args, **settings)
            start = self._clock()
            self._inside.append(0.0)
            try:
                return original(*args, **settings)
            finally:
                taken = self._clock() - start
                self.seconds[stage] += taken - self._inside.pop()
                if self._inside:
                    self._inside[-1] += taken

        return timed_method


def main() -> int:
    """Measure, print a table, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("--prints", type=int, default=100_000, help="generated voiceprints in the store")
    parser.add_argument("--rounds", type=int, default=100, help="matches that are measured")
    parser.add_argument(
        "--store", type=Path, help="keep the store in this file; a filled one is used as it is"
    )
    parser.add_argument("--processor-time", action="store_true", help="time of this thread without waiting")
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.processor_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or Path(folder) / "voiceprints.db"
        fill_file(path, arguments.prints)
        with SQLiteStorage(path) as storage:
            figures = {"prints": arguments.prints} | measure(
                storage, arguments.prints, arguments.rounds, clock
            )
            figures["linear_ms"] = measure_linear(storage, clock)
    show(figures)
    suffix = "-processor" if arguments.processor_time else ""
    write(f"match-{arguments.prints}{suffix}", figures, arguments.results)
    return 0


def measure(storage: SQLiteStorage, prints: int, rounds: int, clock: Clock) -> dict[str, Any]:
    """Enroll, match, and collect the times."""
    recognizer = OpusAgentVoiceRecognizer(storage)
    probes = []
    for folder in sorted(path for path in VOICES.iterdir() if path.is_dir()):
        for number, path in enumerate(sorted(folder.glob("*.flac"))):
            audio, rate = load_audio(path)
            if number < ENROLLED:
                recognizer.enroll_caller(folder.name, audio, sample_rate=rate)
            else:
                probes.append((folder.name, audio, rate))
    before = resident_bytes()
    _, audio, rate = probes[0]
    first = timed(lambda: recognizer.match_caller(audio, sample_rate=rate))
    after = resident_bytes()
    start = time.perf_counter()
    while recognizer.index_status().training:
        time.sleep(0.1)
    trained = time.perf_counter() - start

    stages = Stages(clock)
    stages.wrap(default_encoder(), "encoder", "embed", "embed_speech", "embed_partials")
    stages.wrap(storage, "sync", "identity", "revision", "changes", "scan")
    stages.wrap(VectorIndex, "search", "search", "vectors_of", "candidates")
    stages.wrap(storage, "records", "callers_of", "get", "get_many")
    stages.wrap(storage, "touch", "touch")
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    right = 0
    for number in range(-3, rounds):  # three to warm up
        caller, audio, rate = probes[number % len(probes)]
        stages.seconds.clear()
        start = clock()
        recording = Recording.from_buffer(audio, rate)
        _ = recording.quality
        stages.seconds["audio"] = clock() - start
        match = recognizer.match_caller(recording)
        total = clock() - start
        if number < 0:
            continue
        right += match is not None and match[0] == caller
        stages.seconds["decision"] = total - sum(stages.seconds.values())
        stages.seconds["without encoder"] = total - stages.seconds["encoder"]
        stages.seconds["total"] = total
        for stage, seconds in stages.seconds.items():
            times[stage].append(seconds)
    return {
        "matches": rounds,
        "named_right": right,
        "first_match_s": round(first, 3),  # includes building or reading the index
        "first_match_mb": round((after - before) / 1e6, 1),
        "trained_after_s": round(trained, 1),  # since the first match
        "index": recognizer.index_status().structure,
        "ms": {stage: spread_ms(taken) for stage, taken in times.items() if taken},
        **measure_embeddings(recognizer, stages, prints, 3 * rounds, clock),
    }


def measure_embeddings(
    recognizer: OpusAgentVoiceRecognizer, stages: Stages, prints: int, rounds: int, clock: Clock
) -> dict[str, Any]:
    """Milliseconds of `identify(embedding=...)`, by stage, for further recordings of generated callers."""
    callers, probes = GalleryModel.load().gallery(prints).probes(rounds + 3)
    times: dict[str, list[float]] = {stage: [] for stage in EMBEDDING_STAGES}
    right = 0
    for number, (caller, probe) in enumerate(zip(callers.tolist(), probes, strict=True)):
        stages.seconds.clear()
        start = clock()
        best, *_ = recognizer.identify(embedding=probe)
        total = clock() - start
        if number < 3:  # to warm up
            continue
        right += best.caller_id == caller_id(caller)
        stages.seconds["decision"] = total - sum(stages.seconds.values())
        stages.seconds["total"] = total
        for stage, taken in times.items():
            taken.append(stages.seconds[stage])
    return {
        "embeddings": rounds,
        "embeddings_first": right,
        "embedding_ms": {stage: spread_ms(taken) for stage, taken in times.items()},
    }


def measure_linear(storage: SQLiteStorage, clock: Clock) -> dict[str, dict[str, float]]:
    """Milliseconds of finding the best of all embeddings, in memory, without an index."""
    matrix = np.concatenate([vectors for _, vectors in storage.scan()])
    rows = [*matrix]
    probes = matrix[np.random.default_rng(1).permutation(len(matrix))[: max(LINEAR_ROUNDS.values())]]
    ways: dict[str, Callable[[NDArray[np.float32]], Any]] = {
        "loop": lambda probe: max((float(np.dot(row, probe)), place) for place, row in enumerate(rows)),
        "product": lambda probe: int(np.argmax(matrix @ probe)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for name, search in ways.items():
        for probe in probes[: LINEAR_ROUNDS[name]]:
            times[name].append(timed(partial(search, probe), clock))
    return {name: spread_ms(taken) for name, taken in times.items()}


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("Stage", title=f"One match among {figures['prints']:,} voiceprints, ms")
    for name in ("p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    embedding = {stage: f"from an embedding: {STAGES[stage]}" for stage in EMBEDDING_STAGES}
    for titles, times in (
        (STAGES, figures["ms"]),
        (embedding, figures["embedding_ms"]),
        (LINEAR, figures["linear_ms"]),
    ):
        for stage, taken in times.items():
            table.add_row(titles[stage], *(f"{value:.2f}" for value in taken.values()))
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    console.print(
        f"The first match, which builds or reads the index: {figures['first_match_s']:.2f} s; trained "
        f"{figures['trained_after_s']:.0f} s later; {figures['named_right']} of {figures['matches']} right; "
        f"{figures['embeddings_first']} of {figures['embeddings']} embeddings ranked their caller first."
    )


if __name__ == "__main__":
    sys.exit(main())
