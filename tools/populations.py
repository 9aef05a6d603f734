"""The embeddings of several populations of speakers, over several lines, as the product computes them.

Each has other people, rooms and microphones, so that a fit to some can be measured on another:

    train       LibriSpeech train-clean-100, 109 speakers, one recording each: enrollment and probe are of ONE
                SESSION, which is easier than real calls
    other       LibriSpeech test-other, 10 speakers, several utterances of one chapter: one session too
    chapters    LibriSpeech test-clean, 21 speakers, 15 of them with several chapters: other days or rooms
    mobile      speechocean762, 125 speakers, half of them children, on mobile phones, one session
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint import VoiceFingerprintConfig, VoiceprintError
from voiceprint.audio import Recording, load_audio, to_mono
from voiceprint.audio.simulate import Condition
from voiceprint.embedder import Embedder
from voiceprint.encoder import default_encoder
from voiceprint.enrollment.augmentation import PlannedAugmentation, augmentation_plan, augmented_embeddings

Vectors = NDArray[np.float32]
T = TypeVar("T")

LINES: Final = {
    "clean": "as-is",
    "full": "telephone:band=full,snr=20",
    "narrow": "telephone:snr=20",
    "noise": "noise:snr=10",
}
KINDS: Final = ("plain", "best", "augmented")
PIECE_S: Final = 5
LONG_S: Final = 10
MOST_PIECES: Final = 8  # of 5 s, of one session; half as many of 10 s
WORKERS: Final = 2
_RATE: Final = 16_000
_DIMENSION: Final = 256


class Piece(NamedTuple):
    """The source of a piece of speech. start_s: within the session's recordings, one after the other."""

    population: str
    speaker: str
    session: str
    start_s: int
    seconds: int


@dataclass(frozen=True)
class Population:
    """The pieces of several speakers.

    vectors: of each line, float32[pieces, 3, d]: plain embedding, embedding of the cleaned audio, and
        augmented print (`KINDS`); NaN where absent.
    """

    name: str
    pieces: tuple[Piece, ...]
    vectors: dict[str, Vectors] = field(repr=False)

    @property
    def speakers(self) -> list[str]:
        """Their names, sorted."""
        return sorted({piece.speaker for piece in self.pieces})


class Session(NamedTuple):
    """The recordings of a speaker's session."""

    population: str
    speaker: str
    name: str
    files: list[Path]


def add_recordings(parser: ArgumentParser) -> None:
    """Add the arguments of `populations` to a command line."""
    parser.add_argument("data", type=Path, help="the folder with librispeech, librispeech-sessions, ...")
    parser.add_argument("--cache", type=Path, help="file for the embeddings, written if absent")


def populations(data: Path, cache: Path | None = None) -> dict[str, Population]:
    """All populations of a folder, read from the cache if it exists, else embedded by two processes."""
    if cache is not None and cache.exists():
        return read(cache)
    # Spawned, as the libraries of a parent with threads do not survive a fork.
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        found = of_rows(row for rows in pool.map(embed_session, sessions(data)) for row in rows)
    if cache is not None:
        write(found, cache)
    return found


def sessions(data: Path) -> Iterator[Session]:
    """The sessions of all populations of a folder."""
    libri = data / "librispeech"
    for speaker in _folders(libri / "train-clean-100"):
        yield Session("train", speaker.name, "1", sorted(speaker.glob("*.flac"))[:1])
    for speaker in _folders(libri / "test-other"):
        yield Session("other", speaker.name, "1", sorted(speaker.glob("*.flac")))
    for speaker in _folders(data / "librispeech-sessions"):
        for chapter in _folders(speaker):
            yield Session("chapters", speaker.name, chapter.name, sorted(chapter.glob("*.flac")))
    for speaker in _folders(data / "speechocean762"):
        yield Session("mobile", speaker.name, "1", sorted(speaker.glob("*.flac")))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


Row = tuple[Piece, dict[str, Vectors]]


def embed_session(session: Session) -> list[Row]:
    """Cut the recordings of a session into pieces, and embed each over every line."""
    audio = np.concatenate([to_mono(*load_audio(path)) for path in session.files])
    rows = []
    for seconds in (PIECE_S, LONG_S) if session.population == "chapters" else (PIECE_S,):
        count = min(len(audio) // (seconds * _RATE), MOST_PIECES * PIECE_S // seconds)
        for number in range(count):
            audio_of_piece = audio[number * seconds * _RATE : (number + 1) * seconds * _RATE]
            piece = Piece(session.population, session.speaker, session.name, number * seconds, seconds)
            rows.append((piece, {line: embed_piece(audio_of_piece, line) for line in LINES}))
    return rows


def embed_piece(audio: NDArray[np.float32], line: str) -> Vectors:
    """The embeddings of a piece over a line, float32[3, d] in the order of `KINDS`.

    NaN where absent: no speech is left, or the augmented print of noisy speech, which is slow to compute and
    which nobody enrolls.
    """
    # The quality gate is open: scores are judged here, not the gate before them.
    encoder = default_encoder()
    embedder = Embedder(encoder, VoiceFingerprintConfig(min_audio_quality=0.0))
    carried = Recording.from_buffer(Condition.parse(LINES[line]).apply(audio))
    vectors = np.full((len(KINDS), _DIMENSION), np.nan, dtype=np.float32)
    try:
        probe = embedder.probe(carried)
    except VoiceprintError:  # the piece is silent over this line, or has less than a second of speech
        return vectors
    vectors[0], vectors[1] = probe.plain, probe.best
    if line != "noise":
        plan = augmentation_plan(encoder, carried.quality)
        augmented = augmented_embeddings(encoder, [PlannedAugmentation(carried, probe.plain, plan)])[0]
        if augmented is not None:
            vectors[2] = augmented
    return vectors


def of_rows(rows: Iterable[Row]) -> dict[str, Population]:
    """The populations of embedded pieces."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row[0].population, []).append(row)
    return {
        name: Population(
            name,
            tuple(piece for piece, _ in own),
            {line: np.stack([vectors[line] for _, vectors in own]) for line in LINES},
        )
        for name, own in by_name.items()
    }


def write(found: dict[str, Population], cache: Path) -> None:
    """Write the embeddings to a file."""
    pieces = [tuple(map(str, piece)) for one in found.values() for piece in one.pieces]
    vectors = {line: np.concatenate([one.vectors[line] for one in found.values()]) for line in LINES}
    with cache.open("wb") as file:
        np.savez(file, allow_pickle=False, pieces=np.array(pieces), **vectors)


def read(cache: Path) -> dict[str, Population]:
    """Read the file of `write`."""
    with np.load(cache) as arrays:
        vectors = {line: arrays[line] for line in LINES}
        pieces = [
            Piece(population, speaker, session, int(start_s), int(seconds))
            for population, speaker, session, start_s, seconds in arrays["pieces"].tolist()
        ]
    return of_rows((piece, {line: vectors[line][row] for line in LINES}) for row, piece in enumerate(pieces))


def but(found: Mapping[str, T], name: str) -> list[T]:
    """The values of all populations except one."""
    return [value for other, value in found.items() if other != name]


def finite(vectors: Vectors) -> NDArray[np.bool_]:
    """The mask of the embeddings that are present: bool[...] of float32[..., d]."""
    return np.asarray(np.isfinite(vectors).all(axis=-1))
