"""From recordings to embeddings: the enrollment pieces and probes of every speaker, for every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.audio.prompts import KnownPrompts, PromptFinder, prompts_at
from voiceprint.audio.simulate import Condition
from voiceprint.diarization import separate as separated
from voiceprint.encoder import Encoder, OnnxEncoder
from voiceprint.enrollment.augmentation import (
    RECIPE,
    AugmentationPlan,
    PlannedAugmentation,
    augmentation_plan,
    augmented_embeddings,
)
from voiceprint.errors import EncoderError, InvalidAudioError
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.recordings import Audio, Division, Place, Speaker, cut, divide
from voiceprint.evaluation.report import Skip
from voiceprint.evaluation.scoring import Embeddings
from voiceprint.evaluation.settings import Run, Settings

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of it are done, and how many there are."""


@dataclass
class Material:
    """What a run compares.

    names: of the speakers. prints: of each, float32[prints, conditions, d].
    probes: float32[n, d] of all. owners: int64[n], the index of each probe's speaker.
    seconds: of each speaker, float32[prints, d], the second print that the product keeps beside one under
        a single condition: of simulated lines, and of noisy audio without its noise; None where it has none.
    cleaned: of each probe, float32[d], its embedding without noise.
    same_session: names of the speakers whose probes are of the session that they are enrolled from.
    """

    names: list[str] = field(default_factory=list)
    prints: list[Embeddings] = field(default_factory=list)
    probes: list[Embeddings] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    seconds: list[Embeddings | None] = field(default_factory=list)
    cleaned: list[Embeddings] = field(default_factory=list)
    dropped: list[Skip] = field(default_factory=list)
    same_session: set[str] = field(default_factory=set)
    failed_probes: int = 0

    def for_ratios(self) -> Material:
        """The material as log-likelihood ratios are computed of it: cleaned probes, and both prints."""
        prints = [
            one if second is None else np.concatenate([one, second[:, None]], axis=1)
            for one, second in zip(self.prints, self.seconds, strict=True)
        ]
        return replace(self, prints=prints, probes=self.cleaned)

    def with_prints(self, count: int) -> Material:
        """The same speakers and probes with the first `count` prints of each speaker."""
        seconds = [None if second is None else second[:count] for second in self.seconds]
        return replace(self, prints=[one[:count] for one in self.prints], seconds=seconds)


def embed_all(
    speakers: Sequence[Speaker],
    wanted: Sequence[Run],
    settings: Settings,
    encoder: Encoder,
    cache: EmbeddingCache | None,
    progress: Progress,
    *,
    ratios: bool,
    finder: PromptFinder,
) -> tuple[dict[Run, Material], list[Skip]]:
    """The material of every run, with that of `for_ratios` if `ratios`, and files that cannot be read.

    finder: is given every session.
    """
    prompts = None if settings.prompts is None else prompts_at(settings.prompts)
    runs = {run: Material() for run in wanted}
    unreadable: list[Skip] = []
    for done, speaker in enumerate(speakers):
        progress("Embedding", done, len(speakers))
        recordings = load_recordings(
            speaker, settings.channel, unreadable, prompts, separate=settings.separate
        )
        for recording in recordings:
            finder.add(speaker.name, recording)
        # One speaker's recordings at a time are in memory.
        _Pieces(speaker.name, recordings, settings, encoder, cache, ratios=ratios).fill(runs)
    progress("Embedding", len(speakers), len(speakers))
    return runs, unreadable


def load_recordings(
    speaker: Speaker,
    channel: int | None,
    unreadable: list[Skip],
    prompts: KnownPrompts | None = None,
    *,
    separate: bool = False,
) -> list[Audio]:
    """The sessions of a speaker, float32[n] at 16 kHz each, without `prompts`; appends unreadable files to
    `unreadable`. separate: of a file of several voices, the one that speaks most alone."""
    sessions: list[Audio] = []
    for files in speaker.sessions.values():
        joined = [np.zeros(0, dtype=np.float32)]
        for file in files:
            try:
                audio = Recording.open(file, channel=channel).mono[:]
                audio = audio if prompts is None else prompts.remove_from(audio)
                joined.append(_largest_voice(audio) if separate else audio)
            except InvalidAudioError as error:
                unreadable.append(Skip(str(file), str(error)))
        sessions.append(np.concatenate(joined))
    return sessions


def _largest_voice(audio: Audio) -> Audio:
    """Of audio of several voices, the one that speaks most, as `on_several_voices="largest"` enrolls it."""
    voices = separated(Recording.from_buffer(audio), OnnxEncoder().embed_partials)
    if len(voices) < 2:
        return audio
    return max(voices, key=lambda voice: voice.net_speech_s).recording.mono[:]


class _Pieces:
    """The pieces of one speaker, each embedded once under each condition that asks for it."""

    def __init__(
        self,
        name: str,
        recordings: list[Audio],
        settings: Settings,
        encoder: Encoder,
        cache: EmbeddingCache | None,
        *,
        ratios: bool,
    ) -> None:
        self._ratios = ratios
        self._name, self._recordings, self._settings = name, recordings, settings
        self._encoder, self._cache = encoder, cache
        self._cuts = {
            seconds: [cut(audio, seconds, net=settings.net) for audio in recordings]
            for seconds in settings.durations_s
        }
        self._cleaned: dict[tuple[float, Place, Condition], Embeddings] = {}
        self._seconds: dict[tuple[float, Place, Condition], Embeddings] = {}
        self._embedded: dict[tuple[float, Place, Condition], Embeddings | None] = {}
        self._made: dict[tuple[float, Place, Condition], Recording] = {}

    def fill(self, runs: dict[Run, Material]) -> None:
        """Put the speaker into each run that he has pieces for."""
        for run, material in runs.items():
            division = self._division(run)
            if division is None:
                material.dropped.append(Skip(self._name, self._too_few(run)))
                continue
            prints = [
                [self._embedding(run.duration_s, place, condition) for condition in run.enroll]
                for place in division.enrollment
            ]
            probes = [self._embedding(run.duration_s, place, run.probe) for place in division.probes]
            heard = [probe for probe in probes if probe is not None]
            cleaned = [
                self._clean(run.duration_s, place, run.probe, probe)
                for place, probe in zip(division.probes, probes, strict=True)
                if probe is not None and self._ratios
            ]
            material.failed_probes += len(probes) - len(heard)
            failed = any(one is None for row in prints for one in row)
            if failed or not heard:
                where = "an enrollment piece" if failed else "every probe"
                material.dropped.append(Skip(self._name, f"the encoder found no speech in {where}"))
                continue
            material.owners += [len(material.names)] * len(heard)
            material.names.append(self._name)
            material.prints.append(np.array(prints, dtype=np.float32))
            material.probes += heard
            material.cleaned += cleaned
            second = None
            if self._ratios and len(run.enroll) == 1 and self._settings.second_print:
                second = np.stack(
                    [self._second(run.duration_s, place, run.enroll[0]) for place in division.enrollment]
                )
            material.seconds.append(second)
            if division.same_session:
                material.same_session.add(self._name)

    def _division(self, run: Run) -> Division | None:
        # By the speaker's name: others who come or go change nothing.
        key = f"{self._settings.seed}\n{run.duration_s:g}\n{run.prints}\n{self._name}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
        counts = [len(pieces) for pieces in self._cuts[run.duration_s]]
        return divide(counts, run.prints, self._settings.most_probes, rng)

    def _too_few(self, run: Run) -> str:
        counts = [len(pieces) for pieces in self._cuts[run.duration_s]]
        if sum(counts) <= run.prints:
            length = f"{run.duration_s:g} s of {'speech' if self._settings.net else 'audio'}"
            return f"{sum(counts)} of the {run.prints + 1} pieces of {length} that it takes"
        return f"the sessions are too short for {run.prints} prints and a probe of another session"

    def _embedding(self, seconds: float, place: Place, condition: Condition) -> Embeddings | None:
        """None where the encoder finds no speech."""
        key = seconds, place, condition
        if key not in self._embedded:
            self._embedded[key] = embed(self._piece(*key).speech[:], self._encoder, self._cache)
        return self._embedded[key]

    def _clean(self, seconds: float, place: Place, condition: Condition, plain: Embeddings) -> Embeddings:
        """Without noise; the plain embedding where there is none, or nothing is left."""
        key = seconds, place, condition
        if key not in self._cleaned:
            made: Embeddings | None = None
            if self._settings.noise_reduction and self._encoder.sample_rate == SAMPLE_RATE:
                better = self._piece(*key).cleaned
                made = None if better is None else embed(better, self._encoder, self._cache)
            self._cleaned[key] = plain if made is None else made
        return self._cleaned[key]

    def _second(self, seconds: float, place: Place, condition: Condition) -> Embeddings:
        """The second print; the plain embedding where there is none."""
        key = seconds, place, condition
        plain = self._embedding(*key)
        assert plain is not None  # noqa: S101 - the caller looked
        if key not in self._seconds:
            piece = self._piece(*key)
            wanted = augmentation_plan(self._encoder, piece.quality)
            if not self._settings.noise_reduction:
                wanted = wanted._replace(cleaned=False)
            self._seconds[key] = second_print(piece, plain, wanted, self._encoder, self._cache)
        return self._seconds[key]

    def _piece(self, seconds: float, place: Place, condition: Condition) -> Recording:
        key = seconds, place, condition
        if key not in self._made:
            start, end = self._cuts[seconds][place.session][place.piece]
            audio = condition.apply(self._recordings[place.session][start:end], self._settings.seed)
            self._made[key] = Recording.from_buffer(audio)
        return self._made[key]


def without_noise(recording: Recording) -> Audio:
    """The audio that log-likelihood ratios are of: the speech, `cleaned` where that does anything."""
    return recording.speech[:] if recording.cleaned is None else recording.cleaned


def second_print(
    recording: Recording,
    plain: Embeddings,
    wanted: AugmentationPlan,
    encoder: Encoder,
    cache: EmbeddingCache | None,
) -> Embeddings:
    """What enrollment keeps beside the plain embedding, kept or computed; that itself where nothing."""
    if not wanted:
        return plain
    name = f"{encoder.name}; {wanted}; {RECIPE}"
    kept = None if cache is None else cache.get(name, encoder.dimension, recording.speech[:])
    if kept is not None:
        return kept
    made = augmented_embeddings(encoder, [PlannedAugmentation(recording, plain, wanted)])[0]
    second = plain if made is None else made
    if cache is not None:
        cache.put(name, recording.speech[:], second)
    return second


def embed(audio: Audio, encoder: Encoder, cache: EmbeddingCache | None) -> Embeddings | None:
    """The embedding, kept or computed; None where the encoder finds no speech."""
    kept = None if cache is None else cache.get(encoder.name, encoder.dimension, audio)
    if kept is not None:
        return kept
    try:
        # One by one: in a batch the last bits would depend on what else is in it.
        embedding = encoder.embed(audio)
    except EncoderError:
        return None
    if cache is not None:
        cache.put(encoder.name, audio, embedding)
    return embedding
