"""Are two channels in one seen, and is one voice left alone?

    python benchmarks/interleaving.py FOLDER [--every N]

FOLDER holds recordings, one folder a speaker at any depth (FLAC or WAV). Each is looked at by itself at 8
and 16 kHz, where finding channels is a false alarm, and interleaved with the recording before it, with
silence and with itself. Prints how often which length was found, and writes it to results/interleaving.json.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from results_file import keep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import signals

from voiceprint.audio import load_audio, to_mono
from voiceprint.audio.io import g711
from voiceprint.audio.quality.interleaving import interleaved

Audio = NDArray[np.float32]
RATES = (8000, 16000)
FRAMES_MS = (10, 20, 30, 60)
LONGEST_S = 10
SIGNALS = (
    *(signals.white, signals.pink, signals.modulated_noise, signals.gated_noise, signals.band_noise),
    *(signals.tone, signals.dtmf, signals.square, signals.clicks, signals.hum, signals.chords),
)


def _together(one: Audio, other: Audio, length: int) -> Audio:
    whole = min(len(one), len(other)) // length * length
    pairs = [channel[:whole].reshape(-1, length) for channel in (one, other)]
    return np.stack(pairs, axis=1).ravel()


def _coded(audio: Audio) -> Audio:
    pcm = np.int16(np.clip(audio, -1, 1) * 32767)
    return np.float32(g711.decode(g711.encode(pcm, "mulaw"), "mulaw") / 32768)


def _cases(audio: Audio, before: Audio, rate: int) -> Iterator[tuple[str, int | None, Audio]]:
    """The name of each signal, the right answer, and the samples."""
    whole = min(len(audio), len(before))
    audio, before = audio[:whole], before[:whole]
    turn = np.arange(whole) // (2 * rate) % 2 == 0
    for kind, right, wrapped in (("", None, audio), (", mu-law", None, _coded(audio))):
        yield f"one voice{kind}", right, wrapped
    for kind, other in {
        "two voices": before,
        "a voice and silence": np.zeros_like(audio),
        "one voice twice": audio,
    }.items():
        yield f"{kind}, samples", 1, _together(audio, other, 1)
        for ms in FRAMES_MS:
            yield f"{kind}, {ms} ms", rate * ms // 1000, _together(audio, other, rate * ms // 1000)
    yield "two voices in turns, samples", 1, _together(audio * turn, before * ~turn, 1)
    yield "two voices in turns, 20 ms", rate // 50, _together(audio * turn, before * ~turn, rate // 50)
    yield "two voices, mu-law, samples", 1, _coded(_together(audio, before, 1))
    yield "two voices, mu-law, 20 ms", rate // 50, _coded(_together(audio, before, rate // 50))


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each Nth file")
    options = parser.parse_args()
    files = sorted(f for f in options.folder.rglob("*") if f.suffix in {".flac", ".wav"})[:: options.every]
    found: dict[str, Counter[str]] = {}
    before = {rate: np.zeros(0, dtype=np.float32) for rate in RATES}
    for file in files:
        sound, rate = load_audio(file)
        for target in RATES:
            audio = to_mono(sound[: LONGEST_S * rate], rate, target)
            if len(before[target]) >= 2 * target:
                for name, right, samples in _cases(audio, before[target], target):
                    got = interleaved(samples, target)
                    outcome = "right" if got == right else "missed" if got is None else "wrong"
                    found.setdefault(f"{name}, {target // 1000} kHz", Counter())[outcome] += 1
            before[target] = audio
    for maker in SIGNALS:
        for seed in range(40):
            sound = maker(np.random.default_rng(seed))
            for target in RATES:
                got = interleaved(soxr.resample(sound, signals.RATE, target), target)
                found.setdefault("signals that are no speech", Counter())[
                    "right" if got is None else "wrong"
                ] += 1
    for name, outcomes in found.items():
        print(f"{name:45}", dict(outcomes))
    keep("interleaving", {"files": len(files), "found": found})


if __name__ == "__main__":
    main()
