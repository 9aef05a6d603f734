"""Audio in: buffers and files made mono, speech found, quality scored."""

from voiceprint.audio.buffers import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, SAMPLE_RATE, duration, to_mono
from voiceprint.audio.files import load_audio
from voiceprint.audio.quality import AudioQuality, Feedback, assess

__all__ = [
    "MAX_SAMPLE_RATE",
    "MIN_SAMPLE_RATE",
    "SAMPLE_RATE",
    "AudioQuality",
    "Feedback",
    "assess",
    "duration",
    "load_audio",
    "to_mono",
]
