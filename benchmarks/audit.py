"""How long does a match wait for the audit log?

    python -m benchmarks.audit [--callers 1000] [--rounds 1000] [--folder FOLDER]

Matches of own embeddings, so without the encoder, among random callers in memory: without a log, with a log
that a thread writes, the same flushed to the disk, and with VOICE_AUDIT_WAIT, where the match waits for its
line. In turns with pauses, as calls arrive, and back to back, where the thread takes turns with the matches.
Then the size of a line, and the time to verify it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.measure import in_turns, spread, timed
from benchmarks.report import command_line, write
from voiceprint import ExternalEncoder, MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.privacy.audit import verify_lines

DIMENSION = 256
PAUSE_S = 0.002  # between matches, in which the thread writes
MODES: dict[str, dict[str, Any] | None] = {
    "without a log": None,
    "thread": {},
    "thread, fsync": {"audit_fsync": True},
    "wait": {"audit_wait": True},
    "wait, fsync": {"audit_wait": True, "audit_fsync": True},
}


def main() -> int:
    """Measure, print a table, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("--callers", type=int, default=1_000, help="enrolled callers")
    parser.add_argument("--rounds", type=int, default=1_000, help="matches of each kind")
    parser.add_argument("--folder", type=Path, help="folder for the logs; default: for temporary files")
    arguments = parser.parse_args()
    chance = np.random.default_rng(1)
    vectors = chance.standard_normal((arguments.callers, DIMENSION), dtype=np.float32)
    figures: dict[str, Any] = {"callers": arguments.callers, "rounds": arguments.rounds, "modes": {}}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        recognizers = {
            name: recognizer_of(vectors, Path(folder) / name.replace(", ", "-"), settings)
            for name, settings in MODES.items()
        }
        works = {name: matching(one, vectors) for name, one in recognizers.items()}
        times = in_turns(works, arguments.rounds, PAUSE_S)
        plain = statistics.median(times["without a log"])
        for name, work in works.items():
            busy = timed(lambda work=work: [work() for _ in range(arguments.rounds)]) / arguments.rounds  # type: ignore[misc]
            figures["modes"][name] = {
                "us": spread(times[name], digits=1),
                "more_p50_us": round((statistics.median(times[name]) - plain) * 1e6, 1),
                "back_to_back_us": round(busy * 1e6, 1),
            }
        figures["log"] = log_of(recognizers["thread"])
        for recognizer in recognizers.values():
            recognizer.close()
    show(figures)
    write("audit", figures, arguments.results)
    return 0


def recognizer_of(
    vectors: NDArray[np.float32], path: Path, settings: dict[str, Any] | None
) -> OpusAgentVoiceRecognizer:
    """A recognizer with these callers, and a log at `path` unless the settings are None."""
    log = {} if settings is None else {"audit": path, **settings}
    config = VoiceFingerprintConfig(target_fpir=0.01, **log)
    storage, encoder = MemoryStorage(), ExternalEncoder("random", DIMENSION)
    filling = OpusAgentVoiceRecognizer(storage, config=VoiceFingerprintConfig(), encoder=encoder)
    filling.enroll_embeddings([f"caller {n}" for n in range(len(vectors))], vectors)
    return OpusAgentVoiceRecognizer(storage, config=config, encoder=encoder)


def matching(recognizer: OpusAgentVoiceRecognizer, vectors: NDArray[np.float32]) -> Callable[[], object]:
    """A match of an enrolled caller."""
    probe = vectors[7]
    return lambda: recognizer.identify(embedding=probe)


def log_of(recognizer: OpusAgentVoiceRecognizer) -> dict[str, Any]:
    """The lines of a log, their size, and the time to verify them."""
    log = recognizer.audit_log()
    assert log is not None
    lines = [*log.lines()]
    seconds = timed(lambda: verify_lines(lines))
    assert not verify_lines(lines).faults
    return {
        "lines": len(lines),
        "bytes_each": round(sum(len(text) + 1 for _, text in lines) / len(lines)),
        "verify_us_each": round(seconds / len(lines) * 1e6, 1),
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    table = Table(title=f"A match among {figures['callers']:,} callers, in microseconds")
    for column in ("Log", "p50", "p99", "more than without (p50)", "back to back"):
        table.add_column(column, justify="left" if column == "Log" else "right")
    for name, mode in figures["modes"].items():
        table.add_row(
            name,
            f"{mode['us']['p50']:.0f}",
            f"{mode['us']['p99']:.0f}",
            f"{mode['more_p50_us']:.0f}",
            f"{mode['back_to_back_us']:.0f}",
        )
    log = figures["log"]
    Console().print(table)
    print(f"A line: {log['bytes_each']} bytes, verified in {log['verify_us_each']} us.")


if __name__ == "__main__":
    sys.exit(main())
