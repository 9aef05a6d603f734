"""The fixtures of the conformance tests: every test of this folder runs on every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import HARNESSES, PARTLY, Harness

from voiceprint import Storage


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The stores of the tests of a module."""
    if "harness" in metafunc.fixturenames:
        partly = [name for name, (_, modules) in PARTLY.items() if metafunc.module.__name__ in modules]
        metafunc.parametrize("harness", [*HARNESSES, *partly], indirect=True)


@pytest.fixture
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    name: str = request.param
    make = HARNESSES[name] if name in HARNESSES else PARTLY[name][0]
    made = make(tmp_path / "store")
    yield made
    made.end()


@pytest.fixture
def storage(harness: Harness) -> Storage:
    """The store, for tests that do not reopen it."""
    return harness.storage
