"""How to combine the scores of callers with several prints, on speakers who were not fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
from fit_scoring import REDUCED
from held_out import Matrix, draws, found, halves, rank_and_fnir, train_plda
from scoring_pieces import short

from voiceprint.scoring import Pieces, Plda


def several_prints(pieces: Pieces) -> list[dict[str, Any]]:
    """FNIR and rank-1 of callers with so many prints, by how these are combined."""
    rows = []
    titles = ("one", "max", "mean of llr", "by the book", "mean print")
    print(f"\n{'several prints: rank-1 / FNIR':34}" + "".join(f"{name:>16}" for name in titles))
    for prints in (2, 3):
        for pair in ((REDUCED, "full -"), (REDUCED, "narrow -")):
            searches: dict[str, list[tuple[Matrix, Matrix]]] = {}
            for number, (train, test) in enumerate(halves(pieces)):
                model = train_plda(train)
                places = {name: model.coordinates(test.vectors[name]) for name in pair}
                for enrolled, probes in draws(test.speakers, number, prints):
                    ways = combined(model, places[pair[0]][enrolled], places[pair[1]][probes])
                    for name, scores in zip(titles, ways, strict=True):
                        searches.setdefault(name, []).append(found(scores))
            row: dict[str, Any] = {"prints": prints, "pair": " > ".join(pair)}
            for name, both in searches.items():
                own, best = (np.concatenate(column) for column in zip(*both, strict=True))
                rank, fnir, _ = rank_and_fnir(own, best)
                row[name] = {"rank_1": round(rank, 4), "fnir_5": round(fnir, 4)}
            print(
                f"{prints} prints, {short(pair):24}"
                + "".join(f"{row[name]['rank_1']:8.3f} / {row[name]['fnir_5']:.3f}" for name in titles),
                flush=True,
            )
            rows.append(row)
    return rows


def combined(model: Plda, prints: Matrix, probes: Matrix) -> tuple[Matrix, ...]:
    """Scores[callers, probes] of coordinates prints[callers, prints, k] and probes[n, k], by each way."""
    means, counts = prints.mean(axis=1), np.full(len(prints), prints.shape[1])
    each = np.stack([model.log_ratios(prints[:, one], probes).T for one in range(prints.shape[1])])
    book = np.stack([model.log_ratio(means, counts, one) for one in probes], axis=1)
    return each[0], each.max(axis=0), each.mean(axis=0), book, model.log_ratios(means, probes).T
