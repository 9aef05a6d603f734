"""How fast is the encoder on a CUDA device, and how near to the CPU's embeddings?

    python -m benchmarks.encoder_gpu [--device cuda] [--seconds 100] [--recordings FILE.npz]

Clips of 5 s, synthetic voices or pieces of the arrays (int16 or float32, 16 kHz) in FILE.npz. Network: mel
spectrograms that lie on the device, by the partials in a run. Spectrograms, and both: of samples that lie
there. Whole: samples in the memory of the process to embeddings there, in one thread and in several. CPU: the
default encoder's spectrogram and network in ONNX Runtime where that is installed, and torch's. 1 - cosine:
of a clip's embedding, with that of float32 on the CPU.

Needs torch, numpy, this checkout and the file of weights (`pretrained.pt` of resemblyzer, --weights), nothing
else of the package's dependencies.
"""

from __future__ import annotations

import gc
import os
import signal
import statistics
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import timed
from benchmarks.report import ROOT, command_line, markdown, write


def _import_bare(name: str) -> None:
    """Make `name` a package without its `__init__`, which imports what the device's machine may lack."""
    package = ModuleType(name)
    package.__path__ = [str(ROOT / name.replace(".", "/"))]
    sys.modules[name] = package


# ruff: noqa: E402 - the imports of the package come after this.
_import_bare("voiceprint")
_import_bare("voiceprint.encoder")

from voiceprint.encoder.mel import FRAME, HOP, mel_frames
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import FRAMES, STEP, count_partials, spectrograms
from voiceprint.encoder.torch_network import TorchNetwork, import_torch
from voiceprint.encoder.weights import Weights, read_weights, weights_file
from voiceprint.errors import EncoderError

Audio = NDArray[np.float32]

RATE: Final = 16_000
CLIP: Final = 5 * RATE
PARTIALS: Final = count_partials(CLIP)  # of a clip: 5
CLIPS: Final = {"cuda": 512, "cpu": 16}  # different ones
CPU_CLIPS: Final = 64  # for the CPU's rates
THREADS: Final = 4  # that embed whole runs at once
CALLERS: Final = {"cuda": 64, "cpu": 4}  # threads that embed one clip each at once
RUNS: Final = {"cuda": (64, 1024, 2048, 4096, 8192, 16_384), "cpu": (24, 96)}  # partials
PRECISIONS: Final = {"cuda": ("float16", "tf32", "float32"), "cpu": ("float32",)}


def main() -> int:
    """Measure, print, write the raw figures."""
    parser: ArgumentParser = command_line(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=100.0, help="of the measurements together, about")
    parser.add_argument("--weights", type=Path, help="default: of the installed resemblyzer")
    parser.add_argument("--recordings", type=Path, help="an .npz file of recordings; default: synthetic")
    arguments = parser.parse_args()
    torch = import_torch()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device; --device cpu measures torch on the CPU.")
    weights = read_weights(arguments.weights or weights_file())
    clips = recorded(arguments.recordings) if arguments.recordings else synthetic(CLIPS[arguments.device])
    benchmark = Benchmark(torch, weights, clips[: CLIPS[arguments.device]], arguments)
    figures = benchmark.run()
    print(table(figures["rows"]))
    for name, value in figures.items():
        if name != "rows":
            print(f"{name:24}{value}", flush=True)  # the checks may fail
    if arguments.device == "cuda":
        checks = benchmark.checks()
        print(*(f"{name:24}{value}" for name, value in checks.items()), sep="\n")
        figures |= checks
    write("encoder_gpu", figures, arguments.results)
    return 0


class Benchmark:
    """All measurements on one device, each for an equal part of the time."""

    def __init__(self, torch: Any, weights: Weights, clips: list[Audio], arguments: Namespace) -> None:
        self._torch = torch
        self._weights = weights
        self._device: str = arguments.device
        self._blocks = [padded(clip) for clip in clips]
        self._rows: list[dict[str, Any]] = []
        self._reference = clip_embeddings(TorchNetwork(weights, "cpu", "float32"), self._blocks)
        self._precisions = PRECISIONS[self._device]
        measurements = len(self._precisions) * (len(RUNS[self._device]) + 8) + 3
        self._each_s = arguments.seconds / measurements

    def run(self) -> dict[str, Any]:
        """The figures."""
        torch = self._torch
        figures: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if self._device == "cuda" else "cpu",
            "torch": torch.__version__,
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "clips": len(self._blocks),
            "partials_of_a_clip": PARTIALS,
        }
        distances, one_clip_ms = {}, {}
        for precision in self._precisions:
            with self._arithmetic(precision):
                network = TorchNetwork(
                    self._weights, self._device, "float16" if precision == "float16" else "float32"
                )
                self._network(network, precision)
                self._spectrograms(network, precision)
                self._whole(network, precision)
                one_clip_ms[precision] = self._one_clip_ms(network)
                distances[precision] = distance(clip_embeddings(network, self._blocks), self._reference)
        self._cpu()
        figures |= {"one_minus_cosine": distances, "one_clip_ms": one_clip_ms, "rows": self._rows}
        return figures

    def checks(self) -> dict[str, Any]:
        """Answers with little memory, and after a fork."""
        return {"out_of_memory": self._out_of_memory(), "after_a_fork": self._after_a_fork()}

    # Stages

    def _network(self, network: TorchNetwork, precision: str) -> None:
        mels = np.concatenate([spectrograms(block) for block in self._blocks])
        for run in RUNS[self._device]:
            resident = network._load(np.resize(mels, (run, *mels.shape[1:]))).transpose(0, 1).contiguous()
            self._add("network", precision, run, run, partial(network._embed, resident))

    def _spectrograms(self, network: TorchNetwork, precision: str) -> None:
        run = RUNS[self._device][-1]
        packed = network._pack(self._many(run))
        packed = packed._replace(samples=packed.samples.to(self._device))
        count = len(packed.starts)
        if precision != "tf32":  # which is the network's alone
            self._add("spectrograms", "float32", run, count, lambda: network._mels(packed.samples))
        for some in RUNS[self._device][-4:]:
            starts = range(0, count - some + 1, some)

            def both(some: int = some, starts: range = starts) -> None:
                for first in starts:
                    network._embed_part(packed, first, first + some)

            self._add("spectrograms + network", precision, some, some * len(starts), both)

    def _whole(self, network: TorchNetwork, precision: str) -> None:
        run = min(network.run, RUNS[self._device][-1])
        blocks = self._many(run)
        if precision == "float32":  # which is the same for all
            self._add("packing", precision, run, PARTIALS * len(blocks), lambda: network._pack(blocks))
        self._add("whole", precision, run, PARTIALS * len(blocks), lambda: network.embed_blocks(blocks))
        for threads, size in ((THREADS, len(blocks)), (CALLERS[self._device], 1)):
            calls = [(self._blocks * size)[n : n + size] for n in range(threads)] * (4 if size == 1 else 1)
            with ThreadPoolExecutor(threads) as pool:

                def at_once(pool: ThreadPoolExecutor = pool, calls: list[list[Audio]] = calls) -> None:
                    list(pool.map(network.embed_blocks, calls))

                name = f"whole, {threads} threads of {size} clips"
                self._add(name, precision, run, PARTIALS * size * len(calls), at_once)

    def _cpu(self) -> None:
        blocks = self._blocks[:CPU_CLIPS]
        count = PARTIALS * len(blocks)
        if self._device != "cpu":
            network = TorchNetwork(self._weights, "cpu", "float32")
            self._add("CPU: torch", "float32", count, count, lambda: network.embed_blocks(blocks))
        try:
            onnx = Network(self._weights)
            mel_frames(blocks[0])
        except EncoderError as error:
            print(f"Without the default encoder: {error}")
            return

        def embed(block: Audio) -> None:
            onnx.embed(spectrograms(block))

        cores = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(cores) as pool:
            for threads, mapped in ((1, map), (cores, pool.map)):
                name = f"CPU: ONNX Runtime, {threads} threads"
                self._add(name, "float32", PARTIALS, count, lambda mapped=mapped: list(mapped(embed, blocks)))

    def _one_clip_ms(self, network: TorchNetwork) -> float:
        times = [timed(lambda: network.embed_blocks(self._blocks[:1])) for _ in range(30)]
        return round(1e3 * statistics.median(times), 2)

    # Checks

    def _out_of_memory(self) -> dict[str, Any]:
        """The partials of a run that remain with 1.5 GB of the device, and the distance of the embeddings."""
        torch = self._torch
        gc.collect()  # the networks of the measurements
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + 1.5 * 2**30
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, allowed / torch.cuda.get_device_properties(0).total_memory)
        )
        network = TorchNetwork(self._weights, self._device)
        embeddings = clip_embeddings(network, self._blocks)
        torch.cuda.set_per_process_memory_fraction(1.0)
        return {"run": network.run, "one_minus_cosine": distance(embeddings, self._reference)["max"]}

    def _after_a_fork(self) -> str:
        """The error of a network that a forked process loads."""
        read, written = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child starts no thread
            child = os.fork()
        if not child:
            signal.alarm(30)
            try:
                TorchNetwork(self._weights, self._device)
                message = "no error"
            except EncoderError as error:
                message = str(error)
            os.write(written, message.encode())
            os._exit(0)
        os.close(written)
        os.waitpid(child, 0)
        return os.read(read, 10_000).decode()

    # Measuring

    def _many(self, partials: int) -> list[Audio]:
        """Clips with at least so many partials."""
        return [self._blocks[n % len(self._blocks)] for n in range(-(-partials // PARTIALS))]

    def _add(self, stage: str, precision: str, run: int, partials: int, work: Callable[[], object]) -> None:
        torch = self._torch
        if self._device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()

        def synchronized() -> None:
            work()
            if self._device == "cuda":
                torch.cuda.synchronize()

        with torch.inference_mode():
            synchronized()  # chooses algorithms, and allocates
            times = [timed(synchronized)]
            times += [timed(synchronized) for _ in range(int(min(self._each_s / times[0], 1000)))]
        rate = partials / statistics.median(times)
        row = {"stage": stage, "precision": precision, "run": run, "partials_per_s": round(rate)}
        row |= {"clips_per_s": round(rate / PARTIALS), "rounds": len(times), "peak_mb": self._memory_mb}
        self._rows.append(row)

    @property
    def _memory_mb(self) -> int:
        return round(self._torch.cuda.max_memory_allocated() / 2**20) if self._device == "cuda" else 0

    @contextmanager
    def _arithmetic(self, precision: str) -> Iterator[None]:
        """Let cuDNN use tf32, or full float32."""
        cudnn = self._torch.backends.cudnn
        before = cudnn.allow_tf32
        cudnn.allow_tf32 = precision == "tf32"
        try:
            yield
        finally:
            cudnn.allow_tf32 = before


def clip_embeddings(network: TorchNetwork, blocks: list[Audio]) -> Audio:
    """The embedding of each clip, float32[n, 256]."""
    partials = [network.embed_blocks(blocks[first : first + 256]) for first in range(0, len(blocks), 256)]
    sums = np.concatenate(partials).reshape(len(blocks), -1, partials[0].shape[1]).sum(axis=1)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def distance(embeddings: Audio, others: Audio) -> dict[str, float]:
    """The largest and the mean 1 - cosine of rows; the largest counts NaN as infinite."""
    found = 1.0 - np.einsum("nd,nd->n", embeddings, others, dtype=np.float64)
    found = np.nan_to_num(found, nan=np.inf)
    return {"max": float(f"{found.max():.2g}"), "mean": float(f"{found.mean():.2g}")}


def padded(clip: Audio) -> Audio:
    """The samples of the clip's partials, with the zeros that `sample_blocks` adds."""
    block = np.zeros(((PARTIALS - 1) * STEP + FRAMES - 1) * HOP + FRAME, dtype=np.float32)
    some = clip[: len(block) - FRAME // 2]
    block[FRAME // 2 : FRAME // 2 + len(some)] = some
    return block


def recorded(path: Path) -> list[Audio]:
    """Pieces of 5 s of all recordings of the file."""
    with np.load(path) as file:
        audios = [np.asarray(file[name]) for name in file.files]
    scaled = [audio / np.float32(32768) if audio.dtype == np.int16 else audio for audio in audios]
    clips = [
        audio[start : start + CLIP].astype(np.float32)
        for audio in scaled
        for start in range(0, len(audio) - CLIP + 1, CLIP)
    ]
    if not clips:
        sys.exit(f"{path} has no recording of 5 s.")
    return clips


def synthetic(count: int) -> list[Audio]:
    """Voices of random pitch and formants that speak in syllables, from -35 to -10 dBFS, with some noise."""
    rng = np.random.default_rng(16)
    seconds = np.arange(CLIP) / RATE
    frequency = np.fft.rfftfreq(CLIP, 1 / RATE)
    clips = []
    for _ in range(count):
        wave = sum(
            rng.uniform(0.02, 0.1) * np.sin(2 * np.pi * rng.uniform(0.3, 4.0) * seconds) for _ in range(3)
        )
        pitch = rng.uniform(80, 260) * (1.0 + wave)
        turns = np.cumsum(pitch) / RATE
        pulses = np.diff(np.floor(turns), prepend=0.0)
        formants = rng.uniform((250, 800, 2_000, 3_000), (900, 2_200, 3_200, 4_500))
        gain = sum(1.0 / (1.0 + ((frequency - center) / rng.uniform(60, 200)) ** 2) for center in formants)
        voiced = np.fft.irfft(np.fft.rfft(pulses) * gain, CLIP)
        syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2.0, 5.0) * seconds) + 0.3, 0.0, None)
        speech = voiced * syllables
        speech += rng.uniform(0.001, 0.1) * speech.std() * rng.standard_normal(CLIP)
        level = 10 ** (rng.uniform(-35, -10) / 20)
        clips.append(np.clip(level * speech / speech.std(), -1, 1).astype(np.float32))
    return clips


def table(rows: list[dict[str, Any]]) -> str:
    """The rates as Markdown."""
    cells = [[f"{value:,}" if isinstance(value, int) else value for value in row.values()] for row in rows]
    return markdown(["stage", "precision", "run", "partials/s", "clips/s", "rounds", "peak MB"], cells, 2)


if __name__ == "__main__":
    sys.exit(main())
