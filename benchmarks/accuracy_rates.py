"""The llr of accuracy.py, and how often strangers get a name at the thresholds for a wanted rate."""

from __future__ import annotations

from typing import Any

import numpy as np
from gallery_model import GalleryModel
from generated_galleries import some_generated
from held_out import TARGETS, backend_of, halves
from numpy.typing import NDArray

from voiceprint.evaluation.bootstrap import bootstrap_all, rule_of_three
from voiceprint.scoring import Backend, Pieces

PAIRS = (
    ("clean", "clean"), ("clean", "full"), ("full", "clean"), ("full", "full 2"),
    ("clean", "narrow"), ("narrow", "narrow 2"),
)  # fmt: skip
GALLERIES = (50, 100, 200)
RESAMPLES = 500

Scores = NDArray[np.float64]


def ratios(backend: Backend, test: Pieces, enrolled: str, probes: NDArray[np.float32]) -> Scores:
    """llr of every probe with every piece as enrolled: float64[probes, pieces]."""
    prints, seconds = (list(test.vectors[f"{enrolled} {kind}"][:, None]) for kind in ("plain", "second"))
    return backend.scores(probes, prints, seconds)


def targets(pieces: Pieces, halvings: int) -> list[dict[str, Any]]:
    """Measured FPIR and FNIR at the thresholds for a wanted FPIR.

    Up to half of the speakers nobody in the gallery was fitted to; of 100, as the probe never was, the
    gallery is of all speakers; to 200 it is filled up with generated callers, who are clean, so that this is
    for clean enrolment alone.
    """
    filling = some_generated(GalleryModel.load(), max(GALLERIES), np.random.default_rng(5))[:, None]
    speakers = np.unique(pieces.speakers)
    parts = np.array_split(np.random.default_rng(3).permutation(speakers), 5)
    folds = [(GALLERIES[:1], train, test, test) for train, test in halves(pieces, halvings)]
    folds += [
        (GALLERIES[1:], pieces.of(np.setdiff1d(speakers, part)), pieces.of(part), pieces) for part in parts
    ]
    found: dict[tuple[int, tuple[str, str]], list[tuple[list[bool], list[bool], int]]] = {}
    for number, (sizes, train, test, gallery) in enumerate(folds):
        backend, chance = backend_of(train), np.random.default_rng([6, number])
        for pair in PAIRS:
            probes = test.vectors[f"{pair[1]} best"]
            scores, extra = ratios(backend, gallery, pair[0], probes), backend.scores(probes, list(filling))
            offset = np.flatnonzero(np.isin(gallery.speakers, np.unique(test.speakers)))
            for row, speaker in enumerate(test.speakers):
                others = [
                    int(chance.choice(np.flatnonzero(gallery.speakers == one)))
                    for one in chance.permutation(np.setdiff1d(np.unique(gallery.speakers), speaker))
                ]
                same = [
                    place for place in np.flatnonzero(gallery.speakers == speaker) if place != offset[row]
                ]
                for size in sizes:
                    if size > len(others) and pair[0] != "clean":
                        continue
                    strangers = np.concatenate([scores[row, others], extra[row]])[:size]
                    known = strangers.copy()
                    if len(same):
                        known[-1] = scores[row, chance.choice(same)]
                    named, missed = [], []
                    for target in TARGETS:
                        limit = backend.threshold_for(target, size, backend.standing(strangers))
                        named.append(bool(strangers.max() >= limit))
                        limit = backend.threshold_for(target, size, backend.standing(known))
                        missed.append(bool(known[-1] < limit or known[-1] < known[:-1].max()))
                    found.setdefault((size, pair), []).append(
                        (named, missed if len(same) else [], int(speaker))
                    )
    rows = []
    print(f"\n{'FPIR (FNIR) at the thresholds for':36}" + "".join(f"{target:>18}" for target in TARGETS))
    for (size, pair), each in sorted(found.items()):
        fpir = np.round(np.mean([named for named, _, _ in each], axis=0), 4).tolist()
        fnir = np.round(np.mean([missed for _, missed, _ in each if missed], axis=0), 4).tolist()
        within = intervals([named for named, _, _ in each], [speaker for _, _, speaker in each])
        label = f"{size} callers, {' > '.join(pair)}"
        print(
            f"{label:36}" + "".join(f"{x:9.3f} ({y:.3f}) " for x, y in zip(fpir, fnir, strict=True)),
            flush=True,
        )
        rows.append(
            {"callers": size, "enrolment": pair[0], "probe": pair[1], "probes": len(each), "targets": TARGETS}
            | {"fpir": fpir, "fnir": fnir, "fpir_within": within}
        )
    print(f"{sum(map(within_two, rows))} of {len(rows) * len(TARGETS)} rates within a factor of two")
    return rows


def intervals(named: list[list[bool]], speakers: list[int]) -> list[list[float]]:
    """Of each target the interval of the FPIR, over the speakers who call."""
    names, numbers = np.unique(speakers, return_inverse=True)
    hits = np.array(named, dtype=np.float64)

    def rates(drawn: NDArray[np.float64]) -> list[float]:
        return [float(one) for one in np.average(hits, axis=0, weights=drawn[numbers])]

    values, ranges = rates(np.ones(len(names))), bootstrap_all(rates, len(names), resamples=RESAMPLES)
    found = [
        rule_of_three(one, value, len(names)) or (value, value)
        for one, value in zip(ranges, values, strict=True)
    ]
    return [[round(low, 4), round(high, 4)] for low, high in found]


def within_two(row: dict[str, Any]) -> int:
    """How many of a row's rates are within a factor of two of what was wanted."""
    rates = zip(row["targets"], row["fpir"], strict=True)
    return sum(target / 2 <= rate <= 2 * target for target, rate in rates)
