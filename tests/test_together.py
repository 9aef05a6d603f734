"""Many threads, many recognizers, many processes and an event loop, at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voices import BandEncoder, Voices, by_cosine

from voiceprint import (
    AudioQualityError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Storage,
)
from voiceprint.identification.gallery import Gallery

THREADS = 8


def together(*tasks: Callable[[], object]) -> None:
    """Run the tasks in threads that start as one; the first error is raised."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        start.wait()
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(run, task) for task in tasks]:
            future.result()


@pytest.mark.parametrize("kind", ["memory", "json"])
def test_threads_enroll_and_match_at_once(tmp_path: Path, voices: Voices, kind: str) -> None:
    storage: Storage = MemoryStorage() if kind == "memory" else JSONStorage(tmp_path / "callers.json")
    names = list(voices)[:THREADS]
    OpusAgentVoiceRecognizer(storage, encoder=BandEncoder()).enroll_caller("ivo", voices["ivo"][0])

    def call(name: str) -> Callable[[], object]:
        def task() -> None:
            # As OpusAgent does: a recognizer for each call.
            recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder(), config=by_cosine())
            for audio in voices[name][:2]:
                recognizer.enroll_caller(name, audio, {"name": name})
                answer = recognizer.match_caller(audio)
                assert answer is not None
                assert (answer[0], answer[2]) == (name, {"name": name})
                assert answer[1] == pytest.approx(1, abs=1e-5)
                stranger = recognizer.match_caller(voices["ivo"][1])
                assert stranger is not None
                assert stranger[0] == "ivo"

        return task

    together(*(call(name) for name in names))
    assert storage.count() == 2 * THREADS + 1
    assert OpusAgentVoiceRecognizer(storage, encoder=BandEncoder()).check() == []


def test_threads_enrolling_one_caller_leave_no_more_prints_than_are_allowed(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    recordings = [audio for audios in voices.values() for audio in audios]

    def key(number: int) -> Callable[[], object]:
        return lambda: recognizer.enroll_caller("amara", recordings[number], {str(number): number})

    together(*(key(number) for number in range(THREADS)))
    caller = recognizer.get_caller("amara")
    assert caller is not None
    assert len(caller.voiceprints) == 3
    assert caller.metadata == {str(number): number for number in range(THREADS)}
    assert recognizer.check() == []


def test_the_network_gives_the_same_embedding_in_every_thread(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    expected = {name: recognizer.get_embedding(audios[0]) for name, audios in voices.items()}

    def embed(name: str) -> Callable[[], object]:
        return lambda: np.testing.assert_allclose(
            recognizer.get_embedding(voices[name][0]), expected[name], atol=1e-6
        )

    together(*(embed(name) for name in list(voices)[:THREADS]))


def test_recognizers_share_the_encoder_and_the_index_over_one_store(
    tmp_path: Path, voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "callers.json"
    first = OpusAgentVoiceRecognizer(JSONStorage(path))
    second = OpusAgentVoiceRecognizer(JSONStorage(path))
    assert first.encoder is second.encoder
    first.enroll_caller("amara", voices["amara"][0])
    assert first.match_caller(voices["amara"][1]) is not None
    builds = []
    build = Gallery._build
    monkeypatch.setattr(Gallery, "_build", lambda *arguments: builds.append(1) or build(*arguments))
    answer = second.match_caller(voices["amara"][1])
    assert answer is not None
    assert answer[0] == "amara"
    assert builds == []
    OpusAgentVoiceRecognizer(MemoryStorage()).identify(voices["amara"][1])  # another store, another index
    assert builds == [1]


ENROL = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from voices import BandEncoder, load_voices
from voiceprint import JSONStorage, OpusAgentVoiceRecognizer
recognizer = OpusAgentVoiceRecognizer(JSONStorage(sys.argv[2]), encoder=BandEncoder())
voices = load_voices()
for name in sys.argv[3:]:
    if name.startswith("-"):
        recognizer.delete_caller(name[1:])
    else:
        recognizer.enroll_caller(name, voices[name][0], {"by": "another process"})
"""


def test_the_next_match_finds_what_another_process_did(tmp_path: Path, voices: Voices) -> None:
    path = tmp_path / "callers.json"

    def other_process(*changes: str) -> None:
        here = str(Path(__file__).parent)
        subprocess.run([sys.executable, "-c", ENROL, here, str(path), *changes], check=True)

    recognizer = OpusAgentVoiceRecognizer(JSONStorage(path), encoder=BandEncoder())
    recognizer.config.similarity_threshold = 0.95
    assert recognizer.match_caller(voices["amara"][1]) is None
    other_process("amara", "bruno")
    for name in ("amara", "bruno"):
        answer = recognizer.match_caller(voices[name][1])
        assert answer is not None
        assert (answer[0], answer[2]) == (name, {"by": "another process"})
    other_process("-amara", "carlo")
    assert recognizer.match_caller(voices["amara"][1]) is None
    assert [match.caller_id for match in recognizer.identify(voices["carlo"][1])] == ["carlo", "bruno"]
    assert recognizer.check() == []


def test_the_event_loop_keeps_turning_while_the_three_work(voices: Voices) -> None:
    gate = threading.Event()

    class SlowEncoder(BandEncoder):
        """Waits until the loop has turned a hundred times: for ever, if the loop is what it blocks."""

        def embed(self, audio: Any) -> Any:
            """As `Encoder.embed`."""
            assert gate.wait(timeout=60), "the event loop stood still"
            return super().embed(audio)

    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=SlowEncoder(), config=by_cosine())

    async def while_ticking(work: Any) -> Any:
        gate.clear()
        task = asyncio.ensure_future(work)
        for _ in range(100):
            await asyncio.sleep(0)
        gate.set()
        return await task

    async def call() -> None:
        amara = voices["amara"]
        voiceprint = await while_ticking(recognizer.aenroll_caller("amara", amara[0], {"name": "A"}))
        assert voiceprint.caller_id == "amara"
        answer = await while_ticking(recognizer.amatch_caller(amara[1]))
        assert (answer[0], answer[2]) == ("amara", {"name": "A"})
        matches = await while_ticking(
            recognizer.aidentify(amara[1], 3, threshold=1.0, candidates=["amara", "nobody"])
        )
        assert [(match.caller_id, match.accepted) for match in matches] == [("amara", False)]
        with pytest.raises(AudioQualityError):
            await recognizer.amatch_caller(amara[1][:8_000])
        answers = await asyncio.gather(*(recognizer.amatch_caller(audio) for audio in amara))
        assert [answer[0] for answer in answers if answer is not None] == ["amara"] * 4

    asyncio.run(call())


def test_a_call_leaves_the_filters_of_warnings_alone(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They are the process's: threads that save and restore them at once can leave all warnings off.
    recognizer.enroll_caller("amara", voices["amara"][0])
    recognizer.match_caller(voices["amara"][1])

    def save_filters(*_: object, **__: object) -> None:
        pytest.fail("the filters of all threads would be changed")

    monkeypatch.setattr(warnings, "catch_warnings", save_filters)
    monkeypatch.setattr(warnings, "simplefilter", save_filters)
    recognizer.enroll_caller("amara", voices["amara"][2])
    assert recognizer.match_caller(voices["amara"][3]) is not None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_goes_on_matching(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())
    recognizer.enroll_caller("amara", voices["amara"][0])
    assert recognizer.match_caller(voices["amara"][1]) is not None
    child = os.fork()
    if not child:
        answer = None
        try:
            answer = recognizer.match_caller(voices["amara"][2])
        finally:  # whatever happens, the child does not go on with the tests
            os._exit(0 if answer is not None and answer[0] == "amara" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
