"""A change of a Redis store that is broken off, by its caller or by the connection: all of it or nothing."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest
from redis_server import RedisServer
from stores import state, voiceprint
from voices import BandEncoder, Voices

from voiceprint import (
    OpusAgentVoiceRecognizer,
    RedisStorage,
    StorageUnavailableError,
    VoiceFingerprintConfig,
)

METADATA = {"name": "Amara", "tags": ["vip", None]}


@pytest.mark.parametrize("step", ["_prepare", "_send"])
@pytest.mark.parametrize("in_time", [True, False])
def test_a_cancelled_enrollment_is_whole_or_not_there(
    server: RedisServer, voices: Voices, monkeypatch: pytest.MonkeyPatch, step: str, in_time: bool
) -> None:
    """Cancelled while the paused server has the first or the last of its commands; `in_time`: the server
    is back before the store gives up, and makes the change."""
    storage = RedisStorage(server.client(), timeout_s=30 if in_time else 0.5)
    config = VoiceFingerprintConfig(similarity_threshold=0.75)
    recognizer = OpusAgentVoiceRecognizer(storage, config=config, encoder=BandEncoder())
    storage.save(voiceprint("alice"))
    before, process, paused = state(storage), server.process, threading.Event()
    assert process is not None
    work = getattr(storage._committer, step)

    def pausing(*arguments: Any) -> Any:
        process.send_signal(signal.SIGSTOP)
        paused.set()
        if in_time:  # the cancelled enrollment waits for the save, which waits for the server
            threading.Timer(0.5, process.send_signal, [signal.SIGCONT]).start()
        return work(*arguments)

    async def cancelled() -> None:
        enrollment = asyncio.ensure_future(recognizer.aenroll_caller("amara", voices["amara"][0], METADATA))
        while not paused.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(enrollment, 0.05)
        assert enrollment.cancelled()

    with monkeypatch.context() as patched:
        patched.setattr(storage._committer, step, pausing)
        try:
            asyncio.run(cancelled())  # ends when its worker thread has ended: it would hang with it
        finally:
            process.send_signal(signal.SIGCONT)
    server.wait()
    assert storage.check() == []
    kept = storage.get("amara")
    if in_time:
        assert kept.metadata == METADATA
        assert [print_.encoder for print_ in kept.voiceprints] == [BandEncoder.name]
    else:
        assert kept is None
    assert {name: caller for name, caller in state(storage).items() if name != "amara"} == before
    recognizer.enroll_caller("amara", voices["amara"][1])
    assert recognizer.match_caller(voices["amara"][0])[0] == "amara"
    assert recognizer.check() == []


def test_connections_that_are_killed_leave_no_change_half_done(server: RedisServer) -> None:
    told, unknown, done = set(), set(), threading.Event()
    with RedisStorage(server.client()) as storage, server.client() as other:

        def kill() -> None:
            while not done.wait(0.003):
                other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for n in range(300):
                try:
                    storage.save_many([voiceprint(f"c{n}", n), voiceprint(f"d{n}", n)])
                except StorageUnavailableError:
                    unknown.add(n)
                else:
                    told.add(n)
        finally:
            done.set()
            killer.join()
        assert told
        assert unknown
        kept = {int(name[1:]) for name in state(storage)}
        assert told <= kept
        assert state(storage).keys() == {f"{letter}{n}" for letter in "cd" for n in kept}
        assert storage.check() == []
        storage.save_many([voiceprint(f"c{n}") for n in unknown])
        assert storage.count_callers() >= len(told) + len(unknown)
