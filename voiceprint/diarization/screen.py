"""Does one recording hold several voices? Asked of every recording, so at next to no cost.

The partials that an embedding is the sum of are compared first: a coarse look, every 0.77 s, that lets 1 to
2 % of the recordings of two voices pass that a closer look finds, and takes 3 % of those of one voice to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio import Recording
from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.diarization.clustering import halves, similarity
from voiceprint.diarization.separate import separate
from voiceprint.diarization.windows import Partials
from voiceprint.encoder.mel import HOP
from voiceprint.encoder.partials import STEP

_STEP_S: Final = STEP * HOP / SAMPLE_RATE
_MIN_PARTIALS: Final = 3  # of a voice: 2.3 s, as much as its windows
_ONE_VOICE: Final = 0.92  # over `clustering.ONE_VOICE`, as nothing is decided by it
_SAMPLING_S: Final = 0.32


def note_voices(recording: Recording, embed: Partials, partials: NDArray[np.float32] | None = None) -> None:
    """Add the voices of a recording to its quality if there are several.

    partials: embeddings of those of its speech, float32[n, d], where they were computed; without, the closer
    look is taken of every recording.
    """
    if partials is not None and not _may_hold_several(partials):
        return
    voices = separate(recording, embed)
    if len(voices) > 1:
        recording.report_voices([voice.turns for voice in voices])


def _may_hold_several(partials: NDArray[np.float32]) -> bool:
    second = halves(partials, _MIN_PARTIALS)
    if second is None:
        return False
    shorter_s = min(int(second.sum()), int((~second).sum())) * _STEP_S
    return similarity(partials[second], partials[~second]) < _ONE_VOICE - _SAMPLING_S / shorter_s
