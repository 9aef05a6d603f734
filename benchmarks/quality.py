"""Which audio does the quality score accept?

    python benchmarks/quality.py FOLDER [--every N] [--seeds N] [--synthetic FOLDER]

FOLDER holds recordings, one folder a speaker at any depth (FLAC or WAV). The constants were chosen
on every other speaker in the order of their paths ("chosen"); the others ("held out") were only
measured. Prints a row for each condition and half, and writes them to results/quality.json.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from results_file import keep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import signals

from voiceprint.audio import assess, load_audio, to_mono

RATE = 16000
LIMIT = 0.6
Clip = tuple[npt.NDArray[np.generic], int]
Row = dict[str, object]


def _at_8k(sound: signals.Signal) -> signals.Signal:
    return np.asarray(soxr.resample(sound, RATE, 8000, quality="HQ"))


def _int16(sound: signals.Signal, dbfs: float) -> npt.NDArray[np.int16]:
    scaled = sound * 10 ** (dbfs / 20) / max(sound.std(), 1e-9)
    return np.clip(np.round(scaled * 32768), -32768, 32767).astype(np.int16)


def _clipped_at_8k(sound: signals.Signal, _: np.random.Generator) -> Clip:
    return signals.hard_clipped(_at_8k(sound), 10), 8000


Change = Callable[[signals.Signal, np.random.Generator], Clip]

# name: (must it pass? None where nothing was asked, what is done to 5 s of clean speech)
DAMAGE: dict[str, tuple[bool | None, Change]] = {
    "clean": (True, lambda x, _: (x, RATE)),
    "20 dB white, mu-law, 8 kHz": (
        True,
        lambda x, r: (signals.telephone(signals.with_noise(x, r, 20), narrow=False), 8000),
    ),
    "  and back at 16 kHz": (
        True,
        lambda x, r: (to_mono(signals.telephone(signals.with_noise(x, r, 20), narrow=False), 8000), RATE),
    ),
    "  and 300-3400 Hz": (True, lambda x, r: (signals.telephone(signals.with_noise(x, r, 20)), 8000)),
    "  and both": (True, lambda x, r: (to_mono(signals.telephone(signals.with_noise(x, r, 20)), 8000), RATE)),
    "-45 dBFS, 16 bit": (True, lambda x, _: (_int16(x, -45), RATE)),
    "peak 0.02, 16 bit": (
        True,
        lambda x, _: (np.round(x * 0.02 / np.abs(x).max() * 32768).astype(np.int16), RATE),
    ),
    "20 dB white": (True, lambda x, r: (signals.with_noise(x, r, 20), RATE)),
    "15 dB white": (None, lambda x, r: (signals.with_noise(x, r, 15), RATE)),
    "10 dB white": (None, lambda x, r: (signals.with_noise(x, r, 10), RATE)),
    "5 dB white": (None, lambda x, r: (signals.with_noise(x, r, 5), RATE)),
    "middle 2 s": (None, lambda x, _: (x[24000:56000], RATE)),
    "middle 1 s": (None, lambda x, _: (x[32000:48000], RATE)),
    "gain 2, clipped": (None, lambda x, _: (signals.hard_clipped(x, 2), RATE)),
    "gain 3, clipped": (None, lambda x, _: (signals.hard_clipped(x, 3), RATE)),
    "gain 5, clipped": (None, lambda x, _: (signals.hard_clipped(x, 5), RATE)),
    "gain 10, clipped, then 8 kHz": (None, lambda x, _: (0.5 * _at_8k(signals.hard_clipped(x, 10)), 8000)),
    "0 dB brown": (None, lambda x, r: (signals.with_noise(x, r, 0, 2), RATE)),
    "0 dB white": (False, lambda x, r: (signals.with_noise(x, r, 0), RATE)),
    "0 dB pink": (False, lambda x, r: (signals.with_noise(x, r, 0, 1), RATE)),
    "0 dB white, telephone": (False, lambda x, r: (signals.telephone(signals.with_noise(x, r, 0)), 8000)),
    "gain 10, clipped": (False, lambda x, _: (signals.hard_clipped(x, 10), RATE)),
    "gain 10, clipped, at 0.3": (False, lambda x, _: (0.3 * signals.hard_clipped(x, 10), RATE)),
    "gain 10, clipped at 8 kHz": (False, _clipped_at_8k),
    "gain 10, clipped, 30 dB noise": (
        False,
        lambda x, r: (signals.with_noise(signals.hard_clipped(x, 10), r, 30), RATE),
    ),
    "gain 30, clipped": (False, lambda x, _: (signals.hard_clipped(x, 30), RATE)),
    "-70 dBFS, 16 bit": (False, lambda x, _: (_int16(x, -70), RATE)),
}


def _recordings(folder: Path) -> dict[str, list[list[signals.Signal]]]:
    """Whole recordings as mono 16 kHz, a list for each speaker, in two halves."""
    speakers: dict[Path, list[signals.Signal]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".flac", ".wav"}):
        samples, rate = load_audio(path)
        speakers.setdefault(path.parent, []).append(to_mono(samples, rate).astype(np.float64))
    everyone = list(speakers.values())
    return {"chosen": everyone[::2], "held out": everyone[1::2]}


def _pieces(speakers: list[list[signals.Signal]]) -> Iterator[signals.Signal]:
    for recordings in speakers:
        for sound in recordings:
            for start in range(0, len(sound) - 5 * RATE + 1, 5 * RATE):
                yield sound[start : start + 5 * RATE]


def _row(condition: str, half: str, wanted: bool | None, clips: list[Clip]) -> Row:
    scores, times = [], []
    for samples, rate in clips:
        start = time.perf_counter()
        scores.append(assess(samples, sample_rate=rate).score)
        times.append(time.perf_counter() - start)
    low, first, fifth, middle, top = (float(v) for v in np.percentile(scores, [0, 1, 5, 50, 100]))
    passed = float(np.mean(np.array(scores) >= LIMIT))
    row: Row = {
        "condition": condition, "half": half, "must_pass": wanted, "clips": len(scores),
        "passed": passed,
        "min": low, "p1": first, "p5": fifth, "median": middle, "max": top,
        "p50_ms": 1e3 * float(np.percentile(times, 50)), "p99_ms": 1e3 * float(np.percentile(times, 99)),
    }  # fmt: skip
    verdict = {True: "must pass", False: "must fail", None: "-"}[wanted]
    print(
        f"{condition:32s} {half:9s} {verdict:9s} {len(scores):5d} {100 * passed:6.1f} %"
        f"  {low:.2f} {first:.2f} {fifth:.2f} {middle:.2f} {top:.2f}   {row['p50_ms']:5.1f} ms"
    )
    return row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings, one folder a speaker")
    parser.add_argument("--every", type=int, default=1, help="take every Nth 5 s piece (default: 1)")
    parser.add_argument("--seeds", type=int, default=100, help="signals of each kind that are not speech")
    parser.add_argument("--synthetic", type=Path, help="a folder of synthetic speech, first 5 s of each file")
    arguments = parser.parse_args()
    print(f"{'condition':32s} {'half':9s} {'':9s} {'clips':>5s} {'passed':>8s}  min  1 %  5 %  50 %  max")
    assess(np.zeros(5 * RATE))
    rows: list[Row] = []
    for half, speakers in _recordings(arguments.folder).items():
        pieces = list(_pieces(speakers))[:: arguments.every]
        for condition, (wanted, change) in DAMAGE.items():
            rng = np.random.default_rng(20)
            rows.append(_row(condition, half, wanted, [change(piece, rng) for piece in pieces]))
        whole: list[Clip] = [(s, RATE) for r in speakers for s in r if 2 * RATE <= len(s) < 5 * RATE]
        if whole:
            rows.append(_row("utterances of 2 to 5 s", half, True, whole))
    if arguments.synthetic:
        files = sorted(p for p in arguments.synthetic.rglob("*") if p.suffix in {".flac", ".wav"})
        loaded = [load_audio(path) for path in files]
        rows.append(_row("synthetic speech", "", True, [(x[: 5 * rate], rate) for x, rate in loaded]))
    for name, make in signals.NOT_SPEECH.items():
        sounds = [make(np.random.default_rng((1000, seed))) for seed in range(arguments.seeds)]
        rows.append(_row(name, "", False, [(sound, RATE) for sound in sounds]))
        line = [(signals.telephone(sound), 8000) for sound in sounds[::2]]
        rows.append(_row(f"{name}, telephone", "", False, [*line]))
        rows.append(
            _row(f"{name}, 2 s, quiet", "", False, [(0.02 * s[RATE : 3 * RATE], RATE) for s in sounds[::2]])
        )
    print(f"Raw figures: benchmarks/results/{keep('quality', {'limit': LIMIT, 'rows': rows}).name}")


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
