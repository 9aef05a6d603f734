"""From recordings of known speakers to a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from voiceprint.audio.prompts import PromptFinder
from voiceprint.encoder import Encoder, default_encoder
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation import metrics, report
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.channels import check_channels
from voiceprint.evaluation.curves import histogram
from voiceprint.evaluation.embedding import Material, Progress, embed_all
from voiceprint.evaluation.identification import Searched, Searcher
from voiceprint.evaluation.recommendation import TARGET, THRESHOLD, Recommender, first_runs, with_more_prints
from voiceprint.evaluation.recordings import find_speakers
from voiceprint.evaluation.report import Report, RunResult, Skip
from voiceprint.evaluation.scoring import CosineScorer, Scorer
from voiceprint.evaluation.sessions import sessions
from voiceprint.evaluation.settings import Run, Settings
from voiceprint.evaluation.verification import LEAST_TO_CALIBRATE, ScoredTrials, verify

MOST_TRIALS = 500_000
"""Trials that a verification looks at; of more speakers, so many are drawn that there are no more."""


def evaluate(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    settings: Settings | None = None,
    *,
    encoder: Encoder | None = None,
    scorer: Scorer | Sequence[Scorer] | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure verification, and closed-set and open-set identification.

    Args:
        folders: one or more DIR with DIR/SPEAKER/SESSION/*.wav (flac, ogg, mp3), at any depth; a file
            directly in DIR/SPEAKER is a session of its own. No speaker with several sessions is enrolled
            and probed from one.
        settings: what to measure; None for the defaults.
        encoder: None for the shared default one.
        scorer: one, or several whose results stand side by side; None for the cosine, as `match_caller`
            compares.
        cache: of embeddings; None computes them all.
        progress: told what is being done, how many of it are done, and how many there are.

    Returns:
        The report; the same recordings and settings give the same one.

    Raises:
        InvalidArgumentError: no folder holds recordings, or no run has two speakers with enough of them.
        InvalidAudioError: the channels of a recording hold different voices, and the settings choose none.
        EncoderError: the encoder cannot be loaded.
    """
    settings = settings or Settings()
    if settings.target_fpir is not None:
        settings = replace(settings, targets=tuple(sorted({*settings.targets, settings.target_fpir})))
    encoder = encoder or default_encoder()
    scorers = [scorer or CosineScorer()] if scorer is None or isinstance(scorer, Scorer) else [*scorer]
    progress = progress or _silent
    several = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    paths = [Path(folder) for folder in several]
    skipped: list[Skip] = []
    speakers = find_speakers(paths, skipped)
    check_channels(speakers, settings.channel, progress)
    encoder.warm_up()  # so that an encoder that cannot be loaded is not taken for audio without speech
    ratios = any(one.calibrated for one in scorers)
    firsts = first_runs(settings)
    compared = [more for run in firsts for more in with_more_prints(run, settings)]
    wanted = dict.fromkeys([*settings.runs(), *compared])
    finder = PromptFinder()
    embedded, unreadable = embed_all(
        speakers, [*wanted], settings, encoder, cache, progress, ratios=ratios, finder=finder
    )
    unreadable = [*skipped, *unreadable]
    materials = {run: embedded[run] for run in settings.runs()}
    if all(len(material.names) < 2 for material in materials.values()):
        raise InvalidArgumentError(_too_little(materials, unreadable))
    results: dict[Run, list[RunResult]] = {}
    for done, (run, material) in enumerate(materials.items()):
        progress("Measuring", done, len(materials))
        results[run] = [_measure(run, material, one, settings, named=len(scorers) > 1) for one in scorers]
    recommender = Recommender(scorers, settings, embedded)
    recommendations = tuple(recommender.recommend(run, results[run]) for run in firsts)
    progress("Measuring", len(materials), len(materials))
    import voiceprint

    return Report(
        sessions=sessions(speakers, materials.values()),
        voiceprint=voiceprint.__version__,
        encoder=encoder.name,
        scorers=tuple(one.name for one in scorers),
        folders=tuple(map(str, paths)),
        speakers=len(speakers),
        recordings=sum(len(speaker.files) for speaker in speakers),
        unreadable=tuple(unreadable),
        with_prompts=sum(map(bool, finder.find())),
        settings=asdict(settings)
        | {
            "enroll": ["+".join(map(str, conditions)) for conditions in settings.enroll],
            "probe": [str(condition) for condition in settings.probe],
        },
        runs=tuple(result for each in results.values() for result in each),
        recommendations=recommendations,
    )


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def _too_little(materials: dict[Run, Material], unreadable: list[Skip]) -> str:
    run, material = max(materials.items(), key=lambda item: len(item[1].names))
    # Why a file cannot be read begins with its path.
    reasons = [skip.why for skip in unreadable] + [f"{skip.what}: {skip.why}" for skip in material.dropped]
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return (
        f"{len(material.names)} of the speakers can be measured ({run}), and it takes 2. "
        f"{'; '.join(reasons[:3])}{more}. Give longer or more recordings, or a shorter duration."
    )


def _measure(run: Run, material: Material, scorer: Scorer, settings: Settings, *, named: bool) -> RunResult:
    skipped: list[Skip] = []
    material = material.for_ratios() if scorer.calibrated else material
    speakers = len(material.names)
    verification, spread = None, None
    closed: list[report.ClosedSet] = []
    opened: list[report.OpenSet] = []
    thresholds: list[float] = []
    if speakers < 2:
        skipped.append(
            Skip("everything", f"{speakers} of the speakers can be measured, and it takes 2", asked=True)
        )
    else:
        scored = _trials(material, scorer, settings, skipped)
        verification = verify(scored, settings, calibrated=scorer.calibrated)
        if verification.cllr is None:
            why = f"a calibration takes {LEAST_TO_CALIBRATE} speakers, and there are {speakers}"
            skipped.append(Skip("Cllr", why))
        searcher = Searcher(material, scorer, settings)
        sizes = settings.sizes(speakers - searcher.held_out)
        if settings.gallery is None and speakers not in sizes:
            sizes.append(speakers)
        for size in sizes:
            if size <= speakers:
                closed.append(searcher.closed(size))
            else:
                skipped.append(
                    Skip(f"closed-set search of {size} callers", f"there are {speakers}", asked=True)
                )
        opened, thresholds, largest = _open(searcher, scorer, settings, skipped)
        best = largest.best if largest else np.zeros(0)
        low, high, (own, other, nearest) = histogram([scored.targets, scored.impostors, best])
        gallery = largest.gallery if largest else None
        limits = _limits(scorer, settings, largest)
        spread = report.Histogram(low, high, own, other, nearest, gallery, limits)
    return RunResult(
        name=f"{run}, by {scorer.name}" if named else str(run),
        scorer=scorer.name,
        enroll=run.enroll_name,
        probe=str(run.probe),
        duration_s=run.duration_s,
        prints=run.prints,
        material=report.Material(
            speakers=speakers,
            dropped=tuple(material.dropped),
            probes=len(material.probes),
            same_session=len(material.same_session),
            failed_probes=material.failed_probes,
        ),
        verification=verification,
        closed_set=tuple(closed),
        open_set=tuple(opened),
        thresholds=tuple(thresholds),
        histogram=spread,
        skipped=tuple(skipped),
    )


def _limits(scorer: Scorer, settings: Settings, largest: Searched | None) -> tuple[tuple[str, float], ...]:
    """The settings that accept by these scores, and the score from which each does."""
    found = [] if scorer.threshold is None else [(f"{THRESHOLD}={scorer.threshold:g}", scorer.threshold)]
    if largest is not None:
        # `over_unknown` is by how much a score is over its own threshold.
        thresholds = np.median(largest.best - largest.over_unknown, axis=1)
        found += [
            (f"{TARGET}={target:g}", float(threshold))
            for target, threshold in zip(settings.targets, thresholds, strict=False)
        ]
    return tuple(found)


def _trials(material: Material, scorer: Scorer, settings: Settings, skipped: list[Skip]) -> ScoredTrials:
    """All against all, or so many speakers of them that there are not too many trials."""
    owners = np.array(material.owners, dtype=np.int64)
    probes = np.array(material.probes, dtype=np.float32)
    speakers = len(material.names)
    chosen = np.arange(speakers)
    if speakers * len(owners) > MOST_TRIALS:
        count = max(2, int(speakers * (MOST_TRIALS / (speakers * len(owners))) ** 0.5))
        chosen = np.sort(np.random.default_rng(settings.seed).permutation(speakers)[:count])
        skipped.append(
            Skip("verification of all speakers", f"{count} of the {speakers} were drawn, which is enough")
        )
    column = np.full(speakers, -1)
    column[chosen] = np.arange(len(chosen))
    used = column[owners] >= 0
    scores = scorer.score([material.prints[speaker] for speaker in chosen], probes[used])
    return ScoredTrials(np.asarray(scores, dtype=np.float64), column[owners[used]])


def _open(
    searcher: Searcher, scorer: Scorer, settings: Settings, skipped: list[Skip]
) -> tuple[list[report.OpenSet], list[float], Searched | None]:
    """The open-set results, the thresholds that they are compared at, and the searches of the largest."""
    if not searcher.held_out:
        skipped.append(Skip("open-set search", "no speaker is held out (unknown share 0)"))
        return [], [], None
    most = searcher.speakers - searcher.held_out
    if most < 2:
        why = f"{most} of {searcher.speakers} speakers are left to enroll, and it takes 2"
        skipped.append(Skip("open-set search", why))
        return [], [], None
    found = []
    for size in settings.sizes(most):
        if size <= most:
            found.append(searcher.open(size))
        else:
            why = f"{searcher.held_out} of {searcher.speakers} speakers are held out, which leaves {most}"
            skipped.append(Skip(f"open-set search of {size} callers", why, asked=True))
    if not found:
        return [], [], None
    there = searcher.unknown_probes(found[0])
    fpirs = [target for target in settings.fpirs if there * target >= 1.0 - 1e-9]
    for target in settings.fpirs:
        if target not in fpirs:
            why = f"it takes {int(np.ceil(1 / target))} probes of unknown speakers, and there are {there}"
            skipped.append(Skip(f"FNIR at FPIR {100 * target:g} %", why))
    # What a threshold that was right for the smallest gallery does in the larger ones.
    thresholds = [metrics.threshold_at_fpir(found[0].best, target) for target in fpirs]
    results = [searcher.measure(one, fpirs, scorer.threshold, thresholds) for one in found]
    return results, thresholds, found[-1]
