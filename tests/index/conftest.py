"""Fixtures of the tests of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from postgres_server import fresh_pgvector_url
from vectors import D

from voiceprint.index.ivf import IVFIndex
from voiceprint.index.pgvector import PgVectorIndex
from voiceprint.index.rows import to_half


@pytest.fixture
def url() -> str:
    """Of an empty database with pgvector."""
    return fresh_pgvector_url()


@pytest.fixture
def index(url: str) -> Iterator[PgVectorIndex]:
    """An empty index in PostgreSQL, searched by its graph alone."""
    made = PgVectorIndex(url, dimension=D, exact_up_to=0)
    yield made
    made.close()


@pytest.fixture
def every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan all lists for every candidate: a row that the inverted file has lost would not be found."""
    monkeypatch.setattr("voiceprint.index.trained.EXACT_SHARE", 0)
    monkeypatch.setattr("voiceprint.index.trained.rerank_k", lambda k: 1_200)
    monkeypatch.setattr("voiceprint.index.maintenance.tune", lambda ivf, *_: (ivf.nlist, 1.0))


@pytest.fixture
def small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the vectors of a set together from the first id on."""
    monkeypatch.setattr("voiceprint.index.gathered.GATHERED_FROM", 1)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and blocks of few rows, so that a few hundred vectors are merged and copied in many steps."""
    monkeypatch.setattr("voiceprint.index.buffer.CHUNK", 16)
    monkeypatch.setattr("voiceprint.index.maintenance.MERGED_AT", 16)
    for module in ("rows", "maintenance", "snapshot"):
        monkeypatch.setattr(f"voiceprint.index.{module}.BLOCK", 8)


class Interruption:
    """Calls `meanwhile` at each step of a merge, a training or a snapshot that is outside of every lock."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        self.meanwhile()


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Interruption:
    interruption = Interruption()

    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            interruption()
            return result

        return call

    for name in ("add", "without", "to_bytes"):
        monkeypatch.setattr(IVFIndex, name, interrupted(getattr(IVFIndex, name)))
    monkeypatch.setattr("voiceprint.index.maintenance.to_half", interrupted(to_half))
    return interruption
