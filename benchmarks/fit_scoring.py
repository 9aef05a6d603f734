"""Fit the scoring that the package comes with; writes voiceprint/scoring/default.npz.

    python benchmarks/fit_scoring.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

Every recording is cut into pieces of 5 s; each is embedded as it is, with its noise reduced, and through
`LINES` telephone lines drawn by chance, cleaned as the product does it. The same folder gives the same
file, to the rounding of the machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from fit_gallery_model import PIECE_S, enumerate_recordings
from lines import random_line

from voiceprint import VoiceprintError
from voiceprint.audio.denoise import reduce_noise
from voiceprint.audio.lows import restore_lows
from voiceprint.encoder import default_encoder
from voiceprint.scoring import Pieces, fit_backend

TARGET = Path(__file__).parents[1] / "voiceprint" / "scoring" / "default.npz"
LINES = 6
SEED = 1
CLEAN, REDUCED = "as is", "noise reduced"
LINE = tuple(f"line {number}" for number in range(LINES))
CONDITIONS = (CLEAN, REDUCED, *LINE)
PAIRS = ((REDUCED, REDUCED), (CLEAN, LINE[4]), (REDUCED, LINE[0]), (LINE[1], REDUCED), (LINE[2], LINE[3]))
TAIL_PAIRS = ((REDUCED, REDUCED), (CLEAN, CLEAN), (REDUCED, LINE[0]), (LINE[2], LINE[3]), (LINE[1], LINE[4]))


def main() -> int:
    """Embed, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings, one folder a speaker")
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--data", default="LibriSpeech test-other and train-clean-100, in part")
    parser.add_argument("--licence", default="CC BY 4.0, (c) 2014 Vassil Panayotov")
    arguments = parser.parse_args()
    pieces, names = embedded(arguments.folder)
    backend = fit_backend(
        pieces,
        encoder=default_encoder().name,
        pairs=PAIRS,
        tail_pairs=TAIL_PAIRS,
        seed=SEED,
        about={
            "data": arguments.data,
            "licence": arguments.licence,
            "speakers": names,
            "pieces": len(pieces.speakers),
            "piece_s": PIECE_S,
            "conditions": list(CONDITIONS),
            "seed": SEED,
            "script": "benchmarks/fit_scoring.py",
        },
    )
    backend.save(arguments.output)
    arguments.output.chmod(0o644)
    print(f"{len(pieces.speakers)} pieces of {len(names)} speakers: {arguments.output.name}")
    print(f"{backend.calibration}\n{backend.tail}")
    return 0


def embedded(folder: Path) -> tuple[Pieces, list[str]]:
    """The pieces of all recordings under all `CONDITIONS`, and the names of the speakers."""
    encoder, vectors, speakers = default_encoder(), [], []
    numbers: dict[str, int] = {}
    for count, (_, (path, audio)) in enumerate(enumerate_recordings(folder)):
        versions = [audio, reduce_noise(audio)]
        for number in range(LINES):
            heard = random_line(audio, np.random.default_rng([SEED, count, number]))
            versions.append(restore_lows(reduce_noise(heard)))
        try:
            vectors.append(encoder.embed_batch(versions))
        except VoiceprintError as error:
            print(f"{path.name}: {error}")
            continue
        speakers.append(numbers.setdefault(path.parent.name, len(numbers)))
    if not vectors:
        sys.exit(f"{folder} holds no recording of {PIECE_S} s.")
    stacked = np.stack(vectors)
    by_condition = {name: stacked[:, place] for place, name in enumerate(CONDITIONS)}
    return Pieces(by_condition, np.array(speakers, dtype=np.int64)), list(numbers)


if __name__ == "__main__":
    sys.exit(main())
