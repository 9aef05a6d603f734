"""Audio input: mono conversion of buffers and files, speech segmentation, quality."""

from voiceprint.audio.io.buffers import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    SAMPLE_RATE,
    as_pcm,
    duration,
    to_mono,
)
from voiceprint.audio.io.encodings import AudioBuffer, Encoding
from voiceprint.audio.io.files import load_audio
from voiceprint.audio.io.reader import AudioReader, open_audio
from voiceprint.audio.quality.channels import (
    MIXED,
    ChannelComparison,
    ChannelReport,
    channels_differ,
    compare_channels,
    mixable,
)
from voiceprint.audio.quality.interleaving import deinterleave
from voiceprint.audio.quality.model import AudioQuality, Feedback, Turn
from voiceprint.audio.recording import Recording, assess

__all__ = [
    "MAX_SAMPLE_RATE",
    "MIN_SAMPLE_RATE",
    "MIXED",
    "SAMPLE_RATE",
    "AudioBuffer",
    "AudioQuality",
    "AudioReader",
    "ChannelComparison",
    "ChannelReport",
    "Encoding",
    "Feedback",
    "Recording",
    "Turn",
    "as_pcm",
    "assess",
    "channels_differ",
    "compare_channels",
    "deinterleave",
    "duration",
    "load_audio",
    "mixable",
    "open_audio",
    "to_mono",
]
