"""Calls as they are: tones, music, hiss and minutes of silence beside the speech. How many are named right?

    python benchmarks/speech.py FOLDER [--speakers N]

FOLDER is ../shared/data, or holds sets of speakers like those in it. Of each speaker 10 s are enrolled as
they are; the probe is other speech of them, up to the seconds named, in the condition named. A right answer
is one whose quality is at least 0.6 and whose nearest enrolled caller of the same set is the speaker. Also
prints how many recordings and 5 s pieces of clean, noisy and telephone speech are cut at all, and the cosine
between their embeddings with and without. Writes results/speech.json.
"""

from __future__ import annotations

import argparse
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

from voiceprint.audio import Recording, load_audio, to_mono
from voiceprint.audio.speech.segmenter import segment
from voiceprint.encoder import OnnxEncoder

RATE = signals.RATE
LIMIT = 0.6
ENROLLED_S = 10
Audio = npt.NDArray[np.float32]
Make = Callable[[signals.Signal, np.random.Generator], signals.Signal]

ENCODER = OnnxEncoder()


def _turns(speech: signals.Signal, between: Callable[[], signals.Signal]) -> signals.Signal:
    """Four turns of 4 s, or of what there is, with something between."""
    length = min(4 * RATE, len(speech) // 4)
    parts = []
    for turn in range(4):
        parts += [speech[turn * length : (turn + 1) * length], between()]
    return np.concatenate(parts[:-1])


def _silence(seconds: float) -> signals.Signal:
    return np.zeros(round(seconds * RATE))


def _music(rng: np.random.Generator, seconds: float) -> signals.Signal:
    return signals.hold_music(rng, seconds)


# name: (seconds of speech, what is made of it)
CONDITIONS: dict[str, tuple[float, Make]] = {
    "5 s": (5, lambda x, _: x),
    "10 s": (10, lambda x, _: x),
    "1 s beep, 5 s": (5, lambda x, _: np.concatenate((signals.beep(1, 1000), x))),
    "1 s loud beep, 5 s": (5, lambda x, _: np.concatenate((signals.beep(1, 1400, amplitude=0.95), x))),
    "5 s, 1 s beep": (5, lambda x, _: np.concatenate((x, signals.beep(1, 1000)))),
    "2 s ring-back, 5 s": (5, lambda x, _: np.concatenate((signals.beep(2, 440, 480), x))),
    "2 s ring-back, 10 s": (10, lambda x, _: np.concatenate((signals.beep(2, 440, 480), x))),
    "2 s ring-back, 20 s": (20, lambda x, _: np.concatenate((signals.beep(2, 440, 480), x))),
    "2 s of 425 Hz, 4 s, 2 s, 5 s": (
        5,
        lambda x, _: np.concatenate((signals.beep(2, 425), _silence(4), signals.beep(2, 425), x)),
    ),
    "busy tone 5 s, 5 s": (5, lambda x, _: np.concatenate((signals.cadence(0.5, 0.5, 5, 480, 620), x))),
    "4 digits, 5 s": (5, lambda x, _: np.concatenate((signals.keys("4711"), x))),
    "8 short digits, 5 s": (5, lambda x, _: np.concatenate((signals.keys("06215598", 0.06, 0.06), x))),
    "music 10 s, 10 s": (10, lambda x, r: np.concatenate((_music(r, 10), x))),
    "10 s, music 10 s": (10, lambda x, r: np.concatenate((x, _music(r, 10)))),
    "hiss -70 dBFS 60 s, 10 s": (10, lambda x, r: np.concatenate((signals.hiss(r, 60, -70), x))),
    "10 s, hiss 60 s": (10, lambda x, r: np.concatenate((x, signals.hiss(r, 60, -70)))),
    "hiss 180 s, 10 s": (10, lambda x, r: np.concatenate((signals.hiss(r, 180, -70), x))),
    "10 s, hiss 180 s": (10, lambda x, r: np.concatenate((x, signals.hiss(r, 180, -70)))),
    "turns, 60 s silence": (16, lambda x, _: _turns(x, lambda: _silence(60))),
    "turns, 60 s hiss": (16, lambda x, r: _turns(x, lambda: signals.hiss(r, 60, -70))),
    "turns, 60 s silence, -60 dBFS": (
        16,
        lambda x, _: _turns(signals.at_level(x, -60), lambda: _silence(60)),
    ),
    "turns at -60 dBFS, hiss -75": (
        16,
        lambda x, r: _turns(signals.at_level(x, -60), lambda: signals.hiss(r, 60, -75)),
    ),
    "turns at -60 dBFS, hiss -70": (
        16,
        lambda x, r: _turns(signals.at_level(x, -60), lambda: signals.hiss(r, 60, -70)),
    ),
    "180 s hiss -70, 10 s at -60 dBFS": (
        10,
        lambda x, r: np.concatenate((signals.hiss(r, 180, -70), signals.at_level(x, -60))),
    ),
    "10 s over music, 10 dB": (
        10,
        lambda x, r: x + signals.at_level(_music(r, len(x) / RATE)[: len(x)], _dbfs(x) - 10),
    ),
    "a knock each 5 s, 10 s": (10, lambda x, r: _knocked(x, r)),
}
TELEPHONE = (
    "5 s",
    "10 s",
    "1 s beep, 5 s",
    "2 s ring-back, 5 s",
    "4 digits, 5 s",
    "music 10 s, 10 s",
    "hiss 180 s, 10 s",
)


def _dbfs(x: signals.Signal) -> float:
    return 10 * float(np.log10(np.mean(np.square(x))))


def _knocked(x: signals.Signal, rng: np.random.Generator) -> signals.Signal:
    """20 s of silence with a knock each 5 s, then the speech."""
    before = 1e-4 * rng.standard_normal(20 * RATE)
    knock = signals.colored_noise(rng, 1.5, 0.08) * np.exp(-np.arange(round(0.08 * RATE)) / 200)
    for place in range(2 * RATE, len(before), 5 * RATE):
        before[place : place + len(knock)] += knock
    return np.concatenate((before, x))


def speakers(folder: Path, most: int) -> Iterator[tuple[str, dict[str, signals.Signal]]]:
    """Of each set its name and up to so many speakers, with their recordings one after the other."""
    for corpus in sorted(each for each in folder.iterdir() if each.is_dir()):
        found: dict[str, list[Path]] = {}
        for path in sorted(corpus.rglob("*.flac")):
            if "train" not in path.parts[-3]:  # one recording each, too short for a probe of 10 s
                found.setdefault(path.relative_to(corpus).parts[-2 if "test" in str(path) else 0], []).append(
                    path
                )
        chosen: dict[str, signals.Signal] = {}
        for name in sorted(found)[:: max(1, len(found) // most)][:most]:
            parts = []
            for path in found[name]:
                samples, rate = load_audio(path)
                parts.append(to_mono(samples, rate).astype(np.float64))
                if sum(map(len, parts)) > 40 * RATE:
                    break
            audio = np.concatenate(parts)
            if len(audio) >= 15 * RATE:
                chosen[name] = audio
        yield corpus.name, chosen


def _embedding(
    audio: signals.Signal, rate: int = RATE
) -> tuple[npt.NDArray[np.float32] | None, float, float]:
    """The embedding, the quality, and how long both took in ms."""
    begin = time.perf_counter()
    recording = Recording.from_buffer(np.clip(audio, -1, 1).astype(np.float32), rate)
    quality = recording.quality
    vector = ENCODER.embed_speech(recording.trimmed)[0] if len(recording.trimmed) else None
    return vector, quality.score, 1e3 * (time.perf_counter() - begin)


def recognition(folder: Path, most: int) -> list[dict[str, Any]]:
    """Right answers of each set in each condition."""
    rows: list[dict[str, Any]] = []
    print(f"{'':34s} right answers, of them refused, the first reason")
    for corpus, voices in speakers(folder, most):
        names = [*voices]
        enrolled = {name: _embedding(voices[name][: ENROLLED_S * RATE])[0] for name in names}
        kept = [name for name in names if enrolled[name] is not None]
        prints = np.stack([enrolled[name] for name in kept])
        conditions = [(name, False) for name in CONDITIONS] + [(name, True) for name in TELEPHONE]
        for condition, on_line in conditions:
            seconds, make = CONDITIONS[condition]
            right = refused = 0
            for place, name in enumerate(kept):
                rng = np.random.default_rng((14, place))
                speech = voices[name][ENROLLED_S * RATE :][: round(seconds * RATE)]
                audio, rate = make(speech, rng), RATE
                if on_line:
                    audio, rate = signals.telephone(np.clip(audio, -1, 1)), 8000
                vector, score, _ = _embedding(audio, rate)
                accepted = score >= LIMIT and vector is not None
                refused += not accepted
                right += bool(accepted and kept[int((prints @ vector).argmax())] == name)
            label = condition + (", telephone" if on_line else "")
            rows.append(
                {"set": corpus, "condition": label, "speakers": len(kept), "right": right, "refused": refused}
            )
            print(f"{label:34s} {corpus:22s} {right:3d} of {len(kept):3d}   {refused:3d} refused", flush=True)
    return rows


def cuts(folder: Path, most: int) -> list[dict[str, Any]]:
    """Seconds cut from recordings of speech alone, and the cosine of the embedding with the uncut one."""
    rows: list[dict[str, Any]] = []
    lines: dict[str, Callable[[signals.Signal, np.random.Generator], signals.Signal]] = {
        "clean": lambda x, _: x,
        "20 dB white": lambda x, r: signals.with_noise(x, r, 20),
        "10 dB white": lambda x, r: signals.with_noise(x, r, 10),
        "10 dB pink": lambda x, r: signals.with_noise(x, r, 10, 1),
        "5 dB white": lambda x, r: signals.with_noise(x, r, 5),
        "telephone, 20 dB": lambda x, r: to_mono(signals.telephone(signals.with_noise(x, r, 20)), 8000),
    }
    for corpus in sorted(each for each in folder.iterdir() if each.is_dir()):
        files = sorted(corpus.rglob("*.flac"))
        files = files[:: max(1, len(files) // most)]
        for line, spoil in lines.items():
            rng = np.random.default_rng(15)
            whole = cut = pieces = cut_pieces = 0
            cosines = []
            for path in files:
                samples, rate = load_audio(path)
                audio = np.asarray(spoil(to_mono(samples, rate).astype(np.float64), rng), dtype=np.float32)
                whole += 1
                parts = [each for each in segment(audio) if each.kind == "speech"]
                if len(parts) != 1 or parts[0][:2] != (0, len(audio)):
                    cut += 1
                    if parts:
                        rest = np.concatenate([audio[each.start : each.stop] for each in parts])
                        cosines.append(float(ENCODER.embed(audio) @ ENCODER.embed(rest)))
                    else:
                        cosines.append(0.0)
                for start in range(0, len(audio) - 5 * RATE + 1, 5 * RATE):
                    found = segment(audio[start : start + 5 * RATE])
                    pieces += 1
                    cut_pieces += len(found) != 1 or found[0].kind != "speech"
            row = {
                "set": corpus.name, "line": line, "recordings": whole, "cut": cut, "pieces": pieces,
                "cut_pieces": cut_pieces, "least_cosine": min(cosines, default=1.0),
            }  # fmt: skip
            rows.append(row)
            print(
                f"{corpus.name:22s} {line:18s} {cut:3d} of {whole:4d} recordings cut, {cut_pieces:3d} of "
                f"{pieces:4d} pieces; least cosine {row['least_cosine']:.3f}",
                flush=True,
            )
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="sets of speakers, as ../shared/data")
    parser.add_argument("--speakers", type=int, default=20, help="of each set (default: 20)")
    parser.add_argument("--recordings", type=int, default=100, help="of each set, for cuts (default: 100)")
    arguments = parser.parse_args()
    figures = {
        "recognition": recognition(arguments.folder, arguments.speakers),
        "cuts": cuts(arguments.folder, arguments.recordings),
    }
    print(f"Raw figures: benchmarks/results/{keep('speech', figures).name}")


if __name__ == "__main__":
    main()
