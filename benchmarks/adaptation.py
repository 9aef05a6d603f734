"""How many calls of strangers, and of callers, become voiceprints where `adapt` is set?

    python benchmarks/adaptation.py DATA [--cache FILE]     the data and the cache of benchmarks/agreement.py

Half of the speakers are enrolled with one print of 5 s, the others are strangers, for several draws. The
calls are 5 s on the same line, of another session where the set has several. Confident: the match alone.
Added: and it sounds like the caller's print.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from agreement import LINES, Piece, every_piece
from results_file import keep

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.enrollment.adaptation import confident
from voiceprint.enrollment.agreement import sounds_alike
from voiceprint.identification.pipeline import AcceptanceRule
from voiceprint.identification.ranking import Probe

DRAWS = 3
RULES = {"FPIR 5 %": 0.05, "FPIR 1 %": 0.01}


def draw(pieces: list[Piece], seed: int) -> dict[str, list[tuple[bool, bool, bool, bool]]]:
    """By rule, of each call: of a caller, named rightly, confident, added."""
    chance = np.random.default_rng(seed)
    speakers = sorted({piece.speaker for piece in pieces})
    known = set(chance.permutation(speakers)[: len(speakers) // 2])
    enrolled: dict[str, Piece] = {}
    for piece in pieces:
        if piece.speaker in known:
            enrolled.setdefault(piece.speaker, piece)
    config = VoiceFingerprintConfig(index_path="off")
    found: dict[str, list[tuple[bool, bool, bool, bool]]] = {name: [] for name in RULES}
    with OpusAgentVoiceRecognizer(MemoryStorage(), config=config) as recognizer:
        for speaker, piece in enrolled.items():
            recognizer.storage.save(
                piece.voiceprint.model_copy(update={"caller_id": speaker, "id": None, "revision": None})
            )
        matcher = recognizer._matcher
        for piece in pieces:
            own = enrolled.get(piece.speaker)
            if own is not None and (piece is own or (piece.session and piece.session == own.session)):
                continue
            probe = Probe(piece.voiceprint.embedding)
            for name, target in RULES.items():
                matches = matcher.nearest(probe, 1, AcceptanceRule(0.75, target), None)
                best = enrolled[matches[0].caller_id].voiceprint
                sure = confident(matches, target)
                right = matches[0].caller_id == piece.speaker
                found[name].append((own is not None, right, sure, sure and sounds_alike(probe.plain, [best])))
    return found


def main() -> int:
    """Enroll, match, and keep the figures."""
    every = every_piece(__doc__)
    rows: list[dict[str, Any]] = []
    for population in ("sessions", "mobile"):
        for line in LINES:
            pieces = [
                one for one in every if (one.population, one.seconds, one.line) == (population, 5, line)
            ]
            draws = [draw(pieces, seed) for seed in range(DRAWS)]
            for name in RULES:
                calls = np.array([call for found in draws for call in found[name]])
                strangers, own = calls[~calls[:, 0]], calls[calls[:, 0]]
                row = {
                    "set": population, "line": line, "rule": name,
                    "strangers": len(strangers), "own": len(own),
                    "strangers_confident": float(strangers[:, 2].mean()),
                    "strangers_added": float(strangers[:, 3].mean()),
                    "own_added": float((own[:, 1] & own[:, 3]).mean()),
                    "added_to_another": float((~own[:, 1] & own[:, 3]).mean()),
                }  # fmt: skip
                rows.append(row)
                print(
                    f"{population:8} {line:6} {name:11}  strangers {row['strangers_confident']:.3f} "
                    f"confident, {row['strangers_added']:.3f} added; own {row['own_added']:.3f} added, "
                    f"{row['added_to_another']:.3f} to another",
                    flush=True,
                )
    print(f"Figures: {keep('adaptation', {'rows': rows}).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
