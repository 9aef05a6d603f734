"""Generated galleries of up to a million callers: FPIR, and whether the right caller is proposed."""

from __future__ import annotations

from typing import Any

import numpy as np
from gallery_model import GalleryModel
from held_out import TARGETS, Matrix, backend_of, draws, halves
from numpy.typing import NDArray
from scoring_pieces import WITHOUT_NOISE, short

from voiceprint.scoring import Backend, Pieces, fit_tail, standing

GENERATED = (1_000, 10_000, 100_000, 1_000_000)
BLOCK = 20_000
PROPOSED = ("index vectors", "query", "cosine")


def some_generated(model: GalleryModel, count: int, chance: np.random.Generator) -> NDArray[np.float32]:
    """One recording each of so many voices."""
    return model.recordings(model.voices(count, chance), chance)


def generated(
    pieces: Pieces,
    strangers: int = 400,
    genuine: int = 60,
    pairs: tuple[tuple[str, str], ...] = WITHOUT_NOISE[:7],
) -> dict[str, Any]:
    """FPIR, and the recall of candidates, in generated galleries of up to a million callers."""
    model = GalleryModel.load()
    train, test = next(halves(pieces))
    backend, chance = backend_of(train), np.random.default_rng(8)
    probes = some_generated(model, strangers, chance)
    cohort = backend.prepare([one[None] for one in some_generated(model, 500, np.random.default_rng([9, 0]))])
    among = [standing(backend.score(probe, cohort)) for probe in probes]
    sample = backend.prepare([one[None] for one in some_generated(model, BLOCK, chance)])
    own = fit_tail(
        np.stack([backend.score(probe, sample) for probe in some_generated(model, 100, chance)]), share=0.001
    )

    enrolled, probe_places = next(draws(test.speakers, 0))
    real: list[tuple[str, NDArray[np.float32], NDArray[np.float32]]] = []
    for pair in pairs:
        for first, second in zip(enrolled[:genuine], probe_places[:genuine], strict=True):
            real.append((short(pair), test.vectors[pair[0]][first], test.vectors[pair[1]][second]))
    queries = np.stack([backend.query(probe) for _, _, probe in real])
    spoken = np.stack([probe for _, _, probe in real])
    own_score = [backend.score(probe, [print_[None]])[0] for _, print_, probe in real]
    true = np.stack([print_ for _, print_, _ in real])
    own_query, own_cosine = (queries * true).sum(axis=1), (spoken * true).sum(axis=1)
    searched, held = (backend.index_vectors(one) for one in (spoken, true))
    own_index = (searched * held).sum(axis=1)
    before = {name: np.zeros(len(real), dtype=np.int64) for name in ("llr", *PROPOSED)}
    best = np.full(strangers, -np.inf)
    rows, recalls = [], []
    places = linear(backend, np.concatenate([probes, spoken]))
    limits = np.array(own_score)
    done = 0
    for number in range(GENERATED[-1] // BLOCK):
        made = some_generated(model, BLOCK, np.random.default_rng([9, number]))
        parts = [made[:1_000], made[1_000:10_000], made[10_000:]] if number == 0 else [made]
        for part in parts:
            scores = linear_scores(backend, places, part)
            best = np.maximum(best, scores[:strangers].max(axis=1))
            before["llr"] += (scores[strangers:] > limits[:, None]).sum(axis=1)
            indexed = backend.index_vectors(part)
            before["index vectors"] += (searched @ indexed.T > own_index[:, None]).sum(axis=1)
            before["query"] += (queries @ part.T > own_query[:, None]).sum(axis=1)
            before["cosine"] += (spoken @ part.T > own_cosine[:, None]).sum(axis=1)
            done += len(part)
            if done in GENERATED:
                rows.append(generated_row(backend, own, done, best, among))
                recalls.append(recall_row(real, before, done))
    return {"generated_fpir": rows, "candidates": recalls}


def linear(backend: Backend, probes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `linear_scores` takes of probes: the gradient at a print's coordinates, and what is left."""
    model = backend.plda
    place = model.coordinates(probes)
    shares = model.between / (model.between + 1.0)
    spread, alone = model.between * (1.0 - shares) + 1.0, model.between + 1.0
    rest = 0.5 * (np.log(alone / spread) + place**2 / alone - place**2 / spread).sum(axis=1)
    return (place * shares / spread).astype(np.float32), rest.astype(np.float32)


def linear_scores(
    backend: Backend, places: tuple[NDArray[np.float32], NDArray[np.float32]], prints: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`Backend.score` of all with all, float32[probes, prints], as matrix products."""
    model = backend.plda
    at = model.rough_coordinates(prints).astype(np.float32)
    shares = model.between / (model.between + 1.0)
    weights = (shares**2 / (model.between * (1.0 - shares) + 1.0)).astype(np.float32)
    raw = places[0] @ at.T + places[1][:, None] - 0.5 * (at**2 @ weights)
    return np.asarray(backend.calibration.scale * (raw - backend.calibration.offset), dtype=np.float32)


def generated_row(backend: Backend, own: Any, size: int, best: Matrix, among: list[Any]) -> dict[str, Any]:
    """Measured FPIR, by the shipped tail and by the gallery's own."""
    row: dict[str, Any] = {"callers": size, "strangers": len(best), "targets": TARGETS}
    for name, tail in (("shipped tail", backend.tail), ("the gallery's own tail", own)):
        named = [
            [top >= tail.threshold_for(target, size, one) for target in TARGETS]
            for top, one in zip(best, among, strict=True)
        ]
        row[name] = np.round(np.mean(named, axis=0), 4).tolist()
        print(
            f"{size:>9} generated callers, {name:24}" + "".join(f"{share:8.3f}" for share in row[name]),
            flush=True,
        )
    return row


def recall_row(real: list[Any], before: dict[str, NDArray[np.int64]], size: int) -> dict[str, Any]:
    """How often a caller's print is among the nearest 50 and 200, and first by the log ratio."""
    conditions = [name for name, _, _ in real]
    row: dict[str, Any] = {"callers": size}
    for name in dict.fromkeys(conditions):
        here = np.array([one == name for one in conditions])
        first = before["llr"][here] == 0
        row[name] = {"first by llr": round(float(first.mean()), 4)}
        for kind in PROPOSED:
            for top in (50, 200):
                row[name][f"{kind} {top}"] = round(float((before[kind][here] < top).mean()), 4)
                row[name][f"lost by {kind} {top}"] = round(
                    float((first & (before[kind][here] >= top)).mean()), 4
                )
        print(f"{size:>9} {name:16} {row[name]}", flush=True)
    return row
