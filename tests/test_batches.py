"""Long lists worked through in groups: in order, some items ahead, and what an error in the middle leaves."""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from voices import BandEncoder, Voices, saved

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.enrollment.batches import BatchRunner
from voiceprint.enrollment.enroller import _EMBEDDED_TOGETHER as EMBEDDED_TOGETHER


class Doubler:
    """Doubles numbers in groups, and keeps what was asked, worked on and taken."""

    def __init__(
        self,
        *,
        most: int = 4,
        largest: float = 1e9,
        threads: int = 3,
        cost: float = 0.0,
        ahead: int | None = None,
    ) -> None:
        self.most, self.threads = most, threads
        self.groups: list[list[int]] = []
        self.taken: list[int] = []
        self.read = 0
        self.furthest_ahead = 0
        self.before: Callable[[list[int]], object] = lambda group: None  # a group is worked on
        self.work = BatchRunner(
            self._double,
            self._take,
            cost=lambda _: cost,
            most=most,
            largest=largest,
            threads=threads,
            ahead=ahead,
        )

    def items(self, count: int) -> Iterator[int]:
        for n in range(count):
            self.read += 1
            self.furthest_ahead = max(self.furthest_ahead, self.read - len(self.taken))
            yield n

    def _double(self, group: list[int]) -> list[int]:
        self.groups.append(group)
        self.before(group)
        return [2 * n for n in group]

    def _take(self, result: int) -> None:
        self.taken.append(result)


def doubled(count: int) -> list[int]:
    return [2 * n for n in range(count)]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 101])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(threads: int, count: int) -> None:
    doubler = Doubler(threads=threads)
    chance = random.Random(count)
    doubler.before = lambda _: time.sleep(chance.uniform(0, 0.004))
    doubler.work.run(doubler.items(count))
    assert doubler.taken == doubled(count)
    assert sorted(map(len, doubler.groups))[1:] == [4] * (len(doubler.groups) - 1)


def test_no_more_is_read_ahead_than_a_group_for_each_thread_and_two() -> None:
    doubler = Doubler(most=4, threads=3)
    doubler.work.run(doubler.items(400))
    assert 4 < doubler.furthest_ahead <= 4 * (3 + 2)


def test_a_slow_group_does_not_stop_the_other_threads() -> None:
    doubler = Doubler(most=1, threads=2, ahead=8)
    others = threading.Semaphore(0)

    def wait_for_eight(group: list[int]) -> None:
        if group != [0]:
            others.release()
            return
        for _ in range(8):
            assert others.acquire(timeout=60)

    doubler.before = wait_for_eight
    doubler.work.run(doubler.items(20))
    assert doubler.taken == doubled(20)
    assert doubler.furthest_ahead <= 8 + 2


def test_large_items_are_not_read_further_ahead_than_their_cost_allows() -> None:
    doubler = Doubler(most=100, largest=10.0, threads=16, cost=10.0)
    doubler.work.run(doubler.items(60))
    assert all(len(group) == 1 for group in doubler.groups)
    assert doubler.furthest_ahead <= 4 + 1
    assert doubler.taken == doubled(60)


def test_groups_are_worked_on_at_once_by_so_many_threads() -> None:
    doubler = Doubler(most=1, threads=3)
    together = threading.Barrier(3, timeout=20)
    doubler.before = lambda _: together.wait()
    doubler.work.run(doubler.items(9))
    assert doubler.taken == doubled(9)


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("count", [0, 1, 4, 30])
def test_a_list_that_fails_midway_is_done_up_to_there(error: BaseException, count: int) -> None:
    doubler = Doubler()

    def items() -> Iterator[int]:
        yield from doubler.items(count)
        raise error

    with pytest.raises(type(error)):
        doubler.work.run(items())
    assert doubler.taken == doubled(count)


@pytest.mark.parametrize("failing", [0, 20, 36])
def test_a_group_that_fails_ends_the_work_and_none_is_done_twice(failing: int) -> None:
    doubler = Doubler()

    def fail(group: list[int]) -> None:
        if failing in group:
            raise MemoryError("at last")

    doubler.before = fail
    with pytest.raises(MemoryError, match="at last"):
        doubler.work.run(doubler.items(40))
    assert doubler.taken == doubled(failing)  # a failing group begins with its failing item here
    assert doubler.read <= failing + 4 * (3 + 2)
    firsts = [group[0] for group in doubler.groups]
    assert len(set(firsts)) == len(firsts)


def test_a_result_that_cannot_be_taken_ends_the_work() -> None:
    doubler = Doubler()

    def take(result: int) -> None:
        if result == 20:
            raise OSError("the disk is full")
        doubler.taken.append(result)

    doubler.work._take = take
    with pytest.raises(OSError, match="full"):
        doubler.work.run(doubler.items(200))
    assert doubler.taken == doubled(10)
    assert doubler.read < 60


@pytest.fixture(params=["as in this run", "ignored"])
def _interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """The handler of SIGINT of a process in the foreground, or of one in the background."""
    before = signal.getsignal(signal.SIGINT)
    if request.param == "ignored":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts", "interruptible")
def test_an_interrupt_while_it_waits_ends_the_work_and_leaves_no_thread() -> None:
    doubler = Doubler(most=1, threads=2)
    interrupted = threading.Event()

    def interrupt(group: list[int]) -> None:
        if group == [10] and not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.05)

    doubler.before = interrupt
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        doubler.work.run(doubler.items(10_000))
    assert doubler.taken == doubled(len(doubler.taken))
    assert len(doubler.groups) < 30
    assert len({group[0] for group in doubler.groups}) == len(doubler.groups)
    assert threading.active_count() == before


class Failing(BandEncoder):
    """Runs out of memory at its third batch."""

    def __init__(self) -> None:
        self.batches = 0

    def embed_batch(self, audios: Any) -> Any:
        self.batches += 1
        if self.batches == 3:
            raise MemoryError
        return super().embed_batch(audios)


def test_what_was_enrolled_before_an_unforeseen_error_is_stored_once(voices: Voices) -> None:
    config = VoiceFingerprintConfig(encoder_threads=1, max_voiceprints_per_caller=9)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=Failing())
    with pytest.raises(MemoryError):
        recognizer.enroll_many((f"{n:03}", voices["amara"][0], None) for n in range(100))
    callers = {caller.caller_id: len(caller.voiceprints) for caller in recognizer.callers()}
    assert callers == {f"{n:03}": 1 for n in range(2 * EMBEDDED_TOGETHER)}


@pytest.mark.slow
def test_enrolling_a_long_list_keeps_only_some_of_its_audio(voices: Voices) -> None:
    threads, count = 2, 120
    config = VoiceFingerprintConfig(encoder_threads=threads)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=BandEncoder())
    held: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Buffer(np.ndarray[Any, Any]):
        """An array that can be told from others of the same content."""

        __hash__ = object.__hash__

        def __eq__(self, other: object) -> Any:
            return self is other

    def samples() -> Iterator[tuple[str, Any, None]]:
        nonlocal most
        for n in range(count):
            audio = voices["amara"][0].copy().view(Buffer)
            held.add(audio)
            most = max(most, len(held))
            yield f"{n:03}", audio, None

    assert len([saved(result) for result in recognizer.enroll_many(samples())]) == count
    gc.collect()
    assert EMBEDDED_TOGETHER < most <= (threads + 2) * EMBEDDED_TOGETHER + 1
    assert not held
