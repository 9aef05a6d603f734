"""From audio to the embedding of a voice: what is too short or too poor is refused on the way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import MIXED, SAMPLE_RATE, AudioQuality, assess, to_mono
from voiceprint.audio.denoise import cleaned, may_be_cleaned
from voiceprint.audio.io.mono import LONG_S, samples
from voiceprint.encoder.onnx import OnnxEncoder
from voiceprint.errors import (
    AudioQualityError,
    DisabledError,
    EncoderError,
    InvalidArgumentError,
    VoiceprintError,
)
from voiceprint.ranking import Probe
from voiceprint.simulated import Enrolled, Versions, simulated_embeddings, versions
from voiceprint.validation import unit_vector

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.encoder import Encoder

logger = logging.getLogger(__name__)

# Net speech that a probe needs, in seconds: below it the embedding says little about the speaker.
MIN_PROBE_SPEECH_S: Final = 1.0


_NOTHING: Final = np.zeros(0, dtype=np.float32)


class Embedder:
    """Gives the embeddings of an encoder for audio that passes the gates of the configuration.

    Audio comes as `as_pcm` gives it, with its sample rate; an embedding is float32[dimension] of length 1.
    """

    def __init__(self, encoder: Encoder, config: VoiceFingerprintConfig) -> None:
        self._encoder = encoder
        self._config = config

    @property
    def space(self) -> str:
        """Name of the encoder, and of the space in which its embeddings can be compared."""
        return self._encoder.name

    def check_enabled(self) -> None:
        """Raises `DisabledError` when fingerprinting is off."""
        if not self._config.fingerprinting_enabled:
            raise DisabledError(
                "Voice fingerprinting is off: set VOICE_FINGERPRINTING_ENABLED=true to use it."
            )

    def check_quality(self, quality: AudioQuality) -> None:
        """Refuse audio under `min_audio_quality`, and warn of channels that should not have been mixed."""
        if "channels_differ" in quality.feedback:
            logger.warning(MIXED)
        minimum = self._config.min_audio_quality
        if quality.score < minimum:
            why = f" ({', '.join(quality.feedback)})" if quality.feedback else ""
            raise AudioQualityError(
                f"The audio quality is {quality.score:.2f}, and {minimum:g} is needed{why}. "
                f"{' '.join(quality.advice)} Or set VOICE_MIN_AUDIO_QUALITY.",
                quality,
            )

    def versions(self, quality: AudioQuality) -> Versions:
        """What else than the plain embedding an enrolment of this quality is to be known by."""
        if not self._config.enroll_simulated_lines:
            return Versions(lines=False, cleaned=False)
        return versions(self._encoder, quality)

    def probe(self, audio: NDArray[Any], sample_rate: int) -> Probe:
        """The embeddings of audio that is good enough to be matched."""
        quality = assess(audio, sample_rate=sample_rate)
        if quality.net_speech_s < MIN_PROBE_SPEECH_S:
            raise AudioQualityError(
                f"Matching needs {MIN_PROBE_SPEECH_S:g} s of speech, and this audio holds "
                f"{quality.net_speech_s:.1f} s: wait for the caller to say more.",
                quality,
            )
        self.check_quality(quality)
        plain, better = self.embed(audio, sample_rate), None
        short = quality.duration_s < LONG_S
        if may_be_cleaned(quality) and short and self._encoder.sample_rate == SAMPLE_RATE:
            mono = to_mono(audio, sample_rate)
            clean = cleaned(mono, quality)
            better = None if clean is mono else self.embed_cleaned(clean)
        return Probe(plain, better)

    def embed_cleaned(self, audio: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The embedding of mono audio at 16 kHz that was `cleaned`; None where nothing is left."""
        try:
            return self.checked(self._encoder.embed(audio))
        except EncoderError as error:  # what was taken for speech was noise; the plain embedding stands
            logger.debug("Without its noise, the audio has no embedding: %s", error)
            return None

    def embed(self, audio: NDArray[Any], sample_rate: int) -> NDArray[np.float32]:
        """The embedding, of any audio with speech; without, `AudioQualityError`."""
        try:
            return self.checked(self._encoder.embed(self._as_encoded(audio, sample_rate)))
        except EncoderError:
            quality = assess(audio, sample_rate=sample_rate)
            if quality.net_speech_s > 0:
                raise
            # The encoder's word for it is not the caller's: the audio is at fault, and may be retried.
            raise AudioQualityError(
                f"The audio ({quality.duration_s:.1f} s) holds no speech: nothing can be told of a voice.",
                quality,
            ) from None

    def embed_together(
        self, audios: list[NDArray[Any]], sample_rate: int
    ) -> list[NDArray[np.float32] | VoiceprintError]:
        """The embedding of each, or why there is none; quicker than one by one."""
        if len(audios) > 1:
            monos = [self._as_encoded(audio, sample_rate) for audio in audios]
            try:
                answers = self._encoder.embed_batch(monos)
                return [self.checked(answer) for _, answer in zip(audios, answers, strict=True)]
            except (EncoderError, ValueError):  # ValueError: not so many answers
                logger.debug("A group of %d could not be embedded: now one by one.", len(audios))
        # One, or one of them has no embedding, which is its own result and not that of the others.
        results: list[NDArray[np.float32] | VoiceprintError] = []
        for audio in audios:
            try:
                results.append(self.embed(audio, sample_rate))
            except VoiceprintError as error:
                results.append(error)
        return results

    def embed_simulated(
        self,
        audios: list[NDArray[Any]],
        sample_rate: int,
        plains: list[NDArray[np.float32]],
        wanted: list[Versions],
    ) -> list[NDArray[np.float32] | None]:
        """The second prints that go with the embeddings `plains`; see `simulated`."""
        heard = [
            samples(audio, sample_rate) if some else _NOTHING
            for audio, some in zip(audios, wanted, strict=True)
        ]
        return simulated_embeddings(self._encoder, [*map(Enrolled, heard, plains, wanted)])

    def _as_encoded(self, audio: NDArray[Any], sample_rate: int) -> Any:
        # Only ours reads long audio piece by piece: an hour of it as a whole takes 220 MB.
        convert = samples if isinstance(self._encoder, OnnxEncoder) else to_mono
        return convert(audio, sample_rate, self._encoder.sample_rate)

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
