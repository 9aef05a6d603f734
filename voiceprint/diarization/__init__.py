"""Diarization: the voices of a recording, and the turns of each."""

from voiceprint.audio import Turn
from voiceprint.diarization.screen import note_voices
from voiceprint.diarization.separate import Voice, separate

__all__ = ["Turn", "Voice", "note_voices", "separate"]
