"""Whether calibrated scores and thresholds keep their word, on speakers who were not fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
from gallery_model import GalleryModel
from generated_galleries import some_generated
from held_out import TARGETS, backend_of, halves
from scoring_pieces import WITHOUT_NOISE, short

from voiceprint.evaluation.metrics import Trials, cllr
from voiceprint.scoring import Pieces


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
                        among = backend.standing(drawn)
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
