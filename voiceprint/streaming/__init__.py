"""Streams: audio of a call in chunks of any size, a running answer, an early decision."""

from voiceprint.streaming.session import CallContext, CallStream

__all__ = ["CallContext", "CallStream"]
