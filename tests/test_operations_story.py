"""The story of a caller's life in docs/operations.md, run as it is written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, Recording

ROOT = Path(__file__).resolve().parents[1]
STORY = (ROOT / "docs/operations.md").read_text().split("## A caller's life")[1].split("\n## ")[0]
LINES = [line.strip() for line in re.findall(r"^    (.*)", STORY, re.MULTILINE)]

pytestmark = pytest.mark.resemblyzer


def settings(folder: Path) -> dict[str, str]:
    """The environment of the story's exports."""
    exported = [
        word.partition("=") for line in LINES if line.startswith("export ") for word in line.split()[1:]
    ]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("VOICE_")}
    return bare | {name: value for name, _, value in exported} | {"HOME": str(folder)}


def run(line: str, folder: Path) -> tuple[int, str]:
    """The exit code and all output of a command line."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("voiceprint")), *shlex.split(line, comments=True)[1:]],
        cwd=folder, env=settings(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def pieces_of(recording: Path) -> list[bytes]:
    """Parts of the embeddings of a sample voice: as float32, as float16, and as text."""
    here = OpusAgentVoiceRecognizer(MemoryStorage())
    vector = here.get_embedding(Recording.open(recording))
    text = json.dumps([float(value) for value in vector[:3]])[1:-1]
    return [vector.astype("<f4").tobytes()[:24], vector.astype("<f2").tobytes()[:24], text.encode()]


def test_the_story_of_a_callers_life_is_true(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = [line for line in LINES if line.startswith("voiceprint ")]
    assert len(commands) > 25
    said = []
    for line in commands:
        code, output = run(line, tmp_path)
        assert code == (1 if "exit code 1" in line else 0), f"{line}\n{output}"
        said.append(output)
        if "opt-out bruno --reason" in line:
            assert "erased" in output
            assert "remains" not in output.replace("looked for remains", "")
    text = "\n".join(said)
    assert "ConsentRequiredError" in text
    assert "amara is expired" in text
    assert text.count("bruno has opted out") >= 2
    # Neither the records nor what the commands said hold the voice in plain.
    written = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()
    }
    encrypted = {
        path: content
        for path, content in written.items()
        if "examples" not in path.parts and not path.name.startswith("restored.json")
    }
    assert {"audit.jsonl", "voiceprints.db", "monday.backup"} <= {path.name for path in encrypted}
    for name in ("amara", "bruno"):
        for piece in pieces_of(ROOT / f"examples/voices/{name}/1.flac"):
            assert piece not in text.encode()
            assert not [path.name for path, content in encrypted.items() if piece in content]
    for path, content in written.items():
        if path.name.startswith("restored.json"):  # encrypted with the same key
            assert b"agent-17" not in content


def test_the_voices_of_the_story_are_found_where_they_are_in_plain(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    executable = str(Path(sys.executable).with_name("voiceprint"))
    bare = {name: value for name, value in os.environ.items() if not name.startswith("VOICE_")}
    subprocess.run(
        [executable, "enroll", "amara", "examples/voices/amara/1.flac", "--store", "sqlite:plain.db"],
        cwd=tmp_path, env=bare, check=True, capture_output=True,
    )  # fmt: skip
    content = b"".join(path.read_bytes() for path in tmp_path.glob("plain.db*"))
    assert np.any([piece in content for piece in pieces_of(ROOT / "examples/voices/amara/1.flac")])
