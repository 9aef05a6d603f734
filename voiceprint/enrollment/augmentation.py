"""The augmented embedding of an enrollment: the same audio over simulated telephone lines, or without noise.

A caller who was enrolled on a clear line calls by telephone. So the augmented embedding is the mean of
the plain one and those of the same audio over two simulated lines. Noisy audio is embedded
with its noise reduced; audio of a telephone line with its low frequencies restored. A probe is compared with
both embeddings, and the better score counts. Of the compared methods, this one identifies the most callers
(research/telephone-lines.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import AudioQuality, Recording
from voiceprint.audio.enhance.low_frequencies import restore_low_frequencies
from voiceprint.audio.enhance.noise_reduction import NARROWBAND, is_noisy, reduce_noise
from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.simulate import Condition
from voiceprint.encoder.base import takes_enhanced
from voiceprint.errors import EncoderError, InvalidArgumentError
from voiceprint.validation import unit_vector

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder

logger = logging.getLogger(__name__)

LINES: Final = (Condition("telephone", 20.0, "full"), Condition("telephone", 20.0, "narrow"))
"""The simulated lines. Each is embedded after noise reduction."""

LONGEST_S: Final = 30.0
"""Seconds of speech, from its start, that are augmented: this bounds the cost."""

RECIPE: Final = 3
"""Version of this computation, for caches of its results."""

_SEED: Final = 3  # of the simulated noise: any number; another gives slightly other embeddings

Embedding = NDArray[np.float32]

_NOTHING: Final = np.zeros(0, dtype=np.float32)


class AugmentationPlan(NamedTuple):
    """The augmentations of one enrollment.

    lines: simulated telephone lines. cleaned: noise reduction. low_frequencies: restored after a line.
    """

    lines: bool = False
    cleaned: bool = False
    low_frequencies: bool = False

    def __bool__(self) -> bool:
        return any(self)


def augmentation_plan(encoder: Encoder, quality: AudioQuality) -> AugmentationPlan:
    """Lines for wide-band audio, noise reduction for noisy audio; none for an unmeasured encoder."""
    measured = takes_enhanced(encoder)
    narrow = NARROWBAND in quality.feedback
    return AugmentationPlan(measured and not narrow, measured and is_noisy(quality), measured and narrow)


class PlannedAugmentation(NamedTuple):
    """A recording, its plain embedding, and the augmentations to compute."""

    recording: Recording
    plain: Embedding
    plan: AugmentationPlan


def augmented_embeddings(encoder: Encoder, planned: Sequence[PlannedAugmentation]) -> list[Embedding | None]:
    """The augmented embedding of each: float32[d] of length 1, the same for the same audio.

    Of the first 30 s of speech. None where there is no speech, or no augmentation is planned.
    """
    audio = [_augmented_audio(one) for one in planned]
    if not any(audio):
        return [None] * len(planned)
    try:
        found: Any = np.asarray(
            encoder.embed_batch([version for versions in audio for version in versions]), dtype=np.float64
        )
        results: list[Embedding | None] = []
        for one, versions in zip(planned, audio, strict=True):
            own, found = found[: len(versions)], found[len(versions) :]
            total = own.sum(axis=0)
            # Average in the plain embedding only of clean wide-band audio: otherwise it would bring the noise
            # or the line back.
            if one.plan.lines and not one.plan.cleaned:
                total = total + one.plain
            results.append(unit_vector(total) if versions else None)
    except (EncoderError, InvalidArgumentError, ValueError) as error:
        if len(planned) > 1:  # an error of one recording must not cost the others their embedding
            return [augmented_embeddings(encoder, [one])[0] for one in planned]
        logger.info("There is no augmented embedding: %s", error)
        return [None]
    return results


def _augmented_audio(one: PlannedAugmentation) -> list[NDArray[np.float32]]:
    """The versions of the audio to embed, each float32[n] at 16 kHz."""
    speech = one.recording.speech[: round(LONGEST_S * SAMPLE_RATE)] if one.plan else _NOTHING
    if not len(speech):
        return []
    source = reduce_noise(speech) if one.plan.cleaned else speech
    restored = restore_low_frequencies(source) if one.plan.cleaned or one.plan.low_frequencies else source
    versions = [] if restored is speech else [restored]  # unchanged audio has the plain embedding
    if one.plan.lines:
        versions += [restore_low_frequencies(reduce_noise(line.apply(source, _SEED))) for line in LINES]
    return versions
