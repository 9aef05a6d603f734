"""A calibration from unlabeled calls, against the callers enrolled in a store.

    result = calibrate_by_calls("calls", recognizer)
    result.known_share  # of the calls, estimated
    result.calibration.save("calibration.json")  # VOICE_CALIBRATION_PATH=calibration.json

The best score of each call is of an enrolled caller or of a stranger; a mixture of both is fitted. Its
stranger component measures by how much real traffic differs from the gallery's own callers. Scale and offset
of the log-likelihood ratios need labels, and stay.
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
from voiceprint.embedder import Probe
from voiceprint.encoder.base import min_speech_s
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.calibration_fit import TARGETS, deviates
from voiceprint.evaluation.embedding import embed, load_recordings, probe_speech
from voiceprint.evaluation.mixture import Mixture, fit_mixture
from voiceprint.evaluation.recordings import Progress, check_channels, cut, find_calls
from voiceprint.evaluation.report import Skip
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.scoring import Calibration, ImpostorStatistics

LEAST_CALLS: Final = 30
"""Fewest calls: with fewer, the prior outweighs their strangers."""

LEAST_CALLERS: Final = 10
"""Fewest enrolled callers: with fewer, the package's prior is most of the gallery's statistics."""

_SEED: Final = 0
_NO_SPEECH: Final = "no speech"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Accepted:
    """Calls accepted at the threshold for a target FPIR; shares 0..1.

    calls: share of all calls. strangers: share of the strangers, estimated: the FPIR.
    stranger_calls: number of strangers among the accepted calls, estimated.
    """

    target: float
    calls: float
    strangers: float
    stranger_calls: float


@dataclass(frozen=True)
class CalibratedByCalls:
    """A calibration by unlabeled calls: `calibration.save` writes it.

    calls: number of calls in the fit. callers: number of enrolled callers.
    known_share: share of the calls by enrolled callers, estimated, 0..1.
    before, after: with the package's calibration, and with that of the other half of the calls.
    dropped: calls without enough speech. unreadable: files.
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
    """The best score of each call, float64[n], with the statistics and size of the gallery."""

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
    """Fit the scores of real strangers to recordings of calls; equal calls and stores give equal results.

    Args:
        folders: one or more folders of recordings, at any depth, each a call.
        recognizer: with the store, the encoder and the settings; its calibration is ignored.
        duration_s: of speech from the start of each call, above 0, up to 60: as when you identify.
            A call with less, from 1 s, is used whole.
        channel: the caller's, from 0; None mixes all.
        cache: of embeddings; None for no cache.
        progress: called with the stage, the items done, and the items in all.

    Raises:
        InvalidAudioError: a recording has a different voice on each channel, and `channel` is None.
        InvalidArgumentError: fewer than `LEAST_CALLS` calls with speech, or than `LEAST_CALLERS` callers
            enrolled with this encoder.
        EncoderError: the encoder cannot be loaded.
        StorageError: the store fails.
    """
    if not 0.0 < duration_s <= 60.0:
        raise InvalidArgumentError(f"duration_s must be above 0, up to 60, not {duration_s}")
    prompts = recognizer.config.prompts
    known_prompts = None if prompts is None else prompts_at(prompts)
    searcher = _StoreSearcher(recognizer)
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
        (audio,) = load_recordings(call, channel, unreadable, known_prompts)
        if len(unreadable) > failed:
            continue
        embedding = _embed_call(audio, recognizer, duration_s, cache)
        if isinstance(embedding, str):
            dropped.append(Skip(call.name, embedding))
        else:
            scores.append(searcher.best_score(embedding))
    if progress:
        progress("Searching", len(calls), len(calls))
    _check_count(len(scores), f" of {len(calls)} recordings" if dropped or unreadable else "")
    best = Best(np.array(scores), searcher.statistics, searcher.gallery_size)
    calibration, known_share = fit_calls(best, recognizer.encoder.name)
    before, after = measure_halves(best)
    about = {
        "source": "calls",
        "calls": len(scores),
        "callers": searcher.gallery_size,
        "known_share": round(known_share, 3),
    }
    return CalibratedByCalls(
        calibration=calibration.model_copy(update={"about": about}),
        calls=len(scores),
        callers=searcher.gallery_size,
        known_share=known_share,
        before=before,
        after=after,
        dropped=tuple(dropped),
        unreadable=tuple(unreadable),
    )


class _StoreSearcher:
    """Searches the store of a recognizer, without a calibration."""

    def __init__(self, recognizer: OpusAgentVoiceRecognizer) -> None:
        storage, encoder = recognizer.storage, recognizer.encoder
        config = recognizer.config.model_copy(update={"calibration_path": None})
        settings = IndexSettings.of(config)
        shared = SharedIndex.of_process(storage.location, encoder.name, encoder.dimension, settings)
        gallery = Gallery(storage, shared)
        gallery.refresh()
        self._scorer = gallery.scorer()
        statistics = self._scorer.statistics
        callers = 0 if statistics is None else statistics.callers
        if statistics is None or callers < LEAST_CALLERS:
            raise InvalidArgumentError(
                f"A calibration by calls needs {LEAST_CALLERS} enrolled callers or more: {storage} has "
                f"{callers or 'too few'}. Enroll callers first, or calibrate by labeled recordings"
            )
        self.statistics: ImpostorStatistics = statistics
        self.gallery_size = gallery.count_callers()
        self._identifier = Identifier(gallery, config)

    def best_score(self, embedding: NDArray[np.float32]) -> float:
        """The best score of an embedding, float32[d], with an enrolled caller."""
        (match,) = self._identifier.identify(Probe(embedding), Query(threshold=0.0))
        assert match.llr is not None  # noqa: S101  the gallery has statistics
        return self.statistics.score(self._scorer.calibration.deviations(match.llr))


def _embed_call(
    audio: NDArray[np.float32],
    recognizer: OpusAgentVoiceRecognizer,
    duration_s: float,
    cache: EmbeddingCache | None,
) -> NDArray[np.float32] | str:
    """The embedding of a call, or the reason why it cannot be used."""
    if not len(audio):
        return _NO_SPEECH
    pieces = cut(audio, duration_s)
    if pieces:
        audio = audio[pieces[0][0] : pieces[0][1]]
    call = Recording.from_buffer(audio)
    quality = call.quality
    least_s = min_speech_s(recognizer.encoder)
    if quality.net_speech_s < min(least_s, duration_s):
        return f"{quality.net_speech_s:.1f} s of the {least_s:g} s of speech that are needed"
    if quality.score < recognizer.config.min_audio_quality:
        return f"an audio quality of {quality.score:.2f}, which identification refuses"
    embedding = embed(probe_speech(call, recognizer.encoder), recognizer.encoder, cache)
    return _NO_SPEECH if embedding is None else embedding


def _check_count(count: int, of: str) -> None:
    if count < LEAST_CALLS:
        raise InvalidArgumentError(
            f"A calibration by calls needs {LEAST_CALLS} calls with speech or more: there are {count}{of}"
        )


def fit_calls(best: Best, space: str = "") -> tuple[Calibration, float]:
    """The calibration by the best scores of calls, and the estimated share of known callers."""
    mixture = _mixture(best)
    strangers = mixture.strangers
    calibration = Calibration(stranger_shift=strangers.mean, stranger_spread=strangers.std, space=space)
    return calibration, mixture.known_share


def _mixture(best: Best) -> Mixture:
    return fit_mixture(deviates(*best))


def measure_halves(best: Best) -> tuple[tuple[Accepted, ...], tuple[Accepted, ...]]:
    """The accepted calls of each half, before and after a calibration by the other half."""
    order = np.random.default_rng(_SEED).permutation(len(best.scores))
    halves = [best._replace(scores=best.scores[half]) for half in np.array_split(order, 2)]
    # The mixture of each half itself estimates the strangers among its accepted calls.
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
