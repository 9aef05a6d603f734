"""A print for a caller enrolled on a clear line who will call by telephone: the embedding on simulated lines.

The same enrolment audio, as two simulated telephone lines carry it, is embedded too, and averaged with
the plain embedding. A probe is compared with both prints and the better score counts: of the enrolments
under several conditions that benchmarks/robust_scoring.py compares, this finds the most callers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import AudioQuality
from voiceprint.audio.buffers import SAMPLE_RATE
from voiceprint.audio.conditions import Condition
from voiceprint.audio.denoise import reduce_noise
from voiceprint.audio.mono import Samples
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
_SEED: Final = 3  # of the noise; as measured

Embedding = NDArray[np.float32]


def is_worth_simulating(encoder: Encoder, quality: AudioQuality) -> bool:
    """Whether a print for simulated lines helps: it was measured with one encoder, on wide-band audio."""
    known = encoder.name == RESEMBLYZER_SPACE and encoder.sample_rate == SAMPLE_RATE
    return known and "narrowband" not in quality.feedback


def simulated_embedding(encoder: Encoder, audio: Samples, plain: Embedding) -> Embedding | None:
    """The average of an embedding and those of the same audio on `LINES`, float32[d] of length 1.

    Args:
        encoder: that gave `plain`.
        audio: mono at 16 kHz, float32[n] in [-1, 1], as from `to_mono`; the first 30 s are used.
        plain: the embedding of the audio, float32[d] of length 1.

    Returns:
        The same for the same audio; None where there is no speech in what is used.
    """
    return simulated_embeddings(encoder, [audio], [plain])[0]


def simulated_embeddings(
    encoder: Encoder, audios: Sequence[Samples], plains: Sequence[Embedding]
) -> list[Embedding | None]:
    """`simulated_embedding` for many; quicker than one by one."""
    if not audios:
        return []
    heard = [line for audio in audios for line in _on_lines(audio)]
    try:
        found: Any = np.asarray(encoder.embed_batch(heard), dtype=np.float64)
        of_lines = found.reshape(len(audios), len(LINES), -1)
        totals = of_lines.sum(axis=1) + np.stack(plains)
        return [unit_vector(total) for total in totals]
    except (EncoderError, InvalidArgumentError, ValueError) as error:
        if len(audios) > 1:  # one of them must not take the print from the others
            alone = zip(audios, plains, strict=True)
            return [simulated_embedding(encoder, audio, plain) for audio, plain in alone]
        logger.info("There is no print for simulated lines: %s", error)
        return [None]


def _on_lines(audio: Samples) -> list[NDArray[np.float32]]:
    start = audio[:_LONGEST]
    return [reduce_noise(line.apply(start, _SEED)) for line in LINES]
