"""Who speaks when: the voices of a recording, and the times of each."""

from voiceprint.audio.quality.model import Turn
from voiceprint.diarization.separate import Voice, separate

__all__ = ["Turn", "Voice", "separate"]
