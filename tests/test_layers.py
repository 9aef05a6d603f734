"""Nothing imports upwards: every part imports parts of its own layer or lower ones, without circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    (
        "_audited",
        "_files",
        "_fork",
        "_keyed_cache",
        "_lazy",
        "_processes",
        "_progress_file",
        "_scheduler",
        "_stages",
        "_threads",
        "errors",
        "validation",
    ),
    ("_model", "audio", "index", "migrations"),
    ("answers", "consent", "retention", "utils"),
    ("config",),
    ("models",),
    ("encoder", "scoring", "storage"),
    ("diarization",),
    ("embedder",),
    ("enrollment", "identification"),
    ("dual_run",),
    ("privacy", "streaming"),
    ("_parts",),
    (
        "auditing",
        "grouping",
    ),
    ("recognizer", "upkeep"),
    ("_gallery_places", "_gallery_file", "galleries"),
    ("evaluation",),
    ("client", "server"),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
PARTS = [path for path in (ROOT / "voiceprint").iterdir() if path.stem in LEVEL]


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that code imports when it runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        yield from imports(node)


def used_by(part: Path) -> set[str]:
    """The parts of the package that a part imports."""
    # Alembic runs env.py as a script; nothing imports it.
    files = [file for file in part.rglob("*.py") if file.name != "env.py"] if part.is_dir() else [part]
    found = {name for file in files for name in imports(ast.parse(file.read_text()))}
    used = {name.split(".")[1] for name in found if name.startswith("voiceprint.")}
    return used & LEVEL.keys() - {part.stem}


def test_every_part_has_a_layer() -> None:
    files = (ROOT / "voiceprint").glob("[!_]*")
    named = {path.stem for path in files if path.suffix == ".py" or path.is_dir()} - {"py"}
    assert named <= LEVEL.keys()


@pytest.mark.parametrize("part", PARTS, ids=lambda path: path.stem)
def test_a_part_imports_no_higher_one(part: Path) -> None:
    above = {used for used in used_by(part) if LEVEL[used] > LEVEL[part.stem]}
    assert not above


def test_there_is_no_circle() -> None:
    edges = {part.stem: used_by(part) for part in PARTS}
    left = dict(edges)
    while left:
        free = [part for part, used in left.items() if not used & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for part in free:
            del left[part]


def walk() -> list[tuple[list[str], list[str]]]:
    """The names and the files of each step of the walk in docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = page.split("| Step |")[1].split("\n\n")[0].splitlines()[2:]
    return [tuple(re.findall(r"`([a-zA-Z_./]+)`", cell) for cell in row.split("|")[2:4]) for row in rows]


@pytest.mark.parametrize(("names", "files"), walk())
def test_the_walk_of_the_architecture_page_names_what_there_is(names: list[str], files: list[str]) -> None:
    package = ROOT / "voiceprint"
    source = "\n".join(
        path.read_text() for folder in (package, ROOT / "index") for path in folder.rglob("*.py")
    )
    assert names
    for name in names:
        defined = name.startswith("VOICE_") or all(
            re.search(rf"^ *(def|class) {part}\b", source, re.MULTILINE) for part in name.split(".")
        )
        assert defined, name
    assert files
    for file in files:
        assert (package / file).exists(), file
