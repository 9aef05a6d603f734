"""How long does a whole match take, audio in, answer out, and which part of it takes how long?

    python benchmarks/match.py [--prints 100000] [--rounds 100] [--store FILE]

The sample voices are enrolled among generated callers in a SQLite store, and `match_caller` is asked for
other recordings of them, once the index is trained. The stages are timed from outside, by wrapping what the
recognizer calls; a stage inside another counts for itself alone, and what no stage took is the decision.
Beside it, in the same run, what the search would take without an index: comparing the embedding with all in
memory, one after the other and as one matrix product. Written to results/match-PRINTS.json, or with
--processor-time to match-PRINTS-processor.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filled_store import filled
from measuring import resident_bytes, spread
from numpy.typing import NDArray
from results_file import RESULTS, keep
from rich.console import Console
from rich.table import Table

import voiceprint.embedder
import voiceprint.identification.gallery
import voiceprint.identification.pipeline
import voiceprint.index
import voiceprint.scoring
from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, load_audio
from voiceprint.encoder import default_encoder

VOICES = Path(__file__).resolve().parents[1] / "examples" / "voices"
ENROLLED = 2  # utterances of each sample voice; the others are probes

STAGES = {
    "audio": "audio to 16 kHz mono, quality",
    "encoder": "encoder",
    "sync": "index: is it up to date?",
    "search": "index: search",
    "records": "records of the shortlist",
    "scores": "scores",
    "touch": "last_seen",
    "decision": "decision, and all else",
    "beside": "all but the encoder",
    "total": "all",
}
LINEAR = {"loop": "linear, one after the other", "product": "linear, a matrix product"}
LINEAR_ROUNDS = {"loop": 5, "product": 20}


class Stages:
    """The seconds that each stage of the current match took in this thread, the stages inside it left out."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []
        self._thread = threading.get_ident()

    def wrap(self, owner: Any, stage: str, *names: str) -> None:
        """Time these functions of a module, class or object."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name), stage))

    def _timed(self, original: Any, stage: str) -> Any:
        def timed(*args: Any, **settings: Any) -> Any:
            if threading.get_ident() != self._thread:  # what goes on in the background is no stage
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

        return timed


def main() -> int:
    """Measure, print a table, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prints", type=int, default=100_000, help="generated voiceprints of the store")
    parser.add_argument("--rounds", type=int, default=100, help="matches that are measured")
    parser.add_argument("--store", type=Path, help="where to keep the store; a filled one is used as it is")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="of this thread, in place of the time that passes: without waiting for the disk and for others",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to put the raw figures")
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.processor_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or Path(folder) / "voiceprints.db"
        filled(path, arguments.prints)
        with SQLiteStorage(path) as storage:
            figures = {"prints": arguments.prints} | measure(storage, arguments.rounds, clock)
            figures["linear_ms"] = measure_linear(storage, clock)
    show(figures)
    suffix = "-processor" if arguments.processor_time else ""
    path = keep(f"match-{arguments.prints}{suffix}", figures, folder=arguments.results)
    print(f"Raw figures: {path.name} in {arguments.results}")
    return 0


def measure(storage: SQLiteStorage, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Enroll, match, and gather the times."""
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
    start = time.perf_counter()
    recognizer.match_caller(audio, sample_rate=rate)
    first = time.perf_counter() - start
    after = resident_bytes()
    start = time.perf_counter()
    while recognizer.index_status().training:
        time.sleep(0.1)
    trained = time.perf_counter() - start

    stages = instrumented(storage, clock)
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    right = 0
    for number in range(-3, rounds):  # three to warm up
        caller, audio, rate = probes[number % len(probes)]
        stages.seconds.clear()
        start = clock()
        match = recognizer.match_caller(audio, sample_rate=rate)
        total = clock() - start
        if number < 0:
            continue
        right += match is not None and match[0] == caller
        rest = total - sum(stages.seconds.values())
        others = {"decision": rest, "beside": total - stages.seconds["encoder"], "total": total}
        for stage, taken in (stages.seconds | others).items():
            times[stage].append(taken)
    return {
        "matches": rounds,
        "named_right": right,
        "first_match_s": round(first, 3),  # with the index, which is then made or read
        "first_match_mb": round((after - before) / 1e6, 1),
        "trained_after_s": round(trained, 1),  # since the first match
        "index": recognizer.index_status().structure,
        "ms": {stage: spread(taken, unit_s=1e-3, digits=3) for stage, taken in times.items() if taken},
    }


def instrumented(storage: SQLiteStorage, clock: Callable[[], float]) -> Stages:
    """Stages around all that a match calls."""
    stages = Stages(clock)
    stages.wrap(voiceprint.embedding.Embedder, "audio", "recording", "probe")
    stages.wrap(default_encoder(), "encoder", "embed", "embed_speech")
    stages.wrap(storage, "sync", "identity", "revision", "changes", "scan")
    stages.wrap(voiceprint.index.VectorIndex, "search", "search", "vectors_of")
    stages.wrap(storage, "records", "callers_of", "get")
    stages.wrap(voiceprint.identification.pipeline, "scores", "rank")
    stages.wrap(voiceprint.scoring.GalleryScorer, "scores", "query", "rough_scores", "fpir")
    stages.wrap(voiceprint.identification.gallery.Gallery, "scores", "scorer")
    stages.wrap(storage, "touch", "touch")
    return stages


def measure_linear(storage: SQLiteStorage, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """The best of all embeddings, in memory, for a probe: a search without an index."""
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
            start = clock()
            search(probe)
            times[name].append(clock() - start)
    return {name: spread(taken, unit_s=1e-3, digits=3) for name, taken in times.items()}


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("Stage", title=f"One match among {figures['prints']:,} voiceprints, ms")
    for name in ("p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    for stage, times in figures["ms"].items():
        if stage == "beside":
            table.add_section()
        table.add_row(STAGES[stage], *(f"{value:.2f}" for value in times.values()))
    table.add_section()
    for name, times in figures["linear_ms"].items():
        table.add_row(LINEAR[name], *(f"{value:.2f}" for value in times.values()))
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    console.print(
        f"The first match, with the index to be made or read: {figures['first_match_s']:.2f} s; trained "
        f"{figures['trained_after_s']:.0f} s later. "
        f"{figures['named_right']} of {figures['matches']} named right."
    )


if __name__ == "__main__":
    sys.exit(main())
