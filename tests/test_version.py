"""The version stands in one place, and the changelog follows it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import voiceprint

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_ends_in_the_version_of_the_package() -> None:
    first, *released = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert first == "[Unreleased]"
    versions = []
    for heading in released:
        match = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", heading)
        assert match is not None, heading
        versions.append(match[1])
    if not versions:
        versions = re.findall(r"the first version will be (\d+\.\d+\.\d+)\.", CHANGELOG)
    assert versions[0] == voiceprint.__version__
    assert versions == sorted(versions, key=lambda version: [*map(int, version.split("."))], reverse=True)


def test_the_changelog_has_the_kinds_of_keep_a_changelog_alone() -> None:
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= KINDS


def test_the_installed_version_is_that_of_the_module() -> None:
    assert importlib.metadata.version("opusagent-voiceprint") == voiceprint.__version__
    assert not re.search(r"^version = \"", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def test_the_upgrade_page_names_the_newest_formats_that_have_golden_files() -> None:
    page = (ROOT / "docs/upgrade.md").read_text()
    names = [path.name for path in (ROOT / "tests/golden").iterdir()]
    for title, pattern in (
        ("`JSONStorage` | ", r"format-(\d+)\.json"),
        ("SQL stores | revision ", r"schema-(\d+)\.db"),
        ("backup, export | ", r"backup-(\d+)\.jsonl"),
    ):
        newest = max(match[1] for name in names if (match := re.fullmatch(pattern, name)))
        assert f"| {title}{newest} " in page, newest
