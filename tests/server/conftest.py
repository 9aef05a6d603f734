"""Real servers on loopback, and the keys for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import Running, serve
from voices import BandEncoder, by_cosine

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.server import ServerSettings, Service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the quick encoder of the tests, over the galleries `default` and `other` in memory."""
    folder: Path = tmp_path_factory.mktemp("server")
    galleries = {
        name: OpusAgentVoiceRecognizer(
            MemoryStorage(), encoder=BandEncoder(), config=by_cosine(audit=folder / f"{name}.jsonl")
        )
        for name in ("default", "other")
    }
    settings = ServerSettings(state=str(folder / "state.db"), rate_limit=0)
    with serve(Service(galleries, settings)) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Running) -> Iterator[httpx.Client]:
    """A client with a key for all galleries and roles, on the gallery `default`."""
    key = server.key("admin", "audit")
    with httpx.Client(
        base_url=f"{server.url}/v1/galleries/default/", headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        yield client
