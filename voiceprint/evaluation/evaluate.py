"""Evaluate recordings of known speakers: verification, and closed-set and open-set identification."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from voiceprint.audio.prompts import PromptFinder
from voiceprint.encoder import Encoder, default_encoder
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation import metrics, report
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.curves import histogram
from voiceprint.evaluation.embedding import RunEmbeddings, embed_all
from voiceprint.evaluation.identification import Searched, Searcher
from voiceprint.evaluation.recommendation import TARGET, THRESHOLD, Recommender, first_runs, with_more_prints
from voiceprint.evaluation.recordings import Progress, Speaker, check_channels, find_speakers
from voiceprint.evaluation.report import Report, RunResult, Sessions, Skip
from voiceprint.evaluation.scoring import CosineScorer, Scorer, least_callers
from voiceprint.evaluation.settings import Run, Settings
from voiceprint.evaluation.verification import LEAST_TO_CALIBRATE, ScoredTrials, verify

MOST_TRIALS = 500_000
"""Trials that a verification scores, at most; speakers are sampled to stay below."""


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
            directly in DIR/SPEAKER is a session of its own. A speaker with several sessions is never
            enrolled and probed from the same one.
        settings: None for the defaults.
        encoder: None for the shared default encoder.
        scorer: one, or several for results side by side; None for the cosine, as in `match_caller`.
        cache: of embeddings; None for no cache.
        progress: called with the stage, the items done, and the items in all.

    Returns:
        The report; equal recordings and settings give equal reports.

    Raises:
        InvalidArgumentError: no folder holds recordings, or no run has two speakers with enough of them.
        InvalidAudioError: a recording has a different voice on each channel, and `settings.channel` is None.
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
    encoder.warm_up()  # first, as later an EncoderError means audio without speech
    llrs = any(one.calibrated for one in scorers)
    firsts = first_runs(settings)
    compared = [more for run in firsts for more in with_more_prints(run, settings)]
    runs = dict.fromkeys([*settings.runs(), *compared])
    finder = PromptFinder()
    embedded, unreadable = embed_all(
        speakers, [*runs], settings, encoder, cache, progress, llrs=llrs, finder=finder
    )
    unreadable = [*skipped, *unreadable]
    measured = {run: embedded[run] for run in settings.runs()}
    if all(len(embeddings.names) < 2 for embeddings in measured.values()):
        raise InvalidArgumentError(_too_few_speakers(measured, unreadable))
    results: dict[Run, list[RunResult]] = {}
    for done, (run, embeddings) in enumerate(measured.items()):
        progress("Measuring", done, len(measured))
        results[run] = [_measure(run, embeddings, one, settings, named=len(scorers) > 1) for one in scorers]
    recommender = Recommender(scorers, settings, embedded)
    recommendations = tuple(recommender.recommend(run, results[run]) for run in firsts)
    progress("Measuring", len(measured), len(measured))
    import voiceprint

    return Report(
        sessions=_sessions(speakers, measured.values()),
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
    """Ignore progress."""


def _sessions(speakers: Iterable[Speaker], runs: Iterable[RunEmbeddings]) -> Sessions:
    """Count the speakers whose probes are of another session than their enrollment, over all runs."""
    measured: set[str] = set()
    same: set[str] = set()
    for embeddings in runs:
        measured.update(embeddings.names)
        same |= embeddings.same_session
    single = {
        one.name
        for one in speakers
        if len(one.sessions) > 1 and all(name == files[0].name for name, files in one.sessions.items())
    }
    return Sessions(len(measured), len(same), len(single & measured - same))


def _too_few_speakers(runs: dict[Run, RunEmbeddings], unreadable: list[Skip]) -> str:
    run, embeddings = max(runs.items(), key=lambda item: len(item[1].names))
    # The reason of an unreadable file starts with its path.
    reasons = [skip.why for skip in unreadable] + [f"{skip.what}: {skip.why}" for skip in embeddings.dropped]
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return (
        f"{len(embeddings.names)} of the speakers can be measured ({run}), and 2 are needed. "
        f"{'; '.join(reasons[:3])}{more}. Give longer or more recordings, or a shorter duration."
    )


def _measure(
    run: Run, embeddings: RunEmbeddings, scorer: Scorer, settings: Settings, *, named: bool
) -> RunResult:
    """The results of a run by a scorer; named: whether its name contains that of the scorer."""
    skipped: list[Skip] = []
    embeddings = embeddings.for_llrs() if scorer.calibrated else embeddings
    speakers = len(embeddings.names)
    verification, distribution = None, None
    closed: list[report.ClosedSet] = []
    opened: list[report.OpenSet] = []
    thresholds: list[float] = []
    least = least_callers(scorer)
    if speakers < least:
        why = f"{speakers} of the speakers can be measured, and {least} are needed"
        skipped.append(Skip("everything", why, asked=True))
    else:
        scored = _trials(embeddings, scorer, settings, skipped)
        verification = verify(scored, settings, calibrated=scorer.calibrated)
        if verification.cllr is None:
            why = f"a calibration needs {LEAST_TO_CALIBRATE} speakers, and there are {speakers}"
            skipped.append(Skip("Cllr", why))
        searcher = Searcher(embeddings, scorer, settings)
        sizes = settings.sizes(speakers - searcher.held_out)
        if settings.gallery is None and speakers not in sizes:
            sizes.append(speakers)
        for size in sizes:
            if least <= size <= speakers:
                closed.append(searcher.closed(size))
            elif size > speakers or settings.gallery is not None:
                why = f"there are {speakers}" if size > speakers else f"{scorer.name} needs {least}"
                skipped.append(Skip(f"closed-set search of {size} callers", why, asked=True))
        opened, thresholds, largest = _open(searcher, scorer, settings, skipped)
        best = largest.best if largest else np.zeros(0)
        low, high, (own, other, nearest) = histogram([scored.targets, scored.impostors, best])
        gallery = largest.gallery if largest else None
        thresholds_by_setting = _thresholds_by_setting(scorer, settings, largest)
        distribution = report.Histogram(low, high, own, other, nearest, gallery, thresholds_by_setting)
    return RunResult(
        name=f"{run}, by {scorer.name}" if named else str(run),
        scorer=scorer.name,
        enroll=run.enroll_name,
        probe=str(run.probe),
        duration_s=run.duration_s,
        prints=run.prints,
        material=report.Material(
            speakers=speakers,
            dropped=tuple(embeddings.dropped),
            probes=len(embeddings.probes),
            same_session=len(embeddings.same_session),
            failed_probes=embeddings.failed_probes,
        ),
        verification=verification,
        closed_set=tuple(closed),
        open_set=tuple(opened),
        thresholds=tuple(thresholds),
        histogram=distribution,
        skipped=tuple(skipped),
    )


def _thresholds_by_setting(
    scorer: Scorer, settings: Settings, largest: Searched | None
) -> tuple[tuple[str, float], ...]:
    """Each setting that decides by these scores, with its threshold."""
    found = [] if scorer.threshold is None else [(f"{THRESHOLD}={scorer.threshold:g}", scorer.threshold)]
    if largest is not None:
        thresholds = np.median(largest.best - largest.over_unknown, axis=1)
        found += [
            (f"{TARGET}={target:g}", float(threshold))
            for target, threshold in zip(settings.targets, thresholds, strict=False)
        ]
    return tuple(found)


def _trials(
    embeddings: RunEmbeddings, scorer: Scorer, settings: Settings, skipped: list[Skip]
) -> ScoredTrials:
    """Score all probes against all callers, of a sample of the speakers above `MOST_TRIALS`."""
    owners = np.array(embeddings.owners, dtype=np.int64)
    probes = np.array(embeddings.probes, dtype=np.float32)
    speakers = len(embeddings.names)
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
    scores = scorer.score([embeddings.prints[speaker] for speaker in chosen], probes[used])
    return ScoredTrials(np.asarray(scores, dtype=np.float64), column[owners[used]])


def _open(
    searcher: Searcher, scorer: Scorer, settings: Settings, skipped: list[Skip]
) -> tuple[list[report.OpenSet], list[float], Searched | None]:
    """The open-set results, the thresholds compared over gallery sizes, and the searches of the largest."""
    if not searcher.held_out:
        skipped.append(Skip("open-set search", "no speaker is held out (unknown share 0)"))
        return [], [], None
    most, least = searcher.speakers - searcher.held_out, least_callers(scorer)
    if most < least:
        why = f"{most} of {searcher.speakers} speakers are left to enroll, and {least} are needed"
        skipped.append(Skip("open-set search", why))
        return [], [], None
    found = []
    for size in settings.sizes(most):
        if least <= size <= most:
            found.append(searcher.open(size))
        elif size > most:
            why = f"{searcher.held_out} of {searcher.speakers} speakers are held out, which leaves {most}"
            skipped.append(Skip(f"open-set search of {size} callers", why, asked=True))
    if not found:
        return [], [], None
    count = searcher.unknown_probes(found[0])
    fpirs = [target for target in settings.fpirs if count * target >= 1.0 - 1e-9]
    for target in settings.fpirs:
        if target not in fpirs:
            needed = int(np.ceil(1 / target))
            why = f"{needed} probes of unknown speakers are needed, and there are {count}"
            skipped.append(Skip(f"FNIR at FPIR {100 * target:g} %", why))
    # The thresholds for the smallest gallery, applied to the larger ones.
    thresholds = [metrics.threshold_at_fpir(found[0].best, target) for target in fpirs]
    results = [searcher.measure(one, fpirs, scorer.threshold, thresholds) for one in found]
    return results, thresholds, found[-1]
