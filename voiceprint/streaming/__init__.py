"""Calls that are heard while they last: audio in chunks of any size, a running answer, an early decision."""

from voiceprint.streaming.session import CallStream

__all__ = ["CallStream"]
