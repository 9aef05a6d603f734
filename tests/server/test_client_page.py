"""The examples of docs/client.md run against a live service."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from serving import Running
from test_readme import ROOT, examples

PAGE = ROOT / "docs" / "client.md"


def test_every_example_of_the_client_runs(server: Running, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = "\n".join(examples(PAGE)).replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "VOICE_KEY": server.key("admin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, *_, third, fourth = done.stdout.splitlines()
    assert first.startswith("('amara', 0.9")
    assert "{'plan': 'gold'}" in first
    assert second.endswith("True")
    assert third == "['amara']"
    assert fourth.startswith("2.0 ('")
    server.service.recognizer("default").delete_caller("amara")


def test_the_page_names_the_packages_that_the_client_imports() -> None:
    line = next(line for line in PAGE.read_text().splitlines() if "pip install filelock" in line)
    program = textwrap.dedent(
        """
        import sys
        from voiceprint.client import AsyncClient, Client
        outside = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
        print(" ".join(sorted(name for name in outside if not name.startswith("_"))))
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    named = {name.replace("-", "_") for name in line.split("pip install ")[1].split()}
    theirs = {"annotated_types", "anyio", "certifi", "click", "dotenv", "h11", "httpcore", "idna",
              "markdown_it", "mdurl", "pydantic_core", "pygments", "rich", "sniffio", "typing_extensions",
              "typing_inspection"}  # fmt: skip
    assert set(done.stdout.split()) - theirs - {"voiceprint"} == named
