"""docs/server.md is true: its commands run, and its table of settings has all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from serving import Running, serve
from voices import ROOT, SAMPLES, BandEncoder, by_cosine

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, load_audio
from voiceprint.server import ServerSettings, Service

PAGE = (ROOT / "docs/server.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    """A service, and the folder in which the commands run."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "examples").symlink_to(ROOT / "examples")
    jobs = folder / "jobs" / "default"
    (jobs / "2027-01").mkdir(parents=True)
    (jobs / "2027-01" / "callers.csv").write_text("caller_id,path\ndora,1.flac\n")
    shutil.copy(SAMPLES / "amara" / "1.flac", jobs / "2027-01")
    (jobs / "labeled").mkdir()
    samples, rate = load_audio(SAMPLES / "amara" / "2.flac")
    soundfile.write(folder / "call.ulaw", samples[:: rate // 8000], 8000, format="RAW", subtype="ULAW")
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), encoder=BandEncoder(), config=by_cosine(audit=folder / "audit.jsonl")
    )
    settings = ServerSettings(state=str(folder / "state.db"), jobs_folder=folder / "jobs")
    with serve(Service({"default": recognizer}, settings)) as server:
        yield server, folder


@pytest.mark.skipif(shutil.which("curl") is None and "CI" not in os.environ, reason="no curl")
def test_every_command_of_the_page_succeeds(running: tuple[Running, Path]) -> None:
    server, folder = running
    environment = {**os.environ, "URL": server.url, "KEY": server.key("admin")}
    assert len(COMMANDS) > 15
    for line in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", line.replace("curl -s", "curl -sS --fail-with-body")],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout} {done.stderr}"
        answer = json.loads(done.stdout)
        if line.endswith("default/identify") and "amara/2" in line:
            assert (answer["verdict"], answer["caller_id"]) == ("accepted", "amara")


def test_the_table_of_settings_names_every_setting_with_its_default() -> None:
    for name, field in ServerSettings.model_fields.items():
        variable = f"`VOICE_SERVER_{name.upper()}`"
        row = next(
            line for line in PAGE.splitlines() if line.startswith("|") and variable in line.split("|")[1]
        )
        value = field.get_default(call_default_factory=True)
        default = str(value).lower() if isinstance(value, bool) else str(value)
        assert f"`{default}`" in row, name
