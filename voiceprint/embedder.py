"""From audio to the embedding of a voice: what is too short or too poor is refused on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.audio.prompts import prompts_at
from voiceprint.diarization import Voice, note_voices, separate
from voiceprint.encoder import default_encoder
from voiceprint.encoder.base import PartialEncoder, SpeechEmbedding
from voiceprint.errors import (
    AudioQualityError,
    DisabledError,
    EncoderError,
    InvalidArgumentError,
    VoiceprintError,
)
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.validation import unit_vector

if TYPE_CHECKING:
    from voiceprint.audio import AudioBuffer
    from voiceprint.audio.prompts import KnownPrompts
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.encoder import Encoder

logger = logging.getLogger(__name__)

SEVERAL_VOICES: Final = (
    "The recording holds several voices, and the answer is for all of them together: `identify` with "
    "separate=True (--separate) answers for each."
)

# Net speech that a probe needs, in seconds: below it the embedding says little about the speaker.
MIN_PROBE_SPEECH_S: Final = 1.0


class Probe(NamedTuple):
    """The embeddings of one call, to compare with voiceprints: float32[d] of length 1 each.

    plain: of the audio, for similarities. cleaned: of noisy audio without its noise, None of clean audio, for
    log-likelihood ratios where there is one.
    """

    plain: NDArray[np.float32]
    cleaned: NDArray[np.float32] | None = None

    @property
    def best(self) -> NDArray[np.float32]:
        """The embedding that tells most about the voice."""
        return self.plain if self.cleaned is None else self.cleaned


class Embedder:
    """Gives the embeddings of an encoder, float32[dimension] of length 1, for recordings that pass the gates
    of the configuration."""

    def __init__(self, encoder: Encoder, config: VoiceFingerprintConfig) -> None:
        self._encoder = encoder
        self._config = config
        # Voices are told apart by Resemblyzer's network whatever encoder is used: the limits are its own.
        if isinstance(encoder, PartialEncoder) and encoder.name == RESEMBLYZER_SPACE:
            self._windows: PartialEncoder = encoder
        else:
            self._windows = cast(PartialEncoder, default_encoder("onnx", config.encoder_threads))

    @property
    def space(self) -> str:
        """Name of the encoder, and of the space in which its embeddings can be compared."""
        return self._encoder.name

    @property
    def prompts(self) -> KnownPrompts | None:
        """The prompts that the configuration names, which are left out. Raises `ConfigurationError`."""
        return None if self._config.prompts is None else prompts_at(self._config.prompts)

    def recording(self, audio_buffer: AudioBuffer | Recording, audio_format: AudioFormat = PCM) -> Recording:
        """`Recording.from_buffer`, with known prompts left out."""
        return Recording.from_buffer(audio_buffer, *audio_format).leaving_out(self.prompts)

    def check_enabled(self) -> None:
        """Raises `DisabledError` when fingerprinting is off."""
        if not self._config.fingerprinting_enabled:
            raise DisabledError(
                "Voice fingerprinting is off: set VOICE_FINGERPRINTING_ENABLED=true to use it."
            )

    def check_quality(self, recording: Recording) -> None:
        """Refuse audio under `min_audio_quality`, and warn of channels that should not have been mixed."""
        quality = recording.quality
        recording.warn_if_mixed()
        minimum = self._config.min_audio_quality
        if quality.score < minimum:
            why = f" ({', '.join(quality.feedback)})" if quality.feedback else ""
            raise AudioQualityError(
                f"The audio quality is {quality.score:.2f}, and {minimum:g} is needed{why}. "
                f"{' '.join(quality.advice)} Or set VOICE_MIN_AUDIO_QUALITY.",
                quality,
            )

    def voices(self, recording: Recording) -> tuple[Voice, ...]:
        """The voices of a recording, see `separate`."""
        return separate(recording, self._windows.embed_partials)

    def note_voices(self, recording: Recording, partials: NDArray[np.float32] | None) -> None:
        """See `voiceprint.diarization.note_voices`."""
        note_voices(recording, self._windows.embed_partials, partials)

    def probe(self, recording: Recording, *, one_voice: bool = False) -> Probe:
        """The embeddings of audio that is good enough to be matched.

        one_voice: that it holds one is known; otherwise several are warned of, and noted in its quality.
        """
        quality = recording.quality
        if quality.net_speech_s < MIN_PROBE_SPEECH_S:
            why = f" {quality.advice[0]}" if "no_speech" in quality.feedback and quality.advice else ""
            raise AudioQualityError(
                f"Matching needs {MIN_PROBE_SPEECH_S:g} s of speech, and this audio holds "
                f"{quality.net_speech_s:.2f} s: wait for the caller to say more.{why}",
                quality,
            )
        self.check_quality(recording)
        plain, better = self.embed(recording, one_voice=one_voice), None
        if "several_voices" in recording.quality.feedback:
            recording.warn(SEVERAL_VOICES)
        if self._encoder.sample_rate == SAMPLE_RATE and recording.cleaned is not None:
            better = self.embed_cleaned(recording.cleaned)
        return Probe(plain, better)

    def embed_cleaned(self, audio: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The embedding of `Recording.cleaned`; None where nothing is left."""
        try:
            return self.checked(self._encoder.embed(audio))
        except EncoderError as error:  # what was taken for speech was noise; the plain embedding stands
            logger.debug("Without its noise, the audio has no embedding: %s", error)
            return None

    def embed(self, recording: Recording, *, one_voice: bool = False) -> NDArray[np.float32]:
        """The embedding, of any audio with speech; without, `AudioQualityError`. one_voice: as of `probe`."""
        try:
            embedding, partials = self._embedded(recording)
            if not one_voice:
                self.note_voices(recording, partials)
            return self.checked(embedding)
        except EncoderError:
            quality = recording.quality
            if quality.net_speech_s > 0:
                raise
            # The encoder's word for it is not the caller's: the audio is at fault, and may be retried.
            raise AudioQualityError(
                f"The audio ({quality.duration_s:.1f} s) holds no speech: nothing can be told of a voice.",
                quality,
            ) from None

    def embed_together(self, recordings: Sequence[Recording]) -> list[NDArray[np.float32] | VoiceprintError]:
        """The embedding of each, or why there is none; quicker than one by one."""
        if len(recordings) > 1:
            try:
                return self._together(recordings)
            except (EncoderError, ValueError):  # ValueError: not so many answers
                logger.debug("A group of %d could not be embedded: now one by one.", len(recordings))
        # One, or one of them has no embedding, which is its own result and not that of the others.
        results: list[NDArray[np.float32] | VoiceprintError] = []
        for recording in recordings:
            try:
                results.append(self.embed(recording))
            except VoiceprintError as error:
                results.append(error)
        return results

    def _together(self, recordings: Sequence[Recording]) -> list[NDArray[np.float32] | VoiceprintError]:
        found = self._embed_batch(recordings)
        embeddings = [self.checked(embedding) for embedding, _ in found]
        for recording, (_, partials) in zip(recordings, found, strict=True):
            self.note_voices(recording, partials)
        return [*embeddings]

    def _embedded(self, recording: Recording) -> tuple[Any, NDArray[np.float32] | None]:
        """The embedding, and those of partials where the windows' network computed them."""
        if isinstance(self._encoder, PartialEncoder):
            return self._with_own_partials(self._encoder.embed_speech(recording.trimmed))
        return self._encoder.embed(recording.speech_at(self._encoder.sample_rate)), None

    def _embed_batch(
        self, recordings: Sequence[Recording]
    ) -> Sequence[tuple[Any, NDArray[np.float32] | None]]:
        if isinstance(self._encoder, PartialEncoder):
            found = self._encoder.embed_speeches([recording.trimmed for recording in recordings])
            return [*map(self._with_own_partials, found)]
        rate = self._encoder.sample_rate
        answers = self._encoder.embed_batch([recording.speech_at(rate) for recording in recordings])
        return [(answer, None) for answer in answers]

    def _with_own_partials(self, found: SpeechEmbedding) -> tuple[Any, NDArray[np.float32] | None]:
        return found.embedding, found.partials if self._windows is self._encoder else None

    def checked(self, answer: Any) -> NDArray[np.float32]:
        """What the encoder gave, if it is an embedding."""
        try:
            embedding = unit_vector(answer)
        except InvalidArgumentError as error:
            raise EncoderError(f"The encoder {self._encoder.name!r} failed: {error}") from error
        if embedding.size != self._encoder.dimension:
            raise EncoderError(
                f"The encoder {self._encoder.name!r} gave {embedding.size} values: it has the dimension "
                f"{self._encoder.dimension}."
            )
        return embedding
