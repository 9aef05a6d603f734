"""Which scoring finds a caller through a telephone? All that were tried, on speakers not fitted to.

    python benchmarks/robust_scoring.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

A caller is enrolled from one piece of 5 s and probed with another. Half of the speakers are fitted to,
the other half is enrolled and probed, and then the reverse, for several halvings. FNIR is at the FPIR of
5 %, each probe's strangers being all callers but its own. The lines that are fitted to are drawn by chance
(lines.py); those that are measured are `voiceprint.audio.conditions`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fit_gallery_model import enumerate_recordings
from fit_scoring import CLEAN, CONDITIONS, LINE, PAIRS, REDUCED, TAIL_PAIRS, embedded
from gallery_model import GalleryModel
from numpy.typing import NDArray
from results_file import keep

from voiceprint.audio.conditions import Condition
from voiceprint.audio.denoise import reduce_noise
from voiceprint.encoder import default_encoder
from voiceprint.evaluation.metrics import Trials, cllr
from voiceprint.scoring import Backend, Pieces, Plda, fit_backend, fit_plda, fit_tail, standing

Matrix = NDArray[np.float64]
Score = Callable[[str, NDArray[Any], str, NDArray[Any]], Matrix]
Fit = Callable[[Pieces], Callable[[Pieces], Score]]

LINES = {
    "full": "telephone:band=full,snr=20",
    "narrow": "telephone:snr=20",
    "loud": "telephone:band=full,snr=10",
    "alaw": "telephone:band=full,snr=20,law=alaw",
}
SECOND = ("full", "narrow")  # lines with another noise as well, for both sides, and simulated at enrolment
PLAIN = (
    (CLEAN, CLEAN),
    (CLEAN, "full"),
    ("full", CLEAN),
    ("full", "full 2"),
    (CLEAN, "narrow"),
    ("narrow", "narrow 2"),
)
WITHOUT_NOISE = (
    (REDUCED, REDUCED), (REDUCED, "full -"), ("full -", REDUCED), ("full -", "full 2 -"),
    (REDUCED, "narrow -"), ("narrow -", "narrow 2 -"), (REDUCED, "loud -"), (REDUCED, "alaw -"),
    (CLEAN, "full -"),
)  # fmt: skip
SIMULATED = ("full 3 -", "narrow 3 -")
HALVINGS, DRAWS = 4, 10
TARGETS = (0.01, 0.05, 0.1)
GENERATED = (1_000, 10_000, 100_000, 1_000_000)
BLOCK = 20_000
PROPOSED = ("index vectors", "query", "cosine")


def main() -> int:
    """Embed, compare, calibrate, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="a file that keeps the embeddings")
    arguments = parser.parse_args()
    pieces = all_pieces(arguments.folder, arguments.cache)
    figures: dict[str, Any] = {
        "pieces": len(pieces.speakers),
        "speakers": len(np.unique(pieces.speakers)),
        "halvings": HALVINGS,
        "alternatives": alternatives(pieces),
        "several_prints": several_prints(pieces),
        "calibration": calibration(pieces),
        "fpir": rates(pieces),
    }
    figures |= generated(pieces)
    print(f"\nRaw figures: benchmarks/results/{keep('robust-scoring', figures).name}")
    return 0


def all_pieces(folder: Path, cache: Path | None) -> Pieces:
    """Those that are fitted to, and the measured lines; "-" has its noise reduced."""
    if cache and cache.exists():
        with np.load(cache) as kept:
            vectors = {name: kept[name] for name in kept.files}
        return Pieces(vectors, vectors.pop("speakers"))
    fitted, _ = embedded(folder)
    encoder = default_encoder()
    made: dict[str, list[Any]] = {}
    for _, (_, audio) in enumerate_recordings(folder):
        heard = {name: Condition.parse(line).apply(audio, 1) for name, line in LINES.items()}
        for number in (2, 3):
            heard |= {
                f"{name} {number}": Condition.parse(LINES[name]).apply(audio, number) for name in SECOND
            }
        heard |= {f"{name} -": reduce_noise(one) for name, one in heard.items()}
        for name, vector in zip(heard, encoder.embed_batch(list(heard.values())), strict=True):
            made.setdefault(name, []).append(vector)
    vectors = dict(fitted.vectors) | {name: np.stack(one) for name, one in made.items()}
    if cache:
        np.savez(cache, speakers=fitted.speakers, **vectors)
    return Pieces(vectors, fitted.speakers)


# ---------------------------------------------------------------- the alternatives


def unit(vectors: NDArray[Any], power: float = 1.0) -> Matrix:
    """Of length 1, after a power of each value."""
    raised = (
        vectors.astype(np.float64) if power == 1.0 else np.maximum(vectors, 0.0).astype(np.float64) ** power
    )
    return np.asarray(raised / np.linalg.norm(raised, axis=-1, keepdims=True))


def wide(condition: str) -> bool:
    """Whether no line limits the band: to be seen in the spectrum of the audio."""
    return condition in (CLEAN, REDUCED)


def views(
    test: Pieces, condition: str, which: NDArray[Any], simulated: tuple[str, ...]
) -> list[NDArray[Any]]:
    """The embedding, and those of simulated lines where a clean enrolment has them."""
    names = (condition, *(simulated if wide(condition) else ()))
    return [test.vectors[name][which] for name in names]


def cosine(*, power: float = 1.0, simulated: tuple[str, ...] = (), how: str = "average") -> Fit:
    """Nothing is fitted. how: the average of the conditions, or the max or mean of the scores with each."""

    def score(test: Pieces) -> Score:
        def of(enrolled: str, first: NDArray[Any], probe: str, second: NDArray[Any]) -> Matrix:
            prints = [unit(one, power) for one in views(test, enrolled, first, simulated)]
            probes = unit(test.vectors[probe][second], power)
            if how == "average":
                return np.asarray(unit(np.mean(prints, axis=0)) @ probes.T)
            scores = np.stack([one @ probes.T for one in prints])
            return np.asarray(scores.max(axis=0) if how == "max" else scores.mean(axis=0))

        return of

    return lambda _: score


def mapped(how: str, *, share: float = 0.5, dimensions: int | None = None, norm: bool = False) -> Fit:
    """The cosine after a fitted map: "centre" by channel, "wccn" (with `dimensions`: LDA) or "ridge"."""

    def fit(train: Pieces) -> Callable[[Pieces], Score]:
        stacked = np.concatenate([train.vectors[name] for name in CONDITIONS]).astype(np.float64)
        mean, matrix = stacked.mean(axis=0), np.eye(stacked.shape[1])
        if how == "wccn":
            model = fit_plda(
                stacked,
                np.tile(train.speakers, len(CONDITIONS)),
                within_shrinkage=share,
                between_shrinkage=0.0,
                dimensions=dimensions,
            )
            matrix = model.transform
        elif how == "ridge":
            clean = np.tile(train.vectors[REDUCED], (len(CONDITIONS), 1)).astype(np.float64)
            there, back = stacked - mean, clean - clean.mean(axis=0)
            covariance = there.T @ there / len(there)
            level = 3.0 * np.trace(covariance) / len(mean) * np.eye(len(mean))
            matrix = matrix + np.linalg.solve(covariance + level, there.T @ (back - there) / len(there))
        of_wide = np.mean([train.vectors[name].mean(axis=0) for name in (CLEAN, REDUCED)], axis=0)
        of_line = np.mean([train.vectors[name].mean(axis=0) for name in LINE], axis=0)

        def place(test: Pieces, name: str, which: NDArray[Any]) -> Matrix:
            centre = (of_wide if wide(name) else of_line) if how == "centre" else mean
            return unit((test.vectors[name][which] - centre) @ matrix)

        cohorts = [place(train, name, np.arange(len(train.speakers))) for name in (REDUCED, *LINE[:2])]
        cohort = np.concatenate(cohorts)

        def score(test: Pieces) -> Score:
            def of(enrolled: str, first: NDArray[Any], probe: str, second: NDArray[Any]) -> Matrix:
                prints, probes = place(test, enrolled, first), place(test, probe, second)
                return (
                    normed(prints @ probes.T, prints @ cohort.T, probes @ cohort.T)
                    if norm
                    else np.asarray(prints @ probes.T)
                )

            return of

        return score

    return fit


def normed(scores: Matrix, of_prints: Matrix, of_probes: Matrix, nearest: int = 100) -> Matrix:
    """Adaptive symmetric normalisation by the nearest of a cohort."""
    means, deviations = [], []
    for one in (of_prints, of_probes):
        top = np.sort(one, axis=1)[:, -nearest:]
        means.append(top.mean(axis=1))
        deviations.append(top.std(axis=1))
    return np.asarray(
        ((scores - means[0][:, None]) / deviations[0][:, None] + (scores - means[1]) / deviations[1]) / 2.0
    )


def plda(
    within: float,
    between: float,
    *,
    dimensions: int | None = None,
    simulated: tuple[str, ...] = (),
    how: str = "average",
    power: float = 1.0,
) -> Fit:
    """Two covariances. how: simulated lines averaged with the plain print; "better": of that and it."""

    def fit(train: Pieces) -> Callable[[Pieces], Score]:
        stacked = unit(np.concatenate([train.vectors[name] for name in CONDITIONS]), power)
        model = fit_plda(
            stacked,
            np.tile(train.speakers, len(CONDITIONS)),
            within_shrinkage=within,
            between_shrinkage=between,
            dimensions=dimensions,
        )

        def score(test: Pieces) -> Score:
            def of(enrolled: str, first: NDArray[Any], probe: str, second: NDArray[Any]) -> Matrix:
                prints = [
                    model.coordinates(unit(one, power)) for one in views(test, enrolled, first, simulated)
                ]
                probes = model.coordinates(unit(test.vectors[probe][second], power))
                scores = ratios(model, np.mean(prints, axis=0), probes)
                return np.maximum(scores, ratios(model, prints[0], probes)) if how == "better" else scores

            return of

        return score

    return fit


def ratios(model: Plda, means: Matrix, probes: Matrix) -> Matrix:
    """float64[callers, probes]."""
    once = np.ones(len(means), dtype=np.int64)
    return np.stack([model.log_ratio(means, once, probe) for probe in probes], axis=1)


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


def short(pair: tuple[str, str]) -> str:
    """The heading of a column."""
    return " > ".join("clean" if name in (CLEAN, REDUCED) else name.removesuffix(" -") for name in pair)


def measured(
    pieces: Pieces, fitted: list[Callable[[Pieces], Score]], pair: tuple[str, str]
) -> dict[str, float]:
    """Means over the halves, for which a scoring was `fitted`."""
    found = []
    for number, (_, test) in enumerate(halves(pieces)):
        scores = fitted[number](test)(pair[0], everything(test), pair[1], everything(test))
        own, best = [], []
        for enrolled, probes in draws(test.speakers, number):
            drawn = scores[np.ix_(enrolled, probes)].copy()
            own.append(np.diag(drawn).copy())
            np.fill_diagonal(drawn, -np.inf)
            best.append(drawn.max(axis=0))
        targets, strangers = np.concatenate(own), np.concatenate(best)
        missed = [
            (targets < np.quantile(strangers, 1 - rate)) | (targets <= strangers) for rate in (0.05, 0.01)
        ]
        found.append([np.mean(targets > strangers), *(one.mean() for one in missed)])
    return dict(
        zip(("rank_1", "fnir_5", "fnir_1"), np.round(np.mean(found, axis=0), 4).tolist(), strict=True)
    )


def halves(pieces: Pieces, halvings: int = HALVINGS) -> Iterator[tuple[Pieces, Pieces]]:
    """Speakers to fit to, and the others, both ways."""
    speakers = np.unique(pieces.speakers)
    for number in range(halvings):
        one, other = np.array_split(np.random.default_rng([1, number]).permutation(speakers), 2)
        yield pieces.of(one), pieces.of(other)
        yield pieces.of(other), pieces.of(one)


def everything(pieces: Pieces) -> NDArray[np.int64]:
    """All places."""
    return np.arange(len(pieces.speakers))


def draws(speakers: NDArray[Any], seed: int, each: int = 1) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each speaker with enough pieces, those to enrol and another to probe with."""
    chance = np.random.default_rng([2, seed])
    owned = [np.flatnonzero(speakers == one) for one in np.unique(speakers)]
    for _ in range(DRAWS):
        drawn = np.array([chance.choice(own, each + 1, replace=False) for own in owned if len(own) > each])
        yield (drawn[:, 0] if each == 1 else drawn[:, :-1]), drawn[:, -1]


# ---------------------------------------------------------------- several prints, calibration, rates


def several_prints(pieces: Pieces) -> list[dict[str, Any]]:
    """FNIR and rank-1 of callers with so many prints, by how these are combined."""
    rows = []
    titles = ("one", "max", "mean of llr", "by the book", "mean print")
    print(f"\n{'several prints: rank-1 / FNIR':34}" + "".join(f"{name:>16}" for name in titles))
    for prints in (2, 3):
        for pair in ((REDUCED, "full -"), (REDUCED, "narrow -")):
            found: dict[str, list[tuple[Matrix, Matrix]]] = {}
            for number, (train, test) in enumerate(halves(pieces)):
                model = train_plda(train)
                places = {name: model.coordinates(test.vectors[name]) for name in pair}
                for enrolled, probes in draws(test.speakers, number, prints):
                    means, probe = places[pair[0]][enrolled], places[pair[1]][probes]
                    each = np.stack([ratios(model, means[:, one], probe) for one in range(prints)])
                    count = np.full(len(means), prints)
                    book = np.stack(
                        [model.log_ratio(means.mean(axis=1), count, one) for one in probe], axis=1
                    )
                    ways = {
                        "one": each[0],
                        "max": each.max(axis=0),
                        "mean of llr": each.mean(axis=0),
                        "by the book": book,
                    }
                    for name, scores in (
                        ways | {"mean print": ratios(model, means.mean(axis=1), probe)}
                    ).items():
                        drawn = scores.copy()
                        np.fill_diagonal(drawn, -np.inf)
                        found.setdefault(name, []).append((np.diag(scores), drawn.max(axis=0)))
            row: dict[str, Any] = {"prints": prints, "pair": " > ".join(pair)}
            for name, both in found.items():
                targets, strangers = (np.concatenate(one) for one in zip(*both, strict=True))
                missed = (targets < np.quantile(strangers, 0.95)) | (targets <= strangers)
                row[name] = {
                    "rank_1": round(float(np.mean(targets > strangers)), 4),
                    "fnir_5": round(float(missed.mean()), 4),
                }
            print(
                f"{prints} prints, {short(pair):24}"
                + "".join(f"{row[name]['rank_1']:8.3f} / {row[name]['fnir_5']:.3f}" for name in found),
                flush=True,
            )
            rows.append(row)
    return rows


def train_plda(train: Pieces) -> Plda:
    """The model that ships, of other speakers."""
    return Pieces({name: train.vectors[name] for name in CONDITIONS}, train.speakers).plda()


def backend_of(train: Pieces) -> Backend:
    """The backend that ships, of other speakers."""
    fitted = Pieces({name: train.vectors[name] for name in CONDITIONS}, train.speakers)
    return fit_backend(fitted, encoder="resemblyzer", pairs=PAIRS, tail_pairs=TAIL_PAIRS)


def calibration(pieces: Pieces) -> list[dict[str, Any]]:
    """Cllr of speakers who were not fitted to, and the least that any calibration could reach."""
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for train, test in halves(pieces, 2):
        backend = backend_of(train)
        same = test.speakers[:, None] == test.speakers
        other = same & ~np.eye(len(same), dtype=bool)
        for pair in WITHOUT_NOISE:
            prints = backend.prepare([one[None] for one in test.vectors[pair[0]]])
            scores = np.stack([backend.score(probe, prints) for probe in test.vectors[pair[1]]])
            trials = scores[other], scores[~same]
            measures = Trials(*trials)
            rows.setdefault(pair, []).append([cllr(*trials), measures.min_cllr(), measures.eer()])
    print("\nCllr / least Cllr / EER")
    result = []
    for pair, found in rows.items():
        one = dict(
            zip(("cllr", "min_cllr", "eer"), np.round(np.mean(found, axis=0), 4).tolist(), strict=True)
        )
        print(f"{short(pair):24}" + "".join(f"{value:10.3f}" for value in one.values()))
        result.append({"pair": " > ".join(pair)} | one)
    return result


def rates(pieces: Pieces) -> list[dict[str, Any]]:
    """Measured FPIR for the targets; galleries of over half the speakers hold some that were fitted to."""
    rows = []
    generated = some_generated(GalleryModel.load(), 200, np.random.default_rng(5))
    print(f"\n{'measured FPIR for the target':44}" + "".join(f"{target:>8}" for target in TARGETS))
    folds = [("held out", one) for one in halves(pieces, 3)]
    speakers = np.unique(pieces.speakers)
    parts = np.array_split(np.random.default_rng(3).permutation(speakers), 5)
    folds += [("all", (pieces.of(np.setdiff1d(speakers, part)), pieces.of(part))) for part in parts]
    found: dict[tuple[int, str, tuple[str, str]], list[list[bool]]] = {}
    for number, (kind, (train, test)) in enumerate(folds):
        backend, chance = backend_of(train), np.random.default_rng([6, number])
        enrolled = test if kind == "held out" else pieces
        for pair in WITHOUT_NOISE[:7]:
            for _ in range(2):
                owned = [np.flatnonzero(enrolled.speakers == one) for one in np.unique(enrolled.speakers)]
                places = np.array([chance.choice(own) for own in owned])
                names, prints = enrolled.speakers[places], enrolled.vectors[pair[0]][places]
                gallery = backend.prepare([one[None] for one in np.concatenate([prints, generated])])
                for speaker, probe in zip(test.speakers, test.vectors[pair[1]], strict=True):
                    scores = backend.score(probe, gallery)
                    own = int(np.flatnonzero(names == speaker)[0])
                    scores = np.delete(scores, own)
                    sizes = (50,) if kind == "held out" else (100, 200)
                    for size in sizes:
                        drawn = (
                            scores[:size]
                            if size > len(names)
                            else scores[chance.permutation(len(names) - 1)[:size]]
                        )
                        among = standing(drawn)
                        named = [
                            bool(drawn.max() >= backend.threshold_for(target, size, among))
                            for target in TARGETS
                        ]
                        found.setdefault((size, kind, pair), []).append(named)
    for (size, kind, pair), named in sorted(found.items(), key=lambda item: (item[0][0], item[0][2])):
        shares = np.round(np.mean(named, axis=0), 4).tolist()
        label = f"{size} callers, {short(pair)}" + (", 82 of them generated" if size == 200 else "")
        print(f"{label:44}" + "".join(f"{share:8.3f}" for share in shares), flush=True)
        rows.append(
            {
                "callers": size,
                "gallery": kind,
                "pair": " > ".join(pair),
                "probes": len(named),
                "targets": TARGETS,
                "measured": shares,
            }
        )
    return rows


# ---------------------------------------------------------------- generated galleries


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
    at = (prints - model.mean.astype(np.float32)) @ model.transform.astype(np.float32)
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


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(main())
