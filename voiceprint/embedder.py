"""The way from audio to the embedding of a voice, with checks of speech and quality."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint._audited import note_first
from voiceprint._stages import stage, timed
from voiceprint.audio import Recording
from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.audio.prompts import prompts_at
from voiceprint.audio.sketch import sketch_of
from voiceprint.diarization import Voice, note_voices, separate
from voiceprint.encoder import default_encoder
from voiceprint.encoder.base import (
    PartialEncoder,
    SpeechEmbedding,
    SpeechEncoder,
    min_speech_s,
    takes_enhanced,
)
from voiceprint.errors import (
    AudioQualityError,
    DisabledError,
    EncoderError,
    InvalidArgumentError,
    VoiceprintError,
)
from voiceprint.models import RESEMBLYZER_SPACE, Voiceprint
from voiceprint.validation import shown, unit_vector

if TYPE_CHECKING:
    from voiceprint.audio import AudioBuffer, AudioQuality
    from voiceprint.audio.prompts import KnownPrompts
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.encoder import Encoder

logger = logging.getLogger(__name__)

EmbeddingLike = Voiceprint | Sequence[float] | NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
"""An embedding that an application computed, see `Embedder.source`."""

SEVERAL_VOICES: Final = (
    "The recording holds several voices, and the answer is for all of them together: `identify` with "
    "separate=True (--separate) answers for each."
)


class Probe(NamedTuple):
    """The embeddings of one call: float32[d] of length 1 each.

    plain: of the audio, for similarities. cleaned: of noisy audio after noise reduction, for log-likelihood
    ratios; None of clean audio. sketch: of the recording, by which copies of it are found; None without one.
    """

    plain: NDArray[np.float32]
    cleaned: NDArray[np.float32] | None = None
    sketch: str | None = None

    @property
    def best(self) -> NDArray[np.float32]:
        """The embedding for log-likelihood ratios."""
        return self.plain if self.cleaned is None else self.cleaned


class OwnEmbedding(NamedTuple):
    """An embedding that the application computed: float32[d] of length 1, and the augmented one if given."""

    plain: NDArray[np.float32]
    augmented: NDArray[np.float32] | None = None


def check_one_source(
    audio_buffer: object, embedding: object, encoder: object, *, audio_arguments: bool
) -> None:
    """Raise `InvalidArgumentError` unless there is exactly one of audio and embedding, with its arguments.

    audio_arguments: whether an argument that only audio has differs from its default.
    """
    if embedding is None:
        if audio_buffer is None:
            raise InvalidArgumentError("There is neither audio nor an embedding: give one of them.")
        if encoder is not None:
            raise InvalidArgumentError(
                f"encoder is {shown(encoder)}, and names the space of an embedding: audio is embedded by "
                "the recognizer's encoder."
            )
        return
    if audio_buffer is not None:
        raise InvalidArgumentError("There are both audio and an embedding: give one of them.")
    if audio_arguments:
        raise InvalidArgumentError(
            "sample_rate, encoding, channel, channels, separate and on_several_voices are for audio: "
            "leave them out beside an embedding."
        )


def own_embedding(embedding: EmbeddingLike) -> OwnEmbedding:
    """The vectors of an application's embedding. Raises `InvalidArgumentError`."""
    if isinstance(embedding, Voiceprint):
        return OwnEmbedding(embedding.embedding, embedding.augmented)
    return OwnEmbedding(unit_vector(embedding))


class Embedder:
    """Embeds recordings that pass the checks of the configuration: float32[dimension] of length 1."""

    def __init__(self, encoder: Encoder, config: VoiceFingerprintConfig) -> None:
        self._encoder = encoder
        self._config = config
        # Diarization uses Resemblyzer's network with every encoder: its limits were measured on that network.
        if isinstance(encoder, PartialEncoder) and encoder.name == RESEMBLYZER_SPACE:
            self._windows: PartialEncoder = encoder
        else:
            self._windows = cast(PartialEncoder, default_encoder("onnx", config.encoder_threads))

    @property
    def space(self) -> str:
        """Name of the embedding space."""
        return self._encoder.name

    @property
    def min_speech_s(self) -> float:
        """Least net speech of a probe in seconds."""
        return min_speech_s(self._encoder)

    @property
    def prompts(self) -> KnownPrompts | None:
        """The prompts of the configuration, which recordings leave out. Raises `ConfigurationError`."""
        return None if self._config.prompts is None else prompts_at(self._config.prompts)

    def recording(self, audio_buffer: AudioBuffer | Recording, audio_format: AudioFormat = PCM) -> Recording:
        """`Recording.from_buffer`, with known prompts left out."""
        return Recording.from_buffer(audio_buffer, *audio_format).leaving_out(self.prompts)

    def source(
        self,
        audio_buffer: AudioBuffer | Recording | None,
        embedding: EmbeddingLike | None,
        encoder: str | None,
        *,
        audio_arguments: bool,
    ) -> AudioBuffer | Recording | OwnEmbedding:
        """The audio of a method's arguments unchanged, or the application's own embedding, checked.

        encoder: the space that the application names, or None. audio_arguments: whether an argument that
        only audio has differs from its default.
        Raises `InvalidArgumentError` unless there is exactly one of audio and embedding, for audio arguments
        beside an embedding, and for an embedding that is not of this space.
        """
        check_one_source(audio_buffer, embedding, encoder, audio_arguments=audio_arguments)
        if embedding is None:
            assert audio_buffer is not None  # noqa: S101  checked
            return audio_buffer
        self.check_space(encoder)
        if isinstance(embedding, Voiceprint):
            self.check_space(embedding.encoder)
        own = own_embedding(embedding)
        self.check_dimension(own.plain.size)
        return own

    def check_space(self, encoder: object) -> None:
        """Raise `InvalidArgumentError` where the space of an embedding, None if not given, is another."""
        if encoder is not None and encoder != self.space:
            raise InvalidArgumentError(
                f"The embedding is of the encoder {shown(encoder)}, and this recognizer's is {self.space!r}: "
                "embeddings of different encoders cannot be compared. Use a recognizer with that encoder."
            )

    def check_dimension(self, values: int) -> None:
        """Raise `InvalidArgumentError` where an embedding has another number of values than the space."""
        if values != self._encoder.dimension:
            raise InvalidArgumentError(
                f"The embedding has {values} values, and those of the encoder {self.space!r} have "
                f"{self._encoder.dimension}: it is of another model."
            )

    def check_enabled(self) -> None:
        """Raise `DisabledError` when fingerprinting is off."""
        if not self._config.fingerprinting_enabled:
            raise DisabledError(
                "Voice fingerprinting is off: set VOICE_FINGERPRINTING_ENABLED=true to use it."
            )

    def check_quality(self, recording: Recording) -> None:
        """Raise `AudioQualityError` under `min_audio_quality`; log a warning where mixed channels differ."""
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
        """The probe of audio that is good enough for a match; else `AudioQualityError`.

        one_voice: the audio holds one voice. Otherwise several voices are noted in its quality and logged.
        """
        with stage("speech"):
            quality = recording.quality
        self.note_audio(quality)
        if quality.net_speech_s < self.min_speech_s:
            why = f" {quality.advice[0]}" if "no_speech" in quality.feedback and quality.advice else ""
            raise AudioQualityError(
                f"Matching needs {self.min_speech_s:g} s of speech, and this audio holds "
                f"{quality.net_speech_s:.2f} s: wait for the caller to say more.{why}",
                quality,
            )
        self.check_quality(recording)
        plain, cleaned = self.embed(recording, one_voice=one_voice), None
        if "several_voices" in recording.quality.feedback:
            recording.warn(SEVERAL_VOICES)
        if takes_enhanced(self._encoder) and recording.cleaned is not None:
            cleaned = self.embed_cleaned(recording.cleaned)
        return Probe(plain, cleaned, self.sketch(recording))

    def sketch(self, recording: Recording) -> str | None:
        """The sketch of a recording, by which copies are found; None where the settings leave it out."""
        return sketch_of(recording.fingerprint) if self._config.same_recording else None

    def note_audio(self, quality: AudioQuality) -> None:
        """Note the audio and the encoder of an operation, of several recordings those of the first."""
        note_first(
            speech_s=quality.net_speech_s,
            quality=quality.score,
            encoder=self._encoder.name,
            encoder_sha256=getattr(getattr(self._encoder, "model", None), "sha256", None),
        )

    @timed("embed")
    def embed_cleaned(self, audio: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The embedding of `Recording.cleaned`; None where it holds no speech."""
        try:
            return self.checked(self._encoder.embed(audio))
        except EncoderError as error:  # the detected speech was noise; the plain embedding remains
            logger.debug("Without its noise, the audio has no embedding: %s", error)
            return None

    @timed("embed")
    def embed(self, recording: Recording, *, one_voice: bool = False) -> NDArray[np.float32]:
        """The embedding of any audio with speech; else `AudioQualityError`. one_voice: as of `probe`."""
        try:
            embedding, partials = self._embed(recording)
            if not one_voice:
                self.note_voices(recording, partials)
            return self.checked(embedding)
        except EncoderError:
            quality = recording.quality
            if quality.net_speech_s > 0:
                raise
            # Not an `EncoderError`: the audio is at fault, and other audio may succeed.
            raise AudioQualityError(
                f"The audio ({quality.duration_s:.1f} s) holds no speech: record the caller again.",
                quality,
            ) from None

    def embed_together(self, recordings: Sequence[Recording]) -> list[NDArray[np.float32] | VoiceprintError]:
        """The embedding of each, or its error; faster than one by one."""
        if len(recordings) > 1:
            try:
                return self._together(recordings)
            except (EncoderError, ValueError):  # ValueError: another number of embeddings
                logger.debug(
                    "A group of %d could not be embedded together, and is embedded one by one.",
                    len(recordings),
                )
        # One by one, so that an error of one recording does not affect the others.
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

    def _embed(self, recording: Recording) -> tuple[Any, NDArray[np.float32] | None]:
        """The embedding, and those of the partials where diarization can use them."""
        if isinstance(self._encoder, SpeechEncoder):
            return self._with_own_partials(self._encoder.embed_speech(recording.trimmed))
        return self._encoder.embed(recording.speech_at(self._encoder.sample_rate)), None

    def _embed_batch(
        self, recordings: Sequence[Recording]
    ) -> Sequence[tuple[Any, NDArray[np.float32] | None]]:
        if isinstance(self._encoder, SpeechEncoder):
            found = self._encoder.embed_speeches([recording.trimmed for recording in recordings])
            return [*map(self._with_own_partials, found)]
        rate = self._encoder.sample_rate
        embeddings = self._encoder.embed_batch([recording.speech_at(rate) for recording in recordings])
        return [(embedding, None) for embedding in embeddings]

    def _with_own_partials(self, found: SpeechEmbedding) -> tuple[Any, NDArray[np.float32] | None]:
        return found.embedding, found.partials if self._windows is self._encoder else None

    def checked(self, output: Any) -> NDArray[np.float32]:
        """The output of the encoder, checked to be an embedding. Raises `EncoderError`."""
        try:
            embedding = unit_vector(output)
        except InvalidArgumentError as error:
            raise EncoderError(f"The encoder {self._encoder.name!r} failed: {error}") from error
        if embedding.size != self._encoder.dimension:
            raise EncoderError(
                f"The encoder {self._encoder.name!r} returned {embedding.size} values: its dimension is "
                f"{self._encoder.dimension}."
            )
        return embedding
