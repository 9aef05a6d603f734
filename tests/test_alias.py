"""`opusagent.voiceprint` and `voiceprint` are one package under two names."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import voiceprint

SUBMODULES = (
    "audio", "audio.io.buffers", "config", "encoder", "encoder.base", "errors", "index",
    "identification.gallery", "migrations", "models", "recognizer", "storage", "storage.base", "storage.json",
    "storage.sql", "storage.sql.store", "utils", "validation",
)  # fmt: skip

# The line that OpusAgent puts into its own opusagent/__init__.py, as the README says.
ADOPTION = '__path__ = __import__("pkgutil").extend_path(__path__, __name__)\n'


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that looks for modules in `path` first."""
    folders = [str(folder) for folder in path] + [os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
    )


def printed(code: str, *path: Path) -> str:
    done = python(code, *path)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "",
            "OpusAgentVoiceRecognizer Voiceprint VoiceFingerprintConfig JSONStorage RedisStorage "
            "SQLiteStorage Config",
        ),
        (".storage", "JSONStorage RedisStorage SQLStorage SQLiteStorage"),
        (".config", "VoiceFingerprintConfig"),
        (".models", "Voiceprint VoiceFingerprintConfig"),
        (".utils", "preprocess_audio normalize_embedding"),
        (".recognizer", "OpusAgentVoiceRecognizer"),
    ],
)
@pytest.mark.parametrize("first", ["opusagent.voiceprint", "voiceprint"])
def test_every_documented_import_gives_the_same_object_under_both_names(
    first: str, module: str, names: str
) -> None:
    second = "voiceprint" if first == "opusagent.voiceprint" else "opusagent.voiceprint"
    wanted = ", ".join(names.split())
    code = (
        f"from {first}{module} import {wanted}\nmine = [{wanted}]\n"
        f"from {second}{module} import {wanted}\n"
        f"print(all(a is b for a, b in zip(mine, [{wanted}], strict=True)))"
    )
    assert printed(code) == "True"


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_submodule_is_the_same_module_with_its_own_name_and_spec(name: str) -> None:
    alias = importlib.import_module(f"opusagent.voiceprint.{name}")
    assert alias is importlib.import_module(f"voiceprint.{name}")
    assert alias is sys.modules[f"opusagent.voiceprint.{name}"]
    assert alias.__name__ == f"voiceprint.{name}"
    assert alias.__spec__ is not None
    assert alias.__spec__.name == f"voiceprint.{name}"
    assert alias.__spec__.origin == alias.__file__


def test_patching_one_name_patches_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opusagent.voiceprint.encoder.base.MIN_SPEECH_S", 99.0)
    assert voiceprint.encoder.base.MIN_SPEECH_S == 99.0  # type: ignore[attr-defined]
    monkeypatch.setattr("voiceprint.storage.JSONStorage", None)
    storage = importlib.import_module("opusagent.voiceprint.storage")
    assert storage.JSONStorage is None


def test_no_module_is_loaded_twice_whichever_name_comes_first() -> None:
    code = """
import {first}.storage.json, {second}.recognizer, {second}.storage.json, {first}.index, sys
ours = [m for n, m in sys.modules.items() if n.startswith(("voiceprint", "opusagent.voiceprint"))]
files = [m.__file__ for m in {{id(m): m for m in ours}}.values()]
print(len(files) > 20, len(files) == len(set(files)))
"""
    for first, second in (("voiceprint", "opusagent.voiceprint"), ("opusagent.voiceprint", "voiceprint")):
        assert printed(code.format(first=first, second=second)) == "True True"


def test_a_module_imported_under_the_alias_can_be_reloaded_and_asked_for_resources() -> None:
    code = """
import importlib, importlib.resources
import opusagent.voiceprint as package, opusagent.voiceprint.utils as module
before = module.preprocess_audio
print(importlib.reload(module) is module, module.preprocess_audio is not before)
print(importlib.reload(package) is package)
import voiceprint
print(voiceprint is package)
"""
    assert printed(code).split() == ["True"] * 4
    assert files("opusagent.voiceprint").joinpath("py.typed").is_file()


def test_a_module_that_is_not_there_is_told_under_the_name_that_was_asked_for() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("opusagent.voiceprint.nothing")
    assert caught.value.name == "opusagent.voiceprint.nothing"
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("opusagent.voiceprint.nothing.below")
    assert caught.value.name == "opusagent.voiceprint.nothing"


def opusagent_tree(folder: Path, init: str) -> Path:
    """A tree like OpusAgent's own: a package `opusagent` with modules that import ours."""
    package = folder / "opusagent"
    (package / "bridge").mkdir(parents=True)
    (package / "__init__.py").write_text(init)
    (package / "bridge" / "__init__.py").write_text("")
    (package / "bridge" / "call.py").write_text(
        "from opusagent.voiceprint import OpusAgentVoiceRecognizer\nRECOGNIZER = OpusAgentVoiceRecognizer\n"
    )
    return folder


CALL = (
    "import opusagent.bridge.call as call, voiceprint, opusagent;"
    "print(call.RECOGNIZER is voiceprint.OpusAgentVoiceRecognizer, opusagent.__file__)"
)


@pytest.mark.parametrize("init", [ADOPTION, '"""OpusAgent."""\n\n' + ADOPTION + "VERSION = 1\n"])
def test_opusagent_finds_us_beside_its_own_modules_by_the_documented_line(tmp_path: Path, init: str) -> None:
    tree = opusagent_tree(tmp_path, init)
    assert printed(CALL, tree) == f"True {tree / 'opusagent' / '__init__.py'}"


def test_without_the_line_opusagent_hides_us_with_an_ordinary_error(tmp_path: Path) -> None:
    # An editable install finds its modules whatever the packages above them say: leave it out.
    installed = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in repr(f)];"
    done = python(installed + CALL, opusagent_tree(tmp_path, ""))
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ModuleNotFoundError: No module named 'opusagent.voiceprint'")
    # The package under its own name is there all the same.
    assert printed("import voiceprint, opusagent; print(voiceprint.__name__)", tmp_path) == "voiceprint"


def test_a_namespace_tree_without_an_init_finds_us_too(tmp_path: Path) -> None:
    tree = opusagent_tree(tmp_path, "")
    (tree / "opusagent" / "__init__.py").unlink()
    assert printed(CALL, tree) == "True None"
