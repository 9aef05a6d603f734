"""Calls of several threads that are answered together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from voiceprint.encoder.combined import CombinedCalls


class Device:
    """Doubles numbers, one list at a time; holds its first turn until `go_on` is set."""

    def __init__(self, fault: Callable[[list[int]], None] = lambda _: None) -> None:
        self.turns: list[list[int]] = []
        self.busy, self.go_on = threading.Event(), threading.Event()
        self._fault = fault

    def work(self, numbers: list[int]) -> list[int]:
        self.turns.append(numbers)
        self.busy.set()
        assert self.go_on.wait(60)
        self._fault(numbers)
        return [2 * number for number in numbers]


def while_busy(device: Device, numbers: range, most: int = 100) -> list[Future[int]]:
    """Call with 0, which holds the device, and then with each of the numbers, in order; let it go on."""
    calls = CombinedCalls(device.work, size=lambda _: 1, most=most, turn=threading.Lock())
    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        futures = [pool.submit(calls, 0)]
        assert device.busy.wait(60)
        for waiting, number in enumerate(numbers, start=1):
            futures.append(pool.submit(calls, number))
            while len(calls._waiting) < waiting:
                pass
        device.go_on.set()
    return futures


def test_a_lone_call_is_answered_at_once() -> None:
    device = Device()
    device.go_on.set()
    calls = CombinedCalls(device.work, size=lambda _: 1, most=100, turn=threading.Lock())
    assert [calls(number) for number in (3, 4)] == [6, 8]
    assert device.turns == [[3], [4]]


def test_calls_that_wait_share_the_next_turn() -> None:
    device = Device()
    futures = while_busy(device, range(1, 7))
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    assert device.turns == [[0], [1, 2, 3, 4, 5, 6]]


def test_a_turn_takes_no_more_than_fits() -> None:
    device = Device()
    futures = while_busy(device, range(1, 8), most=3)
    assert [future.result() for future in futures] == [2 * number for number in range(8)]
    assert device.turns == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_a_call_larger_than_a_turn_has_one_of_its_own() -> None:
    device = Device()
    device.go_on.set()
    calls = CombinedCalls(device.work, size=lambda number: number, most=3, turn=threading.Lock())
    assert calls(5) == 10


def test_an_error_is_that_of_all_calls_of_its_turn_and_of_no_other() -> None:
    def fault(numbers: list[int]) -> None:
        if 2 in numbers:
            raise RuntimeError("out of order")

    futures = while_busy(Device(fault), range(1, 5), most=2)
    assert futures[0].result() == 0
    for future in futures[1:3]:
        with pytest.raises(RuntimeError, match="out of order"):
            future.result()
    assert [future.result() for future in futures[3:]] == [6, 8]


def test_an_interrupt_of_one_thread_is_none_of_the_calls_beside_it() -> None:
    interrupts = iter([KeyboardInterrupt])

    def fault(numbers: list[int]) -> None:
        if 1 in numbers and (interrupt := next(interrupts, None)):
            raise interrupt

    futures = while_busy(Device(fault), range(1, 5))
    outcomes = [future.exception() or future.result() for future in futures]
    assert sum(isinstance(outcome, KeyboardInterrupt) for outcome in outcomes) == 1
    answered = {2 * n: outcome for n, outcome in enumerate(outcomes) if isinstance(outcome, int)}
    assert len(answered) == 4
    assert all(expected == outcome for expected, outcome in answered.items())
