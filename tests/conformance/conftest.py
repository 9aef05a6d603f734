"""The fixtures of the conformance tests: every test of this folder runs on every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import HARNESSES, Harness

from voiceprint import Storage


@pytest.fixture(params=list(HARNESSES))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    made = HARNESSES[request.param](tmp_path / "store")
    yield made
    made.end()


@pytest.fixture
def storage(harness: Harness) -> Storage:
    """The store, for tests that do not reopen it."""
    return harness.storage
