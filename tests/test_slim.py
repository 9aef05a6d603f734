"""The conditions of the slim install; tests/slim_install.py checks it as it is installed."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from voices import ROOT, SAMPLES, Voices

from voiceprint import EncoderError, MemoryStorage, OpusAgentVoiceRecognizer, VoiceprintError
from voiceprint._lazy import Lazy
from voiceprint.audio.speech import vad
from voiceprint.encoder import OnnxEncoder, ResemblyzerEncoder
from voiceprint.encoder.weights import weights_file

GOLDEN = Path(__file__).parent / "golden/sample-voices.npz"
# Installed without its dependencies, and those of them that no code of ours needs in this form.
LEFT_OUT = {"resemblyzer", "scipy", "setuptools", "webrtcvad"}


def project(requirement: str) -> str:
    found = re.match(r"[\w-]+", requirement)
    assert found is not None, requirement
    return found[0].lower()


def dependencies() -> set[str]:
    block = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert block is not None
    return {project(quoted) for quoted in re.findall(r'^ +"(.*)",$', block[1], re.M)}


def required() -> list[str]:
    lines = (ROOT / "requirements-slim.txt").read_text().splitlines()
    return [project(line) for line in lines if not line.startswith(("#", "-"))]


def test_the_slim_install_lacks_nothing_but_what_the_default_encoder_does_without() -> None:
    assert len(dependencies()) > 15
    assert set(required()) == dependencies() - LEFT_OUT | {"webrtcvad-wheels"}


def test_all_that_the_slim_install_asks_for_is_pinned() -> None:
    pinned = {project(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {*required(), "resemblyzer"} <= pinned
    assert "--constraint constraints.txt" in (ROOT / "requirements-slim.txt").read_text()


def test_the_install_page_names_the_same_packages() -> None:
    section = (ROOT / "docs/install.md").read_text().split("## Slim")[1].split("\n## ")[0]
    command = re.search(r"pip install (alembic[^`]*?)\n    pip", section)
    assert command is not None
    assert command[1].replace("\\\n", "").split() == required()


def test_the_kept_embeddings_are_those_that_resemblyzer_gives(voices: Voices) -> None:
    encoder = ResemblyzerEncoder()
    with np.load(GOLDEN) as kept:
        names = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.glob("*/*.flac"))
        assert sorted(kept) == names
        audios = [audio for caller in sorted(voices) for audio in voices[caller]]
        for name, audio in zip(names, audios, strict=True):
            assert float(encoder.embed(audio) @ kept[name]) > 0.999999, name


def test_the_weights_of_a_resemblyzer_that_cannot_be_imported_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "resemblyzer"
    package.mkdir()
    (package / "__init__.py").write_text("import a_package_that_is_not_there")
    (package / "pretrained.pt").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "resemblyzer"]:
        monkeypatch.delitem(sys.modules, name)
    assert weights_file() == package / "pretrained.pt"
    with pytest.raises(EncoderError, match=r"a_package_that_is_not_there.*VOICE_ENCODER=onnx"):
        ResemblyzerEncoder().warm_up()


def test_without_resemblyzer_the_error_names_the_way_without_its_dependencies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(EncoderError, match=r"not installed.*pip install --no-deps resemblyzer"):
        weights_file()


def test_without_a_vad_every_way_to_use_audio_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, voices: Voices
) -> None:
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    monkeypatch.setattr(vad, "_WEBRTCVAD", Lazy(vad._WEBRTCVAD._load, inherited=True))
    audio = voices["amara"][0]
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=OnnxEncoder(1))
    for use in (
        recognizer.warm_up,
        lambda: recognizer.get_embedding(audio),
        lambda: recognizer.match_caller(audio),
        lambda: recognizer.enroll_caller("amara", audio),
    ):
        with pytest.raises(EncoderError, match="pip install webrtcvad-wheels"):
            use()
    (result,) = recognizer.enroll_many([("amara", audio, None)])
    assert isinstance(result, VoiceprintError)


def test_every_check_of_the_slim_install_says_what_is_wrong() -> None:
    script = ast.parse((ROOT / "tests/slim_install.py").read_text())
    checks = [found for found in ast.walk(script) if isinstance(found, ast.Assert)]
    assert len(checks) >= 8
    assert all(check.msg is not None for check in checks)
