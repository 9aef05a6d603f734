"""A calibration of the scores fitted to a user's own calls, and what it is worth.

    found = calibrate("calls")
    found.before.cllr, found.after.cllr  # of speakers who were not fitted to
    found.backend.save("calibration.npz")  # VOICE_CALIBRATION_PATH=calibration.npz

To measure it, each half of the speakers is calibrated by the other; what is kept is fitted to all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder import Encoder, default_encoder
from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.evaluation import metrics
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.channels import check_channels
from voiceprint.evaluation.embedding import Progress, embed, load_recordings, without_noise
from voiceprint.evaluation.recordings import cut, find_speakers, in_turns
from voiceprint.evaluation.report import Skip
from voiceprint.evaluation.scoring import CalibratedScorer
from voiceprint.scoring import Backend, Pieces, default_backend, recalibrate

LEAST_SPEAKERS: Final = 8
"""With two pieces each: four to fit to, and four to measure."""

ADVISED_SPEAKERS: Final = 30
"""From which on the figures, and the file, can be relied on."""

TARGET: Final = 0.05

_CALLS: Final = "calls"
_DRAWS: Final = 10  # galleries of each half
_SEED: Final = 0


@dataclass(frozen=True)
class Measured:
    """What the scores did with speakers who were not fitted to; rates are shares, 0..1.

    eer, min_cllr: no calibration changes them. cllr: bits, 1 for scores that say nothing.
    fnir: at the threshold where the FPIR is `TARGET`.
    target_fpir, target_fnir: at the thresholds that the scores set by themselves for that FPIR.
    """

    eer: float
    min_cllr: float
    cllr: float
    fnir: float
    target_fpir: float
    target_fnir: float


@dataclass(frozen=True)
class Calibrated:
    """A calibration: `backend.save` writes it.

    speakers, pieces: that it was fitted to. one_recording: speakers with one alone, whose pieces are easier
        to tell together than two calls are. gallery: callers in the galleries that were measured.
    before, after: with the calibration of `base`, and with one of the other half of the speakers.
    dropped: speakers who could not be used; unreadable: files.
    """

    backend: Backend = field(repr=False)
    speakers: int
    pieces: int
    one_recording: int
    gallery: int
    before: Measured
    after: Measured
    dropped: tuple[Skip, ...]
    unreadable: tuple[Skip, ...]


def calibrate(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    base: Backend | None = None,
    encoder: Encoder | None = None,
    duration_s: float = 5.0,
    most_pieces: int = 10,
    channel: int | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit a calibration to recordings of known speakers; the same recordings give the same one.

    Args:
        folders: one or more DIR with DIR/SPEAKER/SESSION/*.wav (flac, ogg, mp3), as in `recordings`.
        base: whose model of voices stays; None for the package's.
        encoder: None for the shared default one.
        duration_s: of speech in each piece, above 0, up to 60; about what a call gives.
        most_pieces: of a speaker, 2 or more, spread over the recordings.
        channel: of recordings with several, from 0; None mixes them.
        cache: of embeddings; None computes them all.
        progress: told what is being done, how many of it are done, and how many there are.

    Raises:
        InvalidAudioError: the channels of a recording hold different voices, and `channel` chooses none.
        InvalidArgumentError: no recordings, or fewer than `LEAST_SPEAKERS` speakers with two pieces.
        ConfigurationError: the base is of another encoder's embeddings.
        EncoderError: the encoder cannot be loaded.
    """
    if not 0.0 < duration_s <= 60.0 or most_pieces < 2:
        raise InvalidArgumentError(
            "duration_s must be above 0, up to 60, and most_pieces 2 or more, "
            f"not {duration_s} and {most_pieces}"
        )
    base, encoder = base or default_backend(), encoder or default_encoder()
    if base.encoder != encoder.name:
        raise ConfigurationError(
            f"The calibration is of embeddings of {base.encoder}, not of {encoder.name}: "
            "their scores say nothing of each other"
        )
    several = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    speakers = find_speakers([Path(folder) for folder in several])
    check_channels(speakers, channel, progress)
    encoder.warm_up()
    vectors: list[NDArray[np.float32]] = []
    owners: list[int] = []
    origins: list[int] = []
    dropped: list[Skip] = []
    unreadable: list[Skip] = []
    for number, speaker in enumerate(speakers):
        if progress:
            progress("Embedding", number, len(speakers))
        recordings = load_recordings(speaker, channel, unreadable)
        cuts = [cut(audio, duration_s) for audio in recordings]
        found = []
        for place in in_turns(range(len(cuts)), list(map(len, cuts)))[:most_pieces]:
            start, end = cuts[place.session][place.piece]
            made = embed(without_noise(recordings[place.session][start:end]), encoder, cache)
            if made is not None:
                found.append((made, 1_000_000 * number + place.session))
        if len(found) < 2:
            why = f"{len(found)} of the 2 pieces of {duration_s:g} s of speech that it takes"
            dropped.append(Skip(speaker.name, why))
            continue
        vectors += [vector for vector, _ in found]
        origins += [origin for _, origin in found]
        owners += [number] * len(found)
    if progress:
        progress("Embedding", len(speakers), len(speakers))
    count = len(set(owners))
    if count < LEAST_SPEAKERS:
        raise InvalidArgumentError(_too_few(count, dropped))
    pieces = Pieces({_CALLS: np.array(vectors)}, np.array(owners), np.array(origins))
    before, after = _measured(base, pieces)
    return Calibrated(
        backend=recalibrate(base, pieces, [(_CALLS, _CALLS)]),
        speakers=count,
        pieces=len(vectors),
        one_recording=sum(
            len({origin for origin, owner in zip(origins, owners, strict=True) if owner == one}) < 2
            for one in set(owners)
        ),
        gallery=count // 2 - 1,
        before=before,
        after=after,
        dropped=tuple(dropped),
        unreadable=tuple(unreadable),
    )


def _too_few(count: int, dropped: list[Skip]) -> str:
    reasons = "; ".join(f"{skip.what}: {skip.why}" for skip in dropped[:3])
    more = f"; and {len(dropped) - 3} more" if len(dropped) > 3 else ""
    left = f" ({reasons}{more})" if dropped else ""
    return (
        f"A calibration takes {LEAST_SPEAKERS} speakers or more, with two pieces of speech each, and better "
        f"{ADVISED_SPEAKERS}: there are {count}{left}"
    )


def _measured(base: Backend, pieces: Pieces) -> tuple[Measured, Measured]:
    """Of each half of the speakers, by the base and by what is fitted to the other half."""
    order = np.random.default_rng(_SEED).permutation(np.unique(pieces.speakers))
    halves = [pieces.of(part) for part in np.array_split(order, 2)]
    fitted = [recalibrate(base, half, [(_CALLS, _CALLS)]) for half in halves]
    return (
        _figures([(base, halves[0]), (base, halves[1])]),
        _figures([(fitted[1], halves[0]), (fitted[0], halves[1])]),
    )


def _figures(tests: list[tuple[Backend, Pieces]]) -> Measured:
    targets, impostors, own, best, own_over, best_over = ([] for _ in range(6))
    for number, (backend, test) in enumerate(tests):
        vectors = test.vectors[_CALLS]
        scores = backend.scores(vectors, list(vectors[:, None]))
        allowed = test.targets()
        targets.append(scores[allowed])
        impostors.append(scores[test.speakers[:, None] != test.speakers])
        scorer, chance = CalibratedScorer(backend), np.random.default_rng([_SEED, number])
        for _ in range(_DRAWS):
            enrolled = np.array(
                [chance.choice(np.flatnonzero(test.speakers == one)) for one in np.unique(test.speakers)]
            )
            columns = np.searchsorted(np.unique(test.speakers), test.speakers)
            drawn = scores[:, enrolled]
            everyone = np.arange(len(drawn))
            stranger = np.delete(drawn.ravel(), everyone * len(enrolled) + columns).reshape(len(drawn), -1)
            known = np.flatnonzero(allowed[everyone, enrolled[columns]])
            top = stranger.max(axis=1)
            best.append(top)
            best_over.append(top - scorer.limits(stranger, [TARGET])[0])
            # One of the others makes room for the caller, so that both galleries are of one size.
            gallery = np.concatenate([drawn[known, columns[known]][:, None], stranger[known, 1:]], axis=1)
            first = gallery[:, 0] > gallery[:, 1:].max(axis=1)
            own.append(np.where(first, gallery[:, 0], -np.inf))
            own_over.append(np.where(first, gallery[:, 0] - scorer.limits(gallery, [TARGET])[0], -np.inf))
    trials = metrics.Trials(np.concatenate(targets), np.concatenate(impostors))
    limit = metrics.threshold_at_fpir(np.concatenate(best), TARGET)
    return Measured(
        eer=trials.eer(),
        min_cllr=trials.min_cllr(),
        cllr=metrics.cllr(np.concatenate(targets), np.concatenate(impostors)),
        fnir=float(np.mean(np.concatenate(own) < limit)),
        target_fpir=float(np.mean(np.concatenate(best_over) >= 0.0)),
        target_fnir=float(np.mean(np.concatenate(own_over) < 0.0)),
    )
