"""Many threads on one store: nothing is lost, and every reader sees a committed state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from harness import Harness
from stores import Follower, ids_of, state, voiceprint


def run_beside(works: list[Callable[[], None]]) -> None:
    """Run all at once, and raise what any of them raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result()


def test_no_save_of_any_thread_is_lost(harness: Harness) -> None:
    def writer(number: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(15):
                harness.storage.save(voiceprint(f"caller {number} {n}", n))

        return work

    before = harness.storage.revision()
    run_beside([writer(number) for number in range(4)])
    for storage in harness.both():
        assert len(state(storage)) == 60
        assert storage.revision() - before >= 60


def test_threads_that_enroll_one_caller_never_exceed_the_limit(harness: Harness) -> None:
    seen: list[int] = []
    done = Event()

    def reader() -> None:
        while not done.is_set():
            caller = harness.storage.get("alice")
            seen.append(len(caller.voiceprints) if caller else 0)

    def writer() -> None:
        ids.extend(harness.storage.save(voiceprint(seed=n)).id for n in range(15))

    ids: list[int | None] = []
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader)
        try:
            run_beside([writer] * 3)
        finally:
            done.set()
        reading.result()
    assert max(seen, default=0) <= 3
    assert len(set(ids)) == 45
    assert sorted(ids)[-3:] == sorted(ids_of(harness.reopen().get("alice").voiceprints))


def test_merges_of_many_threads_are_all_kept(harness: Harness) -> None:
    harness.storage.save(voiceprint())

    def merger(number: int) -> Callable[[], None]:
        return lambda: [harness.storage.update_metadata("alice", {f"{number}.{n}": n}) for n in range(10)]

    run_beside([merger(number) for number in range(4)])
    assert len(harness.reopen().get("alice").metadata) == 40


def test_a_reader_sees_a_batch_as_a_whole_or_not_at_all(harness: Harness) -> None:
    done = Event()

    def writer() -> None:
        try:
            for n in range(15):
                harness.storage.save_many([voiceprint(name, n, metadata={"n": n}) for name in "abc"])
        finally:
            done.set()

    def reader() -> None:
        while not done.is_set():
            callers = harness.storage.callers()
            assert len(callers) in (0, 3)
            assert len({caller.metadata["n"] for caller in callers}) <= 1
            assert len({len(caller.voiceprints) for caller in callers}) <= 1

    run_beside([writer, reader, reader])


def test_a_follower_beside_writers_ends_in_step(harness: Harness) -> None:
    follower = Follower()
    done = Event()

    def writer(number: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(15):
                harness.storage.save(voiceprint(f"c{n % 4}", 100 * number + n))
                if n % 5 == 4:
                    harness.storage.delete(f"c{n % 3}")

        return work

    def following() -> None:
        while not done.is_set():
            follower.catch_up(harness.storage)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(following)
        try:
            run_beside([writer(1), writer(2)])
        finally:
            done.set()
        running.result()
    follower.assert_in_step(harness.reopen())
