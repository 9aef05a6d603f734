"""The embeddings of several populations of speakers, over several lines, as the product makes them.

Each has other people, rooms and microphones, so that what is fitted to some can be measured on another:

    train       LibriSpeech train-clean-100, 109 speakers, one recording each: enrollment and probe are of ONE
                SESSION, which is easier than real calls
    other       LibriSpeech test-other, 10 speakers, several utterances of one chapter: one session too
    chapters    LibriSpeech test-clean, 21 speakers, 15 of them with several chapters: other days or rooms
    mobile      speechocean762, 125 speakers, half of them children, on mobile phones, one session
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
T = TypeVar("T")

LINES: Final = {
    "clean": "as-is",
    "full": "telephone:band=full,snr=20",
    "narrow": "telephone:snr=20",
    "noise": "noise:snr=10",
}
KINDS: Final = ("plain", "best", "augmented")
ONE_SESSION: Final = ("train", "other", "mobile")
PIECE_S: Final = 5
LONG_S: Final = 10
MOST_PIECES: Final = 8  # of 5 s, of one session; half as many of 10 s
WORKERS: Final = 2
_RATE: Final = 16_000
_DIMENSION: Final = 256


class Piece(NamedTuple):
    """Where a piece of speech is from. start_s: in the session's recordings, one after the other."""

    population: str
    speaker: str
    session: str
    start_s: int
    seconds: int


@dataclass(frozen=True)
class Population:
    """The pieces of some speakers.

    vectors: of each line, float32[pieces, 3, d]: plain embedding, that of the cleaned audio, and the
        augmented print (`KINDS`); NaN where there is none.
    """

    name: str
    pieces: tuple[Piece, ...]
    vectors: dict[str, Vectors] = field(repr=False)

    @property
    def speakers(self) -> list[str]:
        """Their names, sorted."""
        return sorted({piece.speaker for piece in self.pieces})

    def of(self, speakers: Iterable[str]) -> Population:
        """The same for some of the speakers."""
        chosen = set(speakers)
        rows = [row for row, piece in enumerate(self.pieces) if piece.speaker in chosen]
        vectors = {line: found[rows] for line, found in self.vectors.items()}
        return replace(self, pieces=tuple(self.pieces[row] for row in rows), vectors=vectors)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A command line that takes the recordings and a cache."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with librispeech, librispeech-sessions, ...")
    parser.add_argument("--cache", type=Path, help="a file that keeps the embeddings")
    return parser


def populations(data: Path, cache: Path | None = None) -> dict[str, Population]:
    """All populations of a folder, from the cache where there is one, else embedded by two processes."""
    found = _cached(cache) if cache is not None and cache.exists() else _embedded(sessions(data))
    if cache is not None and not cache.exists():
        _keep(found, cache)
    return found


def sessions(data: Path) -> Iterator[tuple[str, str, str, list[Path]]]:
    """Population, speaker, session, and the files of each session."""
    libri = data / "librispeech"
    for speaker in _folders(libri / "train-clean-100"):
        yield "train", speaker.name, "1", sorted(speaker.glob("*.flac"))[:1]
    for speaker in _folders(libri / "test-other"):
        yield "other", speaker.name, "1", sorted(speaker.glob("*.flac"))
    for speaker in _folders(data / "librispeech-sessions"):
        for chapter in _folders(speaker):
            yield "chapters", speaker.name, chapter.name, sorted(chapter.glob("*.flac"))
    for speaker in _folders(data / "speechocean762"):
        yield "mobile", speaker.name, "1", sorted(speaker.glob("*.flac"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


Session = tuple[str, str, str, list[Path]]
Embedded = list[tuple[Piece, dict[str, Vectors]]]


def _embedded(found: Iterable[Session]) -> dict[str, Population]:
    """Embed the pieces of sessions, which the workers take in turn."""
    # Spawned, as the libraries of a parent that has threads do not survive a fork.
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        rows = [row for some in pool.map(embed_session, found) for row in some]
    return of_rows(rows)


def of_rows(rows: Embedded) -> dict[str, Population]:
    """The populations of embedded pieces."""
    names = dict.fromkeys(piece.population for piece, _ in rows)
    made = {}
    for name in names:
        own = [row for row in rows if row[0].population == name]
        vectors = {line: np.stack([found[line] for _, found in own]) for line in LINES}
        made[name] = Population(name, tuple(piece for piece, _ in own), vectors)
    return made


def embed_session(session: Session) -> Embedded:
    """Cut the recordings of a session into pieces, and embed each over every line."""
    from voiceprint.audio import load_audio, to_mono

    *place, files = session
    audio = np.concatenate([to_mono(*load_audio(path)) for path in files])
    lengths = (PIECE_S, LONG_S) if place[0] == "chapters" else (PIECE_S,)
    rows: Embedded = []
    for seconds in lengths:
        count = min(len(audio) // (seconds * _RATE), MOST_PIECES * PIECE_S // seconds)
        for number in range(count):
            piece = audio[number * seconds * _RATE : (number + 1) * seconds * _RATE]
            where = Piece(place[0], place[1], place[2], number * seconds, seconds)
            rows.append((where, {line: embed_piece(piece, line) for line in LINES}))
    return rows


def embed_piece(audio: NDArray[np.float32], line: str) -> Vectors:
    """What the product makes of the piece over a line, float32[3, d] in the order of `KINDS`.

    NaN where there is nothing: no speech is left, or, as it is slow and nobody enrolls so, an augmented
    print of noisy speech.
    """
    from voiceprint import VoiceFingerprintConfig, VoiceprintError
    from voiceprint.audio import Recording
    from voiceprint.audio.simulate import Condition
    from voiceprint.embedder import Embedder
    from voiceprint.encoder import default_encoder

    # A benchmark judges scores, not the gates before them.
    embedder = Embedder(default_encoder(), VoiceFingerprintConfig(min_audio_quality=0.0))
    carried = Recording.from_buffer(Condition.parse(LINES[line]).apply(audio))
    vectors = np.full((len(KINDS), _DIMENSION), np.nan, dtype=np.float32)
    try:
        probe = embedder.probe(carried)
    except VoiceprintError:
        return vectors
    vectors[0], vectors[1] = probe.plain, probe.best
    if line != "noise":
        wanted = embedder.versions(carried.quality)
        augmented = embedder.embed_simulated([carried], [probe.plain], [wanted])[0]
        if augmented is not None:
            vectors[2] = augmented
    return vectors


def _keep(found: dict[str, Population], cache: Path) -> None:
    rows = [tuple(map(str, piece)) for one in found.values() for piece in one.pieces]
    vectors = {line: np.concatenate([one.vectors[line] for one in found.values()]) for line in LINES}
    with cache.open("wb") as file:
        np.savez(file, allow_pickle=False, pieces=np.array(rows), **vectors)


def _cached(cache: Path) -> dict[str, Population]:
    with np.load(cache) as kept:
        pieces = [
            Piece(population, speaker, session, int(start_s), int(seconds))
            for population, speaker, session, start_s, seconds in kept["pieces"].tolist()
        ]
        vectors = {line: kept[line] for line in LINES}
    rows: Embedded = [
        (piece, {line: found[row] for line, found in vectors.items()}) for row, piece in enumerate(pieces)
    ]
    return of_rows(rows)


def but(found: Mapping[str, T], *names: str) -> list[T]:
    """All populations, or what is of them, but those of some names."""
    return [one for name, one in found.items() if name not in names]


def finite(vectors: Vectors) -> NDArray[np.bool_]:
    """Which embeddings are there: bool[...] of float32[..., d]."""
    return np.asarray(np.isfinite(vectors).all(axis=-1))
