"""A second print of an enrollment: how it sounds on simulated telephone lines, and without its noise.

A caller who was enrolled on a clear line calls by telephone. So the same audio, as two simulated lines carry
it, is embedded too, and averaged with the plain embedding. Of noisy audio it is what is left when the noise
is reduced; of a line that took the lows, it is with these raised again. A probe is compared with both prints
and the better score counts: of the enrollments under several conditions that were compared
(research/telephone-lines.md), this finds the most callers.
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
from voiceprint.errors import EncoderError, InvalidArgumentError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.validation import unit_vector

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder

logger = logging.getLogger(__name__)

LINES: Final = (Condition("telephone", 20.0, "full"), Condition("telephone", 20.0, "narrow"))
"""The lines; the noise of each is reduced again before it is embedded, as was measured."""

LONGEST_S: Final = 30.0
"""Seconds from the start of the audio that are simulated: this bounds the cost."""

_LONGEST: Final = round(LONGEST_S * SAMPLE_RATE)
RECIPE: Final = 2
"""Number of the way in which the second print is made, for caches of it."""

_SEED: Final = 3  # of the noise; as measured

Embedding = NDArray[np.float32]


class AugmentationPlan(NamedTuple):
    """What the second print of an enrollment is made of: simulated lines, the audio without noise, or both.

    lows: on a telephone line as well, where it took the lows.
    """

    lines: bool
    cleaned: bool
    lows: bool = False

    def __bool__(self) -> bool:
        return self.lines or self.cleaned or self.lows


def augmentation_plan(encoder: Encoder, quality: AudioQuality) -> AugmentationPlan:
    """Lines for wide-band audio, noise reduction for noisy audio; nothing where neither was measured."""
    known = encoder.name == RESEMBLYZER_SPACE and encoder.sample_rate == SAMPLE_RATE
    narrow = NARROWBAND in quality.feedback
    return AugmentationPlan(known and not narrow, known and is_noisy(quality), known and narrow)


class Enrolled(NamedTuple):
    """An enrollment: its recording and embedding, and what is to be made of it."""

    recording: Recording
    plain: Embedding
    plan: AugmentationPlan


def augmented_embeddings(encoder: Encoder, enrolled: Sequence[Enrolled]) -> list[Embedding | None]:
    """The second print of each: float32[d] of length 1, the same for the same audio.

    Of the first 30 s of the parts that hold speech. None where no speech is in them, or no version is wanted.
    """
    heard = [_augmented_audio(one) for one in enrolled]
    if not any(heard):
        return [None] * len(enrolled)
    try:
        found: Any = np.asarray(
            encoder.embed_batch([audio for some in heard for audio in some]), dtype=np.float64
        )
        prints: list[Embedding | None] = []
        for one, some in zip(enrolled, heard, strict=True):
            mine, found = found[: len(some)], found[len(some) :]
            # The noise or line is not to come back with the plain embedding.
            total = (
                mine.sum(axis=0) + one.plain if one.plan.lines and not one.plan.cleaned else mine.sum(axis=0)
            )
            prints.append(unit_vector(total) if some else None)
    except (EncoderError, InvalidArgumentError, ValueError) as error:
        if len(enrolled) > 1:  # one of them must not take the print from the others
            return [augmented_embeddings(encoder, [one])[0] for one in enrolled]
        logger.info("There is no print for simulated lines: %s", error)
        return [None]
    return prints


def _augmented_audio(one: Enrolled) -> list[NDArray[np.float32]]:
    if not one.plan:
        return []
    start = one.recording.speech[:_LONGEST]
    if not len(start):
        return []
    source = reduce_noise(start) if one.plan.cleaned else start
    restored = restore_low_frequencies(source) if one.plan.cleaned or one.plan.lows else source
    lines = (
        [restore_low_frequencies(reduce_noise(line.apply(source, _SEED))) for line in LINES]
        if one.plan.lines
        else []
    )
    return lines if restored is start else [restored, *lines]
