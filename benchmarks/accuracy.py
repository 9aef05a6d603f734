"""How sure are the answers, on speakers who were not fitted to?

    python benchmarks/accuracy.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

A caller is enrolled from one piece of 5 s and probed with another, as the product does it: the llr is of
audio without noise and counts the second print; the cosine is of the plain embeddings. Half of the speakers
are fitted to, the other half is enrolled and probed, and then the reverse, for several halvings: the
calibration that ships was fitted to all of them, and is not used here. Intervals are over speakers.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple

import numpy as np
from accuracy_pieces import DURATIONS_S, HEARD, QUALITY, SPOILT, all_pieces
from accuracy_plots import PLOTS
from accuracy_probability import probability
from accuracy_rates import PAIRS, ratios, targets
from fit_gallery_model import PIECE_S
from generated_galleries import generated
from held_out import backend_of, draws, halves, pieces_of
from numpy.typing import NDArray
from plot_files import draw
from results_file import keep

from voiceprint.evaluation import metrics
from voiceprint.evaluation.bootstrap import bootstrap_all, rule_of_three
from voiceprint.evaluation.curves import det_curve
from voiceprint.evaluation.scoring import COSINE_THRESHOLD
from voiceprint.scoring import Backend, Pieces

HALVINGS = 3
FPIR = 0.05
WORTHLESS = 0.05  # quality score
RESAMPLES = 500

Scores = NDArray[np.float64]
Fitted = list[tuple[Backend, Pieces]]


class Searches(NamedTuple):
    """Scores of the own caller and of the best other one, and the speaker of each probe."""

    own: Scores
    best: Scores
    speakers: NDArray[np.int64]


def main() -> int:
    """Embed, fit, measure, and keep the figures."""
    pieces = pieces_of(__doc__, all_pieces)
    fitted = [(backend_of(train), test) for train, test in halves(pieces, HALVINGS)]
    figures: dict[str, Any] = {
        "pieces": len(pieces.speakers),
        "speakers": len(np.unique(pieces.speakers)),
        "gallery": len(np.unique(fitted[0][1].speakers)),
        "halvings": HALVINGS,
        "fpir": FPIR,
        "pairs": conditions(fitted),
        "durations": durations(fitted),
        "quality": quality(fitted),
        "probability": probability(fitted),
        "targets": targets(pieces, HALVINGS),
    }
    print("\nGenerated galleries")
    lines = (("clean plain", "clean best"), ("clean plain", "full best"), ("clean plain", "narrow best"))
    figures |= generated(pieces, pairs=lines)
    path = keep("accuracy", figures)
    draw(path, PLOTS)
    print(f"\nRaw figures: benchmarks/results/{path.name}")
    return 0


def cosines(test: Pieces, enrolled: str, probe: str) -> Scores:
    """Cosine of every probe with every piece as enrolled, both as they come."""
    return np.asarray(
        test.vectors[f"{probe} plain"].astype(np.float64) @ test.vectors[f"{enrolled} plain"].T, np.float64
    )


def searched(scores: Scores, test: Pieces, number: int, usable: NDArray[np.bool_] | None = None) -> Searches:
    """Searches of galleries of one piece a speaker, with another piece of each."""
    own, best, speakers = [], [], []
    for enrolled, probes in draws(test.speakers, number):
        drawn = scores[np.ix_(probes, enrolled)].copy()
        true = np.diag(drawn).copy()
        np.fill_diagonal(drawn, -np.inf)
        kept = np.ones(len(probes), dtype=bool) if usable is None else usable[probes]
        own.append(true[kept])
        best.append(drawn.max(axis=1)[kept])
        speakers.append(test.speakers[probes][kept])
    return Searches(np.concatenate(own), np.concatenate(best), np.concatenate(speakers))


def measured(found: list[Searches]) -> dict[str, Any]:
    """Rank-1, and FNIR at the FPIR of 5 % and 1 %, each with its interval."""
    own, best, speakers = (np.concatenate(column) for column in zip(*found, strict=True))
    _, speakers = np.unique(speakers, return_inverse=True)
    count, first = int(speakers.max()) + 1, own > best

    def rates(drawn: NDArray[np.float64]) -> list[float]:
        weights = drawn[speakers]
        rank = float(np.average(first, weights=weights))
        limits = [metrics.threshold_at_fpir(best, rate, weights) for rate in (FPIR, 0.01)]
        return [rank, *(metrics.fnir(own, first, limit, weights) for limit in limits)]

    values = rates(np.ones(count))
    intervals = bootstrap_all(rates, count, resamples=RESAMPLES)
    row = {}
    for name, value, interval in zip(("rank_1", "fnir_5", "fnir_1"), values, intervals, strict=True):
        low, high = rule_of_three(interval, value, count) or (value, value)
        row[name] = [round(float(one), 4) for one in (value, low, high)]
    return row


def conditions(fitted: Fitted) -> list[dict[str, Any]]:
    """The bars: each pair of conditions, by cosine and by llr, with verification."""
    heads = ("rank-1", "FNIR 5 %", "FNIR 1 %", "EER", "Cllr")
    print(f"{'enrolment > probe':22}{'score':8}" + "".join(f"{head:>10}" for head in heads))
    rows = []
    for pair in PAIRS:
        for kind in ("cosine", "llr"):
            found, targets_, impostors = [], [], []
            for number, (backend, test) in enumerate(fitted):
                probes = test.vectors[f"{pair[1]} best"]
                scores = cosines(test, *pair) if kind == "cosine" else ratios(backend, test, pair[0], probes)
                found.append(searched(scores, test, number))
                targets_.append(scores[test.targets()])
                impostors.append(scores[test.speakers[:, None] != test.speakers])
            trials = np.concatenate(targets_), np.concatenate(impostors)
            made = metrics.Trials(*trials)
            row: dict[str, Any] = {"enrolment": pair[0], "probe": pair[1], "score": kind} | measured(found)
            row |= {"eer": round(made.eer(), 4), "min_cllr": round(made.min_cllr(), 4)}
            if kind == "llr":
                row["cllr"] = round(metrics.cllr(*trials), 4)
            else:
                row["at_threshold"] = at_default_threshold(found)
            row["det"] = [[round(x, 5), round(y, 5)] for x, y in det_curve(made.det())]
            print(
                f"{' > '.join(pair):22}{kind:8}{row['rank_1'][0]:10.3f}{row['fnir_5'][0]:10.3f}"
                f"{row['fnir_1'][0]:10.3f}{row['eer']:10.4f}{row.get('cllr', float('nan')):10.3f}",
                flush=True,
            )
            rows.append(row)
    return rows


def at_default_threshold(found: list[Searches]) -> dict[str, float]:
    """What the cosine of the settings does: who gets a name without being enrolled, and who is missed."""
    own, best, _ = (np.concatenate(column) for column in zip(*found, strict=True))
    return {
        "threshold": COSINE_THRESHOLD,
        "fpir": round(metrics.fpir(best, COSINE_THRESHOLD), 4),
        "fnir": round(metrics.fnir(own, own > best, COSINE_THRESHOLD), 4),
    }


def durations(fitted: Fitted) -> list[dict[str, Any]]:
    """Clean enrolment of 5 s, and probes of other durations."""
    print("\nseconds of the probe: rank-1, FNIR at FPIR 5 %")
    rows = []
    for name in HEARD:
        for seconds in sorted((*DURATIONS_S, PIECE_S)):
            found = []
            for number, (backend, test) in enumerate(fitted):
                probes = test.vectors[f"{name} best" if seconds == PIECE_S else f"{name}, {seconds} s"]
                usable = np.isfinite(probes).all(axis=1)
                scores = np.full((len(probes), len(probes)), -np.inf)
                scores[usable] = ratios(backend, test, "clean", probes[usable])
                if seconds > PIECE_S:  # the second half of the probe must not be the enrolment
                    scores[np.arange(len(probes) - 1), np.arange(1, len(probes))] = -np.inf
                found.append(searched_apart(scores, test, number, usable, apart=seconds > PIECE_S))
            row = {"probe": name, "seconds": seconds, "probes": sum(len(one.own) for one in found)}
            row |= measured(found)
            rows.append(row)
            print(f"{name:10}{seconds:4} s  {row['rank_1']}  {row['fnir_5']}", flush=True)
    return rows


def searched_apart(
    scores: Scores, test: Pieces, number: int, usable: NDArray[np.bool_], *, apart: bool
) -> Searches:
    """`searched`, without the searches of a probe for the piece that it holds itself."""
    found = searched(scores, test, number, usable)
    kept = np.isfinite(found.own) if apart else np.ones(len(found.own), dtype=bool)
    return Searches(*(column[kept] for column in found))


def quality(fitted: Fitted) -> dict[str, Any]:
    """FNIR of probes of all qualities at the threshold for them all: of those that are all but worthless, and
    of tenths of the others by their quality score."""
    own, best, scores = [], [], []
    for number, (backend, test) in enumerate(fitted):
        for version in range(SPOILT):
            probes, score = test.vectors[f"spoilt {version}"], test.vectors[f"{QUALITY} {version}"][:, 0]
            usable = np.isfinite(probes).all(axis=1)
            llr = np.full((len(probes), len(probes)), -np.inf)
            llr[usable] = ratios(backend, test, "clean", probes[usable])
            for enrolled, drawn in draws(test.speakers, number):
                some = llr[np.ix_(drawn, enrolled)].copy()
                own.append(np.diag(some).copy())
                np.fill_diagonal(some, -np.inf)
                best.append(some.max(axis=1))
                scores.append(score[drawn])
    true, other, marks = (np.concatenate(one) for one in (own, best, scores))
    limit = metrics.threshold_at_fpir(np.where(np.isfinite(other), other, -1e9), FPIR)
    missed = (true < limit) | (true <= other)
    rows = []
    print("\nquality of the probe: FNIR at FPIR 5 %, share of strangers named")
    order = np.argsort(marks, kind="stable")
    worthless = int((marks < WORTHLESS).sum())
    for part in (order[:worthless], *np.array_split(order[worthless:], 10)):
        low, high = float(marks[part].min()), float(marks[part].max())
        fnir, fpir = float(missed[part].mean()), float((other[part] >= limit).mean())
        rows.append(
            {"from": round(low, 3), "to": round(high, 3), "fnir": round(fnir, 4), "fpir": round(fpir, 4)}
        )
        print(f"{low:6.2f} to {high:4.2f}  {fnir:6.3f}  {fpir:6.3f}")
    passed = marks >= 0.6
    return {
        "deciles": rows,
        "passed": round(float(passed.mean()), 4),
        "fnir_of_passed": round(float(missed[passed].mean()), 4),
        "fnir_of_refused": round(float(missed[~passed].mean()), 4),
    }


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(main())
