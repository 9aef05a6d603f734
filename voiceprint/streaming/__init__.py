"""Streams: the audio of a call in chunks of any size, running answers, an early decision."""

from voiceprint.streaming.session import CallContext, CallStream

__all__ = ["CallContext", "CallStream"]
