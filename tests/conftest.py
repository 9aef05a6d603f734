"""The options of the test run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--crashes", type=int, default=10, metavar="N", help="how often a writer is killed in the crash tests"
    )
