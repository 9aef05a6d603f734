"""A calibration from recordings of known speakers, and what it is worth.

    found = calibrate("calls")
    found.before.at_target, found.after.at_target  # of speakers who were not fitted to
    found.calibration.save("calibration.json")  # VOICE_CALIBRATION_PATH=calibration.json

Galleries of half of the speakers are searched with the calls of all: the others are strangers. To measure
the calibration, each half of the speakers is calibrated by the other; the file is fitted to all.
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
from voiceprint.evaluation.calibrating import Calls, Enrollment, Measured, fit, measure, search
from voiceprint.evaluation.channels import check_channels
from voiceprint.evaluation.embedding import Progress, embed, load_recordings, second_print, without_noise
from voiceprint.evaluation.recordings import Speaker, cut, find_speakers, in_turns
from voiceprint.evaluation.report import Skip
from voiceprint.evaluation.scoring import Embeddings
from voiceprint.scoring import Calibration, CallerPrints, projection_for

LEAST_SPEAKERS: Final = 8
"""With two pieces each: galleries of two callers and two strangers in either half."""

ADVISED_SPEAKERS: Final = 30
"""From which on the figures, and the file, can be relied on."""

_ENROLLMENTS: Final = 2  # pieces of a speaker to enroll from, of different calls where there are
_SEED: Final = 0


@dataclass(frozen=True)
class Calibrated:
    """A calibration by known speakers: `calibration.save` writes it.

    speakers, pieces: that it was fitted to. one_recording: speakers with one call alone, whose pieces are
        easier to tell together than two calls are. gallery: callers in the galleries that were measured.
    before, after: with the package's calibration, and with one of the other half of the speakers.
    dropped: speakers who could not be used; unreadable: files.
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
    """Fit a calibration to recordings of known speakers; the same recordings give the same one.

    Args:
        folders: one or more DIR with DIR/SPEAKER/SESSION/*.wav (flac, ogg, mp3), as in `recordings`.
        encoder: None for the shared default one.
        duration_s: of speech in each piece, above 0, up to 60; about what a call gives.
        most_pieces: of a speaker, 2 or more, spread over the sessions.
        channel: of recordings with several, from 0; None mixes them.
        prompts: of `VoiceFingerprintConfig`, which are left out; None for none.
        cache: of embeddings; None computes them all.
        progress: told what is being done, how many of it are done, and how many there are.

    Raises:
        InvalidAudioError: the channels of a recording hold different voices, and `channel` chooses none.
        InvalidArgumentError: no recordings, fewer than `LEAST_SPEAKERS` speakers with two pieces, or in a
            space that the package has no prior for, fewer than 20.
        EncoderError: the encoder cannot be loaded.
    """
    if not 0.0 < duration_s <= 60.0 or most_pieces < 2:
        raise InvalidArgumentError(
            "duration_s must be above 0, up to 60, and most_pieces 2 or more, "
            f"not {duration_s} and {most_pieces}"
        )
    encoder = encoder or default_encoder()
    known = None if prompts is None else prompts_at(prompts)
    several = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    unreadable: list[Skip] = []
    speakers = find_speakers([Path(folder) for folder in several], unreadable)
    check_channels(speakers, channel, progress)
    encoder.warm_up()
    intake = _Intake(encoder, duration_s, most_pieces, cache)
    for number, speaker in enumerate(speakers):
        if progress:
            progress("Embedding", number, len(speakers))
        intake.take(speaker, load_recordings(speaker, channel, unreadable, known))
    if progress:
        progress("Embedding", len(speakers), len(speakers))
    calls = intake.calls()
    count = len(calls.enrollments)
    if count < LEAST_SPEAKERS:
        raise InvalidArgumentError(_too_few(count, intake.dropped))
    projection = projection_for(encoder.name, encoder.dimension)
    order = np.random.default_rng(_SEED).permutation(count)
    halves = [search(calls, sorted(half.tolist()), projection, _SEED) for half in np.array_split(order, 2)]
    fitted = [fit(half, encoder.name) for half in halves]
    about = {"source": "labeled", "speakers": count, "pieces": len(calls.probes)}
    whole = fit(search(calls, range(count), projection, _SEED), encoder.name)
    return Calibrated(
        calibration=whole.model_copy(update={"about": about}),
        speakers=count,
        pieces=len(calls.probes),
        one_recording=sum(len(np.unique(calls.calls[calls.speakers == one])) < 2 for one in range(count)),
        gallery=max(one.size for half in halves for one in half),
        before=measure([(Calibration(), half) for half in halves]),
        after=measure([(fitted[1], halves[0]), (fitted[0], halves[1])]),
        dropped=tuple(intake.dropped),
        unreadable=tuple(unreadable),
    )


class _Intake:
    """Embeds the calls of one speaker after the other."""

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

    def take(self, speaker: Speaker, recordings: list[Embeddings]) -> None:
        """Embed pieces of the recordings, float32[n] at 16 kHz each."""
        cuts = [cut(audio, self._duration_s) for audio in recordings]
        pieces = []
        for place in in_turns(range(len(cuts)), list(map(len, cuts)))[: self._most]:
            start, end = cuts[place.session][place.piece]
            audio = recordings[place.session][start:end]
            piece = Recording.from_buffer(audio)
            probe = embed(without_noise(piece), self._encoder, self._cache)
            if probe is not None:
                pieces.append((self._sessions + place.session, piece, probe))
        self._sessions += len(recordings)
        if len(pieces) < 2:
            why = f"{len(pieces)} of the 2 pieces of {self._duration_s:g} s of speech that it takes"
            self.dropped.append(Skip(speaker.name, why))
            return
        number = len(self._enrollments)
        self._enrollments[number] = [
            Enrollment(call, self._prints(piece, probe), len(self._probes) + place)
            for place, (call, piece, probe) in enumerate(pieces[:_ENROLLMENTS])
        ]
        self._probes += [probe for _, _, probe in pieces]
        self._calls += [call for call, _, _ in pieces]
        self._speakers += [number] * len(pieces)

    def _prints(self, piece: Recording, probe: Embeddings) -> CallerPrints:
        plain = embed(piece.speech[:], self._encoder, self._cache)
        plain = probe if plain is None else plain
        wanted = augmentation_plan(self._encoder, piece.quality)
        if not wanted:
            return CallerPrints(plain[None], plain[None][:0])
        return CallerPrints(plain[None], second_print(piece, plain, wanted, self._encoder, self._cache)[None])

    def calls(self) -> Calls:
        """All that was taken."""
        probes = np.array(self._probes, dtype=np.float32).reshape(-1, self._encoder.dimension)
        return Calls(probes, np.array(self._speakers), np.array(self._calls), self._enrollments)


def _too_few(count: int, dropped: list[Skip]) -> str:
    reasons = "; ".join(f"{skip.what}: {skip.why}" for skip in dropped[:3])
    more = f"; and {len(dropped) - 3} more" if len(dropped) > 3 else ""
    left = f" ({reasons}{more})" if dropped else ""
    return (
        f"A calibration takes {LEAST_SPEAKERS} speakers or more, with two pieces of speech each, and better "
        f"{ADVISED_SPEAKERS}: there are {count}{left}"
    )
