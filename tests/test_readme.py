"""The README is true: its Python runs as it stands, its commands exist, its table is the configuration's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from voiceprint import VoiceFingerprintConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which the README's relative paths to the sample voices hold."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for name in VoiceFingerprintConfig.model_fields:
        monkeypatch.delenv(f"VOICE_{name.upper()}", raising=False)
    return tmp_path


def test_every_python_example_runs_in_the_order_of_the_page(folder):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    script = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("amara (0.9")
    assert "is on plan gold" in done.stdout
    assert "'no_speech'" in done.stdout
    assert done.stdout.count("('amara', ") == 3, "on the line, in a channel, and from an event loop"


def test_every_command_of_the_quick_start_succeeds(folder):
    section = README.split("## Quick start on the command line")[1].split("\n## ")[0]
    commands = [
        line.split("#")[0].strip() for line in section.splitlines() if line.startswith("    voiceprint")
    ]
    assert len(commands) == 7
    executable = Path(sys.executable).with_name("voiceprint")
    for command in commands:
        line = command.replace("voiceprint", str(executable), 1)
        done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_configuration_table_names_every_setting_with_its_default(monkeypatch):
    for name, field in VoiceFingerprintConfig.model_fields.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `VOICE_{name.upper()}`"))
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        assert f"`{default}`" in row


def test_every_path_of_the_layout_exists():
    layout = README.split("## How it is laid out")[1].split("\n\n")[1]
    parents: list[str] = []
    for line in layout.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip()) - 4) // 2
        parents = [*parents[:depth], name]
        assert (ROOT / "".join(parents)).exists(), line


def test_every_relative_link_leads_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_command_line_reference_is_what_the_commands_say():
    done = subprocess.run(
        [sys.executable, "-m", "typer", "voiceprint.cli.app", "utils", "docs", "--name", "voiceprint"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == (ROOT / "docs/cli.md").read_text().strip(), "run `make docs`"
