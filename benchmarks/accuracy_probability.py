"""Is `Match.probability` as often right as it says, and what does the threshold 0.75 of it do?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from accuracy_rates import PAIRS, ratios
from held_out import draws
from numpy.typing import NDArray

from voiceprint.scoring import Backend, Pieces, probabilities

THRESHOLD: Final = 0.75
BINS: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def probability(fitted: list[tuple[Backend, Pieces]]) -> dict[str, Any]:
    """Half of the calls are of strangers, as the probability takes it: each probe calls once with its caller
    enrolled, and once without."""
    rows, said, true = [], [], []
    print(f"\nprobability >= {THRESHOLD}: FPIR, FNIR, share of the names that are right")
    for pair in PAIRS:
        best, right, known = _calls(fitted, pair)
        named = best >= THRESHOLD
        row = {
            "enrolment": pair[0],
            "probe": pair[1],
            "calls": len(best),
            "fpir": round(float(named[~known].mean()), 4),
            "fnir": round(1.0 - float((named & right)[known].mean()), 4),
            "right_of_named": round(float(right[named].mean()), 4),
        }
        print(
            f"{' > '.join(pair):22}{row['fpir']:8.3f}{row['fnir']:8.3f}{row['right_of_named']:8.3f}",
            flush=True,
        )
        rows.append(row)
        said.append(best)
        true.append(right)
    return {"threshold": THRESHOLD, "pairs": rows, "reliability": _reliability(said, true)}


def _calls(
    fitted: list[tuple[Backend, Pieces]], pair: tuple[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each call the best caller's probability, whether it is the right one, and whether there is one."""
    best, right, known = [], [], []
    for number, (backend, test) in enumerate(fitted):
        scores = ratios(backend, test, pair[0], test.vectors[f"{pair[1]} best"])
        for enrolled, probes in draws(test.speakers, number):
            drawn = scores[np.ix_(probes, enrolled)]
            for place, row in enumerate(drawn):
                for there in (True, False):
                    among = row if there else np.delete(row, place)
                    found = probabilities(among, len(among))
                    best.append(float(found.max()))
                    right.append(there and int(found.argmax()) == place)
                    known.append(there)
    return np.array(best), np.array(right), np.array(known)


def _reliability(said: list[NDArray[np.float64]], true: list[NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """How often the best caller is right where so much is said; all pairs count alike."""
    told, happened = np.concatenate(said), np.concatenate(true)
    rows = []
    print("said: right")
    for low, high in pairwise(BINS):
        within = (told >= low) & ((told < high) | (high == 1.0))
        if within.any():
            mean, share = float(told[within].mean()), float(happened[within].mean())
            row = {"from": low, "to": high, "calls": int(within.sum())}
            rows.append(row | {"said": round(mean, 4), "right": round(share, 4)})
            print(f"{low:5.2f} to {high:4.2f}  {mean:6.3f}  {share:6.3f}")
    return rows
