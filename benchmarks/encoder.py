"""What does the encoder cost, beside Resemblyzer in the same run?

    python -m benchmarks.encoder [--voices FOLDER] [--clips 200]      FOLDER/**/*.flac

Cold: fresh processes, from start to the first embedding of a 5 s clip, with their peak memory. Warm: one 5 s
clip with a pause before it, as between calls. Throughput: many clips on all cores. Both in processes of their
own that take turns, because the threads of torch spin on beside the next measurement. Stages: of one 5 s clip
on one core, with the limit of the arithmetic: the network's multiplications at the speed of large float32
products here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import in_turns, spread_ms, timed
from benchmarks.report import ROOT, VOICES, command_line, write
from voiceprint import load_audio
from voiceprint.audio.io import buffers
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import Encoder, OnnxEncoder, OnnxInt8Encoder, ResemblyzerEncoder
from voiceprint.encoder.mel import FRAME, mel_frames
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import partials

RATE = 16_000
CLIP = 5 * RATE
PAUSE_S = 0.1
GFLOP = 2e-9 * 160 * 1024 * (40 + 256 + 4 * 256)  # of a partial: 0.43

COLD = """
import json, re, sys
from pathlib import Path
import numpy as np
audio = np.load(sys.argv[2])
from voiceprint.encoder import OnnxEncoder, ResemblyzerEncoder
encoder = {"onnx": OnnxEncoder, "resemblyzer": ResemblyzerEncoder}[sys.argv[1]]()
encoder.embed(audio)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(round(int(peak[1]) / 1024))
"""
PRODUCT_SPEED = """
import time
import numpy as np
a = np.ones((1024, 1024), np.float32)
times = []
for _ in range(20):
    start = time.perf_counter()
    a @ a
    times.append(time.perf_counter() - start)
print(2e-9 * 1024**3 / min(times))
"""

Audio = NDArray[np.float32]

KINDS: dict[str, Callable[[], Encoder]] = {
    "onnx": OnnxEncoder,
    "onnx, one thread": lambda: OnnxEncoder(1),
    "onnx-int8": OnnxInt8Encoder,
    "resemblyzer": ResemblyzerEncoder,
}


def main() -> int:
    """Measure, print, write the raw figures; or be one of the processes that are measured."""
    parser = command_line(__doc__)
    parser.add_argument("--voices", type=Path, default=VOICES, help="recordings; default: the sample voices")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--processes", type=int, default=3, help="of each kind that are measured")
    parser.add_argument("--rounds", type=int, default=40, help="of one embedding, and of each stage")
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(KINDS[arguments.work](), [*np.load(arguments.file)], arguments.rounds)))
        return 0
    clips = list_clips(arguments.voices, arguments.clips)
    figures: dict[str, Any] = {
        "clips": len(clips),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "clip.npy", clips[0])
        np.save(Path(folder) / "clips.npy", np.stack(clips))
        figures["cold"] = cold(Path(folder) / "clip.npy", arguments.processes)
        figures |= warm_and_throughput(Path(folder) / "clips.npy", len(clips), arguments)
    figures["stages"] = stages(clips[0], next(arguments.voices.rglob("*.flac")), arguments.rounds)
    figures["lowest_cosine"] = lowest_cosines(clips)
    for name, rows in figures.items():
        print(f"{name:20}{json.dumps(rows)}")
    write("encoder", figures, arguments.results)
    return 0


def list_clips(folder: Path, count: int) -> list[Audio]:
    """`count` clips of 5 s, from the beginnings of all recordings first, then from their later parts."""
    audios = [load_audio(path)[0] for path in sorted(folder.rglob("*.flac"))]
    found = [
        audio[start : start + CLIP]
        for start in range(0, max(map(len, audios)), CLIP)
        for audio in audios
        if len(audio) >= start + CLIP
    ]
    return [found[n % len(found)] for n in range(count)]


def cold(path: Path, processes: int) -> dict[str, Any]:
    """Median seconds and most MB of fresh processes, in turns; a first round fills the disk cache."""
    peaks: dict[str, list[int]] = {"onnx": [], "resemblyzer": []}

    def start(kind: str) -> None:
        command = [sys.executable, "-c", COLD, kind, path]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks[kind].append(int(done.stdout))

    times = in_turns({kind: partial(start, kind) for kind in peaks}, processes)
    medians = {kind: float(np.median(taken)) for kind, taken in times.items()}
    return {
        "median_s": {kind: round(seconds, 3) for kind, seconds in medians.items()},
        "share_of_resemblyzer": round(medians["onnx"] / medians["resemblyzer"], 3),
        "mb": {kind: max(some) for kind, some in peaks.items()},
    }


def warm_and_throughput(path: Path, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one embedding; clips a second, as a batch by ours, in a loop by Resemblyzer."""
    times: dict[str, dict[str, list[float]]] = {kind: {"warm": [], "all": []} for kind in KINDS}
    for _ in range(arguments.processes):
        for kind, taken in times.items():
            command = [sys.executable, "-m", "benchmarks.encoder", "--work", kind, "--file", path]
            command += ["--rounds", str(arguments.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            for name, seconds in json.loads(done.stdout).items():
                taken[name] += seconds
    warm = {kind: spread_ms(taken["warm"]) for kind, taken in times.items()}
    rate = {kind: count / float(np.median(taken["all"])) for kind, taken in times.items()}
    reference = warm["resemblyzer"]["p50"]
    return {
        "warm_ms": warm,
        "warm_share_of_resemblyzer": {kind: round(row["p50"] / reference, 3) for kind, row in warm.items()},
        "clips_per_s": {kind: round(value, 1) for kind, value in rate.items()},
        "times_resemblyzer": {kind: round(value / rate["resemblyzer"], 2) for kind, value in rate.items()},
    }


def work(encoder: Encoder, clips: list[Audio], rounds: int) -> dict[str, list[float]]:
    """Seconds of single embeddings, and of all clips, in this process."""
    for clip in clips[:3]:
        encoder.embed(clip)
    warm = in_turns({"warm": lambda: encoder.embed(clips[0])}, rounds, PAUSE_S)
    return warm | {"all": [timed(lambda: encoder.embed_batch(clips))]}


def stages(clip: Audio, file: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of each stage of one clip, on one core; `decode` reads the whole file."""
    network, int8, speech = Network.load(), Network.load(int8=True), TrimmedSpeech(clip)
    samples = speech.read(-FRAME // 2, len(speech) + FRAME // 2)
    mels = next(partials(speech, 1_000))
    narrow = clip[::2].copy()
    works: dict[str, Callable[[], object]] = {
        "decode": lambda: load_audio(file),
        "resample": lambda: buffers.resample(narrow, RATE // 2, RATE),
        "vad": lambda: vad.speech_windows(vad.voice_flags(clip)),
        "mel": lambda: mel_frames(samples),
        "network": lambda: network.embed(mels),
        "network, onnx-int8": lambda: int8.embed(mels),
    }
    one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRODUCT_SPEED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
    speed = float(done.stdout)
    return {
        "ms": {name: spread_ms(times) for name, times in in_turns(works, rounds).items()},
        "partials": len(mels),
        "float32_product_gflop_per_s": round(speed, 1),
        "network_limit_ms": round(1e3 * GFLOP * len(mels) / speed, 2),
    }


def lowest_cosines(clips: list[Audio]) -> dict[str, float]:
    """The lowest cosine of a clip's embedding with Resemblyzer's."""
    expected = ResemblyzerEncoder().embed_batch(clips)
    return {
        kind: float(np.einsum("nd,nd->n", KINDS[kind]().embed_batch(clips), expected).min())
        for kind in ("onnx", "onnx-int8")
    }


if __name__ == "__main__":
    sys.exit(main())
