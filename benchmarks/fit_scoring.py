"""Fit the scoring that the package comes with; writes voiceprint/scoring/default.npz.

    python benchmarks/fit_scoring.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

Every recording is cut into pieces of 5 s; each is embedded as it is, with its noise reduced, and through
`LINES` telephone lines drawn by chance, cleaned as the product does it: to these the model of voices is
fitted. The tail of strangers' scores is fitted to what the product makes of the pieces in its enrolments,
with their second prints, and in its searches: as they are, and through `SHARED` other lines, each of which
carries all callers. The same folder gives the same file, to the rounding of the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from as_heard import best, second
from fit_gallery_model import PIECE_S, enumerate_recordings
from lines import random_line
from numpy.typing import NDArray

from voiceprint import VoiceprintError
from voiceprint.audio.denoise import reduce_noise
from voiceprint.audio.lows import restore_lows
from voiceprint.encoder import default_encoder
from voiceprint.scoring import Backend, Pieces, fit_backend

TARGET = Path(__file__).parents[1] / "voiceprint" / "scoring" / "default.npz"
LINES = 6
SEED = 1
CLEAN, REDUCED = "as is", "noise reduced"
LINE = tuple(f"line {number}" for number in range(LINES))
CONDITIONS = (CLEAN, REDUCED, *LINE)
PAIRS = ((REDUCED, REDUCED), (CLEAN, LINE[4]), (REDUCED, LINE[0]), (LINE[1], REDUCED), (LINE[2], LINE[3]))

SHARED = 3
WIDE = "wide"
CARRIED = tuple(f"shared {number}" for number in range(SHARED))
ENROLLED = (WIDE, *CARRIED)
# A call on the line of the enrolment, from it, to it, and without one: each counts alike.
TAIL_PAIRS = (
    *((WIDE, f"{WIDE} call") for _ in CARRIED),
    *((WIDE, f"{name} call") for name in CARRIED),
    *((name, f"{WIDE} call") for name in CARRIED),
    *((name, f"{name} call") for name in CARRIED),
)
SECONDS = {name: f"{name} second" for name in ENROLLED}


def main() -> int:
    """Embed, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings, one folder a speaker")
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--cache", type=Path, help="a file that keeps the embeddings")
    parser.add_argument("--data", default="LibriSpeech test-other and train-clean-100, in part")
    parser.add_argument("--licence", default="CC BY 4.0, (c) 2014 Vassil Panayotov")
    arguments = parser.parse_args()
    pieces, names = kept_or_embedded(arguments.folder, arguments.cache)
    backend = fit(
        pieces,
        about={
            "data": arguments.data,
            "licence": arguments.licence,
            "speakers": names,
            "pieces": len(pieces.speakers),
            "piece_s": PIECE_S,
            "conditions": list(CONDITIONS),
            "tail": [list(pair) for pair in dict.fromkeys(TAIL_PAIRS)],
            "seed": SEED,
            "script": "benchmarks/fit_scoring.py",
        },
    )
    backend.save(arguments.output)
    arguments.output.chmod(0o644)
    print(f"{len(pieces.speakers)} pieces of {len(names)} speakers: {arguments.output.name}")
    print(f"{backend.calibration}\n{backend.tail}")
    return 0


def fit(pieces: Pieces, about: dict[str, Any] | None = None) -> Backend:
    """The backend that ships, of these pieces, whatever other conditions they have."""
    used = dict.fromkeys((*CONDITIONS, *ENROLLED, *SECONDS.values(), *(probe for _, probe in TAIL_PAIRS)))
    return fit_backend(
        Pieces({name: pieces.vectors[name] for name in used}, pieces.speakers, seconds=SECONDS),
        encoder=default_encoder().name,
        pairs=PAIRS,
        tail_pairs=TAIL_PAIRS,
        conditions=CONDITIONS,
        seed=SEED,
        about=about,
    )


def kept_or_embedded(folder: Path, cache: Path | None) -> tuple[Pieces, list[str]]:
    """`embedded`, once where a file keeps it."""
    if cache and cache.exists():
        with np.load(cache) as kept:
            vectors = {name: kept[name] for name in kept.files}
        names, speakers = vectors.pop("names").tolist(), vectors.pop("speakers")
        return Pieces(vectors, speakers), names
    pieces, names = embedded(folder)
    if cache:
        np.savez(cache, speakers=pieces.speakers, names=np.array(names), **pieces.vectors)
    return pieces, names


def embedded(folder: Path) -> tuple[Pieces, list[str]]:
    """The pieces of all recordings under all conditions, and the names of the speakers."""
    made: dict[str, list[Any]] = {}
    speakers: list[int] = []
    numbers: dict[str, int] = {}
    for count, (_, (path, audio)) in enumerate(enumerate_recordings(folder)):
        try:
            versions = dict(versions_of(audio, count))
        except VoiceprintError as error:
            print(f"{path.name}: {error}")
            continue
        for name, vector in versions.items():
            made.setdefault(name, []).append(vector)
        speakers.append(numbers.setdefault(path.parent.name, len(numbers)))
    if not speakers:
        sys.exit(f"{folder} holds no recording of {PIECE_S} s.")
    vectors = {name: np.stack(one).astype(np.float32) for name, one in made.items()}
    return Pieces(vectors, np.array(speakers, dtype=np.int64)), list(numbers)


def versions_of(audio: NDArray[np.float32], count: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """A piece under all conditions; count: its number, for the noise."""

    def drawn(*number: int) -> np.random.Generator:
        return np.random.default_rng([SEED, *number])

    encoder = default_encoder()
    heard = [random_line(audio, drawn(count, number)) for number in range(LINES)]
    lines = [restore_lows(reduce_noise(one)) for one in heard]
    yield from zip(CONDITIONS, encoder.embed_batch([audio, reduce_noise(audio), *lines]), strict=True)
    for number, name in enumerate(ENROLLED, -1):
        heard = [audio] * 2
        if name != WIDE:  # the same line on two days
            line = 1000 + number
            heard = [random_line(audio, drawn(line), drawn(count, 100 * day + number)) for day in (1, 2)]
        plain = encoder.embed(heard[0])
        yield name, plain
        yield SECONDS[name], second(heard[0], plain)
        yield f"{name} call", best(heard[1], plain if name == WIDE else None)


if __name__ == "__main__":
    sys.exit(main())
