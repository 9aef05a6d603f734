"""The effect of a DC offset and of mains hum on the answers, with and without the filter.

Speakers of each set are enrolled from 5 s as they are recorded, and probed with another 5 s: as they are,
with a DC offset, with a hum of 50 Hz. Each probe is embedded as it is, as the product does (filtered where a
steady component is loud), and filtered always. Of each: the mean cosine with the own print, the mean gap to
the most similar other speaker, and the share of speakers who are the most similar. Of clean recordings, the
share in which the product finds a steady component, and rumble of as much power.

    python benchmarks/low_frequencies.py FOLDER      FOLDER/SET/**/SPEAKER/*.flac
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results_file import keep

from voiceprint import load_audio
from voiceprint.audio import Recording
from voiceprint.audio.enhance.high_pass import HUM_CUTOFF_HZ, HUM_SHARE, HighPass
from voiceprint.encoder import OnnxEncoder

RATE = 16_000
PIECE = 5 * RATE
SPEAKERS = 40
Audio = NDArray[np.float32]


def main() -> None:
    """Measure, print a table for each set, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    encoder = OnnxEncoder(threads=1)
    figures: dict[str, Any] = {}
    for folder in sorted(each for each in options.folder.iterdir() if each.is_dir()):
        pairs = [pair for speaker in _speakers(folder) if (pair := _pair(speaker))][:SPEAKERS]
        if len(pairs) < 2:
            continue
        figures[folder.name] = found = _compared(pairs, encoder)
        clean = found["clean"]
        print(
            f"\n{folder.name}, {len(pairs)} speakers. Of clean pieces {clean['filtered']:.1%} are filtered; "
            f"{clean['rumble']:.1%} have as much under 60 Hz as the hum that is."
        )
        print(f"{'probe':12}" + "".join(f"{way:>24}" for way in ("as it is", "product", "always filtered")))
        for name, row in found["probes"].items():
            cells = [f"{one['own']:.3f} {one['gap']:+.3f} {one['first']:.2f}" for one in row.values()]
            print(f"{name:12}" + "".join(f"{cell:>24}" for cell in cells))
    keep("low_frequencies", {"sets": figures, "columns": "own cosine, gap to the next, share ranked first"})


def _speakers(folder: Path) -> list[list[Path]]:
    """The recordings of each speaker; those of different sessions are in different folders."""
    speakers: dict[Path, list[Path]] = {}
    for file in sorted(folder.rglob("*.flac")):
        parts = file.relative_to(folder).parts
        # A set may have subsets or sessions: the speaker is the first folder of which there are many.
        speaker = folder / parts[0] if len(list(folder.iterdir())) > 3 else folder / parts[0] / parts[1]
        speakers.setdefault(speaker, []).append(file)
    return [*speakers.values()]


def _pair(files: list[Path]) -> tuple[Audio, Audio] | None:
    """5 s to enroll and 5 s to probe with, as far apart as the recordings allow."""
    first, last = load_audio(files[0])[0], load_audio(files[-1])[0]
    if len(files) == 1:
        first, last = first[: len(first) // 2], first[len(first) // 2 :]
    return (first[:PIECE], last[-PIECE:]) if min(len(first), len(last)) >= PIECE * 0.8 else None


def _compared(pairs: list[tuple[Audio, Audio]], encoder: OnnxEncoder) -> dict[str, Any]:
    enrolled = [Recording(first, RATE) for first, _ in pairs]
    prints = {
        "as it is": np.stack([encoder.embed(first) for first, _ in pairs]),
        "product": np.stack([encoder.embed_speech(one.trimmed).embedding for one in enrolled]),
        "always": np.stack([encoder.embed(HighPass(first, HUM_CUTOFF_HZ)[:]) for first, _ in pairs]),
    }
    rows: dict[str, Any] = {}
    for name, change in PROBES.items():
        probes = [np.clip(change(last), -1.0, 1.0).astype(np.float32) for _, last in pairs]
        embedded = {
            "as it is": [encoder.embed(probe) for probe in probes],
            "product": [encoder.embed_speech(Recording(probe, RATE).trimmed).embedding for probe in probes],
            "always": [encoder.embed(HighPass(probe, HUM_CUTOFF_HZ)[:]) for probe in probes],
        }
        rows[name] = {way: _ranked(prints[way], np.stack(of)) for way, of in embedded.items()}
    return {
        "speakers": len(pairs),
        "clean": {
            "filtered": float(np.mean([one.cutoff_hz is not None for one in enrolled])),
            "rumble": float(np.mean([_rumble(first) > HUM_SHARE for first, _ in pairs])),
        },
        "probes": rows,
    }


def _ranked(prints: Audio, probes: Audio) -> dict[str, float]:
    similarity = probes @ prints.T
    own = np.diag(similarity)
    others = (similarity - 4.0 * np.eye(len(prints))).max(axis=1)
    return {
        "own": float(own.mean()),
        "gap": float((own - others).mean()),
        "first": float((own > others).mean()),
    }


def _rumble(audio: Audio) -> float:
    """The share of the power under the cutoff."""
    power = np.square(np.abs(np.fft.rfft(audio * np.hanning(len(audio)))))
    low = np.fft.rfftfreq(len(audio), 1.0 / RATE) < HUM_CUTOFF_HZ
    return float(power[low].sum() / power.sum())


def _hum(audio: Audio, level: float) -> Audio:
    return np.asarray(audio + level * np.sin(2.0 * np.pi * 50.0 * np.arange(len(audio)) / RATE))


PROBES = {
    "as recorded": lambda audio: audio,
    "offset .05": lambda audio: audio + 0.05,
    "offset .2": lambda audio: audio + 0.2,
    "hum .03": lambda audio: _hum(audio, 0.03),
    "hum .1": lambda audio: _hum(audio, 0.1),
}


if __name__ == "__main__":
    main()
