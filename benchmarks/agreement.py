"""From which agreement does a new voiceprint sound like the caller's others, and which prints are copies?

    python benchmarks/agreement.py DATA [--cache FILE]      DATA/librispeech-sessions, DATA/speechocean762

Pieces of 5 s (and 10 s, of sessions) are enrolled as they are and over simulated lines. A new print is
compared with one or two others of one session of its caller: of another session where the set has several,
else of the same, which flatters. False alarm: a print of the caller below the limit. Detection: a print of
another caller below it. Copies: the cosine of a piece with itself encoded once more, or with the next piece.
"""

from __future__ import annotations

import argparse
import io
import logging
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from results_file import keep

from voiceprint import (
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    VoiceFingerprintConfig,
    Voiceprint,
    preprocess_audio,
)
from voiceprint.audio.io import g711
from voiceprint.audio.simulate import Condition
from voiceprint.enrollment.agreement import ALIKE, SAME_RECORDING, agreement
from voiceprint.errors import VoiceprintError

RATE = 16_000
LINES = {
    "clear": Condition(),
    "narrow": Condition("telephone"),
    "noisy": Condition("telephone", 20.0, "full"),
}
PAIRS = [
    ("clear", "clear"), ("narrow", "narrow"), ("noisy", "noisy"), ("clear", "narrow"), ("narrow", "clear"),
    ("clear", "noisy"), ("narrow", "noisy"),
]  # fmt: skip
LIMITS = (0.55, 0.6, 0.65, 0.7, 0.75)


class Piece(NamedTuple):
    """An enrolled piece of a recording."""

    population: str
    speaker: str
    session: str
    seconds: int
    line: str
    voiceprint: Voiceprint


def recordings(data: Path) -> Iterator[tuple[str, str, str, Any]]:
    """Population, speaker, session and audio."""
    for chapter in sorted((data / "librispeech-sessions").glob("*/*/")):
        yield "sessions", chapter.parent.name, chapter.name, _read(chapter)
    for speaker in sorted((data / "speechocean762").glob("*/")):
        yield "mobile", speaker.name, "", _read(speaker)


def _read(folder: Path) -> Any:
    return np.concatenate(
        [soundfile.read(file, dtype="float32")[0] for file in sorted(folder.glob("*.flac"))]
    )


def pieces(data: Path) -> Iterator[Piece]:
    """Two or three pieces of each recording, over each line."""
    config = VoiceFingerprintConfig(min_audio_quality=0.0, encoder_threads=1)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    for population, speaker, session, audio in recordings(data):
        cuts = [(5, 0), (5, 5), (5, 10)] + ([(10, 0), (10, 10)] if population == "sessions" else [])
        for seconds, start in cuts:
            piece = audio[start * RATE : (start + seconds) * RATE]
            if len(piece) < seconds * RATE:
                continue
            for name, line in LINES.items():
                try:
                    one = recognizer.enroll_caller(
                        f"{speaker} {session} {seconds} {start} {name}", line.apply(piece, 3)
                    )
                except VoiceprintError:
                    continue
                yield Piece(population, speaker, session, seconds, name, one)


def every_piece(description: str | None) -> list[Piece]:
    """Of the folder on the command line; enrolled once where --cache names a file."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, help="a file that keeps the voiceprints")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.cache and arguments.cache.exists():
        return [Piece(*fields) for fields in pickle.loads(arguments.cache.read_bytes())]
    every = [*pieces(arguments.data)]
    if arguments.cache:
        arguments.cache.write_bytes(pickle.dumps([tuple(piece) for piece in every]))
    return every


def scores(found: list[Piece], others: int) -> tuple[Any, Any]:
    """Agreement of each new print with its caller's others, and of strangers with them."""
    own, strangers = [], []
    old_line, new_line = found[0].line, found[-1].line
    groups: dict[tuple[str, str], list[Piece]] = {}
    for piece in found:
        if piece.line == old_line:
            groups.setdefault((piece.speaker, piece.session), []).append(piece)
    new = [piece for piece in found if piece.line == new_line]
    sessions = found[0].population == "sessions"
    for (speaker, session), group in groups.items():
        if len(group) < others:
            continue
        enrolled = [piece.voiceprint for piece in group[:others]]
        for piece in new:
            if piece.speaker != speaker:
                strangers.append(_agreement(piece, enrolled))
            elif piece.session != session or not (sessions or _start(piece) in map(_start, group[:others])):
                own.append(_agreement(piece, enrolled))
    return np.array(own), np.array(strangers)


def _start(piece: Piece) -> str:
    return piece.voiceprint.caller_id.split()[-2]


def _agreement(piece: Piece, enrolled: list[Voiceprint]) -> float:
    one = piece.voiceprint
    return agreement(np.stack([v for v in (one.embedding, one.augmented) if v is not None]), enrolled)


def copies(data: Path) -> dict[str, list[float]]:
    """The cosine of pieces with copies of themselves, and with the piece that follows."""
    config = VoiceFingerprintConfig(encoder_threads=1)
    embed = OpusAgentVoiceRecognizer(MemoryStorage(), config=config).get_embedding
    found: dict[str, list[float]] = {}
    for population, _, _, audio in recordings(data):
        line = preprocess_audio(audio[: 5 * RATE], RATE)[::2]
        mulaw = _g711(line, "mulaw")
        pairs = {
            "WAV": (embed(audio[: 5 * RATE]), embed(_as_file(audio[: 5 * RATE], "WAV"))),
            "OGG": (embed(audio[: 5 * RATE]), embed(_as_file(audio[: 5 * RATE], "OGG"))),
            "mu-law once more": (
                embed(mulaw, sample_rate=8000),
                embed(_g711(mulaw, "mulaw"), sample_rate=8000),
            ),
            "mu-law to A-law": (
                embed(mulaw, sample_rate=8000),
                embed(_g711(mulaw, "alaw"), sample_rate=8000),
            ),
            "half the volume": (embed(audio[: 5 * RATE]), embed(audio[: 5 * RATE] / 2)),
            "0.1 s cut off": (embed(audio[: 5 * RATE]), embed(audio[RATE // 10 : 5 * RATE])),
        }
        for seconds in (5, 10, 20):
            end = seconds * RATE
            if len(audio) >= 2 * end * 0.95 and (seconds == 5 or population == "sessions"):
                for line in ("clear", "narrow"):
                    heard = LINES[line].apply(audio, 3)
                    pairs[f"the next {seconds} s, {line}"] = embed(heard[:end]), embed(heard[end : 2 * end])
        for name, (one, other) in pairs.items():
            found.setdefault(name, []).append(float(one @ other))
    return found


def _as_file(audio: Any, format_: str) -> Any:
    file = io.BytesIO()
    soundfile.write(file, audio, RATE, format=format_)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def _g711(line: Any, law: g711.Law) -> Any:
    samples = (np.clip(line, -1, 1) * 32767).astype(np.int16)
    return (g711.decode(g711.encode(samples, law), law) / 32768).astype(np.float32)


def main() -> int:
    """Enroll, compare, and keep the figures."""
    every = every_piece(__doc__)
    rows = []
    for population, seconds in (("sessions", 5), ("sessions", 10), ("mobile", 5)):
        of_set = [one for one in every if (one.population, one.seconds) == (population, seconds)]
        for old, new in PAIRS:
            found = [one for one in of_set if one.line == old] + [
                one for one in of_set if one.line == new and new != old
            ]
            for others in (1, 2):
                own, strangers = scores(found, others)
                rates = {
                    limit: (float(np.mean(own < limit)), float(np.mean(strangers < limit)))
                    for limit in LIMITS
                }
                row = {"set": population, "seconds": seconds, "others": old, "new": new, "prints": others}
                counts = {"own": len(own), "strangers": len(strangers)}
                rows.append(row | counts | {"false_alarm_and_detection": rates})
                shown = "  ".join(f"{limit:g}: {a:6.1%} {d:6.1%}" for limit, (a, d) in rates.items())
                print(
                    f"{population:8} {seconds:2} s  {others} x {old:6} / {new:6}  {len(own):4}  {shown}",
                    flush=True,
                )
    found = copies(Path(sys.argv[1]))
    for name, cosines in found.items():
        shown = ", ".join(f"{share:g}: {np.quantile(cosines, share):.4f}" for share in (0.0, 0.1, 0.5, 1.0))
        print(f"{name:24} {len(cosines):4} quantiles {shown}")
    figures = {"limit": ALIKE, "rows": rows, "same_recording": SAME_RECORDING, "cosines": found}
    print(f"Limits: {ALIKE:g}, {SAME_RECORDING:g}. Figures: {keep('agreement', figures).name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
