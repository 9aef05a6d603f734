"""What do 8 bits cost? The encoder "onnx-int8" beside Resemblyzer: how near, who is recognized, how quick.

    python benchmarks/precision.py [--voices FOLDER ...]      FOLDER/**/SPEAKER/*.flac

Near: the cosine of both embeddings, of every recording and every piece of 5 s of it. Recognized: of each
speaker one piece of 5 s is enrolled, and every other piece is compared with all speakers; for prints of
Resemblyzer, of 8 bits, and with 8 bits against prints of Resemblyzer that are already enrolled. Quick: the
processor time of a partial on one thread, by how many a run takes, which other work disturbs little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results_file import keep

from voiceprint import load_audio
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import OnnxEncoder, OnnxInt8Encoder, ResemblyzerEncoder
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import partials

SAMPLES = Path(__file__).parents[1] / "examples/voices"
PIECE = 5 * 16_000
GROUP = 32
KINDS = {"resemblyzer": ResemblyzerEncoder, "onnx": OnnxEncoder, "onnx-int8": OnnxInt8Encoder}

Vectors = NDArray[np.float32]


def main() -> int:
    """Measure, print, and keep the raw figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", type=Path, nargs="+", default=[SAMPLES])
    arguments = parser.parse_args()
    files = sorted(file for folder in arguments.voices for file in folder.rglob("*.flac"))
    figures: dict[str, Any] = {"ms_per_partial_by_run": speed(files[0])}
    wholes, pieces, speakers = read(files)
    whole = {name: embed(name, wholes) for name in KINDS}
    piece = {name: embed(name, pieces) for name in KINDS}
    figures["recordings"], figures["pieces"] = len(wholes), len(pieces)
    figures["one_minus_cosine_with_resemblyzer"] = {
        name: {"recordings": nearness(whole, name), "pieces": nearness(piece, name)}
        for name in KINDS
        if name != "resemblyzer"
    }
    figures["one_minus_cosine_alone_and_in_a_batch"] = grouping(pieces[:: len(pieces) // 100 + 1])
    pairs = [(name, name) for name in KINDS] + [("resemblyzer", "onnx-int8")]
    figures["recognized"] = {
        f"{enrolled} enrolled, {asked} asked": recognized(piece[enrolled], piece[asked], speakers)
        for enrolled, asked in pairs
    }
    for name, rows in figures.items():
        print(f"{name:40}{json.dumps(rows)}")
    print(f"\nRaw figures: benchmarks/results/{keep('precision', figures).name}")
    return 0


def read(files: list[Path]) -> tuple[list[Vectors], list[Vectors], list[str]]:
    """Recordings, their pieces, and who speaks in each piece."""
    wholes = [load_audio(file)[0] for file in files]
    pieces, speakers = [], []
    for file, audio in zip(files, wholes, strict=True):
        for start in range(0, len(audio) - PIECE + 1, PIECE):
            pieces.append(audio[start : start + PIECE])
            speakers.append(file.parent.name)
    return wholes, pieces, speakers


def embed(name: str, audios: list[Vectors]) -> Vectors:
    """Embeddings by the encoder of that name, float32[n, 256]."""
    encoder = KINDS[name](1)
    groups = [audios[first : first + GROUP] for first in range(0, len(audios), GROUP)]
    return np.concatenate([encoder.embed_batch(group) for group in groups])


def nearness(embeddings: dict[str, Vectors], name: str) -> dict[str, float]:
    """Most and mean of 1 - cosine with Resemblyzer's."""
    return spread(embeddings[name], embeddings["resemblyzer"])


def grouping(audios: list[Vectors]) -> dict[str, float]:
    """How much what is embedded together changes an embedding of 8 bits."""
    encoder = OnnxInt8Encoder(1)
    return spread(encoder.embed_batch(audios), np.stack([encoder.embed(audio) for audio in audios]))


def spread(some: Vectors, others: Vectors) -> dict[str, float]:
    """Most and mean of 1 - cosine of unit vectors, row by row."""
    apart = 1.0 - np.einsum("nd,nd->n", some, others, dtype=np.float64)
    return {"max": float(apart.max()), "mean": float(apart.mean())}


def recognized(enrolled: Vectors, asked: Vectors, speakers: list[str]) -> dict[str, float]:
    """Rank-1 and equal error rate of all pieces but each speaker's first, which is enrolled."""
    names = np.array(speakers)
    first = np.array(sorted({name: place for place, name in reversed([*enumerate(speakers)])}.values()))
    rest = np.setdiff1d(np.arange(len(names)), first)
    scores = asked[rest] @ enrolled[first].T
    own = names[rest][:, None] == names[first][None]
    genuine, impostor = np.sort(scores[own]), np.sort(scores[~own])
    refused = np.searchsorted(genuine, genuine, side="left") / len(genuine)
    admitted = 1.0 - np.searchsorted(impostor, genuine, side="left") / len(impostor)
    place = int(np.argmin(np.abs(refused - admitted)))
    return {
        "probes": len(rest),
        "speakers": len(first),
        "rank_1": float((names[first][scores.argmax(axis=1)] == names[rest]).mean()),
        "equal_error_rate": float((refused[place] + admitted[place]) / 2),
        "mean_own_score": float(genuine.mean()),
        "mean_best_other_score": float(np.where(own, -1.0, scores).max(axis=1).mean()),
    }


def speed(file: Path) -> dict[str, dict[str, float]]:
    """Least processor time of a partial, in ms."""
    mels = next(partials(TrimmedSpeech(np.tile(load_audio(file)[0], 3)), 12))
    rows = {}
    for name, network in {"onnx": Network.load(), "onnx-int8": Network.load(int8=True)}.items():
        rows[name] = {str(n): round(least(network, mels[:n]) / n, 2) for n in (1, 2, 3, 4, 6, 12)}
    return rows


def least(network: Network, mels: Vectors) -> float:
    """Of ten runs."""
    times = []
    for _ in range(10):
        start = time.thread_time()
        network.embed(mels)
        times.append(time.thread_time() - start)
    return 1e3 * min(times)


if __name__ == "__main__":
    sys.exit(main())
