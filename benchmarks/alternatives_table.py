"""The table of all scorings that robust_scoring.py compares, on speakers who were not fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from alternatives import Fit, Score, cosine, mapped, plda
from held_out import draws, found, halves, rank_and_fnir
from scoring_pieces import PLAIN, SIMULATED, WITHOUT_NOISE, short

from voiceprint.scoring import Pieces


def alternatives(pieces: Pieces) -> list[dict[str, Any]]:
    """Rank-1 and FNIR of each, without and with the noise reduced."""
    both = SIMULATED
    raw_both = ("full 3", "narrow 3")
    table: list[tuple[str, Any, Fit]] = [
        ("cosine", PLAIN, cosine()),
        ("cosine, lines averaged at enrolment", PLAIN, cosine(simulated=raw_both)),
        ("cosine, full-band line averaged", PLAIN, cosine(simulated=raw_both[:1])),
        ("cosine, one print a line, max", PLAIN, cosine(simulated=raw_both, how="max")),
        ("cosine, one print a line, mean", PLAIN, cosine(simulated=raw_both, how="mean")),
        ("cosine, centred by channel", PLAIN, mapped("centre")),
        ("WCCN 0.5", PLAIN, mapped("wccn")),
        ("PLDA 0.7 0.3", PLAIN, plda(0.7, 0.3)),
        ("PLDA 0.7 0.3, lines averaged", PLAIN, plda(0.7, 0.3, simulated=raw_both)),
        ("cosine", WITHOUT_NOISE, cosine()),
        ("cosine of square roots", WITHOUT_NOISE, cosine(power=0.5)),
        ("cosine, lines averaged at enrolment", WITHOUT_NOISE, cosine(simulated=both)),
        ("cosine, full-band line averaged", WITHOUT_NOISE, cosine(simulated=both[:1])),
        ("cosine, one print a line, max", WITHOUT_NOISE, cosine(simulated=both, how="max")),
        ("cosine, one print a line, mean", WITHOUT_NOISE, cosine(simulated=both, how="mean")),
        ("cosine, centred by channel", WITHOUT_NOISE, mapped("centre")),
        ("cosine, centred by channel, s-norm", WITHOUT_NOISE, mapped("centre", norm=True)),
        ("WCCN 0.1", WITHOUT_NOISE, mapped("wccn", share=0.1)),
        ("WCCN 0.5", WITHOUT_NOISE, mapped("wccn")),
        ("WCCN 0.5, s-norm", WITHOUT_NOISE, mapped("wccn", norm=True)),
        ("LDA 20", WITHOUT_NOISE, mapped("wccn", dimensions=20)),
        ("LDA 50", WITHOUT_NOISE, mapped("wccn", dimensions=50)),
        ("ridge to the clean embedding", WITHOUT_NOISE, mapped("ridge")),
        *(
            (f"PLDA {within} {between}", WITHOUT_NOISE, plda(within, between))
            for within, between in ((0.1, 0.1), (0.3, 0.1), (0.5, 0.2), (0.7, 0.1), (0.7, 0.3), (0.85, 0.3))
        ),
        ("PLDA 0.7 0.3, 50 dimensions", WITHOUT_NOISE, plda(0.7, 0.3, dimensions=50)),
        ("PLDA 0.7 0.3, 100 dimensions", WITHOUT_NOISE, plda(0.7, 0.3, dimensions=100)),
        ("PLDA 0.7 0.3 of powers 0.7", WITHOUT_NOISE, plda(0.7, 0.3, power=0.7)),
        ("PLDA 0.7 0.3, full-band line averaged", WITHOUT_NOISE, plda(0.7, 0.3, simulated=both[:1])),
        ("PLDA 0.7 0.3, lines averaged", WITHOUT_NOISE, plda(0.7, 0.3, simulated=both)),
        (
            "PLDA 0.7 0.3, better of plain and averaged",
            WITHOUT_NOISE,
            plda(0.7, 0.3, simulated=both, how="better"),
        ),
        (
            "PLDA 0.7 0.5 of powers 0.75, better of both",
            WITHOUT_NOISE,
            plda(0.7, 0.5, simulated=both, how="better", power=0.75),
        ),
    ]  # fmt: skip
    rows, heading = [], None
    for name, pairs, fit in table:
        if pairs is not heading:
            heading = pairs
            print(f"\n{'rank-1 / FNIR at FPIR 5 %':48}" + "".join(f"{short(pair):>17}" for pair in pairs))
        fitted = [fit(train) for train, _ in halves(pieces)]
        row = {" > ".join(pair): measured(pieces, fitted, pair) for pair in pairs}
        print(
            f"{name:48}" + "".join(f"{one['rank_1']:9.3f} / {one['fnir_5']:.3f}" for one in row.values()),
            flush=True,
        )
        rows.append({"scoring": name, "noise_reduced": pairs is WITHOUT_NOISE} | row)
    return rows


def measured(
    pieces: Pieces, fitted: list[Callable[[Pieces], Score]], pair: tuple[str, str]
) -> dict[str, float]:
    """Means over the halves, for which a scoring was `fitted`."""
    rows = []
    for number, (_, test) in enumerate(halves(pieces)):
        everything = np.arange(len(test.speakers))
        scores = fitted[number](test)(pair[0], everything, pair[1], everything)
        each = [found(scores[np.ix_(*drawn)]) for drawn in draws(test.speakers, number)]
        own, best = (np.concatenate(column) for column in zip(*each, strict=True))
        rows.append(rank_and_fnir(own, best))
    return dict(zip(("rank_1", "fnir_5", "fnir_1"), np.round(np.mean(rows, axis=0), 4).tolist(), strict=True))
