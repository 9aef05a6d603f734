"""Readers and writers of an index take turns, whatever the others do."""

from __future__ import annotations

import threading

import pytest

from voiceprint.index.locks import ReadWriteLock


class Turns:
    """A lock, and the order in which readers and writers had it."""

    def __init__(self) -> None:
        self.lock = ReadWriteLock()
        self.order: list[str] = []

    def read(self) -> None:
        with self.lock.reading():
            self.order.append("reader")

    def write(self) -> None:
        with self.lock.writing():
            self.order.append("writer")


def test_readers_that_wait_come_before_the_next_writer() -> None:
    turns = Turns()
    lock = turns.lock
    with lock.writing():
        readers = [threading.Thread(target=turns.read) for _ in range(3)]
        writers = [threading.Thread(target=turns.write) for _ in range(2)]
        for thread in writers + readers:
            thread.start()
        while lock._readers_waiting < 3 or lock._writers_waiting < 2:
            pass
    for thread in writers + readers:
        thread.join(30)
    assert turns.order == ["reader"] * 3 + ["writer"] * 2


def test_a_writer_that_waits_comes_before_later_readers() -> None:
    turns = Turns()
    lock = turns.lock
    with lock.reading():
        writer = threading.Thread(target=turns.write)
        writer.start()
        while not lock._writers_waiting:
            pass
        reader = threading.Thread(target=turns.read)
        reader.start()
        while not lock._readers_waiting:
            pass
        assert turns.order == []
    for thread in (writer, reader):
        thread.join(30)
    assert turns.order == ["writer", "reader"]


def test_a_reader_that_is_interrupted_while_it_waits_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ReadWriteLock()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with lock.writing(), monkeypatch.context() as patch:
        patch.setattr(lock._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), lock.reading():
            pass
    with lock.writing():
        pass
    with lock.reading(), lock.reading():
        pass
    assert (lock._readers, lock._readers_waiting, lock._admitted) == (0, 0, 0)
