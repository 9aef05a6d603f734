"""Run every benchmark, one after the other, then draw the tables of README and docs.

python -m benchmarks.run_all [--data FOLDER] [--large]      FOLDER: see tools/populations.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.report import ROOT, command_line


def main() -> int:
    """Run them; exit with 1 if one fails."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--data", type=Path, help="recordings; without them, accuracy and streaming are left out"
    )
    parser.add_argument("--large", action="store_true", help="to a million voiceprints, which takes hours")
    options = parser.parse_args()
    data = options.data
    prints = "1000000" if options.large else "100000"
    runs: list[list[str | Path]] = [
        ["storage"],
        ["finding", "--callers", prints],
        ["index", *([] if options.large else ["--sizes", "1000", "10000", prints, "--seconds", "20"])],
        ["match", "--prints", prints],
        ["groups", "--prints", prints],
        ["opening", "--prints", prints],
        ["audit"],
        ["server_throughput"],
        ["own_embeddings", "--rows", prints],
        ["encoder", *(["--voices", data / "librispeech"] if data else [])],
        ["enrollment", *(["--voices", data / "librispeech"] if data else [])],
    ]
    if data:
        runs += [
            ["accuracy", data],
            ["shortlist", data, "--prints", prints],
            ["streaming", data / "librispeech", "--hour"],
        ]
    failed = []
    for name, *arguments in runs:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--results", options.results]
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            failed.append(name)
    subprocess.run([sys.executable, "-m", "benchmarks.report"], check=True, cwd=ROOT)
    if failed:
        print(f"\nFailed: {', '.join(map(str, failed))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
