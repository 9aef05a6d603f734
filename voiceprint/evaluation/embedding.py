"""The embeddings of the enrollment pieces and probes of every speaker, for every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from voiceprint._lazy import cached_property
from voiceprint.audio import SAMPLE_RATE, Recording, to_mono
from voiceprint.audio.prompts import KnownPrompts, PromptFinder, prompts_at
from voiceprint.audio.simulate import Condition
from voiceprint.diarization import separate as separated
from voiceprint.encoder import Encoder, OnnxEncoder
from voiceprint.encoder.base import takes_enhanced
from voiceprint.enrollment.augmentation import (
    RECIPE,
    AugmentationPlan,
    PlannedAugmentation,
    augmentation_plan,
    augmented_embeddings,
)
from voiceprint.errors import EncoderError, InvalidAudioError
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.recordings import Audio, Division, Place, Progress, Speaker, cut, divide
from voiceprint.evaluation.report import Skip
from voiceprint.evaluation.scoring import Embeddings
from voiceprint.evaluation.settings import Run, Settings


@dataclass
class RunEmbeddings:
    """The embeddings that a run compares.

    names: of the speakers. prints: of each, float32[prints, conditions, d].
    probes: of each probe, float32[d]. owners: the index of each probe's speaker.
    augmented: of each speaker, float32[prints, d], the augmented prints that enrollment stores beside the
        plain ones; None where enrollment has several conditions, or the settings leave them out.
    cleaned: of each probe, float32[d], its embedding after noise reduction.
    same_session: names of the speakers whose probes are of the session that they are enrolled from.
    """

    names: list[str] = field(default_factory=list)
    prints: list[Embeddings] = field(default_factory=list)
    probes: list[Embeddings] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    augmented: list[Embeddings | None] = field(default_factory=list)
    cleaned: list[Embeddings] = field(default_factory=list)
    dropped: list[Skip] = field(default_factory=list)
    same_session: set[str] = field(default_factory=set)
    failed_probes: int = 0

    def for_llrs(self) -> RunEmbeddings:
        """The embeddings for log-likelihood ratios: cleaned probes, plain and augmented prints."""
        prints = [
            plain if augmented is None else np.concatenate([plain, augmented[:, None]], axis=1)
            for plain, augmented in zip(self.prints, self.augmented, strict=True)
        ]
        return replace(self, prints=prints, probes=self.cleaned)

    def first_prints(self, count: int) -> RunEmbeddings:
        """The same speakers and probes with the first `count` prints of each speaker."""
        augmented = [None if prints is None else prints[:count] for prints in self.augmented]
        return replace(self, prints=[prints[:count] for prints in self.prints], augmented=augmented)


def embed_all(
    speakers: Sequence[Speaker],
    runs: Sequence[Run],
    settings: Settings,
    encoder: Encoder,
    cache: EmbeddingCache | None,
    progress: Progress,
    *,
    llrs: bool,
    finder: PromptFinder,
) -> tuple[dict[Run, RunEmbeddings], list[Skip]]:
    """The embeddings of every run, and the files that cannot be read.

    llrs: whether to compute cleaned probes and augmented prints. finder: receives every session.
    """
    prompts = None if settings.prompts is None else prompts_at(settings.prompts)
    by_run = {run: RunEmbeddings() for run in runs}
    unreadable: list[Skip] = []
    for done, speaker in enumerate(speakers):
        progress("Embedding", done, len(speakers))
        # Only the recordings of one speaker are in memory.
        recordings = load_recordings(
            speaker, settings.channel, unreadable, prompts, separate=settings.separate
        )
        for recording in recordings:
            finder.add(speaker.name, recording)
        _SpeakerEmbedder(speaker.name, recordings, settings, encoder, cache, llrs=llrs).add_to(by_run)
    progress("Embedding", len(speakers), len(speakers))
    return by_run, unreadable


def load_recordings(
    speaker: Speaker,
    channel: int | None,
    unreadable: list[Skip],
    prompts: KnownPrompts | None = None,
    *,
    separate: bool = False,
) -> list[Audio]:
    """The sessions of a speaker without `prompts`, float32[n] at 16 kHz each.

    unreadable: receives the files that cannot be read. separate: of a file with several voices, use the
    voice with the most net speech.
    """
    sessions: list[Audio] = []
    for files in speaker.sessions.values():
        joined = [np.zeros(0, dtype=np.float32)]
        for file in files:
            try:
                audio = Recording.open(file, channel=channel).mono[:]
                audio = audio if prompts is None else prompts.remove_from(audio)
                joined.append(_main_voice(audio) if separate else audio)
            except InvalidAudioError as error:
                unreadable.append(Skip(str(file), str(error)))
        sessions.append(np.concatenate(joined))
    return sessions


def _main_voice(audio: Audio) -> Audio:
    """The voice with the most net speech, as `on_several_voices="largest"` enrolls it."""
    voices = separated(Recording.from_buffer(audio), OnnxEncoder().embed_partials)
    if len(voices) < 2:
        return audio
    return max(voices, key=lambda voice: voice.net_speech_s).recording.mono[:]


class _Piece:
    """A piece under a condition, with its embeddings."""

    def __init__(
        self, audio: Audio, settings: Settings, encoder: Encoder, cache: EmbeddingCache | None
    ) -> None:
        self._recording = Recording.from_buffer(audio)
        self._settings, self._encoder, self._cache = settings, encoder, cache

    @cached_property
    def plain(self) -> Embeddings | None:
        """The plain embedding; None where the encoder finds no speech."""
        return embed(self._recording.speech[:], self._encoder, self._cache)

    @cached_property
    def cleaned(self) -> Embeddings:
        """The embedding after noise reduction; the plain one without noise, or where no speech is left."""
        embedding = None
        if self._settings.noise_reduction and takes_enhanced(self._encoder):
            audio = self._recording.cleaned
            embedding = None if audio is None else embed(audio, self._encoder, self._cache)
        return self._required_plain if embedding is None else embedding

    @cached_property
    def augmented(self) -> Embeddings:
        """The augmented print; the plain embedding where enrollment stores none."""
        plan = augmentation_plan(self._encoder, self._recording.quality)
        if not self._settings.noise_reduction:
            plan = plan._replace(cleaned=False)
        return augmented_print(self._recording, self._required_plain, plan, self._encoder, self._cache)

    @property
    def _required_plain(self) -> Embeddings:
        assert self.plain is not None  # noqa: S101  the embedder checks
        return self.plain


class _SpeakerEmbedder:
    """Embeds the pieces of one speaker, each once under each condition that a run uses."""

    def __init__(
        self,
        name: str,
        recordings: list[Audio],
        settings: Settings,
        encoder: Encoder,
        cache: EmbeddingCache | None,
        *,
        llrs: bool,
    ) -> None:
        self._name, self._recordings, self._settings = name, recordings, settings
        self._encoder, self._cache, self._llrs = encoder, cache, llrs
        self._cuts = {
            duration_s: [cut(audio, duration_s, net=settings.net) for audio in recordings]
            for duration_s in settings.durations_s
        }
        self._pieces: dict[tuple[float, Place, Condition], _Piece] = {}

    def add_to(self, runs: dict[Run, RunEmbeddings]) -> None:
        """Add the speaker to each run for which there are enough pieces."""
        for run, embeddings in runs.items():
            division = self._division(run)
            if division is None:
                embeddings.dropped.append(Skip(self._name, self._too_few(run)))
                continue
            enrolled = [
                [self._piece(run.duration_s, place, condition) for condition in run.enroll]
                for place in division.enrollment
            ]
            probes = [self._piece(run.duration_s, place, run.probe) for place in division.probes]
            with_speech = [probe for probe in probes if probe.plain is not None]
            embeddings.failed_probes += len(probes) - len(with_speech)
            failed = any(piece.plain is None for row in enrolled for piece in row)
            if failed or not with_speech:
                where = "an enrollment piece" if failed else "every probe"
                embeddings.dropped.append(Skip(self._name, f"the encoder found no speech in {where}"))
                continue
            embeddings.owners += [len(embeddings.names)] * len(with_speech)
            embeddings.names.append(self._name)
            prints = [[piece.plain for piece in row] for row in enrolled]
            embeddings.prints.append(np.array(prints, dtype=np.float32))
            embeddings.probes += [probe.plain for probe in with_speech if probe.plain is not None]
            augmented = None
            if self._llrs:
                embeddings.cleaned += [probe.cleaned for probe in with_speech]
                if len(run.enroll) == 1 and self._settings.augmented_prints:
                    augmented = np.stack([piece.augmented for (piece,) in enrolled])
            embeddings.augmented.append(augmented)
            if division.same_session:
                embeddings.same_session.add(self._name)

    def _division(self, run: Run) -> Division | None:
        # Seeded by the speaker's name, so that the other speakers do not change the division.
        key = f"{self._settings.seed}\n{run.duration_s:g}\n{run.prints}\n{self._name}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
        counts = [len(pieces) for pieces in self._cuts[run.duration_s]]
        return divide(counts, run.prints, self._settings.most_probes, rng)

    def _too_few(self, run: Run) -> str:
        count = sum(len(pieces) for pieces in self._cuts[run.duration_s])
        if count <= run.prints:
            length = f"{run.duration_s:g} s of {'speech' if self._settings.net else 'audio'}"
            return f"{count} of the {run.prints + 1} pieces of {length} that are needed"
        return f"the sessions are too short for {run.prints} prints and a probe of another session"

    def _piece(self, duration_s: float, place: Place, condition: Condition) -> _Piece:
        key = duration_s, place, condition
        if key not in self._pieces:
            start, end = self._cuts[duration_s][place.session][place.piece]
            audio = condition.apply(self._recordings[place.session][start:end], self._settings.seed)
            self._pieces[key] = _Piece(audio, self._settings, self._encoder, self._cache)
        return self._pieces[key]


def probe_speech(recording: Recording, encoder: Encoder) -> Audio:
    """The speech for log-likelihood ratios: after noise reduction, where that has an effect and helps."""
    cleaned = recording.cleaned if takes_enhanced(encoder) else None
    return recording.speech[:] if cleaned is None else cleaned


def augmented_print(
    recording: Recording,
    plain: Embeddings,
    plan: AugmentationPlan,
    encoder: Encoder,
    cache: EmbeddingCache | None,
) -> Embeddings:
    """The augmented print, cached or computed; the plain one where enrollment stores none."""
    if not plan:
        return plain

    def compute() -> Embeddings:
        augmented = augmented_embeddings(encoder, [PlannedAugmentation(recording, plain, plan)])[0]
        return plain if augmented is None else augmented

    return _cached(
        cache, f"{encoder.name}; {plan}; {RECIPE}", encoder.dimension, recording.speech[:], compute
    )


def embed(audio: Audio, encoder: Encoder, cache: EmbeddingCache | None) -> Embeddings | None:
    """The embedding of audio at 16 kHz, cached or computed; None where the encoder finds no speech."""
    try:
        # One at a time: in a batch the last bits would depend on the rest of the batch.
        return _cached(
            cache,
            encoder.name,
            encoder.dimension,
            audio,
            lambda: encoder.embed(to_mono(audio, SAMPLE_RATE, encoder.sample_rate)),
        )
    except EncoderError:  # no speech: the encoder is loaded
        return None


def _cached(
    cache: EmbeddingCache | None,
    name: str,
    dimension: int,
    audio: Audio,
    compute: Callable[[], Embeddings],
) -> Embeddings:
    """The embedding of this name and audio, from the cache, or computed and then cached."""
    cached = None if cache is None else cache.get(name, dimension, audio)
    if cached is not None:
        return cached
    embedding = compute()
    if cache is not None:
        cache.put(name, audio, embedding)
    return embedding
