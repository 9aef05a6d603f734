"""What does the encoder cost, beside Resemblyzer in the same run?

    python benchmarks/encoder.py [--voices FOLDER] [--clips 200]      FOLDER/**/*.flac

Cold: a fresh process each, from its start to the first embedding of a 5 s clip, and the memory that it then
has taken. Warm: one 5 s clip, preprocessing included, taken in turns. Throughput: many clips, all cores.
Stages: of one 5 s clip on one core, with the network's arithmetic limit: the time of its multiplications at
the speed at which this machine multiplies large float32 matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results_file import keep

from voiceprint import load_audio
from voiceprint.audio import buffers, vad
from voiceprint.encoder import Encoder, OnnxEncoder, ResemblyzerEncoder
from voiceprint.encoder.mel import FRAME, mel_frames
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import Speech, count_partials, partials
from voiceprint.encoder.workers import cores

SAMPLES = Path(__file__).parents[1] / "examples/voices"
RATE = 16_000
CLIP = 5 * RATE
COLD_ROUNDS = 3
WARM_ROUNDS = 40
THROUGHPUT_ROUNDS = 3
PAUSE_S = (
    0.1  # before a single embedding: torch's and BLAS's threads spin on for some time after the last one
)
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


def main() -> int:
    """Measure, print, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", type=Path, default=SAMPLES, help="recordings; default: the sample voices")
    parser.add_argument("--clips", type=int, default=200)
    arguments = parser.parse_args()
    clips = list_clips(arguments.voices, arguments.clips)
    ours, reference = OnnxEncoder(), ResemblyzerEncoder()
    figures: dict[str, Any] = {"cores": cores(), "load_before": os.getloadavg()[0]}
    figures["cold"] = cold(clips[0])
    figures["warm"] = warm(ours, reference, clips[0])
    figures["throughput"] = throughput(ours, reference, clips)
    figures["stages"] = stages(clips[0], next(arguments.voices.rglob("*.flac")))
    figures["ms_per_partial_by_run"] = by_run(clips[0])
    figures["lowest_cosine"] = lowest_cosine(ours, reference, clips)
    figures["load_after"] = os.getloadavg()[0]
    for name, rows in figures.items():
        print(f"{name:16}{json.dumps(rows)}")
    print(f"\nRaw figures: benchmarks/results/{keep('encoder', figures).name}")
    return 0


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


def cold(clip: Audio) -> dict[str, Any]:
    """Seconds and MB of fresh processes, in turns; the first round fills the disk cache."""
    path = Path(tempfile.gettempdir(), f"clip-{os.getpid()}.npy")
    np.save(path, clip)
    rows: dict[str, list[dict[str, Any]]] = {"onnx": [], "resemblyzer": []}
    try:
        for _ in range(COLD_ROUNDS + 1):
            for kind, taken in rows.items():
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", COLD, kind, str(path)], capture_output=True, text=True, check=True
                )
                taken.append({"s": round(time.perf_counter() - start, 3)} | json.loads(done.stdout))
    finally:
        path.unlink()
    medians = {kind: statistics.median(row["s"] for row in taken[1:]) for kind, taken in rows.items()}
    return {
        "median_s": medians,
        "share_of_resemblyzer": round(medians["onnx"] / medians["resemblyzer"], 3),
        "mb": {kind: max(row["mb"] for row in taken) for kind, taken in rows.items()},
        "heavy": rows["onnx"][0]["heavy"],
        "rounds": rows,
    }


def warm(ours: Encoder, reference: Encoder, clip: Audio) -> dict[str, Any]:
    """Milliseconds of one embedding, in turns."""
    one = OnnxEncoder(1)
    taken = in_turns(
        {
            "onnx": lambda: ours.embed(clip),
            "onnx, one thread": lambda: one.embed(clip),
            "resemblyzer": lambda: reference.embed(clip),
        },
        WARM_ROUNDS,
        PAUSE_S,
    )
    rows = {name: spread(times) for name, times in taken.items()}
    return {
        "ms": rows,
        "partials": count_partials(len(Speech(clip))),
        "share_of_resemblyzer": round(rows["onnx"]["p50"] / rows["resemblyzer"]["p50"], 3),
        "share_of_resemblyzer_at_best": round(rows["onnx"]["min"] / rows["resemblyzer"]["min"], 3),
    }


def throughput(ours: Encoder, reference: Encoder, clips: list[Audio]) -> dict[str, Any]:
    """Clips a second of all clips: ours as a batch, Resemblyzer's in a loop."""
    taken = in_turns(
        {
            "onnx": lambda: ours.embed_batch(clips),
            "resemblyzer": lambda: [reference.embed(clip) for clip in clips],
        },
        THROUGHPUT_ROUNDS,
    )
    return {
        "clips": len(clips),
        "clips_per_s": {name: round(len(clips) / min(times), 1) for name, times in taken.items()},
        "times_as_fast": round(min(taken["resemblyzer"]) / min(taken["onnx"]), 2),
        "seconds": taken,
    }


def stages(clip: Audio, file: Path) -> dict[str, Any]:
    """Milliseconds of each stage of one clip, on one core; decoding and resampling for 5 s as well."""
    network, speech = Network.load(), Speech(clip)
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
        "pooling": lambda: np.linalg.norm(embeddings.sum(axis=0, dtype=np.float64)),
    }
    rows = {name: spread(times) for name, times in in_turns(works, WARM_ROUNDS).items()}
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


def by_run(clip: Audio) -> dict[str, Any]:
    """Milliseconds a partial on one thread, by how many partials a run of the network takes."""
    network, mels = Network.load(), next(partials(Speech(np.tile(clip, 5)), 24))
    works = {
        str(n): lambda n=n: network.embed(mels[:n])
        for n in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24)
        if n <= len(mels)
    }
    return {n: round(1e3 * min(times) / int(n), 2) for n, times in in_turns(works, 10).items()}


def lowest_cosine(ours: Encoder, reference: Encoder, clips: list[Audio]) -> float:
    """Of the clips' embeddings with Resemblyzer's."""
    return float(np.einsum("nd,nd->n", ours.embed_batch(clips), reference.embed_batch(clips)).min())


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
