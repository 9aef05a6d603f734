"""Run every benchmark, one after the other.

    python benchmarks/run_all.py [--data FOLDER] [--large]      FOLDER: as of populations.py

Then draw the README's tables from the results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run them; exit with 1 if one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="the recordings of populations.py; without, what needs them is left out"
    )
    parser.add_argument("--large", action="store_true", help="to a million voiceprints: takes hours")
    options = parser.parse_args()
    data = options.data
    prints = "1000000" if options.large else "100000"
    runs: list[list[str | Path]] = [
        ["storage.py"],
        ["storage_redis.py"],
        ["index.py", *([] if options.large else ["--sizes", "1000", "10000", prints, "--seconds", "20"])],
        ["structures.py", "--prints", prints],
        ["match.py", "--prints", prints],
        ["opening.py", "--prints", prints],
    ]
    if data is not None:
        runs += [
            ["encoder.py", "--voices", data / "librispeech"],
            ["precision.py", "--voices", HERE.parent / "examples/voices", data / "librispeech"],
            ["enrollment.py", "--voices", data / "librispeech"],
            ["fit_gallery_model.py", data / "librispeech", "--check"],
            ["accuracy.py", data],
            ["candidates.py", data, "--prints", prints],
            ["streaming.py", data / "librispeech", "--hour"],
            ["quality.py", data / "librispeech", "--synthetic", HERE.parent / "examples/voices"],
            ["speech.py", data],
            ["speech_vads.py", data],
        ]
    runs.append(["index_table.py"])
    failed = []
    for script, *arguments in runs:
        print(f"\n== {script}", flush=True)
        if subprocess.run([sys.executable, HERE / script, *arguments], check=False).returncode:
            failed.append(str(script))
    if failed:
        print(f"\nFailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
