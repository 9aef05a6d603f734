"""The client of the service: the verbs of the recognizer, over HTTP. docs/client.md explains it.

    from voiceprint.client import Client

    with Client("https://voice.example", key) as client:
        client.enroll_caller("alice", audio, sample_rate=8000)
        client.match_caller(other_audio, sample_rate=8000)

Needs the extra `client`, and neither FAISS nor a network: docs/client.md names the few packages.
"""

from __future__ import annotations

try:
    import httpx  # noqa: F401
except ImportError as error:
    raise ImportError(
        "The client needs httpx: install it with `pip install 'opusagent-voiceprint[client]'`."
    ) from error

from voiceprint.client.asynchronous import AsyncClient
from voiceprint.client.models import Job, LiveCall
from voiceprint.client.sending import correlated
from voiceprint.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "Job", "LiveCall", "correlated"]
