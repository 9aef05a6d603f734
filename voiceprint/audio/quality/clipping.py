"""How much of speech is cut off: flat tops, and tops on which samples crowd as in no voice."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.lazy_audio import Samples, blocks
from voiceprint.audio.quality.score_curves import interpolate
from voiceprint.audio.speech.vad import BLOCK, SpeechBlocks

_FLAT: Final = 0.985  # samples over this share of the extreme belong to a flat top, if their neighbors do
_NEAR_TOP: Final = 0.7
_LOOKED_AT: Final = 32_000  # samples, two seconds: as many say how the others are
_CROWDING: Final = ((0.38, 0.0), (0.58, 1.0))


def flat_tops(audio: Samples, rate: int) -> float:
    """The share of samples in runs that stay at the positive or the negative extreme, at any level, 0..1.

    Runs of three at 16 kHz: a peak of unclipped speech is seldom as wide. At 8 kHz, two last as long.
    """
    width = 3 if rate >= 12000 else 2
    extremes = [(float(block.min()), float(block.max())) for block in blocks(audio, BLOCK)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    flat = 0
    for start in range(0, len(audio), BLOCK):
        # With neighbors: a run may lie over the border of two blocks.
        before = min(start, width - 1)
        block = audio[start - before : start + BLOCK + width - 1]
        for at_top, is_there in (
            (block >= _FLAT * highest, highest > 0.0),
            (block <= _FLAT * lowest, lowest < 0.0),
        ):
            if is_there:
                flat += int(_in_runs(at_top, width)[before : before + BLOCK].sum())
    return flat / len(audio)


def _in_runs(flags: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """Which flags are set in a run of at least `width`."""
    padded: npt.NDArray[np.bool_] = np.pad(flags, width)
    starts = padded[: len(padded) - width + 1].copy()
    for shift in range(1, width):
        starts &= padded[shift : shift + len(starts)]
    inside: npt.NDArray[np.bool_] = starts.copy()
    for shift in range(1, width):
        inside[shift:] |= starts[: len(starts) - shift]
    return inside[width : width + len(flags)]


def crowded_tops(speech: SpeechBlocks) -> float:
    """The share of samples near the extreme, as far as they crowd there as in no natural voice, 0..1.

    Filters and resampling after clipping make the flat tops wavy, but leave the samples crowded
    there: of those over half of the near-top level, 10 to 30 % are near the top in speech, and 40 to
    80 % in speech that was clipped hard. The top is a percentile, as ripples rise over the flat top.
    """
    every = max(1, len(speech) // _LOOKED_AT)
    some = np.concatenate([np.abs(block[::every]) for block in speech.blocks()])
    top = float(np.partition(some, round(0.995 * (len(some) - 1)))[round(0.995 * (len(some) - 1))])
    share = float((some > _NEAR_TOP * top).mean())
    half = float((some > _NEAR_TOP / 2 * top).mean())
    return share * interpolate(share / max(half, 1e-9), _CROWDING)
