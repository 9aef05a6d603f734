"""A cheap test of every recording for several voices.

The partials of the embedding, one every 0.77 s, are compared first. This misses 1 to 2 % of the recordings of
two voices that diarization detects, and passes 3 % of those of one voice on to diarization.
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
_MIN_PARTIALS: Final = 3  # of a voice: 2.3 s, like `clustering.MIN_WINDOWS`
_ONE_VOICE: Final = 0.92  # above `clustering.ONE_VOICE`, because diarization decides
_SAMPLING_S: Final = 0.32


def note_voices(recording: Recording, embed: Partials, partials: NDArray[np.float32] | None = None) -> None:
    """Add the turns of the voices to the quality of a recording of several.

    partials: embeddings of the partials of its speech, float32[n, d]; None skips the cheap test.
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
