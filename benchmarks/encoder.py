"""What does the encoder cost, beside Resemblyzer in the same run?

    python benchmarks/encoder.py [--voices FOLDER] [--clips 200]      FOLDER/**/*.flac

Cold: a fresh process each, from its start to the first embedding of a 5 s clip, and the memory that it then
has taken. Warm: one 5 s clip, preprocessing included. Throughput: many clips, all cores. Both in processes of
their own, that take turns: in one, the threads of torch spin on beside what is measured next. Stages: of one
5 s clip on one core, with the network's arithmetic limit: the time of its multiplications at the speed at
which this machine multiplies large float32 matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results_file import keep

from voiceprint import load_audio
from voiceprint.audio.io import buffers
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import Encoder, OnnxEncoder, OnnxInt8Encoder, ResemblyzerEncoder
from voiceprint.encoder.mel import FRAME, mel_frames
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import count_partials, partials
from voiceprint.encoder.workers import cores

SAMPLES = Path(__file__).parents[1] / "examples/voices"
RATE = 16_000
CLIP = 5 * RATE
COLD_ROUNDS = 3
WARM_ROUNDS = 40
WORK_ROUNDS = 3
STAGE_ROUNDS = 40
PAUSE_S = 0.1  # before a single embedding, as between calls
GFLOP = 2e-9 * 160 * 1024 * (40 + 256 + 4 * 256)  # of a partial: 0.43

COLD = """
import json, re, sys, time
from pathlib import Path
import numpy as np
audio = np.load(sys.argv[2])
from voiceprint.encoder import OnnxEncoder, ResemblyzerEncoder
encoder = {"onnx": OnnxEncoder, "resemblyzer": ResemblyzerEncoder}[sys.argv[1]]()
encoder.embed(audio)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
heavy = [name for name in ("torch", "librosa", "numba") if name in sys.modules]
print(json.dumps({"mb": round(int(peak) / 1024), "heavy": heavy}))
"""

Audio = NDArray[np.float32]

KINDS: dict[str, Callable[[], Encoder]] = {
    "onnx": OnnxEncoder,
    "onnx, one thread": lambda: OnnxEncoder(1),
    "onnx-int8": OnnxInt8Encoder,
    "resemblyzer": ResemblyzerEncoder,
}


def main() -> int:
    """Measure, print, and keep the raw figures; or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", type=Path, default=SAMPLES, help="recordings; default: the sample voices")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(KINDS[arguments.work](), [*np.load(arguments.file)])))
        return 0
    clips = list_clips(arguments.voices, arguments.clips)
    figures: dict[str, Any] = {"cores": cores(), "load_before": os.getloadavg()[0]}
    folder = Path(tempfile.mkdtemp())
    try:
        np.save(folder / "clip.npy", clips[0])
        np.save(folder / "clips.npy", np.stack(clips))
        figures["cold"] = cold(folder / "clip.npy")
        figures["warm"], figures["throughput"] = warm_and_throughput(folder / "clips.npy", len(clips))
    finally:
        shutil.rmtree(folder)
    figures["warm"]["partials"] = count_partials(len(TrimmedSpeech(clips[0])))
    figures["stages"] = stages(clips[0], next(arguments.voices.rglob("*.flac")))
    figures["ms_per_partial_by_run"] = by_run(clips[0])
    figures["lowest_cosine"] = lowest_cosines(clips)
    figures["load_after"] = os.getloadavg()[0]
    figures["bars"] = bars(figures)
    for name, rows in figures.items():
        if name != "bars":
            print(f"{name:24}{json.dumps(rows)}")
    print()
    for what, (value, allowed, met) in figures["bars"].items():
        print(f"{'met' if met else 'NOT met':9}{what:52}{value!s:>10}   ({allowed})")
    if max(figures["load_before"], figures["load_after"] - cores()) > 0.5:
        print("\nOther work ran on this machine: the figures are not to be relied upon.")
    print(f"\nRaw figures: benchmarks/results/{keep('encoder', figures).name}")
    return 0


Bar = tuple[Any, str, bool]


def bars(figures: dict[str, Any]) -> dict[str, Bar]:
    """What was asked for: the figure, what is allowed, and whether it is met."""
    cold_, warm, rate = figures["cold"], figures["warm"], figures["throughput"]
    share = warm["share_of_resemblyzer"]
    cosine = figures["lowest_cosine"]
    found: dict[str, Bar] = {
        "cold, share of Resemblyzer's time": at_most(cold_["share_of_resemblyzer"], 0.2),
        "cold, MB resident": at_most(cold_["mb"]["onnx"], 200),
        "cold, heavy modules imported": at_most(len(cold_["heavy"]), 0),
        "warm 5 s clip, share of Resemblyzer's time": at_most(share["onnx"], 0.5),
        "  the aim": at_most(share["onnx"], 0.25),
        "  with onnx-int8, the aim": at_most(share["onnx-int8"], 0.25),
        "throughput, times Resemblyzer's loop": at_least(rate["times_as_fast"]["onnx"], 3),
        "  with onnx-int8": at_least(rate["times_as_fast"]["onnx-int8"], 3),
        "lowest cosine with Resemblyzer": at_least(round(cosine["onnx"], 7), 0.9999),
        "lowest cosine of onnx-int8": at_least(round(cosine["onnx-int8"], 7), 0.999),
    }
    return found


def at_most(value: float, limit: float) -> Bar:
    """A bar from above."""
    return value, f"at most {limit}", value <= limit


def at_least(value: float, limit: float) -> Bar:
    """A bar from below."""
    return value, f"at least {limit}", value >= limit


def work(encoder: Encoder, clips: list[Audio]) -> dict[str, list[float]]:
    """Seconds of single embeddings, and of all clips, in this process."""
    for clip in clips[:3]:
        encoder.embed(clip)
    taken = in_turns({"warm": lambda: encoder.embed(clips[0])}, WARM_ROUNDS, PAUSE_S)
    start = time.perf_counter()
    encoder.embed_batch(clips)
    return taken | {"throughput": [time.perf_counter() - start]}


def list_clips(folder: Path, count: int) -> list[Audio]:
    """So many clips of 5 s, from as many recordings as there are, then from their later parts."""
    audios = [load_audio(path)[0] for path in sorted(folder.rglob("*.flac"))]
    longest = max(map(len, audios))
    found = [
        audio[start : start + CLIP]
        for start in range(0, longest, CLIP)
        for audio in audios
        if len(audio) >= start + CLIP
    ]
    return [found[n % len(found)] for n in range(count)]


def cold(path: Path) -> dict[str, Any]:
    """Seconds and MB of fresh processes, in turns; the first round fills the disk cache."""
    rows: dict[str, list[dict[str, Any]]] = {"onnx": [], "resemblyzer": []}
    for _ in range(COLD_ROUNDS + 1):
        for kind, taken in rows.items():
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", COLD, kind, str(path)], capture_output=True, text=True, check=True
            )
            taken.append({"s": round(time.perf_counter() - start, 3)} | json.loads(done.stdout))
    medians = {kind: statistics.median(row["s"] for row in taken[1:]) for kind, taken in rows.items()}
    return {
        "median_s": medians,
        "share_of_resemblyzer": round(medians["onnx"] / medians["resemblyzer"], 3),
        "mb": {kind: max(row["mb"] for row in taken) for kind, taken in rows.items()},
        "heavy": rows["onnx"][0]["heavy"],
        "rounds": rows,
    }


def warm_and_throughput(path: Path, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Milliseconds of one embedding; clips a second, ours as a batch, Resemblyzer's in a loop."""
    taken: dict[str, dict[str, list[float]]] = {kind: {"warm": [], "throughput": []} for kind in KINDS}
    for _ in range(WORK_ROUNDS):
        for kind, times in taken.items():
            command = [sys.executable, __file__, "--work", kind, "--file", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for what, seconds in json.loads(done.stdout).items():
                times[what] += seconds
    rows = {kind: spread(times["warm"]) for kind, times in taken.items()}
    seconds = {kind: times["throughput"] for kind, times in taken.items()}
    ours = [kind for kind in KINDS if kind != "resemblyzer"]
    loop = statistics.median(seconds["resemblyzer"])
    return {
        "ms": rows,
        "share_of_resemblyzer": {k: round(rows[k]["p50"] / rows["resemblyzer"]["p50"], 3) for k in ours},
        "share_of_resemblyzer_at_best": {
            k: round(rows[k]["min"] / rows["resemblyzer"]["min"], 3) for k in ours
        },
    }, {
        "clips": count,
        "clips_per_s": {k: round(count / statistics.median(seconds[k]), 1) for k in KINDS},
        "times_as_fast": {k: round(loop / statistics.median(seconds[k]), 2) for k in ours},
        "times_as_fast_at_best": {k: round(min(seconds["resemblyzer"]) / min(seconds[k]), 2) for k in ours},
        "seconds": seconds,
    }


def stages(clip: Audio, file: Path) -> dict[str, Any]:
    """Milliseconds of each stage of one clip, on one core; decoding and resampling for 5 s as well."""
    network, int8, speech = Network.load(), Network.load(int8=True), TrimmedSpeech(clip)
    samples = speech.read(-FRAME // 2, len(speech) + FRAME // 2)
    mels = next(partials(speech, 1_000))
    embeddings = network.embed(mels)
    share = CLIP / len(load_audio(file)[0])
    narrow = clip[::2].copy()
    works: dict[str, Callable[[], object]] = {
        "decode": lambda: load_audio(file),
        "resample": lambda: buffers.resample(narrow, RATE // 2, RATE),
        "vad": lambda: vad.speech_windows(vad.voice_flags(clip)),
        "mel": lambda: mel_frames(samples),
        "network": lambda: network.embed(mels),
        "network, onnx-int8": lambda: int8.embed(mels),
        "pooling": lambda: np.linalg.norm(embeddings.sum(axis=0, dtype=np.float64)),
    }
    rows = {name: spread(times) for name, times in in_turns(works, STAGE_ROUNDS).items()}
    rows["decode"] = {name: round(value * share, 3) for name, value in rows["decode"].items()}
    speed = multiplication_speed()
    return {
        "ms": rows,
        "partials": len(mels),
        "gflop_per_partial": round(GFLOP, 3),
        "sgemm_gflop_per_s": round(speed, 1),
        "network_limit_ms": round(1e3 * GFLOP * len(mels) / speed, 2),
        "network_gflop_per_s": round(GFLOP * len(mels) / (rows["network"]["min"] / 1e3), 1),
    }


def multiplication_speed() -> float:
    """GFLOP/s of one core, multiplying matrices of 1024 x 1024 by numpy."""
    code = (
        "import numpy as np, time; a = np.ones((1024, 1024), np.float32); a @ a; times = []\n"
        "for _ in range(20): t = time.perf_counter(); a @ a; times.append(time.perf_counter() - t)\n"
        "print(2e-9 * 1024**3 / min(times))"
    )
    one = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=one)
    return float(done.stdout)


def by_run(clip: Audio) -> dict[str, dict[str, float]]:
    """Milliseconds a partial on one thread, by how many partials a run of the network takes."""
    mels = next(partials(TrimmedSpeech(np.tile(clip, 5)), 24))
    counts = [n for n in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24) if n <= len(mels)]
    rows = {}
    for kind, network in {"onnx": Network.load(), "onnx-int8": Network.load(int8=True)}.items():
        works = {str(n): partial(network.embed, mels[:n]) for n in counts}
        taken = in_turns(works, 10)
        rows[kind] = {n: round(1e3 * min(times) / int(n), 2) for n, times in taken.items()}
    return rows


def lowest_cosines(clips: list[Audio]) -> dict[str, float]:
    """Of the clips' embeddings with Resemblyzer's."""
    expected = ResemblyzerEncoder().embed_batch(clips)
    return {
        kind: float(np.einsum("nd,nd->n", KINDS[kind]().embed_batch(clips), expected).min())
        for kind in ("onnx", "onnx-int8")
    }


def in_turns(
    works: dict[str, Callable[[], object]], rounds: int, pause_s: float = 0.0
) -> dict[str, list[float]]:
    """The seconds of each round of each work, taken in turns after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for count in range(rounds + 1):
        for name, work in works.items():
            time.sleep(pause_s)
            start = time.perf_counter()
            work()
            if count:
                taken[name].append(time.perf_counter() - start)
    return taken


def spread(times: list[float]) -> dict[str, float]:
    """Least, p50, p90, p99 and most, in milliseconds."""
    points = {f"p{point}": float(np.percentile(times, point)) for point in (50, 90, 99)}
    return {
        name: round(1e3 * value, 3)
        for name, value in ({"min": min(times)} | points | {"max": max(times)}).items()
    }


if __name__ == "__main__":
    sys.exit(main())
