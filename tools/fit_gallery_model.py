"""Fit the gallery model to real speech, and show how near it comes; writes gallery_model.npz.

    python benchmarks/fit_gallery_model.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

Every recording is cut into pieces of 5 s, which the product's encoder embeds. The model's figures are
such that the mean, and the covariances between and within speakers, are after cutting and normalizing
what they are in the embeddings: found by stochastic approximation, as the way back through the cut is
not known in closed form. The spread is the one whose quantiles of scores come nearest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gallery_model import FIGURES, QUANTILES, GalleryModel, gallery_quantiles, quantiles, scores
from numpy.typing import NDArray
from results_file import keep

from voiceprint import VoiceprintError, load_audio
from voiceprint.encoder import default_encoder

PIECE_S = 5
RANK = 100
SPREADS = (0.1, 0.15, 0.2, 0.25, 0.3)
ROUNDS = 120
VOICES, RECORDINGS = 3_000, 3  # of each round
CHECKED = 4_000  # prints of the gallery whose scores are held against the real ones
LARGEST_DEVIATION = 0.03

Matrix = NDArray[np.float64]
Numbers = NDArray[np.int64]


def main() -> int:
    """Embed, fit, print both quantiles, and keep them; exit with 1 if they lie too far apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings, one folder a speaker")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="the file of the model")
    parser.add_argument("--check", action="store_true", help="fit nothing; hold the kept model against them")
    arguments = parser.parse_args()
    vectors, speakers, recordings = embeddings(arguments.folder)
    if not arguments.check:
        best_fit(vectors, speakers).save(arguments.figures)
    model = GalleryModel.load(arguments.figures)
    genuine, impostor = scores(vectors, speakers)
    real = {"genuine": quantiles(genuine), "impostor": quantiles(impostor)}
    made = gallery_quantiles(model.gallery(CHECKED, seed=2))
    worst = float(np.abs(deviations(real, made)).max())
    apart = quantiles(between_recordings(vectors, speakers, recordings))
    rows = {
        "genuine, real": real["genuine"],
        "genuine, real, of two recordings": apart,
        "genuine, generated": made["genuine"],
        "impostor, real": real["impostor"],
        "impostor, generated": made["impostor"],
    }
    print(f"\n{len(vectors)} pieces of {len(set(speakers))} speakers; spread {model.spread:g}\n")
    print(f"{'scores':36}" + "".join(f"{100 * point:>9g} %" for point in QUANTILES))
    for name, values in rows.items():
        print(f"{name:36}" + "".join(f"{value:11.3f}" for value in values))
    figures: dict[str, Any] = {
        "pieces": len(vectors),
        "speakers": len(set(speakers.tolist())),
        "genuine_pairs": len(genuine),
        "impostor_pairs": len(impostor),
        "spread": model.spread,
        "quantiles": list(QUANTILES),
        "scores": rows,
        "largest_deviation": worst,
    }
    print(f"\nRaw figures: benchmarks/results/{keep('gallery_model', figures).name}")
    return 0 if worst <= LARGEST_DEVIATION else 1


def embeddings(folder: Path) -> tuple[NDArray[np.float32], Numbers, Numbers]:
    """Of every 5 s piece: the embedding float32[n, d], the number of its speaker and of its recording."""
    encoder = default_encoder()
    vectors, speakers, recordings = [], [], []
    folders: dict[Path, int] = {}
    for number, (path, piece) in enumerate_recordings(folder):
        try:
            vectors.append(encoder.embed(piece))
        except VoiceprintError as error:
            print(f"{path.name}: {error}")
            continue
        speakers.append(folders.setdefault(path.parent, len(folders)))
        recordings.append(number)
    if not vectors:
        sys.exit(f"{folder} holds no recording of {PIECE_S} s.")
    return np.stack(vectors), np.array(speakers), np.array(recordings)


def enumerate_recordings(folder: Path) -> Iterator[tuple[int, tuple[Path, NDArray[np.float32]]]]:
    """The pieces of all recordings, each with the number and the path of its recording."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
    for number, path in enumerate(paths):
        audio, rate = load_audio(path)
        if rate != default_encoder().sample_rate:
            sys.exit(f"{path} has {rate} Hz.")
        length = PIECE_S * rate
        for start in range(0, len(audio) - length + 1, length):
            yield number, (path, np.ascontiguousarray(audio[start : start + length], dtype=np.float32))


def best_fit(vectors: NDArray[np.float32], speakers: Numbers) -> GalleryModel:
    """The model of the best spread."""
    if len(vectors) - len(set(speakers.tolist())) < RANK:
        sys.exit(f"{len(vectors)} pieces of {len(set(speakers.tolist()))} speakers are too few for a fit.")
    genuine, impostor = scores(vectors, speakers)
    real = {"genuine": quantiles(genuine), "impostor": quantiles(impostor)}
    tried = []
    for spread in SPREADS:
        model = fit(vectors.astype(np.float64), speakers, spread, real)
        off = deviations(real, gallery_quantiles(model.gallery(CHECKED, seed=2)))
        tried.append((float(np.square(off).mean()), model))
        print(
            f"spread {spread:4}: quantiles within {np.abs(off).max():.3f}, "
            f"root mean square {tried[-1][0] ** 0.5:.4f}",
            flush=True,
        )
    return min(tried, key=lambda pair: pair[0])[1]


def fit(
    vectors: Matrix, speakers: Numbers, spread: float, real: dict[str, tuple[float, ...]]
) -> GalleryModel:
    """The model whose moments are those of the embeddings, for one spread."""
    wanted = moments(vectors, speakers)
    mean, between, within = (part.copy() for part in wanted)
    averages = [np.zeros_like(part) for part in (mean, between, within)]
    owners = np.repeat(np.arange(VOICES), RECORDINGS)
    for number in range(ROUNDS):
        chance = np.random.default_rng([1, number])
        model = of_moments(mean, between, within, spread, real)
        voices = model.voices(VOICES, chance)
        reached = moments(model.recordings(voices[owners], chance).astype(np.float64), owners)
        step = 0.5 if number < ROUNDS // 2 else 0.1
        for part, goal, came in zip((mean, between, within), wanted, reached, strict=True):
            part += step * (goal - came)
        if number >= ROUNDS // 2:  # the mean of the second half, as each round has chance in it
            for average, part in zip(averages, (mean, between, within), strict=True):
                average += part / (ROUNDS - ROUNDS // 2)
    return of_moments(*averages, spread, real)


def of_moments(
    mean: Matrix, between: Matrix, within: Matrix, spread: float, real: dict[str, tuple[float, ...]]
) -> GalleryModel:
    """The model with these latent moments, of the rank that is kept."""
    return GalleryModel(
        mean.astype(np.float32),
        factor(between),
        factor(within),
        spread=spread,
        genuine=real["genuine"],
        impostor=real["impostor"],
    )


def moments(vectors: Matrix, speakers: Numbers) -> tuple[Matrix, Matrix, Matrix]:
    """Mean over speakers, and the covariances between and within speakers, free of bias.

    Within: half the mean of d d' over all differences d of two pieces of one speaker, so that every pair
    counts alike, as in the quantiles.
    """
    _, numbers, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), vectors.shape[1]))
    np.add.at(means, numbers, vectors)
    means /= counts[:, None]
    rest = vectors - means[numbers]
    within = (rest * counts[numbers][:, None]).T @ rest / (counts * (counts - 1)).sum()
    mean = means.mean(axis=0)
    # The means of few pieces differ also by what differs within a speaker.
    between = (means - mean).T @ (means - mean) / (len(counts) - 1) - within * float((1 / counts).mean())
    return mean, between, within


def factor(covariance: Matrix) -> NDArray[np.float32]:
    """F float32[d, RANK] with F F' nearest to the covariance."""
    values, directions = np.linalg.eigh((covariance + covariance.T) / 2)
    kept = slice(len(values) - RANK, None)
    return (directions[:, kept] * np.sqrt(np.maximum(values[kept], 0))).astype(np.float32)


def deviations(real: dict[str, tuple[float, ...]], made: dict[str, tuple[float, ...]]) -> Matrix:
    """How far each quantile is off."""
    return np.concatenate([np.subtract(made[kind], real[kind]) for kind in real])


def between_recordings(
    vectors: NDArray[np.float32], speakers: Numbers, recordings: Numbers
) -> NDArray[np.float32]:
    """The scores of pieces of one speaker that are from two recordings."""
    cosine = vectors @ vectors.T
    same = (speakers[:, None] == speakers) & (recordings[:, None] != recordings)
    return cosine[np.triu(same, 1)]


if __name__ == "__main__":
    sys.exit(main())
