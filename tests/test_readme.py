"""README and docs are true: their Python runs, their commands exist, their tables name what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from voiceprint import VoiceFingerprintConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = (ROOT / "docs/cli.md").read_text()


def examples(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The `voiceprint` command lines of a page, in blocks and within sentences."""
    blocks = re.findall(r"^    (?:\$ )?(voiceprint [^#\n]*)", page.read_text(), re.MULTILINE)
    inline = re.findall(r"`(voiceprint [^`]*)`", page.read_text())
    return [" ".join(line.split()) for line in blocks + inline]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the relative paths to the sample voices hold."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.resemblyzer
@pytest.mark.parametrize(
    "page",
    # tests/server/test_client_page.py runs those of the client, which need a service.
    [page for page in PAGES if examples(page) and page.name != "client.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_python_example_runs_in_the_order_of_the_page(page: Path, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", "\n".join(examples(page))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if page.name == "README.md":
        assert done.stdout.startswith("amara (0.9")
        assert "is on plan gold" in done.stdout
        assert done.stdout.count("('amara', ") == 2, "on the line, and in a channel"
        assert "amara True after" in done.stdout


def test_every_command_of_the_readme_succeeds(folder: Path) -> None:
    executable = Path(sys.executable).with_name("voiceprint")
    lines = re.findall(r"^    voiceprint ((?:enroll|identify|verify) .*)", README, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["enroll", "identify", "verify"]
    for line in lines:
        done = subprocess.run(
            [executable, *line.split()], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_command_named_exists_with_its_options(page: Path) -> None:
    sections = dict(
        re.findall(r"^## `(voiceprint[\w -]*)`\n(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    )
    sections |= dict(
        re.findall(r"^### `(voiceprint[\w -]*)`\n(.*?)(?=^##)", REFERENCE + "##", re.M | re.DOTALL)
    )
    for line in commands(page):
        words = line.split()
        name = max((n for n in sections if words[: len(n.split())] == n.split()), key=len, default=None)
        assert name is not None or words[1].startswith("-"), f"{line}: docs/cli.md has no such command"
        for option in re.findall(r"--[\w-]+", line):
            assert option in sections.get(name or "", REFERENCE), f"{line}: docs/cli.md has no such option"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_configuration_table_names_every_setting_with_its_default() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    for name, field in VoiceFingerprintConfig.model_fields.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `VOICE_{name.upper()}`"))
        value = field.get_default(call_default_factory=True)
        default = str(value).lower() if isinstance(value, bool) else str(value)
        assert f"`{default}`" in row


def test_the_architecture_names_every_room_and_no_other() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:/[a-z]+)*/)`", page.split("## Rooms")[1].split("\n\n")[1]))
    assert {room for room in named if not (ROOT / room).is_dir()} == set()
    rooms = {
        f"voiceprint/{path.parent.name}/"
        for path in ROOT.glob("voiceprint/*/__init__.py")
        if not path.parent.is_symlink()
    }
    assert rooms <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_list_of_pages_and_in_the_menu() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text()))
    menu = set(re.findall(r"(?<=[ ])[\w-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == pages - {"README.md"}
    assert menu == pages


def test_the_command_line_reference_is_what_the_commands_say() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "typer", "voiceprint.cli.app", "utils", "docs", "--name", "voiceprint"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == REFERENCE.strip(), "run `make docs`"
