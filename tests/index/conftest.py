"""Fixtures of the tests of the index."""

from __future__ import annotations

import pytest


@pytest.fixture
def all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search the cells even where every row is a candidate: a row that they have lost would not be found."""
    monkeypatch.setattr("voiceprint.index.vector_index._TOO_DEEP", 0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the vectors in so many blocks that a lot can happen between them; catch up in several rounds."""
    monkeypatch.setattr("voiceprint.index.vector_index._BLOCK", 64)
    monkeypatch.setattr("voiceprint.index.training._FEW", 3)
