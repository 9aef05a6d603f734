"""How quickly are many callers enrolled, with how much memory, and are both cores at work?

    python benchmarks/enrollment.py [--voices FOLDER] [--clips 200]      FOLDER/**/*.flac

Each way in a fresh process over a new SQLite store: `enroll_caller` in a loop, `enroll_many` of a list with
one thread and with two, of a generator of as many clips again and again (does the memory grow?), and
`voiceprint enroll-dir` of as many WAV files. Busy: processor time over time, 2 where two cores are at work
all the time; it is lower where other work runs beside.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results_file import keep

HERE = Path(__file__).parent
RATE = 16_000
CLIP = 5 * RATE
LONGER = 5  # times as many clips, for the memory

Clips = NDArray[np.int16]


def main() -> int:
    """Measure, print, and keep the raw figures; or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", type=Path, default=HERE.parent / "examples/voices")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.folder)))
        return 0
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0], "clips": arguments.clips}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.voices, arguments.clips)
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures[way] = json.loads(done.stdout)
            print(f"{way:22}{json.dumps(figures[way])}", flush=True)
    loop = figures["loop"]["clips_per_s"]
    figures["times_the_loop"] = {
        way: round(figures[way]["clips_per_s"] / loop, 2) for way in WAYS if way != "loop"
    }
    figures["load_after"] = os.getloadavg()[0]
    print(f"times the loop        {json.dumps(figures['times_the_loop'])}")
    print(f"\nRaw figures: benchmarks/results/{keep('enrollment', figures).name}")
    return 0


def prepare(folder: Path, voices: Path, count: int) -> None:
    """Write the clips as an array, and as DIR/CALLER/N.wav."""
    import soundfile
    from encoder import list_clips

    clips = np.stack([np.round(clip * 32767).astype(np.int16) for clip in list_clips(voices, count)])
    np.save(folder / "clips.npy", clips)
    for place, clip in enumerate(clips):
        path = folder / f"in/caller-{place // 2}/{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, clip, RATE)


def loop(clips: Clips, store: Path) -> int:
    """One call of `enroll_caller` after the other."""
    with open_recognizer(store, 0) as recognizer:
        for place, clip in enumerate(clips):
            recognizer.enroll_caller(f"caller-{place // 2}", clip)
    return len(clips)


def many(clips: Clips, store: Path, threads: int, times: int = 1) -> int:
    """`enroll_many` of all of them, so many times over."""

    def samples() -> Iterator[tuple[str, Clips, None]]:
        for round_ in range(times):
            for place, clip in enumerate(clips):
                yield f"caller-{round_}-{place // 2}", np.array(clip), None

    with open_recognizer(store, threads) as recognizer:
        results = recognizer.enroll_many(samples())
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise failed[0]
    return len(results)


def directory(clips: Clips, store: Path) -> int:
    """`voiceprint enroll-dir`, in this process."""
    from typer.testing import CliRunner

    from voiceprint.cli.app import app

    os.environ["VOICE_MIN_AUDIO_QUALITY"] = "0"
    done = CliRunner().invoke(app, ["enroll-dir", str(store.parent / "in"), "--store", f"sqlite:{store}"])
    if done.exit_code:
        raise RuntimeError(done.output)
    return len(clips)


def open_recognizer(store: Path, threads: int) -> Any:
    """A recognizer that takes whatever is said, over a new store."""
    from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, VoiceFingerprintConfig

    config = VoiceFingerprintConfig(encoder_threads=threads, min_audio_quality=0.0)
    return OpusAgentVoiceRecognizer(SQLiteStorage(store), config=config)


WAYS: dict[str, Callable[[Clips, Path], int]] = {
    "loop": loop,
    "many, 1 thread": lambda clips, store: many(clips, store, 1),
    "many, 2 threads": lambda clips, store: many(clips, store, 2),
    "many, longer": lambda clips, store: many(clips, store, 2, LONGER),
    "enroll-dir": directory,
}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Clips a second, cores at work, and memory, of one way in this process, which is warmed up."""
    clips = np.load(folder / "clips.npy")
    with tempfile.TemporaryDirectory(dir=folder) as store:
        many(clips[:4], Path(store) / "warm.db", 2)
    idle = memory_mb("VmRSS")
    forget_peak()
    store = folder / f"{way.replace(' ', '-').replace(',', '')}.db"
    start, spent = time.perf_counter(), time.process_time()
    done = WAYS[way](clips, store)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    return {
        "clips_per_s": round(done / seconds, 1),
        "processor_ms_per_clip": round(1e3 * spent / done, 1),
        "cores_busy": round(spent / seconds, 2),
        "mb_over_idle": round(memory_mb("VmHWM") - idle),
    }


def memory_mb(kind: str) -> float:
    """What this process has in memory (VmRSS), or the most it had (VmHWM); Linux only."""
    found = re.search(kind + r":\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    sys.exit(main())
