"""`aenroll_caller` that is cancelled: once it has ended, what is in the store stays as it is."""

from __future__ import annotations

import asyncio
import threading

import pytest
from voices import BandEncoder

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer


class Waiting(BandEncoder):
    """Says when it is at work, and goes on when it is let."""

    def __init__(self):
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def embed(self, audio):
        self.begun.set()
        assert self.go_on.wait(60)
        return super().embed(audio)


class SlowStorage(MemoryStorage):
    """Says when it is asked to store, and stores when it is let."""

    def __init__(self):
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def save_many(self, voiceprints, **options):
        self.asked.set()
        assert self.go_on.wait(60)
        return super().save_many(voiceprints, **options)


async def _cancelled(recognizer, audio, when: threading.Event, then: threading.Event, *, first: bool) -> None:
    """Cancel an enrollment once `when` has come; `then` is set before its end is awaited, or after."""
    task = asyncio.ensure_future(recognizer.aenroll_caller("amara", audio))
    await asyncio.to_thread(when.wait, 60)
    task.cancel()
    if first:
        await asyncio.sleep(0)
        then.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    then.set()


def test_cancelled_while_it_embeds_it_ends_at_once_and_stores_nothing(voices):
    encoder, storage = Waiting(), MemoryStorage()
    recognizer = OpusAgentVoiceRecognizer(storage, encoder=encoder)
    # asyncio.run waits for its threads: the enrollment has run to its end by then.
    asyncio.run(_cancelled(recognizer, voices["amara"][0], encoder.begun, encoder.go_on, first=False))
    assert storage.count() == 0


def test_cancelled_while_it_stores_it_ends_only_when_that_is_done(voices):
    storage = SlowStorage()
    recognizer = OpusAgentVoiceRecognizer(storage, encoder=BandEncoder())

    async def cancel() -> int:
        await _cancelled(recognizer, voices["amara"][0], storage.asked, storage.go_on, first=True)
        return storage.count()

    assert asyncio.run(cancel()) == 1


def test_an_enrollment_that_is_not_cancelled_gives_its_voiceprint_and_its_errors(voices):
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    assert asyncio.run(recognizer.aenroll_caller("amara", voices["amara"][0])).id == 1
    with pytest.raises(ValueError, match="empty"):
        asyncio.run(recognizer.aenroll_caller("", voices["amara"][0]))
