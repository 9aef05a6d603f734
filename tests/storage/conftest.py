"""The fixtures of the JSON store's own tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file will be."""
    return tmp_path / "voiceprints.json"


@pytest.fixture
def golden() -> Path:
    """The files of earlier versions, which must open for ever."""
    return Path(__file__).parent.parent / "golden"
