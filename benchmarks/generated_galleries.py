"""Generated galleries of up to a million callers: FPIR, and whether the right caller is proposed."""

from __future__ import annotations

from typing import Any

import numpy as np
from gallery_model import GalleryModel
from held_out import TARGETS, Matrix, backend_of, draws, halves
from numpy.typing import NDArray
from scoring_pieces import WITHOUT_NOISE, short

from voiceprint.scoring import Backend, Pieces, fit_tail

GENERATED = (1_000, 10_000, 100_000, 1_000_000)
BLOCK = 20_000
PROPOSED = ("index vectors", "query", "cosine")


def some_generated(model: GalleryModel, count: int, chance: np.random.Generator) -> NDArray[np.float32]:
    """One recording each of so many voices."""
    return model.recordings(model.voices(count, chance), chance)


class Strangers:
    """Probes of generated voices who are not in the gallery, and how near they came to any caller of it."""

    def __init__(self, backend: Backend, model: GalleryModel, count: int) -> None:
        chance = np.random.default_rng(8)
        probes = some_generated(model, count, chance)
        cohort = [one[None] for one in some_generated(model, 500, np.random.default_rng([9, 0]))]
        sample = backend.prepare([one[None] for one in some_generated(model, BLOCK, chance)])
        self.backend = backend
        self.best = np.full(count, -np.inf)
        self._among = [backend.standing(row) for row in backend.scores(probes, cohort)]
        others = backend.scores(some_generated(model, 100, chance), sample)
        self._tails = {
            "shipped tail": backend.tail,
            "the gallery's own tail": fit_tail(others, share=0.001, bend=None),
        }
        self._places = linear(backend, probes)

    def search(self, prints: NDArray[np.float32]) -> None:
        """Hold the probes against more callers."""
        self.best = np.maximum(self.best, linear_scores(self.backend, self._places, prints).max(axis=1))

    def named(self, size: int) -> dict[str, Matrix]:
        """By each tail which of the probes get a name, 0 or 1, float64[probes, targets]."""
        return {
            name: np.array(
                [
                    [top >= tail.threshold_for(target, size, one) for target in TARGETS]
                    for top, one in zip(self.best, self._among, strict=True)
                ],
                dtype=np.float64,
            )
            for name, tail in self._tails.items()
        }


def generated(
    pieces: Pieces,
    strangers: int = 400,
    genuine: int = 60,
    pairs: tuple[tuple[str, str], ...] = WITHOUT_NOISE[:7],
) -> dict[str, Any]:
    """FPIR, for two halvings both ways, and recall of candidates, in galleries of up to a million callers."""
    model = GalleryModel.load()
    fits = list(halves(pieces, 2))
    searching = [Strangers(backend_of(train), model, strangers) for train, _ in fits]
    backend, test = searching[0].backend, fits[0][1]
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
    rows, recalls = [], []
    places = linear(backend, spoken)
    limits = np.array(own_score)
    done = 0
    for number in range(GENERATED[-1] // BLOCK):
        made = some_generated(model, BLOCK, np.random.default_rng([9, number]))
        parts = [made[:1_000], made[1_000:10_000], made[10_000:]] if number == 0 else [made]
        for part in parts:
            for one in searching:
                one.search(part)
            before["llr"] += (linear_scores(backend, places, part) > limits[:, None]).sum(axis=1)
            indexed = backend.index_vectors(part)
            before["index vectors"] += (searched @ indexed.T > own_index[:, None]).sum(axis=1)
            before["query"] += (queries @ part.T > own_query[:, None]).sum(axis=1)
            before["cosine"] += (spoken @ part.T > own_cosine[:, None]).sum(axis=1)
            done += len(part)
            if done in GENERATED:
                rows.append(generated_row(searching, done))
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


def generated_row(searching: list[Strangers], size: int) -> dict[str, Any]:
    """Measured FPIR, by the shipped tail and by the gallery's own."""
    count = sum(len(one.best) for one in searching)
    row: dict[str, Any] = {"callers": size, "strangers": count, "targets": TARGETS}
    found = [one.named(size) for one in searching]
    for name in found[0]:
        row[name] = np.round(np.concatenate([one[name] for one in found]).mean(axis=0), 4).tolist()
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
