"""A calibration from recordings of known speakers, with its error rates.

    result = calibrate("calls")
    result.before.at_target, result.after.at_target  # of speakers outside the fit
    result.calibration.save("calibration.json")  # VOICE_CALIBRATION_PATH=calibration.json

The calls of all speakers search galleries of half of them: the others are strangers. The error rates are of
each half of the speakers, calibrated by the other; the file is fitted to all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from voiceprint.audio import Recording
from voiceprint.audio.prompts import prompts_at
from voiceprint.encoder import Encoder, default_encoder
from voiceprint.enrollment.augmentation import augmentation_plan
from voiceprint.errors import InvalidArgumentError
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.calibration_fit import Calls, Enrollment, Measured, fit, measure, search
from voiceprint.evaluation.embedding import augmented_print, embed, load_recordings, probe_speech
from voiceprint.evaluation.recordings import (
    Audio,
    Progress,
    Speaker,
    check_channels,
    cut,
    find_speakers,
    in_turns,
)
from voiceprint.evaluation.report import Skip
from voiceprint.evaluation.scoring import Embeddings
from voiceprint.scoring import Calibration, CallerPrints, projection_for

LEAST_SPEAKERS: Final = 8
"""Fewest speakers with two pieces each: galleries of two callers, and two strangers, in each half."""

ADVISED_SPEAKERS: Final = 30
"""Fewest speakers for reliable error rates and a reliable file."""

_ENROLLMENTS: Final = 2  # pieces of a speaker to enroll from, of different calls if there are several
_SEED: Final = 0


@dataclass(frozen=True)
class Calibrated:
    """A calibration by known speakers: `calibration.save` writes it.

    speakers, pieces: the number of each in the fit. one_recording: speakers with a single call, whose pieces
        are easier to recognize than two calls. gallery: callers in the galleries of the measurement.
    before, after: with the package's calibration, and with that of the other half of the speakers.
    dropped: speakers without enough pieces. unreadable: files.
    """

    calibration: Calibration = field(repr=False)
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
    encoder: Encoder | None = None,
    duration_s: float = 5.0,
    most_pieces: int = 10,
    channel: int | None = None,
    prompts: str | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit a calibration to recordings of known speakers; equal recordings give equal calibrations.

    Args:
        folders: one or more DIR with DIR/SPEAKER/SESSION/*.wav (flac, ogg, mp3), as in `recordings`.
        encoder: None for the shared default encoder.
        duration_s: of speech in each piece, above 0, up to 60; as in a call of yours.
        most_pieces: of a speaker, 2 or more, spread over the sessions.
        channel: index of the channel, from 0; None mixes all.
        prompts: as in `VoiceFingerprintConfig`; removed from all recordings.
        cache: of embeddings; None for no cache.
        progress: called with the stage, the items done, and the items in all.

    Raises:
        InvalidAudioError: a recording has a different voice on each channel, and `channel` is None.
        InvalidArgumentError: no recordings, or fewer than `LEAST_SPEAKERS` speakers with two pieces; 20 in a
            space without a prior.
        EncoderError: the encoder cannot be loaded.
    """
    if not 0.0 < duration_s <= 60.0 or most_pieces < 2:
        raise InvalidArgumentError(
            "duration_s must be above 0, up to 60, and most_pieces 2 or more, "
            f"not {duration_s} and {most_pieces}"
        )
    encoder = encoder or default_encoder()
    known_prompts = None if prompts is None else prompts_at(prompts)
    several = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    unreadable: list[Skip] = []
    speakers = find_speakers([Path(folder) for folder in several], unreadable)
    check_channels(speakers, channel, progress)
    encoder.warm_up()
    embedder = _CallEmbedder(encoder, duration_s, most_pieces, cache)
    for number, speaker in enumerate(speakers):
        if progress:
            progress("Embedding", number, len(speakers))
        embedder.add(speaker, load_recordings(speaker, channel, unreadable, known_prompts))
    if progress:
        progress("Embedding", len(speakers), len(speakers))
    calls = embedder.calls()
    count = len(calls.enrollments)
    if count < LEAST_SPEAKERS:
        raise InvalidArgumentError(_too_few(count, embedder.dropped))
    projection = projection_for(encoder.name, encoder.dimension)
    order = np.random.default_rng(_SEED).permutation(count)
    halves = [search(calls, sorted(half.tolist()), projection, _SEED) for half in np.array_split(order, 2)]
    fitted = [fit(half, encoder.name) for half in halves]
    about = {"source": "labeled", "speakers": count, "pieces": len(calls.probes)}
    calibration = fit(search(calls, range(count), projection, _SEED), encoder.name)
    return Calibrated(
        calibration=calibration.model_copy(update={"about": about}),
        speakers=count,
        pieces=len(calls.probes),
        one_recording=sum(len(np.unique(calls.calls[calls.speakers == one])) < 2 for one in range(count)),
        gallery=max(one.size for half in halves for one in half),
        before=measure([(Calibration(), half) for half in halves]),
        after=measure([(fitted[1], halves[0]), (fitted[0], halves[1])]),
        dropped=tuple(embedder.dropped),
        unreadable=tuple(unreadable),
    )


class _CallEmbedder:
    """Embeds pieces of the calls of speakers."""

    def __init__(
        self, encoder: Encoder, duration_s: float, most_pieces: int, cache: EmbeddingCache | None
    ) -> None:
        self._encoder, self._duration_s, self._most, self._cache = encoder, duration_s, most_pieces, cache
        self._probes: list[Embeddings] = []
        self._speakers: list[int] = []
        self._calls: list[int] = []
        self._sessions = 0
        self._enrollments: dict[int, list[Enrollment]] = {}
        self.dropped: list[Skip] = []

    def add(self, speaker: Speaker, recordings: list[Audio]) -> None:
        """Embed pieces of a speaker's recordings, float32[n] at 16 kHz each."""
        cuts = [cut(audio, self._duration_s) for audio in recordings]
        pieces = []
        for place in in_turns(range(len(cuts)), list(map(len, cuts)))[: self._most]:
            start, end = cuts[place.session][place.piece]
            audio = recordings[place.session][start:end]
            piece = Recording.from_buffer(audio)
            probe = embed(probe_speech(piece, self._encoder), self._encoder, self._cache)
            if probe is not None:
                pieces.append((self._sessions + place.session, piece, probe))
        self._sessions += len(recordings)
        if len(pieces) < 2:
            why = f"{len(pieces)} of the 2 pieces of {self._duration_s:g} s of speech that are needed"
            self.dropped.append(Skip(speaker.name, why))
            return
        number = len(self._enrollments)
        self._enrollments[number] = [
            Enrollment(call, self._prints(piece, probe), len(self._probes) + index)
            for index, (call, piece, probe) in enumerate(pieces[:_ENROLLMENTS])
        ]
        self._probes += [probe for _, _, probe in pieces]
        self._calls += [call for call, _, _ in pieces]
        self._speakers += [number] * len(pieces)

    def _prints(self, piece: Recording, probe: Embeddings) -> CallerPrints:
        plain = embed(piece.speech[:], self._encoder, self._cache)
        plain = probe if plain is None else plain
        plan = augmentation_plan(self._encoder, piece.quality)
        if not plan:
            return CallerPrints(plain[None], plain[None][:0])
        augmented = augmented_print(piece, plain, plan, self._encoder, self._cache)
        return CallerPrints(plain[None], augmented[None])

    def calls(self) -> Calls:
        """The calls of all speakers added."""
        probes = np.array(self._probes, dtype=np.float32).reshape(-1, self._encoder.dimension)
        return Calls(probes, np.array(self._speakers), np.array(self._calls), self._enrollments)


def _too_few(count: int, dropped: list[Skip]) -> str:
    reasons = "; ".join(f"{skip.what}: {skip.why}" for skip in dropped[:3])
    more = f"; and {len(dropped) - 3} more" if len(dropped) > 3 else ""
    left = f" ({reasons}{more})" if dropped else ""
    return (
        f"A calibration needs {LEAST_SPEAKERS} speakers or more, with two pieces of speech each, and better "
        f"{ADVISED_SPEAKERS}: there are {count}{left}"
    )
