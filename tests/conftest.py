"""The options of the test run, and the fixtures that several test modules share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Tests run beside each other on every core, where threads of numpy and FAISS spin while they wait for a core.
# Both read this variable when they are imported; a test of several threads asks for them itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import postgres_server
import pytest
import redis_server
from over_http import Reached, reaching
from tiny_models import TINY, TINY_THRESHOLD, write_tiny_model
from voices import BandEncoder, Voices, by_cosine, load_voices

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.cli import main
from voiceprint.storage.presence import StorePresence


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--crashes", type=int, default=20, metavar="N", help="how often a writer is killed in the crash tests"
    )
    parser.addoption(
        "--rounds", type=int, default=10, metavar="N", help="how much each of several busy processes does"
    )
    parser.addoption(
        "--runs", type=int, default=12, metavar="N", help="how many random runs of operations a store gets"
    )
    parser.addoption(
        "--mutations", type=int, default=300, metavar="N", help="how many audio files are mutated and read"
    )
    parser.addoption(
        "--conversations",
        type=int,
        default=60,
        metavar="N",
        help="how many malformed conversations of live calls are held",
    )
    parser.addoption(
        "--all-speech", action="store_true", help="compare the encoders on all real speech, not on some of it"
    )
    parser.addoption(
        "--encoder", choices=[*TINY], help="run with a tiny speaker model in place of the default encoder"
    )


def pytest_configure(config: pytest.Config) -> None:
    """With --encoder, a tiny model is the encoder of the settings, here and in the processes of the tests."""
    name = config.getoption("--encoder")
    if name is None:
        return
    folder = tempfile.mkdtemp(prefix="voiceprint-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program, dimension, framework = TINY[name]
    path = write_tiny_model(Path(folder, f"{name}.onnx"), dimension, framework)
    os.environ["VOICE_ENCODER"] = f"{program}:{path}"
    # The tests expect the answers of a threshold; tests/test_other_spaces.py tests the default rule.
    os.environ["VOICE_SIMILARITY_THRESHOLD"] = TINY_THRESHOLD


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests whose module, name or parameter names a server; the few others are marked one by one.

    With --encoder, the tests of the default encoder's values are left out.
    """
    if config.getoption("--encoder") is not None:
        others = [item for item in items if item.get_closest_marker("resemblyzer")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    for item in items:
        for word, marker in (("redis", "redis"), ("postgres", "postgres"), ("psycopg", "postgres")):
            if word in item.nodeid:
                item.add_marker(marker)


@pytest.fixture(scope="session", autouse=True)
def _end_servers() -> Iterator[None]:
    """End the servers of this test process, if a test has started one."""
    yield
    redis_server.end_shared()
    postgres_server.end_shared()


@pytest.fixture(autouse=True)
def _clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the settings of the shell that it is run from."""
    kept = {"VOICE_TEST_DATA"}
    if request.config.getoption("--encoder") is not None:
        kept |= {"VOICE_ENCODER", "VOICE_SIMILARITY_THRESHOLD"}
    for name in os.environ:
        if name.upper().startswith("VOICE_") and name not in kept:
            monkeypatch.delenv(name)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts this process, and those that the test starts, also where it is ignored.

    It is ignored in what a shell runs in the background, such as `make test &`, and is inherited.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def voices() -> Voices:
    """The utterances of the sample callers, by name."""
    return load_voices()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line as the script does: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["voiceprint", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """A service for tests of verbs, started by the first."""
    with reaching(tmp_path_factory.mktemp("service")) as reach:
        yield reach


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """The way in which a test uses its recognizers: one of `over_http.WAYS`."""
    return str(getattr(request, "param", "library"))


@pytest.fixture
def reached(request: pytest.FixtureRequest, way: str) -> Reached:
    """A function that gives a recognizer as the test is to use it: itself, or through a service."""
    if way == "library":
        return lambda recognizer: recognizer
    reach = request.getfixturevalue("_service")
    return lambda recognizer: reach(recognizer, way)


@pytest.fixture
def recognizer(reached: Reached) -> Iterator[OpusAgentVoiceRecognizer]:
    """A recognizer with Resemblyzer's encoder over an empty store in memory."""
    with MemoryStorage() as storage:
        yield reached(OpusAgentVoiceRecognizer(storage))


@pytest.fixture
def quick(reached: Reached) -> OpusAgentVoiceRecognizer:
    """A recognizer with the quick encoder of the tests and its threshold, over an empty store in memory."""
    return reached(OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine()))


@pytest.fixture(autouse=True)
def _new_process() -> None:
    """No test is told that a store of another one, at the same place, is gone."""
    StorePresence.forget_all()
