"""What would find more of the callers who are missed? Refinements of the scoring that ships, one by one.

    python benchmarks/refinements.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

As robust_scoring.py: a caller is enrolled from one piece of 5 s, with the second print of two simulated
lines, and probed with another; half of the speakers are fitted to, the other half is measured, and the
reverse, for four halvings. FNIR is at the FPIR of 5 %, the mean over the halves; its deviation is that
between halvings. First the ways of raising the lows of a line, then the scorings, with the way that ships.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from fit_scoring import CLEAN, LINE, REDUCED
from held_out import HALVINGS, draws, found, halves, pieces_of, rank_and_fnir
from refinement_pieces import NONE, RECTIFIED, SHIPPED, WAYS, all_pieces
from refinement_scorings import (
    COMBINED,
    Fit,
    cosine,
    fused,
    length_normed,
    normed,
    plda,
    unit,
    without_channel,
)
from results_file import keep

from voiceprint.scoring import Pieces

CLEAR = "clear"
PAIRS = (
    (CLEAR, CLEAR), (CLEAR, "full 1"), ("full 1", CLEAR), ("full 1", "full 2"), (CLEAR, "narrow 1"),
    ("narrow 1", "narrow 2"), ("narrow 1", CLEAR), ("full 1", "narrow 1"), ("narrow 1", "full 1"),
    (CLEAR, "loud 1"), (CLEAR, "narrow A-law 15 dB 1"),
)  # fmt: skip
SHRINKAGES = ((0.7, 0.3), (0.7, 0.5), (0.7, 0.7), (0.8, 0.6), (0.85, 0.5), (0.85, 0.7), (0.9, 0.7))
POWERS = (0.85, 0.75, 0.7, 0.5)
BEST = (0.7, 0.5, 0.75)  # what ships


def main() -> int:
    """Embed, compare, and keep the figures."""
    pieces = pieces_of(__doc__, all_pieces)
    print(f"{'rank-1 / FNIR at FPIR 5 %':60}" + "".join(f"{' > '.join(pair)[:18]:>20}" for pair in PAIRS))
    rows = []
    for way in (NONE, *WAYS, RECTIFIED):
        world = heard_by(pieces, way)
        for scoring in ((0.7, 0.3, 1.0), BEST):
            name = "PLDA {} {}, power {}".format(*scoring)
            rows.append(row(world, plda(*scoring), way, name))
    world = heard_by(pieces, SHIPPED)
    for name, fit in scorings(world).items():
        rows.append(row(world, fit, SHIPPED, name))
    figures = {
        "pieces": len(pieces.speakers),
        "speakers": len(np.unique(pieces.speakers)),
        "halvings": HALVINGS,
        "rows": rows,
    }
    print(f"\nRaw figures: benchmarks/results/{keep('refinements', figures).name}")
    return 0


def scorings(world: Pieces) -> dict[str, Fit]:
    """All that were tried."""
    tried: dict[str, Fit] = {"cosine, better of both": cosine(), "cosine, plain print": cosine("plain alone")}
    tried |= {f"PLDA {one[0]} {one[1]}": plda(*one) for one in SHRINKAGES}
    tried |= {f"PLDA 0.7 0.5, power {power}": plda(0.7, 0.5, power) for power in POWERS}
    tried |= {f"PLDA 0.7 0.3, power {power}": plda(0.7, 0.3, power) for power in POWERS}
    tried |= {f"shipped PLDA, {how} of both prints": plda(*BEST, how) for how in COMBINED}
    tried |= {
        f"shipped PLDA and {weight} times the cosine": fused(plda(*BEST), weight) for weight in (25, 50)
    }
    tried |= {
        f"whitened by {1 - share:.1f}, length 1, PLDA 0.7 0.5": length_normed(0.7, 0.5, 1.0, share)
        for share in (0.3, 0.5, 0.7, 0.9)
    }
    return tried | {
        "whitened by 0.3, length 1, PLDA 0.7 0.5, power 0.75": length_normed(*BEST, 0.7),
        "shipped PLDA, s-norm": normed(plda(*BEST)),
        "shipped PLDA, s-norm by the nearest 100": normed(plda(*BEST), 100),
        "channel shifts taken off, PLDA 0.7 0.5": without_channel(0.7, 0.5, world),
    }


def heard_by(pieces: Pieces, way: str) -> Pieces:
    """What is fitted to, and of each condition the plain, the second print and the probe, lows raised so."""
    given = pieces.vectors
    raised = {
        name.removeprefix(f"{way}: "): made for name, made in given.items() if name.startswith(f"{way}: ")
    }
    vectors = {CLEAN: given[CLEAN], REDUCED: given[REDUCED]} | {name: raised[name] for name in LINE}
    second = unit(given[CLEAN] + raised["full 3"] + raised["narrow 3"]).astype(np.float32)
    vectors |= {f"{CLEAR}, plain": given[CLEAN], f"{CLEAR}, second": second, f"{CLEAR}, probe": given[CLEAN]}
    for name in ("full 1", "narrow 1"):
        vectors |= {f"{name}, plain": given[name], f"{name}, second": raised[name]}
    vectors |= {f"{name}, probe": made for name, made in raised.items() if name not in LINE}
    return Pieces(vectors, pieces.speakers)


def row(world: Pieces, fit: Fit, way: str, name: str) -> dict[str, Any]:
    """Rank-1, FNIR and its deviation of every pair."""
    each: dict[tuple[str, str], list[list[float]]] = {pair: [] for pair in PAIRS}
    for number, (train, test) in enumerate(halves(world)):
        score, heard = fit(train), test.vectors
        drawn = list(draws(test.speakers, number))
        for pair in PAIRS:
            prints = (heard[f"{pair[0]}, {kind}"] for kind in ("plain", "second"))
            scores = score(*prints, heard[f"{pair[1]}, probe"])
            searches = [found(scores[np.ix_(*one)]) for one in drawn]
            own, best = (np.concatenate(column) for column in zip(*searches, strict=True))
            each[pair].append(rank_and_fnir(own, best))
    made: dict[str, Any] = {"lows": way, "scoring": name}
    for pair, rates in each.items():
        rank, fnir, _ = np.mean(rates, axis=0)
        spread = np.array(rates)[:, 1].reshape(HALVINGS, 2).mean(axis=1).std()
        values = (round(float(value), 4) for value in (rank, fnir, spread))
        made[" > ".join(pair)] = dict(zip(("rank_1", "fnir_5", "fnir_deviation"), values, strict=True))
    cells = (
        f"{made[' > '.join(pair)]['rank_1']:.4f} / {made[' > '.join(pair)]['fnir_5']:.4f}" for pair in PAIRS
    )
    print(f"{way + '; ' + name:60}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    return made


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(main())
