"""A calibration from calls whose callers nobody knows, against the callers enrolled in a store.

    found = calibrate_by_calls("calls", recognizer)
    found.known_share  # of the calls, estimated
    found.calibration.save("calibration.json")  # VOICE_CALIBRATION_PATH=calibration.json

The best score of each call is of a caller who is enrolled, or of a stranger; a mixture of both finds out.
The strangers say by how much real traffic differs from the gallery's own callers. Scale and offset of the
log-likelihood ratios stay, as without labels nothing says which caller spoke.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import Recording
from voiceprint.audio.prompts import prompts_at
from voiceprint.embedder import MIN_PROBE_SPEECH_S, Probe
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.calibrating import TARGETS, deviates
from voiceprint.evaluation.channels import check_channels
from voiceprint.evaluation.embedding import Progress, embed, load_recordings, without_noise
from voiceprint.evaluation.mixture import Mixture, fit_mixture
from voiceprint.evaluation.recordings import cut, find_calls
from voiceprint.evaluation.report import Skip
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.scoring import Calibration, ImpostorStatistics

LEAST_CALLS: Final = 30
"""Calls from which the estimate is better than none: fewer strangers weigh less than the prior."""

LEAST_CALLERS: Final = 10
"""Enrolled callers from which a gallery's own scores weigh more than the package's prior."""

_SEED: Final = 0
_SILENCE: Final = "no speech"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Accepted:
    """Calls that are accepted at the threshold for a wanted FPIR, shares 0..1.

    calls: of all calls. strangers: of the strangers among them, as estimated: the FPIR got.
    stranger_calls: strangers among the accepted calls, as estimated, a number of calls.
    """

    target: float
    calls: float
    strangers: float
    stranger_calls: float


@dataclass(frozen=True)
class CalibratedByCalls:
    """A calibration by unlabeled calls: `calibration.save` writes it.

    calls: that it was fitted to. callers: enrolled ones, of whom a sample where they are many.
    known_share: of the calls that are of enrolled callers, estimated, 0..1.
    before, after: with the package's calibration, and with one of the other half of the calls.
    dropped: calls without enough speech; unreadable: files.
    """

    calibration: Calibration = field(repr=False)
    calls: int
    callers: int
    known_share: float
    before: tuple[Accepted, ...]
    after: tuple[Accepted, ...]
    dropped: tuple[Skip, ...]
    unreadable: tuple[Skip, ...]


class Best(NamedTuple):
    """The best score of each call, float64[n], in units of the statistics of a gallery of so many callers."""

    scores: Floats
    statistics: ImpostorStatistics
    gallery_size: int


def calibrate_by_calls(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    recognizer: OpusAgentVoiceRecognizer,
    *,
    duration_s: float = 5.0,
    channel: int | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> CalibratedByCalls:
    """Fit what real strangers score to recordings of calls; the same calls and store give the same result.

    Args:
        folders: one or more folders of recordings, at any depth, each a call.
        recognizer: its store, encoder and settings count; its calibration does not.
        duration_s: of speech from the start of each call, above 0, up to 60: about when you identify.
            A call with less is used whole, from 1 s.
        channel: the caller's, from 0; None mixes them.
        cache: of embeddings; None computes them all.
        progress: told what is being done, how many of it are done, and how many there are.

    Raises:
        InvalidAudioError: the channels of a recording hold different voices, and `channel` chooses none.
        InvalidArgumentError: fewer than `LEAST_CALLS` calls with speech, or than `LEAST_CALLERS` callers who
            are enrolled with this encoder.
        EncoderError: the encoder cannot be loaded. The store's errors pass through.
    """
    if not 0.0 < duration_s <= 60.0:
        raise InvalidArgumentError(f"duration_s must be above 0, up to 60, not {duration_s}")
    prompts = recognizer.config.prompts
    known = None if prompts is None else prompts_at(prompts)
    matcher = _StoreMatcher(recognizer)
    several = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    unreadable: list[Skip] = []
    calls = find_calls([Path(folder) for folder in several], unreadable)
    _check_count(len(calls), "")
    check_channels(calls, channel, progress)
    recognizer.encoder.warm_up()
    scores: list[float] = []
    dropped: list[Skip] = []
    for number, call in enumerate(calls):
        if progress:
            progress("Searching", number, len(calls))
        failed = len(unreadable)
        (audio,) = load_recordings(call, channel, unreadable, known)
        if len(unreadable) > failed:
            continue
        found = _embedding(audio, recognizer, duration_s, cache)
        if isinstance(found, str):
            dropped.append(Skip(call.name, found))
        else:
            scores.append(matcher.best(found))
    if progress:
        progress("Searching", len(calls), len(calls))
    _check_count(len(scores), f" of {len(calls)} recordings" if dropped or unreadable else "")
    best = Best(np.array(scores), matcher.statistics, matcher.gallery_size)
    calibration, known_share = fit_calls(best, recognizer.encoder.name)
    before, after = measure_halves(best)
    about = {
        "source": "calls",
        "calls": len(scores),
        "callers": matcher.gallery_size,
        "known_share": round(known_share, 3),
    }
    return CalibratedByCalls(
        calibration=calibration.model_copy(update={"about": about}),
        calls=len(scores),
        callers=matcher.gallery_size,
        known_share=known_share,
        before=before,
        after=after,
        dropped=tuple(dropped),
        unreadable=tuple(unreadable),
    )


class _StoreMatcher:
    """Searches the store of a recognizer, without a calibration."""

    def __init__(self, recognizer: OpusAgentVoiceRecognizer) -> None:
        storage, encoder = recognizer.storage, recognizer.encoder
        config = recognizer.config.model_copy(update={"calibration_path": None})
        settings = IndexSettings.of(config)
        shared = SharedIndex.of_process(storage.location, encoder.name, encoder.dimension, settings)
        gallery = Gallery(storage, shared)
        gallery.refresh()
        self._scorer = gallery.scorer()
        found = self._scorer.statistics
        callers = 0 if found is None else found.callers
        if found is None or callers < LEAST_CALLERS:
            raise InvalidArgumentError(
                f"A calibration by calls takes {LEAST_CALLERS} enrolled callers or more: {storage} has "
                f"{callers or 'too few'}. Enroll callers first, or calibrate by labeled recordings"
            )
        self.statistics: ImpostorStatistics = found
        self.gallery_size = gallery.count_callers()
        self._identifier = Identifier(gallery, config)

    def best(self, embedding: NDArray[np.float32]) -> float:
        """The best score of an embedding, float32[d], with a caller."""
        (match,) = self._identifier.identify(Probe(embedding), Query(threshold=0.0))
        assert match.llr is not None  # noqa: S101  with so many callers there is one
        package = self._scorer.calibration
        deviations = match.llr / package.scale + package.offset
        return self.statistics.pair_mean + self.statistics.pair_std * deviations


def _embedding(
    audio: NDArray[np.float32],
    recognizer: OpusAgentVoiceRecognizer,
    duration_s: float,
    cache: EmbeddingCache | None,
) -> NDArray[np.float32] | str:
    """The embedding of a call, or why it has none."""
    if not len(audio):
        return _SILENCE
    pieces = cut(audio, duration_s)
    if pieces:
        audio = audio[pieces[0][0] : pieces[0][1]]
    call = Recording.from_buffer(audio)
    quality = call.quality
    if quality.net_speech_s < min(MIN_PROBE_SPEECH_S, duration_s):
        return f"{quality.net_speech_s:.1f} s of the {MIN_PROBE_SPEECH_S:g} s of speech that it takes"
    if quality.score < recognizer.config.min_audio_quality:
        return f"an audio quality of {quality.score:.2f}, which identification refuses"
    found = embed(without_noise(call), recognizer.encoder, cache)
    return _SILENCE if found is None else found


def _check_count(count: int, of: str) -> None:
    if count < LEAST_CALLS:
        raise InvalidArgumentError(
            f"A calibration by calls takes {LEAST_CALLS} calls with speech or more: there are {count}{of}"
        )


def fit_calls(best: Best, space: str = "") -> tuple[Calibration, float]:
    """The calibration by the best scores of calls, and the estimated share of calls by known callers."""
    mixture = _mixture(best)
    strangers = mixture.strangers
    calibration = Calibration(stranger_shift=strangers.mean, stranger_spread=strangers.std, space=space)
    return calibration, mixture.known_share


def _mixture(best: Best) -> Mixture:
    return fit_mixture(deviates(*best))


def measure_halves(best: Best) -> tuple[tuple[Accepted, ...], tuple[Accepted, ...]]:
    """What each half of the calls gets, before and after a calibration by the other half."""
    order = np.random.default_rng(_SEED).permutation(len(best.scores))
    halves = [best._replace(scores=best.scores[half]) for half in np.array_split(order, 2)]
    # How many of those accepted are strangers, each half says by itself.
    strangers = [_mixture(half).stranger_probability(deviates(*half)) for half in halves]
    fitted = [fit_calls(half)[0] for half in halves]
    package = Calibration()
    return (
        _accepted(halves, strangers, [package, package]),
        _accepted(halves, strangers, fitted[::-1]),
    )


def _accepted(
    halves: list[Best], strangers: list[Floats], calibrations: list[Calibration]
) -> tuple[Accepted, ...]:
    found = []
    unknown = np.concatenate(strangers)
    for target in TARGETS:
        over = np.concatenate(
            [
                half.scores
                >= calibration.to_traffic_score(
                    half.statistics.threshold(target, half.gallery_size), half.statistics
                )
                for half, calibration in zip(halves, calibrations, strict=True)
            ]
        )
        named = float(unknown[over].sum())
        found.append(Accepted(target, float(over.mean()), named / max(float(unknown.sum()), 1.0), named))
    return tuple(found)
