"""Run every benchmark, one after the other.

python benchmarks/run_all.py [--data FOLDER]      FOLDER: recordings, a folder per speaker
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
    parser.add_argument("--data", type=Path, help="recordings; the benchmarks that need them are left out")
    data = parser.parse_args().data
    runs: list[list[str | Path]] = [["storage.py"], ["storage_redis.py"]]
    if data is not None:
        runs += [
            ["encoder.py", "--voices", data],
            ["identification.py", data],
            ["quality.py", data, "--synthetic", HERE.parent / "examples/voices"],
        ]
    failed = []
    for script, *arguments in runs:
        print(f"\n== {script}", flush=True)
        if subprocess.run([sys.executable, HERE / script, *arguments], check=False).returncode:
            failed.append(script)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
